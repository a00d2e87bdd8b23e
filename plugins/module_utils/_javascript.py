# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What JavaScript makes of a value, as the worker's Node 22 does: numbers by the language's own rules, patterns by an ECMAScript engine."""

from __future__ import annotations

import math
import os
import re
import select
import signal
import traceback
import typing as t
from functools import cache, lru_cache

try:
    import regress

    REGRESS_TRACEBACK = None
except ImportError:
    REGRESS_TRACEBACK = traceback.format_exc()

# A pattern that needs longer for one image name would hold up every build of the worker.
MATCH_SECONDS = 2.0
# An integer of as many is infinite, and Python reads no one of some thousand.
MAX_DIGITS = 400
# Of the latest images, since a window may have one for each build.
MAX_CACHED_MATCHES = 1000

_NUMBER = re.compile(r"[-+]?(?:Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)")
_RADIX = {"0x": 16, "0o": 8, "0b": 2}
_SPACE = " \t\n\v\f\r\xa0\ufeff\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


class PatternError(Exception):
    """Why an exclusion cannot be used."""


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def text_of(value: t.Any) -> str:
    """``String(value)``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        if value == int(value) and abs(value) < 1e21:
            return str(int(value))
        return re.sub(r"e([-+])0", r"e\1", repr(value)) if abs(value) >= 1e21 or abs(value) < 1e-6 else _decimal(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**21 else text_of(_float(value))
    if isinstance(value, list):
        return ",".join("" if item is None else text_of(item) for item in value)
    return "[object Object]" if isinstance(value, dict) else str(value)


def _decimal(value: float) -> str:
    text = repr(value)
    return f"{value:.20f}".rstrip("0") if "e" in text else text


def _to_number(value: t.Any) -> float:
    if value is None or isinstance(value, (bool, int, float)):
        return _float(value or 0)
    if isinstance(value, dict):
        return math.nan
    text = text_of(value).strip(_SPACE)
    if not text:
        return 0.0
    if radix := _RADIX.get(text[:2].lower()):
        try:
            return float(int(text[2:], radix)) if "_" not in text and text[2:3] not in ("+", "-") else math.nan
        except ValueError:
            return math.nan
    if not _NUMBER.fullmatch(text):
        return math.nan
    return float(text.replace("Infinity", "inf"))


def number(value: t.Any) -> float:
    """``+value || 0``: what the router adds up as the total of all weightages. Can be infinite."""
    result = _to_number(value)
    return 0.0 if math.isnan(result) else result


def integer(value: t.Any) -> int:
    """``parseInt(value, 10) || 0``: what the router walks by."""
    found = re.match(r"[-+]?[0-9]+", text_of(value).strip(_SPACE))
    return int(found[0][:MAX_DIGITS]) if found else 0


def truth(value: t.Any) -> bool:
    """Whether JavaScript takes a value for true: every string but the empty one, every list and every object is."""
    return isinstance(value, (list, dict)) or bool(value) and not (isinstance(value, float) and math.isnan(value))


# Exclusions

_QUANTIFIER = re.compile(r"[*+?]|\{[0-9]+(?:,[0-9]*)?\}")
_GROUP_NAME = re.compile(r"\(\?<([^>=!]*)>")
# What the engine calls it, and what Node does.
_REASONS = {
    "invalid atom character": "Nothing to repeat",
    "invalid braced quantifier": "Nothing to repeat",
    "unbalanced parenthesis": "Unterminated or unmatched group",
    "unbalanced bracket": "Unterminated character class",
    "invalid quantifier": "numbers out of order in {} quantifier",
    "quantifier not allowed": "Invalid quantifier",
    "range values reversed": "Range out of order in character class",
    "incomplete escape": "\\ at end of pattern",
    "backreference to invalid": "Invalid named capture referenced",
    "invalid token at named": "Invalid capture group name",
}
# Two characters that fold to ASCII by Unicode's rules, which a pattern without the u flag does not use; one that folds to i.
_NOT_ASCII = {"\u017f": "\ue000", "\u212a": "\ue001", "\u0131": "\ue002"}


def matches(pattern: t.Any, text: str) -> bool:
    """``text.match(new RegExp(pattern, 'gi'))``, as the router tests an exclusion against an image.

    Raises:
        PatternError: the pattern is not a JavaScript regular expression, or needs longer than ``MATCH_SECONDS``.
    """
    return _matches(text_of(pattern), text)


@lru_cache(MAX_CACHED_MATCHES)
def _matches(pattern: str, text: str) -> bool:
    expression = _compile(pattern)
    subject = _units(text)
    # Two quantifiers at least are needed to backtrack without end.
    if len(re.findall(r"[*+{]", pattern)) < 2:
        return expression.find(subject) is not None
    return _bounded(lambda: expression.find(subject) is not None, text)


@cache
def _compile(pattern: str) -> t.Any:
    try:
        return regress.Regex(_translate(pattern), "gi")
    except (PatternError, regress.RegressError) as exc:
        reason = str(exc).strip().rstrip(".")
        reason = next((words for start, words in _REASONS.items() if reason.lower().startswith(start)), reason)
        raise PatternError(f"Invalid regular expression: /{pattern}/gi: {reason}") from exc


def _translate(pattern: str) -> str:
    """The pattern for the engine, where its syntax is newer or wider than that of Node 22 without the u flag."""
    result = []
    names: set[str] = set()
    at, inside = 0, False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\" and at + 1 < len(pattern):
            escape = pattern[at + 1]
            if escape in "bB" and not inside and _QUANTIFIER.match(pattern, at + 2):
                raise PatternError("Nothing to repeat")
            if escape == "u" and (found := re.match(r"[0-9a-fA-F]{4}", pattern[at + 2 : at + 6])):
                result.append(_escaped(_units(chr(int(found[0], 16))), pattern[at : at + 6]))
                at += 6
                continue
            # \u{41} means the letter u 41 times: code points need the u flag.
            result.append("u" if escape == "u" else character + _units(escape))
            at += 2
            continue
        if character == "[" and not inside:
            inside = True
        elif character == "]":
            inside = False
        elif not inside and pattern.startswith("(?", at):
            if pattern[at + 2 : at + 3] not in (":", "=", "!", "<"):
                raise PatternError("Invalid group")
            if found := _GROUP_NAME.match(pattern, at):
                if found[1] in names:
                    raise PatternError("Duplicate capture group name")
                names.add(found[1])
        result.append(_units(character))
        at += 1
    return "".join(result)


def _escaped(character: str, source: str) -> str:
    return character if character in _NOT_ASCII.values() or ord(character[0]) > 0xFFFF else source


def _units(text: str) -> str:
    """A text as its UTF-16 code units, each as one character that the engine takes."""
    if text.isascii():
        return text
    result = []
    for character in text:
        code = ord(character)
        if code > 0xFFFF:
            code -= 0x10000
            result += [chr(0xF0000 + (code >> 10)), chr(0xF0400 + (code & 0x3FF))]
        elif 0xD800 <= code <= 0xDFFF:
            result.append(chr(0xF0000 + code - 0xD800))
        else:
            result.append(_NOT_ASCII.get(character, character))
    return "".join(result)


def _bounded(work: t.Callable[[], bool], text: str) -> bool:
    """Runs the match in a process of its own: the engine cannot be interrupted."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, b"1" if work() else b"0")
        finally:
            os._exit(0)
    os.close(writer)
    try:
        ready = select.select([reader], [], [], MATCH_SECONDS)[0]
        answer = os.read(reader, 1) if ready else b""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        raise PatternError(f"takes longer than {MATCH_SECONDS:.0f} s to match {text!r}")
    return answer == b"1"


def matches_any(exclusions: list[t.Any], image: str) -> bool:
    """Whether any of the patterns names the image. All are tried: one that is not a pattern is an error whatever the others match.

    Raises:
        PatternError: which item it is, as a sentence.
    """
    found = False
    for pattern in exclusions:
        try:
            found |= matches(pattern, image)
        except PatternError as exc:
            raise PatternError(f"exclusions: {pattern!r} is not a JavaScript regular expression ({exc}).") from exc
    return found
