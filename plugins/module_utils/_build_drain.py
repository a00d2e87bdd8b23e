# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which cordon is ours, which pods are builds that still run, and the messages about them. Pure: time and events are arguments."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.capacity import is_live
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import seconds_of
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

if t.TYPE_CHECKING:
    from collections.abc import Iterable

Node = dict[str, t.Any]
Pod = dict[str, t.Any]

ANNOTATION = "kata.screwdriver.cd/cordoned"
MAX_BUILDS_NAMED = 10
DEFAULT_GRACE_SECONDS = 30
# A pod of these owners is never a build, whatever its labels: it would be created again, or is the kubelet's own.
_FOREIGN_OWNERS = frozenset({"DaemonSet", "Node"})


def is_cordoned(node: Node) -> bool:
    return bool(node["spec"].get("unschedulable"))


def is_foreign(node: Node) -> bool:
    """Cordoned, and not by this module."""
    return is_cordoned(node) and _annotation(node) is None


def cordon_patch(node: Node, holder: str, reason: str | None) -> dict[str, t.Any]:
    """The JSON merge patch that cordons a node.

    Args:
        node: The node.
        holder: Who cordons it.
        reason: Why; None keeps the reason that the node has.

    Returns:
        The patch; empty if the node is cordoned as asked, or has a foreign cordon.
    """
    if is_foreign(node):
        return {}
    before = _annotation(node)
    known = _parsed(before)
    # Who cordoned it first stays recorded, unless it was uncordoned meanwhile.
    by = known.get("by") if is_cordoned(node) else None
    after = json.dumps({"by": by or holder, "reason": known.get("reason", "") if reason is None else reason}, ensure_ascii=False)
    if is_cordoned(node) and _parsed(after) == known:
        return {}
    return _patch(node, after, True)


def uncordon_patch(node: Node) -> dict[str, t.Any]:
    """The JSON merge patch that removes our cordon; empty if there is none."""
    return {} if _annotation(node) is None else _patch(node, None, None)


def diff_view(node: Node) -> dict[str, t.Any]:
    """What the module manages of a node, for the diff."""
    annotation = _annotation(node)
    return {"unschedulable": is_cordoned(node), "annotations": {} if annotation is None else {ANNOTATION: annotation}}


def _annotation(node: Node) -> str | None:
    return (node["metadata"].get("annotations") or {}).get(ANNOTATION)


def _parsed(annotation: str | None) -> dict[str, t.Any]:
    try:
        value = json.loads(annotation or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _patch(node: Node, annotation: str | None, unschedulable: bool | None) -> dict[str, t.Any]:
    # With the version, a concurrent foreign cordon is a conflict and is not taken for ours.
    meta = {"annotations": {ANNOTATION: annotation}, "resourceVersion": node["metadata"]["resourceVersion"]}
    return {"metadata": meta, "spec": {"unschedulable": unschedulable}}


class Builds:
    """The builds on some nodes that have not ended."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._nodes = frozenset(nodes)
        self._pods: dict[str, Pod] = {}

    def __bool__(self) -> bool:
        return bool(self._pods)

    @property
    def pods(self) -> list[Pod]:
        """The oldest first."""
        return sorted(
            self._pods.values(),
            key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["namespace"], pod["metadata"]["name"]),
        )

    def replace(self, pods: Iterable[Pod]) -> None:
        """Takes all pods that match the selector."""
        self._pods = {}
        for pod in pods:
            self.event("ADDED", pod)

    def event(self, kind: str, pod: Pod) -> None:
        """Takes one event of the watch: ADDED, MODIFIED or DELETED."""
        if kind != "DELETED" and self._runs_here(pod):
            self._pods[pod["metadata"]["uid"]] = pod
        else:
            self._pods.pop(pod["metadata"]["uid"], None)

    def left(self, now: int) -> list[dict[str, t.Any]]:
        return [
            {
                "name": pod["metadata"]["name"],
                "namespace": pod["metadata"]["namespace"],
                "node": pod["spec"]["nodeName"],
                # The clocks of this machine and of the API server may differ.
                "age_seconds": max(0, now - seconds_of(pod["metadata"]["creationTimestamp"])),
                "phase": (pod.get("status") or {}).get("phase") or "Unknown",
            }
            for pod in self.pods
        ]

    def _runs_here(self, pod: Pod) -> bool:
        owners = pod["metadata"].get("ownerReferences") or []
        return pod["spec"].get("nodeName") in self._nodes and is_live(pod) and not any(owner["kind"] in _FOREIGN_OWNERS for owner in owners)


def grace_seconds(pods: Iterable[Pod]) -> int:
    """The longest grace period of these pods, in seconds."""
    given = (pod["spec"].get("terminationGracePeriodSeconds") for pod in pods)
    return max((DEFAULT_GRACE_SECONDS if seconds is None else seconds for seconds in given), default=0)


def age(seconds: int) -> str:
    """Such as 3 h 2 min: the two largest units, one below an hour."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def stays(nodes: int) -> str:
    return "The node stays cordoned" if nodes == 1 else "The nodes stay cordoned"


def deadline_sentence(left: list[dict[str, t.Any]], nodes: list[str], timeout: int, forced: bool, refusal: str = "") -> str:
    """Names the builds that are left.

    Args:
        left: These builds.
        nodes: All nodes that were asked for.
        timeout: How long they were waited for, in seconds.
        forced: Whether they were to be evicted.
        refusal: Why a build could not be evicted, as a sentence.
    """
    on = [name for name in nodes if any(build["node"] == name for build in left)]
    place = {name: f" on {name}" if len(on) > 1 else "" for name in on}
    named = [f"{build['namespace']}/{build['name']}{place[build['node']]} ({age(build['age_seconds'])})" for build in left]
    still = "build still runs" if len(left) == 1 else "builds still run"
    todo = "run again or raise timeout" if forced else "run again, raise timeout, or set force"
    why = f" {refusal}" if refusal else ""
    listed = join_names(named, MAX_BUILDS_NAMED)
    return f"{len(left)} {still} on {join_names(on)} after {timeout} s: {listed}.{why} {stays(len(nodes))}; {todo}."
