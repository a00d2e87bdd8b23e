# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What builds need on Kata, and what the nodes of the pool have left for them. Pure."""

from __future__ import annotations

import typing as t
from contextlib import suppress
from decimal import Decimal

from ansible_collections.screwdriver.kata.plugins.module_utils._values import format_bytes

# AnsibleK8SModule reports the missing library.
with suppress(ImportError):
    from kubernetes.utils.quantity import parse_quantity

# shm is the guests' memory, which QEMU maps from the node's /dev/shm.
RESOURCES = ("cpu", "memory", "shm", "pods")
Amounts = dict[str, Decimal]
Node = dict[str, t.Any]
Pod = dict[str, t.Any]


def is_usable(node: Node) -> bool:
    """Ready and not cordoned."""
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in (node.get("status") or {}).get("conditions") or [])
    return ready and not node["spec"].get("unschedulable")


def is_live(pod: Pod) -> bool:
    """The pod holds its resources: the scheduler frees them when it has ended."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def requests(pod: Pod, overhead: dict[str, t.Any] | None = None) -> Amounts:
    """What the scheduler reserves for a pod.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers

    Args:
        pod: The pod.
        overhead: The overhead to count instead of the pod's own.

    Returns:
        Cores, bytes and pods. ``shm`` is the memory.
    """
    spec = pod["spec"]
    running, sidecars, starting = _none(), _none(), _none()
    for container in spec["containers"]:
        running = _sum(running, _requests(container))
    for container in spec.get("initContainers") or []:
        asked = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum(sidecars, asked)
            asked = sidecars
        else:
            asked = _sum(sidecars, asked)
        starting = _larger(starting, asked)
    whole = _larger(_sum(running, sidecars), starting)
    # The resources of a pod as a whole, since Kubernetes 1.34.
    whole.update(_asked(spec.get("resources") or {}))
    fixed = spec.get("overhead") if overhead is None else overhead
    return _with_shm({**_sum(whole, _amounts(fixed or {})), "pods": Decimal(1)})


def need(builds: list[Pod], overhead: dict[str, t.Any], share: Decimal) -> Amounts:
    """What ``share`` percent of the builds would ask for on Kata: each its requests and the RuntimeClass's overhead."""
    whole = _none()
    for build in builds:
        whole = _sum(whole, requests(build, overhead))
    return {key: whole[key] * share / 100 for key in RESOURCES}


def room(nodes: list[Node], others: list[Pod], runtime_class: str, shm_percent: Decimal) -> Amounts:
    """What the nodes have left for builds on Kata.

    Args:
        nodes: The nodes.
        others: The live pods that are not builds on Kata, on any node.
        runtime_class: The RuntimeClass of Kata: other pods of it take guest memory as well.
        shm_percent: The part of a node's memory that /dev/shm has. 0 does not count it.

    Returns:
        The sum over the nodes. ``shm`` is the memory where /dev/shm is not counted.
    """
    on: dict[str, list[Pod]] = {}
    for pod in others:
        on.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    total = _none()
    for node in nodes:
        taken, guests = _none(), _none()
        for pod in on.get(node["metadata"]["name"], []):
            asked = requests(pod)
            taken = _sum(taken, asked)
            if pod["spec"].get("runtimeClassName") == runtime_class:
                guests = _sum(guests, asked)
        left = _less(_offer(node), taken)
        shm = _amount(node, "capacity", "memory") * shm_percent / 100 - guests["shm"]
        left["shm"] = max(shm, Decimal(0)) if shm_percent else left["memory"]
        total = _sum(total, left)
    return total


def too_small(node: Node, asked: Amounts) -> str:
    """Why a node could not run a pod that asks for this even if it were empty, or an empty string."""
    offer = _offer(node)
    if asked["cpu"] > offer["cpu"]:
        return f"has {_plain(offer['cpu'])} cores, and the pod asks for {_plain(asked['cpu'])}"
    if asked["memory"] > offer["memory"]:
        return f"has {format_bytes(int(offer['memory']))} of memory, and the pod asks for {format_bytes(int(asked['memory']))}"
    return ""


def rounded(amounts: Amounts) -> dict[str, float]:
    """For people: cores, GiB and pods."""
    return {
        "cpu": round(float(amounts["cpu"]), 1),
        "memory_gib": round(float(amounts["memory"]) / 2**30, 1),
        "shm_gib": round(float(amounts["shm"]) / 2**30, 1),
        "pods": round(float(amounts["pods"])),
    }


def lacking(asked: Amounts, there: Amounts) -> list[str]:
    """The resources that do not suffice. Of memory and shm, the one that is the lower bound."""
    short = [key for key in RESOURCES if asked[key] > there[key]]
    if "memory" in short and "shm" in short:
        short.remove("memory" if there["shm"] < there["memory"] else "shm")
    return short


def room_sentences(asked: Amounts, there: Amounts, share: Decimal, builds: int, nodes: list[str]) -> t.Iterator[str]:
    """What the pool lacks for a share."""
    on = f"node {nodes[0]}" if len(nodes) == 1 else f"the {len(nodes)} nodes of the pool"
    has = "has" if len(nodes) == 1 else "have"
    part = f"{float(share):g} % of the {builds} builds need"
    for key in lacking(asked, there):
        if key == "shm":
            yield (
                f"{part} {_gib(asked[key])} GiB of guest memory, and /dev/shm of {on} has {_gib(there[key])} left; enlarge it and set"
                " shm_percent, add nodes, or take a smaller step."
            )
        else:
            unit, show = {"cpu": ("cores", _plain), "memory": ("GiB of memory", _gib), "pods": ("pods", _plain)}[key]
            yield (f"{part} {show(asked[key])} {unit}, and {on} {has} {show(there[key])} left; add nodes, or take a smaller step.")


def too_large_sentences(builds: list[Pod], overhead: dict[str, t.Any], nodes: list[Node]) -> t.Iterator[str]:
    """The first build that no node could run even if it were empty."""
    for build in builds:
        asked = requests(build, overhead)
        reasons = [too_small(node, asked) for node in nodes]
        if nodes and all(reasons):
            name = f"{build['metadata']['namespace']}/{build['metadata']['name']}"
            yield (
                f"Builds such as {name} fit on no node of the pool: {nodes[0]['metadata']['name']} {reasons[0]} with its overhead; add"
                " larger nodes, or exclude the images of these builds."
            )
            return


def _plain(amount: Decimal) -> str:
    return f"{round(float(amount), 1):g}"


def _gib(amount: Decimal) -> str:
    return _plain(amount / 2**30)


def _none() -> Amounts:
    return dict.fromkeys(RESOURCES, Decimal(0))


def _amount(node: Node, part: str, resource: str) -> Decimal:
    return parse_quantity(((node.get("status") or {}).get(part) or {}).get(resource, 0))


def _offer(node: Node) -> Amounts:
    return {**_none(), **{key: _amount(node, "allocatable", key) for key in ("cpu", "memory", "pods")}}


def _amounts(resources: dict[str, t.Any]) -> Amounts:
    return {**_none(), **{key: parse_quantity(resources[key]) for key in ("cpu", "memory") if key in resources}}


def _asked(resources: dict[str, t.Any]) -> Amounts:
    """Requests; a limit without one is its request."""
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {key: parse_quantity(asked[key]) for key in ("cpu", "memory") if key in asked}


def _requests(container: dict[str, t.Any]) -> Amounts:
    return {**_none(), **_asked(container.get("resources") or {})}


def _with_shm(amounts: Amounts) -> Amounts:
    return {**amounts, "shm": amounts["memory"]}


def _sum(one: Amounts, two: Amounts) -> Amounts:
    return {key: one[key] + two[key] for key in RESOURCES}


def _less(one: Amounts, two: Amounts) -> Amounts:
    return {key: max(one[key] - two[key], Decimal(0)) for key in RESOURCES}


def _larger(one: Amounts, two: Amounts) -> Amounts:
    return {key: max(one[key], two[key]) for key in RESOURCES}
