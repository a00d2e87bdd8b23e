# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from decimal import Decimal

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import capacity as _capacity

GIB = 2**30


def node(name: str = "build-1", ready: str = "True", unschedulable: bool = False, memory: str = "2Gi") -> dict[str, t.Any]:
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if unschedulable else {},
        "status": {
            "capacity": {"memory": "4Gi"},
            "allocatable": {"cpu": "63500m", "memory": memory, "pods": "110"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def asks(cpu: str, memory: str = "0", **more: t.Any) -> dict[str, t.Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


def pod(*containers: dict[str, t.Any], init: tuple[dict[str, t.Any], ...] = (), **spec: t.Any) -> dict[str, t.Any]:
    return {
        "metadata": {"namespace": "sd-builds", "name": "build-7"},
        "spec": {"containers": list(containers) or [{"name": "build"}], "initContainers": list(init), **spec},
        "status": {"phase": "Running"},
    }


def amounts(cpu: str, memory: int, pods: int, shm: int | None = None) -> _capacity.Amounts:
    return {"cpu": Decimal(cpu), "memory": Decimal(memory), "shm": Decimal(memory if shm is None else shm), "pods": Decimal(pods)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (node(), True),
        (node(ready="False"), False),
        (node(ready="Unknown"), False),
        (node(unschedulable=True), False),
        ({"metadata": {}, "spec": {}}, False),
    ],
)
def test_usable(given: dict[str, t.Any], expected: bool) -> None:
    assert _capacity.is_usable(given) is expected


@pytest.mark.parametrize(("phase", "expected"), [("Pending", True), ("Running", True), ("Succeeded", False), ("Failed", False)])
def test_live(phase: str, expected: bool) -> None:
    assert _capacity.is_live({**pod(), "status": {"phase": phase}}) is expected


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("given", "cpu", "memory"),
    [
        (pod(), "0", 0),
        (pod(asks("1", "1Gi"), asks("500m", "1Gi")), "1.5", 2 * GIB),
        (pod({"resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}), "2", GIB),
        # A limit is the request of a resource that has none, also beside a request of another one.
        (pod({"resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}), "1", GIB),
        (pod({"resources": {"limits": {"cpu": "2"}, "requests": {}}}), "2", 0),
        (pod(asks("1", "1Gi"), init=(asks("3"), asks("2", "4Gi"))), "3", 4 * GIB),
        (pod(asks("2"), init=(asks("1"),)), "2", 0),
        (pod(asks("1"), init=(asks("1", **SIDECAR), asks("1", **SIDECAR))), "3", 0),
        # An init container runs beside the sidecars that were started before it, and no others.
        (pod(asks("1"), init=(asks("1", **SIDECAR), asks("4"), asks("2", **SIDECAR))), "5", 0),
        (pod(asks("1"), init=(asks("4"), asks("1", **SIDECAR))), "4", 0),
        (pod(asks("1", "1Gi"), overhead={"cpu": "250m", "memory": "1Gi"}), "1.25", 2 * GIB),
        (pod(asks("1"), init=(asks("2"),), overhead={"cpu": "1"}), "3", 0),
        (pod(asks("1"), asks("1"), resources={"requests": {"cpu": "5"}}, overhead={"cpu": "1"}), "6", 0),
    ],
)
def test_requests_are_counted_as_the_scheduler_does(given: dict[str, t.Any], cpu: str, memory: int) -> None:
    assert _capacity.requests(given) == amounts(cpu, memory, 1)


def test_need_has_the_overhead_of_kata_and_not_of_another_class() -> None:
    builds = [pod(asks("2", "1Gi"), overhead={"cpu": "10"}), pod(asks("500m", "1Gi"))]
    assert _capacity.need(builds, {"cpu": "250m", "memory": "128Mi"}, Decimal(50)) == amounts("1.5", GIB + 128 * 2**20, 1)
    assert _capacity.need([], {"cpu": "1"}, Decimal(100)) == amounts("0", 0, 0)


def test_room_is_what_other_pods_leave() -> None:
    others = [
        pod(asks("500m", "512Mi"), nodeName="build-1"),
        pod(asks("1", "256Mi"), nodeName="build-2", runtimeClassName="kata"),
        pod(asks("9", "1Gi"), nodeName="elsewhere"),
    ]
    found = _capacity.room([node(), node("build-2")], others, "kata", Decimal(25))
    # /dev/shm has a quarter of 4 GiB on each node, and one guest takes 256 MiB of it.
    assert found == amounts("125.5", 4 * GIB - 768 * 2**20, 218, shm=2 * GIB - 256 * 2**20)
    assert _capacity.room([node()], [], "kata", Decimal(0))["shm"] == 2 * GIB


def test_a_node_that_is_overcommitted_has_no_room() -> None:
    busy = [pod(asks("100", "9Gi"), nodeName="build-1")]
    assert _capacity.room([node(), node("build-2")], busy, "kata", Decimal(50)) == amounts("63.5", 2 * GIB, 219, shm=4 * GIB)


def test_rounded() -> None:
    assert _capacity.rounded(_capacity.room([node()], [], "kata", Decimal(50))) == {
        "cpu": 63.5,
        "memory_gib": 2.0,
        "shm_gib": 2.0,
        "pods": 110,
    }


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (amounts("10", 10, 10), []),
        (amounts("9", 10, 9), ["cpu", "pods"]),
        (amounts("10", 9, 10, shm=5), ["shm"]),
        (amounts("10", 5, 10, shm=9), ["memory"]),
        (amounts("10", 10, 10, shm=9), ["shm"]),
    ],
)
def test_the_lowest_bound_is_named(there: _capacity.Amounts, expected: list[str]) -> None:
    assert _capacity.lacking(amounts("10", 10, 10), there) == expected


def test_room_sentences() -> None:
    asked, there = amounts("160", 5 * GIB, 30), amounts("128", 4 * GIB, 20, shm=3 * GIB)
    assert list(_capacity.room_sentences(asked, there, Decimal("2.50"), 10, ["build-1", "build-2"])) == [
        "2.5 % of the 10 builds need 160 cores, and the 2 nodes of the pool have 128 left; add nodes, or take a smaller step.",
        "2.5 % of the 10 builds need 5 GiB of guest memory, and /dev/shm of the 2 nodes of the pool has 3 left;"
        " enlarge it and set shm_percent, add nodes, or take a smaller step.",
        "2.5 % of the 10 builds need 30 pods, and the 2 nodes of the pool have 20 left; add nodes, or take a smaller step.",
    ]
    there = amounts("160", 4 * GIB, 30, shm=9 * GIB)
    assert list(_capacity.room_sentences(asked, there, Decimal(100), 10, ["build-1"])) == [
        "100 % of the 10 builds need 5 GiB of memory, and node build-1 has 4 left; add nodes, or take a smaller step."
    ]
    assert list(_capacity.room_sentences(asked, asked, Decimal(100), 10, ["build-1"])) == []


def test_a_build_that_is_larger_than_every_node() -> None:
    builds = [pod(asks("1")), pod(asks("64")), pod(asks("63.4"))]
    assert list(_capacity.too_large_sentences(builds, {}, [node()])) == [
        "Builds such as sd-builds/build-7 fit on no node of the pool: build-1 has 63.5 cores, and the pod asks for 64 with its overhead;"
        " add larger nodes, or exclude the images of these builds."
    ]
    assert list(_capacity.too_large_sentences(builds[:1], {"memory": "3Gi"}, [node()])) == [
        "Builds such as sd-builds/build-7 fit on no node of the pool: build-1 has 2 GiB of memory, and the pod asks for 3 GiB with its "
        "overhead; add larger nodes, or exclude the images of these builds."
    ]
    assert list(_capacity.too_large_sentences(builds[:1], {"memory": "3Gi"}, [node(), node("build-2", memory="8Gi")])) == []
    assert list(_capacity.too_large_sentences(builds, {}, [])) == []
