"""node_pool on the lab's API server: many nodes, other writers, an API server that restarts. Nodes are read with kubectl."""

from __future__ import annotations

import json
import signal
import threading
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..helpers import Writes, granted, wait_until

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

MANY = 150
POOL: dict[str, t.Any] = {
    "labels": {"dedicated": "screwdriver-kata"},
    "taints": [{"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"}],
}
REFUSED: list[tuple[dict[str, t.Any], str]] = [
    ({"labels": {"not a label": "x"}}, "labels: 'not a label' is not a valid key; use for example dedicated or kata.screwdriver.cd/ready."),
    ({"labels": {"ready": None}}, 'labels: ready is null; give it a value, or "" for none.'),
    ({"labels": {"version": 1.10}}, "labels: version is 1.1, which is not a string; put the value in quotes."),
    ({"annotations": {"by": ["ada"]}}, "annotations: by is ['ada'], which is not a string; put the value in quotes."),
    ({"taints": [{"key": "a", "value": None}]}, 'taints: the value of a is null; give it a value, or "" for none.'),
    (
        {"taints": [{"key": "a", "value": "x"}, {"key": "a", "value": "y"}]},
        "taints: a is given twice with effect NoSchedule; a node has one taint of a key and effect.",
    ),
    (
        {"labels": {"a": "two words"}},
        "labels: a is 'two words', which is not a valid label value; use up to 63 letters, digits, '-', '_' and '.', with a letter or "
        "digit at both ends.",
    ),
]


def node(name: str, handlers: list[str]) -> dict[str, t.Any]:
    """A node as its kubelet would register it."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"test": "node-pool", "foreign": "kept"}},
        "spec": {"taints": [{"key": "foreign", "effect": "NoExecute"}]},
        "status": {"runtimeHandlers": [{"name": handler} for handler in handlers]},
    }


@contextmanager
def registered(lab: Lab, count: int) -> t.Iterator[None]:
    """pool-1 .. pool-COUNT, of which pool-1 has no handler kata and pool-2 reports none at all."""
    # Those of an interrupted test on a lab that was kept.
    lab.kubectl("delete", "nodes", "-l", "test=node-pool")
    reported = {1: ["", "runc"], 2: []}
    items = [node(f"pool-{number}", reported.get(number, ["", "runc", "kata"])) for number in range(1, count + 1)]
    lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield
    lab.kubectl("delete", "nodes", "-l", "test=node-pool", "--wait=false")


@pytest.fixture
def nodes(lab: Lab) -> t.Iterator[None]:
    with registered(lab, MANY):
        yield


@pytest.fixture
def one_node(lab: Lab) -> t.Iterator[None]:
    with registered(lab, 1):
        yield


def pool_nodes(lab: Lab) -> dict[str, dict[str, t.Any]]:
    items = json.loads(lab.kubectl("get", "nodes", "-l", "test=node-pool", "-o", "json"))["items"]
    return {
        item["metadata"]["name"]: {
            "label": item["metadata"]["labels"].get("dedicated"),
            "foreign": item["metadata"]["labels"].get("foreign"),
            "taints": {
                f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
                for taint in item["spec"].get("taints", [])
                if "kubernetes.io" not in taint["key"]
            },
        }
        for item in items
    }


IN: dict[str, t.Any] = {
    "label": "screwdriver-kata",
    "foreign": "kept",
    "taints": {"foreign=:NoExecute", "dedicated=screwdriver-kata:NoSchedule"},
}
OUT = {"label": None, "foreign": "kept", "taints": {"foreign=:NoExecute"}}


def own(writes: Writes) -> int:
    return len([event for event in writes() if event["objectRef"]["resource"] == "nodes" and event["user"]["username"] == "admin"])


@pytest.mark.usefixtures("nodes")
def test_many_nodes_in_and_out_again(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    asked = {"selector": "test=node-pool", **POOL}
    writes()
    tried = module("node_pool", check=True, **asked)
    assert tried["changed"] is True
    assert len(tried["diff"]["after"]) == MANY
    assert own(writes) == 0
    done = module("node_pool", **asked)
    assert {(item["changed"], item["ready"], item["reason"]) for item in done["nodes"]} == {(True, True, "")}
    assert own(writes) == MANY
    assert list(pool_nodes(lab).values()) == [IN] * MANY
    assert module("node_pool", **asked)["changed"] is False
    assert own(writes) == 0
    lab.kubectl("label", "node", "pool-7", "dedicated=other-pool", "--overwrite")
    gone = module("node_pool", state="absent", **asked)
    assert gone["changed"] is True
    after = pool_nodes(lab)
    assert after.pop("pool-7")["label"] == "other-pool"
    assert list(after.values()) == [OUT] * (MANY - 1)
    own(writes)
    assert module("node_pool", state="absent", **asked)["changed"] is False
    assert own(writes) == 0


@pytest.mark.usefixtures("nodes")
def test_only_nodes_whose_kubelet_reports_the_handler(lab: Lab, module: ModuleRunner) -> None:
    done = module("node_pool", nodes=["pool-1", "pool-2", "pool-3"], require_handler="kata", **POOL)
    assert done["nodes"] == [
        {"name": "pool-1", "changed": False, "ready": False, "reason": "Its kubelet does not report handler kata, only runc."},
        {
            "name": "pool-2",
            "changed": False,
            "ready": False,
            "reason": (
                "Its kubelet reports no handlers, so kata cannot be checked; that requires Kubernetes 1.30 and containerd 2.0 or newer."
            ),
        },
        {"name": "pool-3", "changed": True, "ready": True, "reason": ""},
    ]
    after = pool_nodes(lab)
    assert after["pool-1"] == OUT
    assert after["pool-2"] == OUT
    assert after["pool-3"] == IN
    assert after["pool-4"] == OUT


@pytest.mark.usefixtures("nodes")
def test_other_writers_lose_nothing(lab: Lab, module: ModuleRunner) -> None:
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            lab.kubectl("annotate", "nodes", "-l", "test=node-pool", f"written={number}", "--overwrite")

    other = threading.Thread(target=write)
    other.start()
    try:
        lab.kubectl("taint", "nodes", "-l", "test=node-pool", "theirs=1:NoSchedule")
        done = module("node_pool", selector="test=node-pool", **POOL)
    finally:
        over.set()
        other.join()
    assert done["changed"] is True
    assert list(pool_nodes(lab).values()) == [{**IN, "taints": IN["taints"] | {"theirs=1:NoSchedule"}}] * MANY


@pytest.mark.usefixtures("nodes")
def test_an_api_server_that_is_killed_and_comes_back(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    own(writes)
    process = module.start("node_pool", selector="test=node-pool", concurrency=2, **POOL)
    wait_until(lambda: own(writes), "the first write", interval=0.01)
    lab.restart_api_server()
    done = module.result(process)
    assert not done.get("failed"), done["msg"]
    assert list(pool_nodes(lab).values()) == [IN] * MANY
    own(writes)
    assert module("node_pool", selector="test=node-pool", **POOL)["changed"] is False
    assert own(writes) == 0


@pytest.fixture
def one_at_a_time(lab: Lab) -> t.Iterator[str]:
    """A priority level without a share.

    While the API server serves one patch of a node by user limited, it answers 429 to that user's others.
    """
    name = "test-node-pool"
    user = {"kind": "User", "name": "limited", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    nodes = {"apiGroups": [""], "resources": ["nodes"]}
    flow = {"verbs": ["patch"], "clusterScope": True, **nodes}
    objects: list[tuple[str, str, dict[str, t.Any]]] = [
        ("rbac.authorization.k8s.io/v1", "ClusterRole", {"rules": [{"verbs": ["list", "get", "patch"], **nodes}]}),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", {"subjects": [user], "roleRef": role}),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            {
                "spec": {
                    "type": "Limited",
                    "limited": {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}},
                }
            },
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            {
                "spec": {
                    "priorityLevelConfiguration": {"name": name},
                    "matchingPrecedence": 2,
                    "rules": [{"subjects": [{"kind": "User", "user": {"name": "limited"}}], "resourceRules": [flow]}],
                }
            },
        ),
    ]
    items = [{"apiVersion": version, "kind": kind, "metadata": {"name": name}, **rest} for version, kind, rest in objects]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    lab.kubectl("create", "-f", "-", stdin=manifest)
    yield name
    lab.kubectl("delete", "-f", "-", stdin=manifest)


def metric(lab: Lab, name: str, priority_level: str) -> float | None:
    """The sum over a metric's series of one priority level, as the API server reports it; None where it has none."""
    lines = [line for line in lab.kubectl("get", "--raw", "/metrics").splitlines() if line.startswith(f"{name}{{")]
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if f'priority_level="{priority_level}"' in line]
    return sum(values) if values else None


@pytest.mark.usefixtures("nodes")
def test_an_api_server_that_answers_429(lab: Lab, module_as: t.Any, writes: Writes, one_at_a_time: str) -> None:
    wait_until(lambda: metric(lab, "apiserver_flowcontrol_nominal_limit_seats", one_at_a_time) == 0, "the priority level has no seats")
    writes()
    done = module_as(lab.directory / "limited.kubeconfig")("node_pool", selector="test=node-pool", **POOL)
    assert not done.get("failed"), done["msg"]
    rejected = metric(lab, "apiserver_flowcontrol_rejected_requests_total", one_at_a_time)
    assert rejected is not None
    assert rejected > 0
    assert {(item["changed"], item["ready"], item["reason"]) for item in done["nodes"]} == {(True, True, "")}
    assert list(pool_nodes(lab).values()) == [IN] * MANY
    assert len([event for event in writes() if event["user"]["username"] == "limited"]) == MANY


def test_refused(lab: Lab, module: ModuleRunner, module_as: t.Any, writes: Writes, tmp_path: Path) -> None:
    writes()
    assert (
        module("node_pool", nodes=["build-1", "nowhere"], **POOL)["msg"]
        == "nowhere is not a node of this cluster; correct nodes. Nothing was changed."
    )
    assert (
        module("node_pool", nodes=["a", "b", "c", "d"], **POOL)["msg"]
        == "a, b, c and 1 more are not nodes of this cluster; correct nodes. Nothing was changed."
    )
    assert module("node_pool", **POOL)["msg"] == "one of the following is required: nodes, selector"
    assert module("node_pool", nodes=["build-1"], selector="", **POOL)["msg"] == "parameters are mutually exclusive: nodes|selector"
    assert module("node_pool", nodes=["build-1"], concurrency=0, **POOL)["msg"] == "concurrency is 0; use at least 1."
    limited = module_as(lab.directory / "limited.kubeconfig")("node_pool", selector="", **POOL)
    assert limited["msg"].startswith(
        "Cannot list Node: not allowed (403). Grant the permission or use other credentials: nodes is forbidden"
    )
    expired = module_as(lab.write_kubeconfig(tmp_path / "expired", "a-token-of-yesterday"))("node_pool", selector="", **POOL)
    assert expired["msg"] == (
        "Cannot list Node: the API server does not accept the credentials (401). They are wrong or have expired: "
        "renew the kubeconfig or token."
    )
    assert own(writes) == 0
    assert module("node_pool", nodes=[], **POOL)["msg"] == "nodes is empty; name at least one node, or use selector."
    for given, message in REFUSED:
        assert module("node_pool", nodes=["build-1"], **given)["msg"] == message
    # What only the API server refuses does not become valid when it is sent again.
    huge = module("node_pool", nodes=["build-1"], annotations={"a": "x" * 300_000})
    assert huge["msg"] == (
        '1 of 1 nodes could not be written: build-1. Cannot patch Node build-1: Node "build-1" is invalid: metadata.annotations: Too long: '
        "may not be more than 262144 bytes."
    )
    assert own(writes) == 0


@pytest.mark.usefixtures("one_node")
@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (0, "0"), ("", "")])
def test_a_value_is_as_in_a_manifest(lab: Lab, module: ModuleRunner, writes: Writes, value: t.Any, text: str) -> None:
    asked: dict[str, t.Any] = {
        "nodes": ["pool-1"],
        "labels": {"value": value},
        "annotations": {"value": value},
        "taints": [{"key": "value", "value": value}],
    }
    assert module("node_pool", **asked)["changed"] is True
    found = json.loads(lab.kubectl("get", "node", "pool-1", "-o", "json"))
    taint = next(item for item in found["spec"]["taints"] if item["key"] == "value")
    assert found["metadata"]["labels"]["value"] == text
    assert found["metadata"]["annotations"]["value"] == text
    assert taint.get("value", "") == text
    own(writes)
    assert module("node_pool", **asked)["changed"] is False
    assert own(writes) == 0
    assert module("node_pool", state="absent", **asked)["changed"] is True


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_node_that_vanishes_during_the_call(lab: Lab, module: ModuleRunner, writes: Writes, replaced: bool) -> None:
    """The nodes are written one after the other, so the last one goes while the first ones are written."""
    own(writes)
    last = f"pool-{MANY}"
    process = module.start("node_pool", nodes=[*(f"pool-{number}" for number in range(3, 43)), last], concurrency=1, **POOL)
    wait_until(lambda: own(writes), "the first write", interval=0.01)
    # Halted meanwhile, since kubectl may be the slower one.
    process.send_signal(signal.SIGSTOP)
    lab.kubectl("delete", "node", last)
    if replaced:
        lab.kubectl("create", "-f", "-", stdin=json.dumps(node(last, ["", "runc", "kata"])))
    process.send_signal(signal.SIGCONT)
    done = module.result(process)
    assert not done.get("failed"), done["msg"]
    assert done["nodes"][-1] == {"name": last, "changed": False, "ready": False, "reason": "It was deleted meanwhile."}
    assert {item["ready"] for item in done["nodes"][:-1]} == {True}
    # A new machine of the old name was never verified.
    assert pool_nodes(lab).get(last) == (OUT if replaced else None)


@pytest.mark.usefixtures("one_node")
def test_annotations(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    def noted() -> dict[str, str]:
        return json.loads(lab.kubectl("get", "node", "pool-1", "-o", "jsonpath={.metadata.annotations}") or "{}")

    lab.kubectl("annotate", "node", "pool-1", "foreign=kept")
    asked: dict[str, t.Any] = {"nodes": ["pool-1"], "annotations": {"proven": "abc", "count": 3}}
    own(writes)
    tried = module("node_pool", check=True, **asked)
    assert tried["diff"]["before"]["pool-1"]["annotations"] == {}
    assert tried["diff"]["after"]["pool-1"]["annotations"] == {"proven": "abc", "count": "3"}
    assert own(writes) == 0
    assert module("node_pool", **asked)["changed"] is True
    assert {key: noted().get(key) for key in ("proven", "count", "foreign")} == {"proven": "abc", "count": "3", "foreign": "kept"}
    own(writes)
    assert module("node_pool", **asked)["changed"] is False
    assert own(writes) == 0
    lab.kubectl("annotate", "node", "pool-1", "count=4", "--overwrite")
    assert module("node_pool", state="absent", **asked)["changed"] is True
    assert {key: noted().get(key) for key in ("proven", "count", "foreign")} == {"proven": None, "count": "4", "foreign": "kept"}


PERMISSIONS = [("list", "nodes", ""), ("patch", "nodes", "")]


@pytest.mark.usefixtures("one_node")
def test_permissions(lab: Lab) -> None:
    asked = {"nodes": ["pool-1"], **POOL}
    for one in PERMISSIONS:
        with granted(lab, [other for other in PERMISSIONS if other != one]) as limited:
            found = limited("node_pool", **asked)
            assert found["failed"] is True
            assert "not allowed (403). Grant the permission or use other credentials: " in found["msg"]
            assert f'cannot {one[0]} resource "nodes"' in found["msg"]
            assert "Run again" not in found["msg"]
    with granted(lab, PERMISSIONS) as limited:
        assert limited("node_pool", **asked)["changed"] is True
        assert limited("node_pool", state="absent", **asked)["changed"] is True
