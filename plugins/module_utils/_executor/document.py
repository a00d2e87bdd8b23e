# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The worker's config as a text that is changed only where it was asked to change."""

from __future__ import annotations

import gc
import json
import math
import re
import typing as t
from functools import lru_cache

from ansible_collections.screwdriver.kata.plugins.module_utils import _secrets as secrets
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import tree
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.tree import Node, TreeError

# Each round separates what shares text with a change; a document that needs more is not worth editing.
ROUNDS = 50
# What a line of a value has besides its indentation and its end.
_BODY = re.compile(r"\S[^\r\n]*")
# The section in a text of YAML.
_SECTION = re.compile(r"^executor:[ \t]*$", re.MULTILINE)
_ITEM = re.compile(" *- +")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*(?::[A-Za-z0-9_./@-]+)*")
# Words that a YAML 1.1 parser reads as something else than text.
_YAML_1_1 = re.compile(r"(?:yes|no|on|off|true|false|null)", re.I)


class Document:
    """A YAML or JSON document. ``where`` names it in messages; ``is_json`` is true where node-config reads it as JSON5."""

    def __init__(self, text: str, where: str, is_json: bool = False) -> None:
        self._where, self._is_json = where, is_json
        self._load(text)

    def _load(self, text: str) -> None:
        # A byte order mark is no part of the document, for the worker as well.
        self._mark = "\ufeff" if text.startswith("\ufeff") else ""
        self._text = text[len(self._mark) :]
        try:
            self._root, self._plain = _parsed(self._text, self._is_json)
        except TreeError as exc:
            raise UserError(f"{self._where} {exc}. Nothing was changed.") from exc
        if not isinstance(self._plain, dict):
            kind = {"list": "list", "str": "string"}.get(type(self._plain).__name__, type(self._plain).__name__)
            raise UserError(f"{self._where} holds a {kind} and not a map with the key executor. Nothing was changed.")
        if self._plain.keys() >= {"apiVersion", "kind"}:
            raise UserError(
                f"{self._where} is a manifest of kind {self._plain['kind']} and not the worker's config: keep that in a file of its own, "
                "and name it. Nothing was changed."
            )
        if "executor" not in self._plain and (place := _nested_section(self._plain)):
            raise UserError(
                f"{self._where} has its executor section at {place} and not at its top, where the worker reads it: name a file of the "
                "worker's config alone. Nothing was changed."
            )

    def text(self) -> str:
        return self._mark + self._text

    def plain(self) -> dict[str, t.Any]:
        """The document as the worker's parser gives it."""
        return self._plain

    def masked(self) -> str:
        """The text as results may show it, in the same lines."""
        spans: dict[tuple[int, int], str] = {}
        for node, secret in _scalars(self._root) if self._root else ():
            written = self._text[node.start : node.end]
            # A credential that the text escapes is not found in it.
            escaped = isinstance(node.value, str) and secrets.mask_text(node.value) != node.value and secrets.mask_text(written) == written
            if escaped or secrets.masked(node.value, secret) == secrets.MASK:
                spans[node.start, node.end] = _BODY.sub(secrets.MASK, written)
        text = self._text
        for (start, end), shown in sorted(spans.items(), reverse=True):
            text = text[:start] + shown + text[end:]
        return self._mark + secrets.mask_text(text)

    def merge(self, changes: t.Mapping[str, t.Any]) -> None:
        """Lays changes over the document: maps merge, everything else replaces. What is equal already is not touched.

        Entries that share text with a change, by anchor, alias or merge key, are written out first where the change would reach them.

        Raises:
            UserError: the text cannot be changed without changing the value of another key.
        """
        wanted = _merged(self._plain, changes)
        if same(self._plain, wanted):
            return
        original = self.text()
        if self._apply(changes) and same(self._plain, wanted):
            return
        self._load(original)
        for _round in range(ROUNDS):
            if not self._separate(changes):
                break
        if self._apply(changes) and same(self._plain, wanted):
            return
        self._load(original)
        raise UserError(
            f"{self._where} cannot be changed without changing the value of another key: write the entries out without anchors and "
            "merge keys. Nothing was changed."
        )

    def _apply(self, changes: t.Mapping[str, t.Any]) -> bool:
        """Makes the changes in the text, whatever shares it. False where the result is not readable."""
        edits = _Edits(self._text, self._is_json)
        if self._root is None:
            edits.append(changes)
        else:
            edits.merge(self._root, changes)
        return self._reload(edits)

    def _separate(self, changes: t.Mapping[str, t.Any]) -> bool:
        """Writes out one use of an anchor that a change reaches. False where there is none left."""
        if self._root is None:
            return False
        reached = {id(node) for node in _reached(self._root, changes)}
        edits = _Edits(self._text, self._is_json)
        for owner, key, value in _uses(self._root):
            if any(id(node) in reached for node in _targets(value)):
                edits.write_out(owner, key, value)
                return self._reload(edits)
        return False

    def _reload(self, edits: _Edits) -> bool:
        try:
            self._load(self._mark + edits.result())
        except UserError:
            return False
        return True


@lru_cache(maxsize=4)
def _parsed(text: str, is_json: bool) -> tuple[Node | None, t.Any]:
    """The tree and the values of a text. A module reads the same one several times, and a large one takes a second; neither is changed."""
    # Nothing of a tree is garbage yet, and looking for some takes as long as building it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        root = tree.parse_json(text) if is_json else tree.parse_yaml(text)
        return root, tree.construct(root) if root else {}
    except RecursionError as exc:
        raise TreeError("is nested too deeply") from exc
    finally:
        if collecting:
            gc.enable()


def _nested_section(document: t.Mapping[str, t.Any]) -> str:
    """Where a document has an executor section below other keys, also in a text, as values of Helm do. Empty if nowhere."""
    seen: set[int] = set()
    left: list[tuple[str, t.Any]] = [("", document)]
    while left:
        path, value = left.pop()
        if isinstance(value, str) and _SECTION.search(value):
            return path
        if not isinstance(value, (dict, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, item in pairs:
            if key == "executor" and _is_section(item):
                return f"{path}executor"
        left += [(f"{path}{key}" if isinstance(item, str) else f"{path}{key}.", item) for key, item in reversed(pairs)]
    return ""


def _is_section(value: t.Any) -> bool:
    if not isinstance(value, dict):
        return False
    entries = [own for own in value.values() if isinstance(own, dict)]
    return isinstance(value.get("plugin"), str) or any("pluginName" in own or "weightage" in own for own in entries)


def same(one: t.Any, other: t.Any) -> bool:
    """Whether two values are the same to JavaScript: 1 is 1.0, but not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


def _merged(base: t.Mapping[str, t.Any], over: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, dict) and isinstance(value, t.Mapping):
            result[key] = _merged(known, value)
        else:
            result[key] = _merged({}, value) if isinstance(value, t.Mapping) else value
    return result


def _targets(value: Node) -> list[Node]:
    """The anchored nodes that an alias, or a list of aliases behind a merge key, stands for."""
    return [node.target for node in (value.items if value.kind == "seq" else [value]) if node.target]


def _reached(root: Node, changes: t.Mapping[str, t.Any]) -> t.Iterator[Node]:
    """The nodes of the text that changes are written into, and those that they replace."""
    yield root
    if root.kind != "map":
        return
    for key, value in changes.items():
        if found := root.find(key):
            if isinstance(value, t.Mapping) and found[1].kind == "map":
                yield from _reached(found[1], value)
            else:
                yield from tree.walk(found[1])


def _uses(root: Node) -> t.Iterator[tuple[Node, Node | None, Node]]:
    """(map or list, key, value) of every alias, and of every merge key with its value."""
    for node in tree.walk(root):
        for key, value in node.pairs:
            if value.kind == "alias" or tree.is_merge(key):
                yield node, key, value
        for item in node.items:
            if item.kind == "alias":
                yield node, None, item


def _scalars(root: Node) -> t.Iterator[tuple[Node, bool]]:
    """The scalar values of a document, each with whether a key of it names a secret. Aliases are followed."""
    seen: set[tuple[int, bool]] = set()
    left = [(root, False)]
    while left:
        node, secret = left.pop()
        node = node.target or node
        if (id(node), secret) in seen:
            continue
        seen.add((id(node), secret))
        if node.kind == "scalar":
            yield node, secret
        left += [(item, secret) for item in node.items]
        left += [(value, secrets.names_secret(tree.key_of(key))) for key, value in node.pairs]


class _Edits:
    """Replacements in a text, collected first and made at once."""

    def __init__(self, text: str, is_json: bool) -> None:
        self._text, self._is_json = text, is_json
        self._newline = "\r\n" if "\r\n" in text else "\n"
        # start, end, new text, and how deep what is inserted belongs: of several at one place, the deepest comes first.
        self._edits: list[tuple[int, int, str, int]] = []
        self._step, self._offset = _indentation(text)

    def result(self) -> str:
        text = self._text
        # Later places first, so that the others stay where they are.
        for start, end, new, _depth in sorted(reversed(self._edits), key=lambda edit: (-edit[0], -edit[1], edit[3])):
            text = text[:start] + new + text[end:]
        # A line that is added behind the last one ends as every line does.
        added = any(start == len(self._text) for start, _end, _new, _depth in self._edits)
        return text + self._newline if added and not text.endswith("\n") else text

    def _edit(self, start: int, end: int, new: str, depth: int = 0) -> None:
        self._edits.append((start, end, new, depth))

    def append(self, changes: t.Mapping[str, t.Any]) -> None:
        """Adds a map to a text without a value."""
        lines = self._newline.join(self._block(changes, 0)) + self._newline
        gap = self._newline if self._text and not self._text.endswith("\n") else ""
        self._edit(len(self._text), len(self._text), gap + lines)

    def merge(self, node: Node, changes: t.Mapping[str, t.Any]) -> None:
        """Lays changes over a map of the text."""
        present = tree.construct(node)
        for key, value in changes.items():
            found = node.find(key)
            if not found:
                if key in present and same(present[key], value):
                    continue
                known = present.get(key)
                both = isinstance(known, dict) and isinstance(value, t.Mapping)
                full = _merged(known, value) if both else value
                if not both or not same(known, full):
                    self._insert(node, key, full)
                continue
            child = found[1]
            if child.kind == "map" and isinstance(value, t.Mapping) and (child.pairs or not value):
                self.merge(child, value)
                continue
            known = present[key]
            full = _merged(known, value) if isinstance(known, dict) and isinstance(value, t.Mapping) else value
            if not same(known, full):
                self._replace(node, found[0], child, full)

    def write_out(self, owner: Node, key: Node | None, value: Node) -> None:
        """Puts the value of an alias or of a merge key in its place."""
        if key is None or not tree.is_merge(key):
            self._replace(owner, key, value, tree.construct(value))
            return
        single = Node("map", owner.start, owner.end, pairs=[(key, value)])
        own = {tree.key_of(name) for name, unused in owner.pairs if not tree.is_merge(name)}
        # Of two merge keys, the first one wins.
        for name, other in owner.pairs[: [pair[0] for pair in owner.pairs].index(key)]:
            if tree.is_merge(name):
                own |= tree.construct(Node("map", 0, 0, pairs=[(name, other)])).keys()
        items = {name: item for name, item in tree.construct(single).items() if name not in own}
        if owner.flow:
            text = ", ".join(f"{self._key(owner, name)}: {self._flow(item)}" for name, item in items.items())
            if not items:
                self._remove_from_flow(owner, key, value)
                return
        else:
            text = self._newline.join(self._block(items, owner.column)).lstrip(" ")
            if not items:
                text = "{}" if len(owner.pairs) == 1 else ""
                end = self._line_end(value.end)
                if text == "" and self._text[value.end : end].strip() == "":
                    self._edit(self._line_start(key.start), min(end + len(self._newline), len(self._text)), "")
                    return
        self._edit(key.start, value.end, text)

    def _remove_from_flow(self, owner: Node, key: Node, value: Node) -> None:
        start, end = key.start, value.end
        if comma := re.compile(r"\s*,\s*").match(self._text, end):
            end = comma.end()
        elif comma := re.search(r",\s*$", self._text[owner.start : start]):
            start = owner.start + comma.start()
        self._edit(start, end, "")

    # Where

    def _line_start(self, index: int) -> int:
        return self._text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        """The index of the line break behind a place, or of the end of the text."""
        end = self._text.find("\n", index)
        if end < 0:
            return len(self._text)
        return end - 1 if end > index and self._text[end - 1] == "\r" else end

    def _insert(self, node: Node, key: str, value: t.Any) -> None:
        if node.flow or not node.pairs:
            self._insert_flow(node, key, value)
            return
        last = node.pairs[-1][1]
        lines = self._newline.join(self._block({key: value}, node.column))
        if last.end and self._text[last.end - 1 : last.end] == "\n":
            # Behind a literal, which ends with its line.
            self._edit(last.end, last.end, lines + self._newline, 2 * node.column)
            return
        end = self._line_end(last.end)
        self._edit(end, end, self._newline + lines, 2 * node.column)

    def _insert_flow(self, node: Node, key: str, value: t.Any) -> None:
        if not node.pairs:
            self._edit(node.start, node.end, "{" + f"{self._key(node, key)}: {self._flow(value)}" + "}")
            return
        first, last = node.pairs[0][0], node.pairs[-1][1]
        indent = self._text[self._line_start(first.start) : first.start]
        if indent.strip() or self._line_start(first.start) <= node.start:
            self._edit(last.end, last.end, f", {self._key(node, key)}: {self._flow(value)}")
        else:
            text = self._flow(value, indent)
            self._edit(last.end, last.end, f",{self._newline}{indent}{self._key(node, key)}: {text}")

    def _replace(self, owner: Node, key: Node | None, old: Node, value: t.Any) -> None:
        """Puts a value where another one is."""
        collection = isinstance(value, (dict, list)) and len(value) > 0
        if owner.flow or key is None or (old.flow and collection):
            self._edit(old.start, old.end, self._flow(value))
            return
        block = old.kind in ("map", "seq") and not old.flow
        if not collection:
            text = self._scalar(value) if not isinstance(value, (dict, list)) else ("{}" if isinstance(value, dict) else "[]")
            if block:
                colon = self._text.index(":", key.end)
                self._edit(colon + 1, old.end, f" {text}")
            elif self._text[old.end - 1 : old.end] == "\n":
                self._edit(old.start, old.end, text + self._newline)
            else:
                gap = "" if old.start < old.end or self._text[old.start - 1 : old.start] == " " else " "
                self._edit(old.start, old.end, gap + text)
            return
        if block and isinstance(value, list) and self._edit_items(owner, old, value):
            return
        column = old.column if block and isinstance(value, list) == (old.kind == "seq") else None
        if column is None:
            column = owner.column + (self._offset if isinstance(value, list) else self._step)
        lines = self._newline.join(self._block(value, column))
        if block:
            self._edit(old.start, old.end, lines.lstrip(" "))
            return
        # The value moves below its key; a comment behind it stays.
        literal = self._text[old.end - 1 : old.end] == "\n"
        if literal:
            self._edit(old.start, old.end, self._newline.lstrip() + self._newline + lines + self._newline)
            return
        start = old.start - 1 if self._text[old.start - 1 : old.start] == " " and old.start < old.end else old.start
        self._edit(start, old.end, "")
        end = self._line_end(old.end)
        self._edit(end, end, self._newline + lines, 2 * owner.column + 1)

    def _edit_items(self, owner: Node, old: Node, value: list[t.Any]) -> bool:
        """Removes and appends lines of a block list, so that comments stay. False where that does not give the new list."""
        kept: list[Node] = []
        for item in old.items:
            line = self._line_start(item.start)
            has_line = item.kind == "scalar" and item.end > item.start and "\n" not in self._text[item.start : item.end]
            if not has_line or not _ITEM.fullmatch(self._text, line, item.start):
                return False
            if len(kept) < len(value) and same(item.value, value[len(kept)]):
                kept.append(item)
        if not kept:
            return False
        for item in old.items:
            if item not in kept:
                end = self._text.find("\n", item.end) + 1
                self._edit(self._line_start(item.start), end or len(self._text), "")
        if added := value[len(kept) :]:
            end = self._line_end(kept[-1].end)
            self._edit(end, end, self._newline + self._newline.join(self._block(added, old.column)), 2 * owner.column + 1)
        return True

    # What

    def _block(self, value: t.Any, column: int) -> list[str]:
        """The lines of a map or list in block style."""
        pad = " " * column
        lines: list[str] = []
        if isinstance(value, t.Mapping):
            for key, item in value.items():
                name = f"{pad}{self._scalar(str(key))}:"
                if isinstance(item, (t.Mapping, list)) and item:
                    offset = self._offset if isinstance(item, list) else self._step
                    lines += [name, *self._block(item, column + offset)]
                else:
                    lines.append(f"{name} {self._flow(item)}")
        else:
            for item in value:
                if isinstance(item, (t.Mapping, list)) and item:
                    below = self._block(item, column + 2)
                    lines += [f"{pad}- {below[0].lstrip(' ')}", *below[1:]]
                else:
                    lines.append(f"{pad}- {self._flow(item)}")
        return lines

    def _flow(self, value: t.Any, indent: str | None = None) -> str:
        """A value in braces; on lines of its own where the text around it is."""
        inner = None if indent is None else indent + " " * self._step
        if isinstance(value, t.Mapping):
            parts = [f"{self._scalar(str(key), flow=True)}: {self._flow(item, inner)}" for key, item in value.items()]
            ends = "{}"
        elif isinstance(value, list):
            parts = [self._flow(item, inner) for item in value]
            ends = "[]"
        else:
            return self._scalar(value, flow=True)
        if not parts or inner is None:
            return ends[0] + ", ".join(parts) + ends[1]
        return f"{ends[0]}{self._newline}{inner}" + f",{self._newline}{inner}".join(parts) + f"{self._newline}{indent}{ends[1]}"

    def _key(self, owner: Node, key: str) -> str:
        """A key in braces, in quotes where the keys beside it are."""
        if owner.pairs and not owner.pairs[0][0].plain:
            return _quoted(key)
        return self._scalar(key, flow=True)

    def _scalar(self, value: t.Any, flow: bool = False) -> str:
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and not math.isfinite(value):
            name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            return name if self._is_json else {"NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}[name]
        if isinstance(value, (int, float)):
            return repr(value)
        text = str(value)
        readable = _PLAIN.fullmatch(text) and not (flow and ":" in text) and not _YAML_1_1.fullmatch(text)
        return text if readable and not self._is_json and isinstance(tree.resolve(text), str) else _quoted(text)


def _quoted(text: str) -> str:
    """A string that YAML, JSON and JSON5 read alike."""
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _indentation(text: str) -> tuple[int, int]:
    """(step of maps, offset of lists below their key) as the text itself indents."""
    step, offset = 0, -1
    parent: int | None = None
    for line in text.splitlines():
        body = line.strip()
        if not body or body.startswith("#"):
            continue
        depth = len(line) - len(line.lstrip(" "))
        if parent is not None and depth >= parent:
            if body.startswith("- "):
                offset = depth - parent if offset < 0 else offset
            elif depth > parent and not step:
                step = depth - parent
        parent = depth if re.search(r"[:{\[]\s*(#.*)?$", line) and not body.startswith("- ") else None
        if step and offset >= 0:
            break
    step = step or 2
    return step, step if offset < 0 else offset
