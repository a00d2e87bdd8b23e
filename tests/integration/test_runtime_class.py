"""runtime_class on the lab's API server, checked with kubectl."""

from __future__ import annotations

import json
import typing as t

import pytest

from lab.cluster.lab import Lab

from ..helpers import Writes, granted

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

ASKED: dict[str, t.Any] = {
    "name": "test-kata",
    "handler": "kata",
    "overhead": {"cpu": "250m", "memory": "160Mi"},
    "node_selector": {"dedicated": "screwdriver-kata", "ready": "true"},
    "tolerations": [{"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"}],
}
REFUSED: list[tuple[dict[str, t.Any], str]] = [
    ({"name": ""}, "name is empty; give the name of the RuntimeClass, such as kata."),
    ({"handler": ""}, "handler is empty; give the name of containerd's runtime handler, such as kata."),
    ({"node_selector": {"ready": None}}, 'node_selector: ready is null; give it a value, or "" for none.'),
    ({"overhead": {"cpu": True}}, "overhead: True is not a valid quantity of cpu; use for example 250m, 2 or 160Mi."),
    (
        {"tolerations": [{"key": "a", "value": "x"}, {"key": "a", "value": "x"}]},
        "tolerations: the toleration of a is given twice; leave one out.",
    ),
    (
        {"tolerations": [{"value": "x"}]},
        "tolerations: a toleration without a key tolerates every taint; set its operator to Exists, or give a key.",
    ),
]


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> t.Iterator[None]:
    yield
    lab.kubectl("delete", "pod", "user-of-kata", "-n", "sd-builds", "--ignore-not-found", "--force", "--grace-period=0")
    lab.kubectl("delete", "runtimeclass", "test-kata", "--ignore-not-found")


def read_class(lab: Lab) -> dict[str, t.Any]:
    found = json.loads(lab.kubectl("get", "runtimeclass", "test-kata", "-o", "json"))
    return {key: found[key] for key in ("handler", "overhead", "scheduling") if key in found}


def use(lab: Lab) -> None:
    spec = {"runtimeClassName": "test-kata", "containers": [{"name": "build", "image": "node:22"}]}
    lab.kubectl(
        "create",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user-of-kata", "namespace": "sd-builds"}, "spec": spec}),
    )


def own(writes: Writes) -> list[str]:
    return [event["verb"] for event in writes() if event["objectRef"]["resource"] == "runtimeclasses"]


def test_create_check_and_second_run(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    writes()
    tried = module("runtime_class", check=True, **ASKED)
    assert tried["changed"] is True
    assert own(writes) == []
    done = module("runtime_class", **ASKED)
    assert done["changed"] is True
    assert own(writes) == ["create"]
    assert done["diff"]["before"] == {}
    assert read_class(lab) == {
        "handler": "kata",
        "overhead": {"podFixed": {"cpu": "250m", "memory": "160Mi"}},
        "scheduling": {"nodeSelector": ASKED["node_selector"], "tolerations": ASKED["tolerations"]},
    }
    again = module(
        "runtime_class",
        **{**ASKED, "overhead": {"cpu": "0.25", "memory": "163840Ki"}, "tolerations": [{**ASKED["tolerations"][0], "operator": "Equal"}]},
    )
    assert again["changed"] is False
    assert own(writes) == []
    left_out = module("runtime_class", name="test-kata", handler="kata")
    assert left_out["changed"] is False
    assert own(writes) == []


def test_stale_keys_go_and_foreign_ones_stay(lab: Lab, module: ModuleRunner) -> None:
    module("runtime_class", **ASKED)
    lab.kubectl("label", "runtimeclass", "test-kata", "owner=ops")
    done = module("runtime_class", **{**ASKED, "overhead": {"memory": "1Gi"}, "node_selector": {"dedicated": "other"}})
    assert done["changed"] is True
    assert read_class(lab)["overhead"] == {"podFixed": {"memory": "1Gi"}}
    assert read_class(lab)["scheduling"]["nodeSelector"] == {"dedicated": "other"}
    module("runtime_class", **{**ASKED, "overhead": {}, "node_selector": {}, "tolerations": []})
    assert "overhead" not in read_class(lab)
    assert not any((read_class(lab).get("scheduling") or {}).values())
    assert module("runtime_class", **{**ASKED, "overhead": {}, "node_selector": {}, "tolerations": []})["changed"] is False
    assert "ops" in lab.kubectl("get", "runtimeclass", "test-kata", "-o", "jsonpath={.metadata.labels.owner}")


def test_another_handler_takes_a_recreation(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    module("runtime_class", **ASKED)
    lab.kubectl("label", "runtimeclass", "test-kata", "owner=ops")
    writes()
    other: dict[str, t.Any] = {"name": "test-kata", "handler": "kata-clh"}
    assert module("runtime_class", **other)["msg"] == (
        "RuntimeClass test-kata has handler kata, which cannot be changed to kata-clh; "
        "set recreate to handler_changed while no build uses it."
    )
    tried = module("runtime_class", check=True, recreate="handler_changed", **other)
    assert tried["changed"] is True
    assert own(writes) == []
    done = module("runtime_class", recreate="handler_changed", **other)
    assert done["changed"] is True
    assert own(writes) == ["delete", "create"]
    assert read_class(lab)["handler"] == "kata-clh"
    assert read_class(lab)["overhead"] == {"podFixed": ASKED["overhead"]}
    assert lab.kubectl("get", "runtimeclass", "test-kata", "-o", "jsonpath={.metadata.labels.owner}") == "ops"


def test_it_is_not_taken_from_under_pods(lab: Lab, module: ModuleRunner) -> None:
    module("runtime_class", **ASKED)
    use(lab)
    message = "RuntimeClass test-kata cannot be {} while pods use it (sd-builds/user-of-kata); wait until they end, or set force."
    assert module("runtime_class", name="test-kata", state="absent")["msg"] == message.format("deleted")
    assert module("runtime_class", name="test-kata", handler="other", recreate="handler_changed")["msg"] == message.format("recreated")
    assert read_class(lab)["handler"] == "kata"
    assert module("runtime_class", name="test-kata", state="absent", force=True)["changed"] is True
    assert lab.kubectl("get", "runtimeclass", "test-kata", "--ignore-not-found") == ""
    assert module("runtime_class", name="test-kata", state="absent")["changed"] is False


def test_refused(lab: Lab, module: ModuleRunner, module_as: t.Any) -> None:
    assert module("runtime_class", name="test-kata")["msg"] == "state is present but all of the following are missing: handler"
    limited = module_as(lab.directory / "limited.kubeconfig")("runtime_class", **ASKED)
    assert limited["msg"].startswith(
        "Cannot read RuntimeClass test-kata: not allowed (403). Grant the permission or use other credentials: runtimeclasses.node.k8s.io"
    )
    wrong = module("runtime_class", **{**ASKED, "handler": "Kata_1"})
    assert wrong["msg"].startswith("Cannot create RuntimeClass test-kata: RuntimeClass.node.k8s.io")
    odd = module("runtime_class", **{**ASKED, "overhead": {"memory": "much"}})
    assert odd["msg"] == "overhead: 'much' is not a valid quantity of memory; use for example 250m, 2 or 160Mi."
    for given, message in REFUSED:
        assert module("runtime_class", **{**ASKED, **given})["msg"] == message
    assert lab.kubectl("get", "runtimeclass", "test-kata", "--ignore-not-found") == ""


def test_check_mode_deletes_nothing(lab: Lab, module: ModuleRunner) -> None:
    module("runtime_class", **ASKED)
    uid = lab.kubectl("get", "runtimeclass", "test-kata", "-o", "jsonpath={.metadata.uid}")
    assert module("runtime_class", check=True, name="test-kata", state="absent")["changed"] is True
    assert module("runtime_class", check=True, name="test-kata", handler="other", recreate="handler_changed")["changed"] is True
    assert lab.kubectl("get", "runtimeclass", "test-kata", "-o", "jsonpath={.metadata.uid}") == uid


def test_booleans_are_as_in_a_manifest(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    asked = {**ASKED, "node_selector": {"ready": True}, "tolerations": [{"key": "ready", "value": False, "effect": "NoSchedule"}]}
    assert module("runtime_class", **asked)["changed"] is True
    assert read_class(lab)["scheduling"] == {
        "nodeSelector": {"ready": "true"},
        "tolerations": [{"key": "ready", "value": "false", "effect": "NoSchedule"}],
    }
    own(writes)
    assert module("runtime_class", **asked)["changed"] is False
    assert own(writes) == []


CLASSES = "runtimeclasses.node.k8s.io"
CALLS: dict[str, tuple[dict[str, t.Any], list[tuple[str, str, str]]]] = {
    "create": ({}, [("get", CLASSES, ""), ("create", CLASSES, "")]),
    "change": ({"overhead": {"cpu": "1"}}, [("get", CLASSES, ""), ("patch", CLASSES, "")]),
    "recreate": (
        {"handler": "other", "recreate": "handler_changed"},
        [("get", CLASSES, ""), ("list", "pods", ""), ("delete", CLASSES, ""), ("create", CLASSES, "")],
    ),
    "delete": ({"state": "absent"}, [("get", CLASSES, ""), ("list", "pods", ""), ("delete", CLASSES, "")]),
}


@pytest.mark.parametrize("call", CALLS)
def test_permissions(lab: Lab, module: ModuleRunner, call: str) -> None:
    given, permissions = CALLS[call]
    if call != "create":
        module("runtime_class", **ASKED)
    for one in permissions:
        with granted(lab, [other for other in permissions if other != one]) as limited:
            found = limited("runtime_class", **{**ASKED, **given})
            assert found["failed"] is True
            assert "not allowed (403). Grant the permission or use other credentials: " in found["msg"]
            assert f'cannot {one[0]} resource "{one[1].partition(".")[0]}"' in found["msg"]
            # Whatever is refused is refused before anything is deleted.
            assert bool(lab.kubectl("get", "runtimeclass", "test-kata", "--ignore-not-found")) is (call != "create")
    with granted(lab, permissions) as limited:
        assert limited("runtime_class", **{**ASKED, **given})["changed"] is True


@pytest.mark.parametrize("check", [True, False])
def test_a_recreation_that_the_api_server_would_refuse_deletes_nothing(lab: Lab, module: ModuleRunner, writes: Writes, check: bool) -> None:
    module("runtime_class", **ASKED)
    writes()
    refused = module("runtime_class", check=check, **{**ASKED, "handler": "Kata_1", "recreate": "handler_changed"})
    assert refused["msg"].startswith(
        'Cannot create RuntimeClass test-kata: RuntimeClass.node.k8s.io "test-kata" is invalid: handler: Invalid value'
    )
    assert read_class(lab)["handler"] == "kata"
    assert own(writes) == []
