# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Whether nodes have room for a share of the builds that there are. Pure."""

from __future__ import annotations

import typing as t
from contextlib import suppress
from decimal import Decimal

# AnsibleK8SModule reports the missing library.
with suppress(ImportError):
    from kubernetes.utils.quantity import parse_quantity

RESOURCES = ("cpu", "memory", "pods")
Amounts = dict[str, Decimal]


def is_usable(node: dict[str, t.Any]) -> bool:
    """Ready and not cordoned."""
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in (node.get("status") or {}).get("conditions") or [])
    return ready and not node["spec"].get("unschedulable")


def is_live(pod: dict[str, t.Any]) -> bool:
    """A build that holds its resources: the scheduler frees them when the pod has ended."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def room(nodes: list[dict[str, t.Any]]) -> Amounts:
    """What the kubelets of the nodes offer together: cores, bytes, pods."""
    return _total(node["status"].get("allocatable") or {} for node in nodes)


def need(pods: list[dict[str, t.Any]], overhead: dict[str, t.Any], share: Decimal) -> Amounts:
    """What ``share`` percent of the builds would ask for on Kata: their requests and the RuntimeClass's overhead for each."""
    per_pod = _total([overhead])
    whole = _total(_requests(pod) for pod in pods)
    return {key: (whole[key] + per_pod[key] * len(pods)) * share / 100 for key in RESOURCES}


def rounded(amounts: Amounts) -> dict[str, float]:
    """For people: cores, GiB and pods, rounded."""
    return {
        "cpu": round(float(amounts["cpu"]), 1),
        "memory_gib": round(float(amounts["memory"]) / 2**30, 1),
        "pods": round(float(amounts["pods"])),
    }


def _requests(pod: dict[str, t.Any]) -> dict[str, t.Any]:
    sums = {"pods": Decimal(1), "cpu": Decimal(0), "memory": Decimal(0)}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        asked = resources.get("requests") or resources.get("limits") or {}
        for key in ("cpu", "memory"):
            sums[key] += parse_quantity(asked.get(key, 0))
    return sums


def _total(parts: t.Iterable[dict[str, t.Any]]) -> Amounts:
    total = dict.fromkeys(RESOURCES, Decimal(0))
    for part in parts:
        for key in RESOURCES:
            total[key] += parse_quantity(part.get(key, 0))
    return total
