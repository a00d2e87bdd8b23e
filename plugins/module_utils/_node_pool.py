# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which labels, annotations and taints of a node to change. Pure. A taint is the same one where its key and effect are, as the API server has it."""

from __future__ import annotations

import typing as t

Node = dict[str, t.Any]


def missing_handler(node: Node, handler: str) -> str:
    """Why a node lacks a handler, or an empty string."""
    reported = [item.get("name") or "" for item in (node.get("status") or {}).get("runtimeHandlers") or []]
    if handler in reported:
        return ""
    if not reported:
        return f"Its kubelet reports no handlers, so {handler} cannot be seen: that takes Kubernetes 1.30 and containerd 2.0 or newer."
    return f"Its kubelet does not report handler {handler}, only {', '.join(filter(None, reported)) or 'the default one'}."


def present_patch(node: Node, labels: dict[str, str], annotations: dict[str, str], taints: list[dict[str, str]]) -> dict[str, t.Any]:
    """The JSON merge patch that gives the node these labels, annotations and taints; empty where it has them."""
    before = node["spec"].get("taints") or []
    wanted = {(taint["key"], taint["effect"]): taint for taint in taints}
    after = [_with_value(taint, wanted.pop((taint["key"], taint["effect"]), taint)) for taint in before]
    after += [_with_value({}, taint) for taint in wanted.values()]
    return _patch(
        node, {"labels": _missing(node, "labels", labels), "annotations": _missing(node, "annotations", annotations)}, before, after
    )


def absent_patch(node: Node, labels: dict[str, str], annotations: dict[str, str], taints: list[dict[str, str]]) -> dict[str, t.Any]:
    """The JSON merge patch that takes these labels, annotations and taints from the node; those of another value are somebody else's."""
    before = node["spec"].get("taints") or []
    gone = [(taint["key"], taint.get("value") or "", taint["effect"]) for taint in taints]
    after = [taint for taint in before if (taint["key"], taint.get("value") or "", taint["effect"]) not in gone]
    return _patch(node, {"labels": _taken(node, "labels", labels), "annotations": _taken(node, "annotations", annotations)}, before, after)


def _missing(node: Node, part: str, wanted: dict[str, str]) -> dict[str, t.Any]:
    current = node["metadata"].get(part) or {}
    return {key: value for key, value in wanted.items() if current.get(key) != value}


def _taken(node: Node, part: str, unwanted: dict[str, str]) -> dict[str, t.Any]:
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
        # A list is replaced as a whole, so what somebody else wrote meanwhile must not be lost.
        patch.setdefault("metadata", {})["resourceVersion"] = node["metadata"]["resourceVersion"]
        patch["spec"] = {"taints": after}
    return patch


def diff_view(node: Node, labels: dict[str, str], annotations: dict[str, str], taints: list[dict[str, str]]) -> dict[str, t.Any]:
    """The labels, annotations and taints of a node that the parameters name, for the diff."""
    named = {"labels": labels, "annotations": annotations}
    keys = {(taint["key"], taint["effect"]) for taint in taints}
    return {
        **{part: {key: value for key, value in (node["metadata"].get(part) or {}).items() if key in named[part]} for part in named},
        "taints": [taint for taint in node["spec"].get("taints") or [] if (taint["key"], taint["effect"]) in keys],
    }
