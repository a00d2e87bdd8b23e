# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""YAML and JSON5 text as a tree of nodes that know their place in the text, with the values that the worker's parsers give them."""

from __future__ import annotations

import math
import re
import traceback
import typing as t
from dataclasses import dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript

try:
    import yaml

    YAML_TRACEBACK = None
    LOADER: t.Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
except ImportError:
    YAML_TRACEBACK = traceback.format_exc()

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0b[01_]*[01]|0x[0-9a-fA-F_]*[0-9a-fA-F]|0o[0-7_]*[0-7]|[0-9](?:[0-9_]*[0-9])?)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TAG = "tag:yaml.org,2002:"
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)+")
# YAML 1.1 breaks a line at these, and the worker's parser does not.
_BREAKS = re.compile("[\x85\u2028\u2029]")
MERGE = "<<"
# A longer integer is not one to JavaScript, and Python reads no one of some thousand digits.
MAX_DIGITS = 400
# Characters of a text up to which an error is worth a second parser.
CLEAR_LIMIT = 100_000


class TreeError(Exception):
    """Why a text cannot be read as the worker reads it: a clause that follows the name of the text."""


@dataclass(eq=False)
class Node:
    """One value of the text.

    Attributes:
        kind: map, seq, scalar or alias.
        start: index of the value itself, behind its anchor and tag.
        end: index behind the value; for a block, behind its last value.
        value: what a scalar means.
        pairs: keys and values of a map, in the order of the text.
        items: values of a list.
        anchor: the node's name for aliases.
        target: what an alias stands for.
        flow: written in braces or brackets.
        column: of the first character.
    """

    kind: str
    start: int
    end: int
    column: int = 0
    value: t.Any = None
    plain: bool = False
    flow: bool = False
    anchor: str | None = None
    target: Node | None = None
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def find(self, key: str) -> tuple[Node, Node] | None:
        """The key and value that the map itself has under a name; what it merges does not count."""
        for name, value in self.pairs:
            if not is_merge(name) and key_of(name) == key:
                return name, value
        return None


def is_merge(key: Node) -> bool:
    return key.kind == "scalar" and key.plain and key.value == MERGE


def key_of(key: Node) -> str:
    """A key as JavaScript holds it: a string."""
    node = key.target if key.kind == "alias" else key
    return _javascript.text_of(node.value if node and node.kind == "scalar" else construct(key))


def resolve(text: str) -> t.Any:
    """What a plain scalar means to js-yaml 4 (YAML 1.2 core schema)."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        for prefix, base in (("0b", 2), ("0x", 16), ("0o", 8)):
            if digits.lstrip("+-").startswith(prefix):
                return _whole(digits.replace(prefix, "", 1), base)
        return _whole(digits)
    if _FLOAT.fullmatch(text) and not text.endswith("_"):
        digits = text.replace("_", "").lower()
        return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _whole(digits: str, base: int = 10) -> int | float:
    """An integer; infinite where it is too large for JavaScript."""
    if base == 10 and len(digits) > MAX_DIGITS:
        return float(digits)
    value = int(digits, base)
    return value if abs(value) < 2**1024 else math.inf if value > 0 else -math.inf


def construct(node: Node) -> t.Any:
    """The value of a node as js-yaml builds it: aliases followed, merge keys laid under a map's own keys.

    Raises:
        TreeError: a key twice, or a merge of something that is not a map.
    """
    if node.kind == "alias":
        return construct(t.cast("Node", node.target))
    if node.kind == "seq":
        return [construct(item) for item in node.items]
    if node.kind == "scalar":
        return node.value
    result: dict[str, t.Any] = {}
    merged: set[str] = set()
    for key, value in node.pairs:
        if is_merge(key):
            for source in _sources(value):
                for name, item in construct(source).items():
                    if name not in result:
                        result[name] = item
                        merged.add(name)
            continue
        name = key_of(key)
        if name in result and name not in merged:
            raise TreeError(f"has the key {name} twice in one map")
        merged.discard(name)
        result[name] = construct(value)
    return result


def _sources(value: Node) -> list[Node]:
    node = t.cast("Node", value.target) if value.kind == "alias" else value
    sources = node.items if node.kind == "seq" else [node]
    for source in sources:
        if (source.target or source).kind != "map":
            raise TreeError("merges something that is not a map with <<")
    return sources


def walk(node: Node) -> t.Iterator[Node]:
    """A node and all below it, in the order of the text. Aliases are not followed."""
    yield node
    for key, value in node.pairs:
        yield from walk(key)
        yield from walk(value)
    for item in node.items:
        yield from walk(item)


def parse_yaml(text: str) -> Node | None:
    """The tree of a YAML document, None where it has no value.

    Raises:
        TreeError: not a single YAML document that the worker's parser reads as well.
    """
    if _BREAKS.search(text):
        raise TreeError("has a U+0085, U+2028 or U+2029 character, which YAML parsers read differently: remove it")
    try:
        try:
            return _Builder(text, LOADER).build()
        except yaml.MarkedYAMLError:
            if len(text) > CLEAR_LIMIT:
                raise
            # The parser in Python has the clearer words, and takes a hundred times as long.
            return _Builder(text, yaml.SafeLoader).build()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        raise TreeError(f"is not valid YAML: {exc.problem} ({place})") from exc
    except yaml.reader.ReaderError as exc:
        raise TreeError(f"is not valid YAML: it has the character {exc.character!r} (index {exc.position})") from exc
    except RecursionError as exc:
        raise TreeError("is nested too deeply") from exc


class _Builder:
    def __init__(self, text: str, loader: t.Any) -> None:
        self._text = text
        self._anchors: dict[str, Node] = {}
        self._open: list[Node] = []
        self._events: t.Any = yaml.parse(text, Loader=loader)

    def build(self) -> Node | None:
        root = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise TreeError("has more than one YAML document, and the worker reads a single one")
                root = self._node(next(self._events))
        if root is not None and root.kind == "scalar" and root.start == root.end:
            return None
        return root

    def _node(self, event: t.Any) -> Node:
        start, end, column = event.start_mark.index, event.end_mark.index, event.start_mark.column
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise TreeError(f"uses the alias *{event.anchor}, which no anchor defines")
            if any(node is self._anchors[event.anchor] for node in self._open):
                line = self._text.count("\n", 0, start) + 1
                raise TreeError(f"uses the alias *{event.anchor} inside its own value (line {line})")
            return Node("alias", start, end, column, target=self._anchors[event.anchor])
        if (event.anchor or event.tag) and (found := _PROPERTIES.match(self._text, start)):
            start = min(found.end(), end) if isinstance(event, yaml.ScalarEvent) else found.end()
            column = self._column(start)
        node = Node("scalar", start, end, column, anchor=event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            node.value = self._scalar(event)
            node.plain = not event.style
            node.end = max(start, end)
            if not event.style and not event.value:
                node.start = node.end = end
            if event.anchor:
                self._anchors[event.anchor] = node
            return node
        node.flow = bool(event.flow_style)
        if event.anchor:
            self._anchors[event.anchor] = node
        self._open.append(node)
        if isinstance(event, yaml.SequenceStartEvent):
            node.kind = "seq"
            self._tag(event, "seq")
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                node.items.append(self._node(event))
            last = node.items[-1] if node.items else None
        else:
            node.kind = "map"
            self._tag(event, "map")
            while not isinstance(event := next(self._events), yaml.MappingEndEvent):
                key = self._node(event)
                node.pairs.append((key, self._node(next(self._events))))
            last = node.pairs[-1][1] if node.pairs else None
            if node.pairs and not node.flow:
                node.column = self._column(node.pairs[0][0].start)
        self._open.pop()
        node.end = event.end_mark.index if node.flow or last is None else last.end
        return node

    def _column(self, index: int) -> int:
        return index - (self._text.rfind("\n", 0, index) + 1)

    def _tag(self, event: t.Any, kind: str) -> None:
        if event.tag not in (None, "!", f"{_TAG}{kind}"):
            raise TreeError(f"uses the tag {event.tag} (line {event.start_mark.line + 1}), which the worker's parser does not take there")

    def _scalar(self, event: t.Any) -> t.Any:
        tag = event.tag
        if tag in (None, "!") or event.implicit[0]:
            return resolve(event.value) if not event.style and tag is None else event.value
        if tag == f"{_TAG}str":
            return event.value
        value = resolve(event.value)
        kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
        if isinstance(value, kinds.get(tag.removeprefix(_TAG), ())) and (tag.endswith("bool") or not isinstance(value, bool)):
            return value
        raise TreeError(f"uses the tag {tag} (line {event.start_mark.line + 1}), which the worker's parser does not take there")


def dump(value: t.Any) -> str:
    """A value as YAML, for people."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=4096)


# JSON5, as node-config reads .json files and JSON in variables

_SPACE = re.compile(r"(?:[\s\ufeff]|//[^\n\r\u2028\u2029]*|/\*.*?\*/)*", re.S)
_NAME = re.compile(r"[^\W\d][\w$\u200c\u200d]*|[$_][\w$\u200c\u200d]*")
_NUMBER = re.compile(r"[-+]?(?:Infinity|NaN|0[xX][0-9a-fA-F]+|(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)")
_STRING = re.compile(r'"((?:[^"\\\n\r]|\\.|\\\r?\n)*)"|\'((?:[^\'\\\n\r]|\\.|\\\r?\n)*)\'', re.S)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\r\n|.)", re.S)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0", "\n": "", "\r\n": "", "\r": ""}


def parse_json(text: str) -> Node:
    """The tree of a JSON5 text.

    Raises:
        TreeError: it is not JSON5.
    """
    try:
        return _Json(text).document()
    except RecursionError as exc:
        raise TreeError("is nested too deeply") from exc


class _Json:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> Node:
        node = self._value()
        self._space()
        if self._at < len(self._text):
            raise self._error()
        return node

    def _error(self) -> TreeError:
        before = self._text[: self._at]
        line, column = before.count("\n") + 1, self._at - (before.rfind("\n") + 1) + 1
        what = repr(self._text[self._at]) if self._at < len(self._text) else "the end"
        return TreeError(f"is not valid JSON: unexpected {what} (line {line}, column {column})")

    def _space(self) -> None:
        self._at = t.cast("re.Match[str]", _SPACE.match(self._text, self._at)).end()

    def _take(self, character: str) -> bool:
        self._space()
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def _value(self) -> Node:
        self._space()
        start = self._at
        if self._take("{"):
            return self._collection(Node("map", start, start, flow=True), "}")
        if self._take("["):
            return self._collection(Node("seq", start, start, flow=True), "]")
        if (text := self._string()) is not None:
            return Node("scalar", start, self._at, value=text)
        for word, value in (("null", None), ("true", True), ("false", False)):
            if self._text.startswith(word, start) and not self._text[start + len(word) : start + len(word) + 1].isalnum():
                self._at += len(word)
                return Node("scalar", start, self._at, value=value)
        found = _NUMBER.match(self._text, start)
        if not found:
            raise self._error()
        self._at = found.end()
        return Node("scalar", start, self._at, value=_json_number(found[0]))

    def _collection(self, node: Node, end: str) -> Node:
        while not self._take(end):
            if node.kind == "map":
                key = self._key()
                if not self._take(":"):
                    raise self._error()
                node.pairs.append((key, self._value()))
            else:
                node.items.append(self._value())
            self._space()
            if not self._take(",") and not self._text.startswith(end, self._at):
                raise self._error()
        node.end = self._at
        return node

    def _key(self) -> Node:
        self._space()
        start = self._at
        text = self._string()
        if text is None:
            found = _NAME.match(self._text, start)
            if not found:
                raise self._error()
            text, self._at = found[0], found.end()
        return Node("scalar", start, self._at, value=text)

    def _string(self) -> str | None:
        found = _STRING.match(self._text, self._at)
        if not found:
            return None
        self._at = found.end()
        text = _ESCAPE.sub(_unescape, found[1] if found[1] is not None else found[2])
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescape(found: re.Match[str]) -> str:
    escape = found[1]
    return chr(int(escape[1:], 16)) if len(escape) > 2 and escape[0] in "ux" else _ESCAPES.get(escape, escape)


def _json_number(text: str) -> int | float:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    if digits[:2].lower() == "0x":
        return sign * _whole(digits, 16)
    if digits in ("Infinity", "NaN"):
        return sign * float(digits.lower())
    return sign * (_whole(digits) if digits.isdecimal() else float(digits))
