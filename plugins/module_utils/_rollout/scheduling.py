# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Whether the scheduler may place a pod on a node, by labels, affinity and taints. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

Node = dict[str, t.Any]
Pod = dict[str, t.Any]

_BLOCKING = frozenset({"NoSchedule", "NoExecute"})


def misfit(node: Node, pod: Pod) -> str:
    """Why the scheduler never places a pod on a node.

    Args:
        node: The node.
        pod: The pod as the API server admitted it, with what its RuntimeClass adds.

    Returns:
        The reason as a clause, or an empty string.
    """
    labels, spec = node["metadata"].get("labels") or {}, pod["spec"]
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return f"label {key}={value} is missing"
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if affinity and not any(_matches(term, node) for term in affinity.get("nodeSelectorTerms") or []):
        wanted = [_expression(item) for term in affinity["nodeSelectorTerms"] for item in term.get("matchExpressions") or []]
        return f"the node affinity {join_names(wanted)} does not match"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in _BLOCKING and not any(tolerates(item, taint) for item in spec.get("tolerations") or []):
            return f"taint {taint['key']}={taint.get('value') or ''}:{taint['effect']} is not tolerated"
    return ""


def tolerates(toleration: dict[str, t.Any], taint: dict[str, t.Any]) -> bool:
    """By Kubernetes' rule: an empty effect or key is every one."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def pending_sentence(reasons: dict[str, str], runtime_class: str) -> str:
    """What keeps build pods Pending.

    Args:
        reasons: Why each node does not fit, by its name.
        runtime_class: The RuntimeClass of the pods.
    """
    nodes: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        nodes.setdefault(reason, []).append(name)
    listed = ", ".join(f"{reason} ({join_names(names)})" for reason, names in nodes.items())
    return (
        f"Build pods would stay Pending, because no node of the pool fits them: {listed}; correct RuntimeClass {runtime_class}, the"
        " executor's nodeSelectors, or the nodes."
    )


def _matches(term: dict[str, t.Any], node: Node) -> bool:
    labels = node["metadata"].get("labels") or {}
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return all(_holds(item, labels) for item in expressions) and all(
        _holds(item, {"metadata.name": node["metadata"]["name"]}) for item in fields
    )


def _holds(item: dict[str, t.Any], values: dict[str, str]) -> bool:
    value, operator, wanted = values.get(item["key"]), item["operator"], item.get("values") or []
    if operator == "In":
        return value in wanted
    if operator == "NotIn":
        return value not in wanted
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        one, two = int(value or ""), int(wanted[0])
    except ValueError:
        return False
    return one > two if operator == "Gt" else one < two


def _expression(item: dict[str, t.Any]) -> str:
    values = item.get("values") or []
    if item["operator"] == "In" and len(values) == 1:
        return f"{item['key']}={values[0]}"
    return " ".join(filter(None, [item["key"], item["operator"], ",".join(values)]))
