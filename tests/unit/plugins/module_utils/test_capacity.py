from __future__ import annotations

import typing as t
from decimal import Decimal

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import capacity as _capacity


def node(ready: str = "True", unschedulable: bool = False) -> dict[str, t.Any]:
    return {
        "metadata": {"name": "build-1"},
        "spec": {"unschedulable": True} if unschedulable else {},
        "status": {"allocatable": {"cpu": "63500m", "memory": "2Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(phase: str = "Running", **resources: t.Any) -> dict[str, t.Any]:
    return {"spec": {"containers": [{"name": "build", "resources": resources}]}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (node(), True),
        (node("False"), False),
        (node("Unknown"), False),
        (node(unschedulable=True), False),
        ({"metadata": {}, "spec": {}}, False),
    ],
)
def test_usable(given: dict[str, t.Any], expected: bool) -> None:
    assert _capacity.is_usable(given) is expected


@pytest.mark.parametrize(("phase", "expected"), [("Pending", True), ("Running", True), ("Succeeded", False), ("Failed", False)])
def test_live(phase: str, expected: bool) -> None:
    assert _capacity.is_live(pod(phase)) is expected


def test_room_is_the_sum_of_what_the_nodes_offer() -> None:
    assert _capacity.room([node(), node()]) == {"cpu": Decimal(127), "memory": Decimal(4 * 2**30), "pods": Decimal(220)}


def test_need_takes_requests_and_overhead_of_the_share() -> None:
    pods = [pod(requests={"cpu": "2", "memory": "1Gi"}, limits={"cpu": "12"}), pod(limits={"cpu": "500m", "memory": "1Gi"})]
    need = _capacity.need(pods, {"cpu": "250m", "memory": "128Mi"}, Decimal(50))
    assert need == {"cpu": Decimal("1.5"), "memory": Decimal(2**30 + 128 * 2**20), "pods": Decimal(1)}


def test_need_of_builds_that_ask_for_nothing() -> None:
    assert _capacity.need([pod()], {}, Decimal(100)) == {"cpu": 0, "memory": 0, "pods": 1}


def test_shown_is_in_cores_and_gib() -> None:
    assert _capacity.rounded(_capacity.room([node()])) == {"cpu": 63.5, "memory_gib": 2.0, "pods": 110}
