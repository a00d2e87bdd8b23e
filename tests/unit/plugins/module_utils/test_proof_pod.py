# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pod that proves a node, and how its progress is read."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _proof_pod

NODE = {"metadata": {"name": "build-1", "labels": {"dedicated": "screwdriver-kata"}}}
CLASS = {
    "handler": "kata",
    "overhead": {"podFixed": {"memory": "160Mi"}},
    "scheduling": {"nodeSelector": {"dedicated": "screwdriver-kata"}},
}
PARAMS = {"image": "busybox:1", "namespace": "sd-builds", "node": "build-1", "host_network": False}


@pytest.mark.parametrize(
    ("runtime_class", "handler", "fits"),
    [
        (CLASS, "kata", True),
        ({"handler": "kata"}, "kata", True),
        (None, "kata", False),
        (CLASS, "kata-clh", False),
        ({**CLASS, "scheduling": {"nodeSelector": {"kata.screwdriver.cd/ready": "true"}}}, "kata", False),
    ],
)
def test_the_builds_runtime_class_is_used_where_the_kubelet_accepts_it(
    runtime_class: dict[str, t.Any] | None, handler: str, fits: bool
) -> None:
    assert _proof_pod.fits(runtime_class, NODE, handler) is fits


READY = {"kata.screwdriver.cd/ready": "true"}


@pytest.mark.parametrize(
    ("labels", "spec", "in_service"),
    [
        (READY, {}, True),
        (READY, {"unschedulable": False}, True),
        # site installs another release on it: what the last proof has shown is not what the node is now.
        (READY, {"unschedulable": True}, False),
        ({"kata.screwdriver.cd/ready": ""}, {}, False),
        ({}, {}, False),
        (None, {}, False),
    ],
)
def test_a_verified_node_is_in_service_unless_it_is_cordoned(
    labels: dict[str, str] | None, spec: dict[str, t.Any], in_service: bool
) -> None:
    assert _proof_pod.in_service({"metadata": {"labels": labels}, "spec": spec}, "kata.screwdriver.cd/ready") is in_service


def test_own_runtime_class_has_the_overhead_and_no_selector() -> None:
    body = _proof_pod.own_runtime_class("build-1", "kata", CLASS)
    assert body["metadata"]["name"] == "kata-proof-kata-build-1"
    assert body["handler"] == "kata"
    assert body["overhead"] == CLASS["overhead"]
    assert "scheduling" not in body
    assert "overhead" not in _proof_pod.own_runtime_class("build-1", "kata", None)
    assert len(_proof_pod.own_runtime_class("n" * 253, "kata", None)["metadata"]["name"]) <= 253


def test_the_pod_is_bound_to_the_node_and_tolerates_its_taints() -> None:
    body = _proof_pod.pod_body(PARAMS, "kata")
    spec = body["spec"]
    assert spec["nodeName"] == "build-1"
    assert spec["runtimeClassName"] == "kata"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    # No build of anybody: neither the gate nor a drain counts it.
    assert "tier" not in body["metadata"]["labels"]


def pod(phase: str = "Pending", state: dict[str, t.Any] | None = None, **status: t.Any) -> dict[str, t.Any]:
    containers = [{"state": state, "containerID": "containerd://abc"}] if state else []
    return {"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": containers, **status}}


def test_container_that_runs() -> None:
    assert _proof_pod.container_id(pod("Running", {"running": {}})) == "abc"
    assert _proof_pod.container_id(pod("Pending", {"waiting": {"reason": "ContainerCreating"}})) == ""
    assert _proof_pod.container_id(pod()) == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (pod(), ""),
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), ""),
        (pod(state={"waiting": {"reason": "ErrImagePull", "message": "not found"}}), ""),
        (pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}), "ImagePullBackOff: not found"),
        (pod(state={"waiting": {"reason": "InvalidImageName"}}), "InvalidImageName"),
        (pod("Failed", reason="NodeAffinity", message="Predicate NodeAffinity failed"), "NodeAffinity: Predicate NodeAffinity failed"),
        (pod("Failed", {"terminated": {"exitCode": 128, "message": "no sh"}}), "its container ended with exit code 128 (no sh)"),
        (pod("Succeeded"), "its phase is Succeeded"),
        ({"metadata": {"name": "p", "deletionTimestamp": "now"}, "status": {}}, "it was deleted meanwhile"),
    ],
)
def test_pod_that_cannot_run(body: dict[str, t.Any], reason: str) -> None:
    assert _proof_pod.failure(body) == reason


def test_events() -> None:
    events = [
        {"type": "Warning", "reason": "FailedCreatePodSandBox", "message": "first", "count": 2, "lastTimestamp": "2026-01-01T00:00:01Z"},
        {"type": "Warning", "reason": "FailedCreatePodSandBox", "message": "last", "lastTimestamp": "2026-01-01T00:00:03Z"},
        {"type": "Normal", "reason": "Pulled", "message": "x", "lastTimestamp": "2026-01-01T00:00:09Z"},
        {"type": "Warning", "reason": "Other", "message": "y", "lastTimestamp": None, "eventTime": "2026-01-01T00:00:02.5Z"},
    ]
    assert _proof_pod.sandbox_failures(events) == 3
    assert _proof_pod.last_warning(events) == "FailedCreatePodSandBox: last"
    assert _proof_pod.sandbox_failures([]) == 0
    assert _proof_pod.last_warning([]) == ""
