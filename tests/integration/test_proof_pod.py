"""proof_pod on the lab's API server: kwok simulates the kubelets. A real kubelet runs it in tests/node."""

from __future__ import annotations

import json
import threading
import time
import typing as t

import pytest

from lab.cluster.lab import Lab

from ..helpers import wait_until

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

NAMESPACE = "test-proof"
NODE = "build-1"
pytestmark = pytest.mark.usefixtures("namespace")
ASKED: dict[str, t.Any] = {"node": NODE, "namespace": NAMESPACE, "image": "busybox:1", "timeout": 60, "runtime_class": "test-proof-class"}


def objects(lab: Lab, kind: str, *options: str) -> list[dict[str, t.Any]]:
    return json.loads(lab.kubectl("get", kind, "-o", "json", *options))["items"]


def pods(lab: Lab) -> list[dict[str, t.Any]]:
    return objects(lab, "pods", "-n", NAMESPACE)


def classes(lab: Lab) -> list[str]:
    return [item["metadata"]["name"] for item in objects(lab, "runtimeclasses") if "proof" in item["metadata"]["name"]]


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> t.Iterator[None]:
    yield
    lab.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--force", "--grace-period=0")
    lab.kubectl("delete", "runtimeclass", "test-proof-class", "kata-proof-kata-silent", "--ignore-not-found")
    lab.kubectl("uncordon", NODE)
    lab.kubectl("delete", "node", "silent", "--ignore-not-found")


def create_class(lab: Lab, selector: dict[str, str]) -> None:
    body = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "test-proof-class"},
        "handler": "kata",
        "overhead": {"podFixed": {"memory": "160Mi"}},
        "scheduling": {"nodeSelector": selector},
    }
    lab.kubectl("create", "-f", "-", stdin=json.dumps(body))


def test_life_before_the_runtime_class_exists(lab: Lab, module: ModuleRunner) -> None:
    lab.kubectl("cordon", NODE)
    first = module("proof_pod", **ASKED)
    assert not first.get("failed"), first
    [pod] = pods(lab)
    assert first["pod"] == pod["metadata"]["name"]
    assert first["in_cluster"] is True
    assert first["runtime_class"] == f"kata-proof-kata-{NODE}"
    assert pod["spec"]["nodeName"] == NODE
    assert pod["spec"]["runtimeClassName"] == f"kata-proof-kata-{NODE}"
    assert first["container_id"]
    assert first["setup_seconds"] > 0
    # What an interrupted run left is deleted by the next.
    second = module("proof_pod", **ASKED)
    assert second["deleted"] == [first["pod"]]
    assert [item["metadata"]["name"] for item in pods(lab)] == [second["pod"]]
    gone = module("proof_pod", node=NODE, namespace=NAMESPACE, state="absent")
    assert gone["changed"] is True
    assert gone["deleted"] == [second["pod"]]
    assert pods(lab) == []
    assert classes(lab) == []
    assert module("proof_pod", node=NODE, namespace=NAMESPACE, state="absent")["changed"] is False


def test_runtime_class_of_the_builds(lab: Lab, module: ModuleRunner) -> None:
    create_class(lab, {"kubernetes.io/hostname": NODE})
    result = module("proof_pod", **ASKED)
    assert result["runtime_class"] == "test-proof-class"
    [pod] = pods(lab)
    assert pod["spec"]["overhead"] == {"memory": "160Mi"}
    # Another node's labels do not match: its own has the overhead all the same.
    other = module("proof_pod", **{**ASKED, "node": "build-2"})
    assert other["runtime_class"] == "kata-proof-kata-build-2"
    [pod] = [item for item in pods(lab) if item["spec"]["nodeName"] == "build-2"]
    assert pod["spec"]["overhead"] == {"memory": "160Mi"}
    # One node's end leaves the other's pod.
    module("proof_pod", node=NODE, namespace=NAMESPACE, state="absent")
    assert [item["spec"]["nodeName"] for item in pods(lab)] == ["build-2"]
    module("proof_pod", node="build-2", namespace=NAMESPACE, state="absent")
    assert classes(lab) == ["test-proof-class"]


def test_check_mode_writes_nothing(lab: Lab, module: ModuleRunner) -> None:
    create_class(lab, {"kubernetes.io/hostname": NODE})
    result = module("proof_pod", check=True, **ASKED)
    assert result["changed"] is True
    assert result["pod"] == ""
    assert pods(lab) == []


def test_node_that_is_not_in_the_cluster(module: ModuleRunner) -> None:
    assert module("proof_pod", **{**ASKED, "node": "nowhere"})["msg"] == (
        "Node nowhere is not in the cluster; start its kubelet, or give its name in the cluster."
    )
    result = module("proof_pod", **{**ASKED, "node": "nowhere", "require_node": False})
    assert result["changed"] is False
    assert result["in_cluster"] is False
    assert result["container_id"] == ""


def silent_node(lab: Lab) -> None:
    """A node that nothing simulates: kwok leaves it alone."""
    lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "silent"}}))


def test_kubelet_that_does_not_answer(lab: Lab, module: ModuleRunner) -> None:
    silent_node(lab)
    result = module("proof_pod", **{**ASKED, "node": "silent", "timeout": 2})
    [pod] = pods(lab)
    assert result["msg"] == (
        f"Pod {NAMESPACE}/{pod['metadata']['name']} with handler kata on node silent does not run after 2 s (its kubelet has not reported "
        "on it)."
    )


def test_sandbox_that_fails(lab: Lab, module: ModuleRunner) -> None:
    """The kubelet's part is played by the test: its events, and then the end of the pod."""
    silent_node(lab)
    results: list[dict[str, t.Any]] = []
    started = time.monotonic()
    runner = threading.Thread(target=lambda: results.append(module("proof_pod", **{**ASKED, "node": "silent", "timeout": 300})))
    runner.start()
    [pod] = wait_until(lambda: pods(lab))
    reference = {"kind": "Pod", "namespace": NAMESPACE, "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "apiVersion": "v1"}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "test-sandbox", "namespace": NAMESPACE},
        "involvedObject": reference,
        "type": "Warning",
        "reason": "FailedCreatePodSandBox",
        "message": 'failed to get sandbox runtime: no runtime for "kata" is configured',
        "count": 3,
        "source": {"component": "kubelet"},
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    lab.kubectl("create", "-f", "-", stdin=json.dumps(event))
    runner.join()
    assert results[0]["msg"] == (
        f"Pod {NAMESPACE}/{pod['metadata']['name']} with handler kata on node silent got no sandbox in 3 attempts. The last event is "
        'FailedCreatePodSandBox: failed to get sandbox runtime: no runtime for "kata" is configured.'
    )
    assert time.monotonic() - started < 300


def test_a_full_node_is_asked_again_until_it_has_room(lab: Lab, module: ModuleRunner) -> None:
    """The kubelet's part is played by the test."""
    silent_node(lab)
    lab.kubectl("label", "node", "silent", "kata.screwdriver.cd/ready=true")
    message = "Pod was rejected: Node didn't have enough resource: memory, requested: 67, used: 950, capacity: 1000"
    rejected = {"phase": "Failed", "reason": "OutOfmemory", "message": message}
    ready = {"name": "proof", "ready": True, "restartCount": 0, "image": "busybox:1", "imageID": "", "containerID": "containerd://42"}
    running = {"phase": "Running", "containerStatuses": [{**ready, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}

    def report(status: dict[str, t.Any], but: str = "") -> str:
        """Reports it of the pod that is not ``but``."""
        (name,) = wait_until(lambda: [item["metadata"]["name"] for item in pods(lab) if item["metadata"]["name"] != but])
        lab.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        return name

    call = module.start("proof_pod", **{**ASKED, "node": "silent", "timeout": 300})
    first = report(rejected)
    second = report(running, but=first)
    found = module.result(call)
    assert not found.get("failed"), found
    assert found["pod"] == second
    assert found["container_id"] == "42"
    assert found["no_room"] == ""
    assert [item["metadata"]["name"] for item in pods(lab)] == [second]
    # It has none until the time is over. No kubelet lets go of the pod that runs.
    lab.kubectl("delete", "pod", second, "-n", NAMESPACE, "--force", "--grace-period=0")
    call = module.start("proof_pod", **{**ASKED, "node": "silent", "timeout": 4})
    third = report(rejected)
    found = module.result(call)
    assert not found.get("failed"), found
    assert found["no_room"] == f"OutOfmemory: {message}"
    assert found["pod"] == third
    assert found["container_id"] == ""
    assert found["in_service"] is True
