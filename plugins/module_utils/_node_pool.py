# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which labels, annotations and taints of a node to change. Pure. As in the API server, key and effect identify a taint."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._labels import parse_annotations, parse_labels, parse_taints
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

Node = dict[str, t.Any]

# Statuses of a write that may succeed when it is sent again.
_TRANSIENT = frozenset({0, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Pool:
    """The labels, annotations and taints that nodes should have, or not have."""

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)

    def present_patch(self, node: Node) -> dict[str, t.Any]:
        """The JSON merge patch that adds what the node lacks; empty where it has everything."""
        before = node["spec"].get("taints") or []
        wanted = {(taint["key"], taint["effect"]): taint for taint in self.taints}
        after = [_with_value(taint, wanted.pop((taint["key"], taint["effect"]), taint)) for taint in before]
        after += [_with_value({}, taint) for taint in wanted.values()]
        changes = {"labels": _missing(node, "labels", self.labels), "annotations": _missing(node, "annotations", self.annotations)}
        return _patch(node, changes, before, after)

    def absent_patch(self, node: Node) -> dict[str, t.Any]:
        """The JSON merge patch that removes what the node has; a label, annotation or taint of another value is foreign and stays."""
        before = node["spec"].get("taints") or []
        unwanted = [(taint["key"], taint["value"], taint["effect"]) for taint in self.taints]
        after = [taint for taint in before if (taint["key"], taint.get("value") or "", taint["effect"]) not in unwanted]
        changes = {"labels": _removed(node, "labels", self.labels), "annotations": _removed(node, "annotations", self.annotations)}
        return _patch(node, changes, before, after)

    def diff_view(self, node: Node) -> dict[str, t.Any]:
        """The named labels, annotations and taints of a node, for the diff."""
        named = {"labels": self.labels, "annotations": self.annotations}
        keys = {(taint["key"], taint["effect"]) for taint in self.taints}
        return {
            **{part: {key: value for key, value in (node["metadata"].get(part) or {}).items() if key in named[part]} for part in named},
            "taints": [taint for taint in node["spec"].get("taints") or [] if (taint["key"], taint["effect"]) in keys],
        }


def parse(params: dict[str, t.Any]) -> Pool:
    """Checks the module's parameters.

    Raises:
        UserError: One is not valid.
    """
    nodes = params["nodes"]
    if nodes is not None and not nodes:
        raise UserError("nodes is empty; name at least one node, or use selector.")
    if nodes is not None and not all(name.strip() for name in nodes):
        raise UserError("nodes has an empty name; name each node.")
    if params["concurrency"] < 1:
        raise UserError(f"concurrency is {params['concurrency']}; use at least 1.")
    if params["require_handler"] is not None and not params["require_handler"].strip():
        raise UserError("require_handler is empty; name a handler, such as kata, or leave it out.")
    return Pool(
        labels=parse_labels("labels", params["labels"]),
        annotations=parse_annotations("annotations", params["annotations"]),
        taints=parse_taints("taints", params["taints"]),
    )


def missing_handler(node: Node, handler: str) -> str:
    """Why a node lacks a handler, or an empty string."""
    reported = [item.get("name") or "" for item in (node.get("status") or {}).get("runtimeHandlers") or []]
    if handler in reported:
        return ""
    if not reported:
        return (
            f"Its kubelet reports no handlers, so {handler} cannot be checked; that requires Kubernetes 1.30 and containerd 2.0 or newer."
        )
    return f"Its kubelet does not report handler {handler}, only {join_names(list(filter(None, reported))) or 'the default one'}."


def failure_sentence(names: list[str], total: int, reason: str, status: int) -> str:
    """Which nodes could not be written.

    Args:
        names: These nodes.
        total: How many were asked for.
        reason: Why the first could not be, as a sentence.
        status: The HTTP status of that.
    """
    again = " Run again for these nodes." if status in _TRANSIENT else ""
    return f"{len(names)} of {total} nodes could not be written: {join_names(names)}. {reason}{again}"


def _missing(node: Node, part: str, wanted: dict[str, str]) -> dict[str, t.Any]:
    current = node["metadata"].get(part) or {}
    return {key: value for key, value in wanted.items() if current.get(key) != value}


def _removed(node: Node, part: str, unwanted: dict[str, str]) -> dict[str, t.Any]:
    current = node["metadata"].get(part) or {}
    return {key: None for key, value in unwanted.items() if current.get(key) == value}


def _with_value(taint: dict[str, t.Any], wanted: dict[str, t.Any]) -> dict[str, t.Any]:
    if (taint.get("value") or "") == (wanted.get("value") or "") and taint:
        return taint
    return {key: wanted[key] for key in ("key", "value", "effect") if wanted.get(key)}


def _patch(node: Node, metadata: dict[str, dict[str, t.Any]], before: list[t.Any], after: list[t.Any]) -> dict[str, t.Any]:
    patch: dict[str, t.Any] = {}
    if changes := {part: values for part, values in metadata.items() if values}:
        patch["metadata"] = changes
    if after != before:
        # A list is replaced as a whole, so that a concurrent change of another writer must conflict.
        patch.setdefault("metadata", {})["resourceVersion"] = node["metadata"]["resourceVersion"]
        patch["spec"] = {"taints": after}
    return patch
