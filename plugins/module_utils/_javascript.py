# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What JavaScript makes of a value, asked of V8, the engine that the worker itself runs on."""

from __future__ import annotations

import json
import traceback
import typing as t
from functools import cache

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError

try:
    from py_mini_racer import JSEvalException, JSTimeoutException, MiniRacer

    MINI_RACER_TRACEBACK = None
except ImportError:
    MINI_RACER_TRACEBACK = traceback.format_exc()

# A pattern that needs longer for one image name would hold up every build of the worker.
MATCH_SECONDS = 2.0


class PatternError(UserError):
    """Why an exclusion cannot be used, in V8's words."""


def _evaluate(source: str, *values: t.Any) -> t.Any:
    arguments = ", ".join(json.dumps(value) for value in values)
    # An engine that is left open keeps Python from exiting.
    with MiniRacer() as engine:
        return json.loads(t.cast("str", engine.eval(f"JSON.stringify(({source})({arguments}))", timeout_sec=MATCH_SECONDS)))


@cache
def _number(value: str) -> float:
    return _evaluate("text => { const n = Number(JSON.parse(text)); return Number.isFinite(n) ? n : 0 }", value)


def number(value: t.Any) -> float:
    """``+value || 0``: what the router adds up as the total of all weightages."""
    return _number(json.dumps(value))


@cache
def _integer(value: str) -> int:
    return int(_evaluate("text => { const n = parseInt(JSON.parse(text), 10); return Number.isFinite(n) ? n : 0 }", value))


def integer(value: t.Any) -> int:
    """``parseInt(value, 10) || 0``: what the router walks by."""
    return _integer(json.dumps(value))


def matches(pattern: t.Any, text: str) -> bool:
    """``text.match(new RegExp(pattern, 'gi'))``, as the router tests an exclusion against an image.

    Raises:
        PatternError: the pattern is no JavaScript regular expression, or needs longer than ``MATCH_SECONDS``.
    """
    return _matches(json.dumps(pattern), text)


@cache
def _matches(pattern: str, text: str) -> bool:
    try:
        return _evaluate("(pattern, text) => text.match(new RegExp(JSON.parse(pattern), 'gi')) !== null", pattern, text)
    except JSTimeoutException as exc:
        raise PatternError(f"takes longer than {MATCH_SECONDS:.0f} s to match {text!r}") from exc
    except JSEvalException as exc:
        message = str(exc).strip().splitlines()[0]
        raise PatternError(message.split("SyntaxError: ", 1)[-1]) from exc


def matches_any(exclusions: list[t.Any], image: str) -> bool:
    """Whether any of the patterns names the image. All are tried: one that is no pattern is an error whatever the others match.

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
