"""build_drain on the lab's API server, checked with kubectl and the audit log."""

from __future__ import annotations

import json
import re
import time
import typing as t
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..helpers import Writes, granted, wait_until, watches_of_pods

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

ANNOTATION = "kata.screwdriver.cd/cordoned"
NODES = ("build-1", "build-2", "build-3")
pytestmark = pytest.mark.usefixtures("namespace")
NAMESPACE = "drain"
# kwok ends pods of tier=builds by itself; those of this tier run until a test ends them.
ENDLESS = "tier=endless-builds"
FOREIGN = "It has a foreign cordon, which this module does not remove."


class Drain:
    def __init__(self, lab: Lab, module: ModuleRunner, writes: Writes) -> None:
        self.lab, self.module, self.writes = lab, module, writes
        self.idle_watches = watches_of_pods(lab)

    def parameters(self, *nodes: str, **parameters: t.Any) -> dict[str, t.Any]:
        return {"nodes": list(nodes), "namespace": NAMESPACE, "build_selector": ENDLESS, "timeout": 0, **parameters}

    def __call__(self, *nodes: str, **parameters: t.Any) -> dict[str, t.Any]:
        return self.module("build_drain", **self.parameters(*nodes, **parameters))

    def done(self, *nodes: str, **parameters: t.Any) -> dict[str, t.Any]:
        result = self(*nodes, **parameters)
        assert not result.get("failed"), result["msg"]
        return result

    def build(self, name: str, node: str, tier: str = "endless-builds", **spec: t.Any) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"tier": tier, "test": "drain"}},
            "spec": {"nodeName": node, "restartPolicy": "Never", "containers": [{"name": "build", "image": "node:22"}], **spec},
        }
        self.lab.kubectl("create", "-f", "-", stdin=json.dumps(body))
        self.lab.kubectl("wait", f"pod/{name}", "-n", NAMESPACE, "--for=jsonpath={.status.phase}=Running", "--timeout=60s")

    def end(self, *names: str) -> None:
        """Ends builds as their kubelet reports it."""
        for name in names:
            patch = json.dumps({"status": {"phase": "Succeeded"}})
            self.lab.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)

    def phases(self) -> dict[str, str]:
        items = json.loads(self.lab.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
        return {item["metadata"]["name"]: item["status"]["phase"] for item in items if "deletionTimestamp" not in item["metadata"]}

    def node(self, name: str) -> tuple[bool, dict[str, str] | None]:
        """Whether it is cordoned, and the module's annotation."""
        body = json.loads(self.lab.kubectl("get", "node", name, "-o", "json"))
        annotation = body["metadata"].get("annotations", {}).get(ANNOTATION)
        return body["spec"].get("unschedulable", False), json.loads(annotation) if annotation else None

    def own_writes(self) -> list[tuple[str, str]]:
        """(verb, object) of everything that the administrator's credentials wrote since the last call."""
        found = []
        for event in self.writes():
            if event["user"]["username"] == "admin":
                of = event["objectRef"]
                found.append((event["verb"], "/".join(filter(None, [of["resource"], of["name"], of.get("subresource")]))))
        return found

    def wait_until_cordoned(self, *names: str) -> None:
        wait_until(lambda: all(self.node(name)[0] for name in names), f"{', '.join(names)} cordoned")

    def wait_until_watched(self) -> None:
        """Until the API server has one watch more on the pods of a namespace than before the module."""
        wait_until(lambda: watches_of_pods(self.lab) > self.idle_watches, "a watch of the pods")


@pytest.fixture
def drain(lab: Lab, module: ModuleRunner, writes: Writes) -> t.Iterator[Drain]:
    drain = Drain(lab, module, writes)
    yield drain
    lab.kubectl("delete", "pods,poddisruptionbudgets", "-n", NAMESPACE, "--all", "--wait", "--timeout=60s")
    lab.kubectl("annotate", "nodes", *NODES, f"{ANNOTATION}-")
    lab.kubectl("uncordon", *NODES)


def test_builds_are_left_to_end(drain: Drain) -> None:
    drain.build("mine", "build-1")
    drain.build("elsewhere", "build-2")
    drain.build("no-build", "build-1", tier="service")
    drain.own_writes()
    process = drain.module.start("build_drain", **drain.parameters("build-1", timeout=120, reason="Kata is installed", holder="ada@ops-1"))
    drain.wait_until_cordoned("build-1")
    drain.wait_until_watched()
    assert drain.node("build-1") == (True, {"by": "ada@ops-1", "reason": "Kata is installed"})
    assert process.poll() is None
    assert drain.own_writes() == [("patch", "nodes/build-1")]
    drain.end("mine")
    done = drain.module.result(process)
    assert done["nodes"] == [{"name": "build-1", "changed": True, "cordoned": True, "builds": 0, "note": ""}]
    assert done["changed"] is True
    assert done["builds"] == []
    assert done.get("failed") is None
    assert drain.phases() == {"mine": "Succeeded", "elsewhere": "Running", "no-build": "Running"}
    assert drain.own_writes() == [("patch", "pods/mine/status")]

    again = drain.done("build-1", reason="Kata is installed", holder="bob@ops-2")
    assert again["changed"] is False
    assert again["nodes"][0]["changed"] is False
    assert again["diff"] == {"before": {}, "after": {}}
    assert drain.done("build-1")["changed"] is False
    assert drain.own_writes() == []
    other = drain.done("build-1", reason="The disk is changed", holder="bob@ops-2")
    assert other["changed"] is True
    assert drain.node("build-1") == (True, {"by": "ada@ops-1", "reason": "The disk is changed"})
    drain.own_writes()

    back = drain.done("build-1", state="uncordoned")
    assert back["nodes"] == [{"name": "build-1", "changed": True, "cordoned": False, "builds": 0, "note": ""}]
    assert drain.node("build-1") == (False, None)
    assert drain.own_writes() == [("patch", "nodes/build-1")]
    assert drain.done("build-1", state="uncordoned")["changed"] is False
    assert drain.own_writes() == []


def test_builds_of_any_namespace_that_kwok_ends(drain: Drain) -> None:
    """With the defaults of a user: the selector of Screwdriver's builds, and no namespace."""
    drain.build("short-1", "build-1", tier="builds")
    drain.build("short-2", "build-1", tier="builds")
    done = drain.module("build_drain", nodes=["build-1"], timeout=120)
    assert done.get("failed") is None
    assert done["builds"] == []
    assert drain.phases() == {"short-1": "Succeeded", "short-2": "Succeeded"}


def test_two_nodes_and_the_deadline(drain: Drain) -> None:
    drain.build("one", "build-1")
    drain.build("two", "build-2")
    drain.own_writes()
    late = drain("build-1", "build-2", timeout=1)
    assert late["failed"] is True
    assert re.sub(r"\(\d+ s\)", "(N s)", late["msg"]) == (
        "2 builds still run on build-1 and build-2 after 1 s: drain/one on build-1 (N s) and drain/two on build-2 (N s)."
        " The nodes stay cordoned; run again, raise timeout, or set force."
    )
    assert [(node["name"], node["changed"], node["cordoned"], node["builds"]) for node in late["nodes"]] == [
        ("build-1", True, True, 1),
        ("build-2", True, True, 1),
    ]
    assert [{**build, "age_seconds": 0} for build in late["builds"]] == [
        {"name": "one", "namespace": "drain", "node": "build-1", "age_seconds": 0, "phase": "Running"},
        {"name": "two", "namespace": "drain", "node": "build-2", "age_seconds": 0, "phase": "Running"},
    ]
    assert drain.node("build-1")[0] is True
    assert drain.node("build-2")[0] is True
    assert drain.node("build-3")[0] is False
    drain.end("one")
    later = drain("build-1", "build-2", timeout=0)
    assert re.sub(r"\(\d+ s\)", "(N s)", later["msg"]) == (
        "1 build still runs on build-2 after 0 s: drain/two (N s). The nodes stay cordoned; run again, raise timeout, or set force."
    )
    assert later["changed"] is False
    drain.end("two")
    drain.done("build-1", "build-2")
    assert drain.phases() == {"one": "Succeeded", "two": "Succeeded"}
    assert sorted(drain.own_writes()) == [
        ("patch", "nodes/build-1"),
        ("patch", "nodes/build-2"),
        ("patch", "pods/one/status"),
        ("patch", "pods/two/status"),
    ]
    drain.done("build-1", "build-2", state="uncordoned")
    assert [drain.node(name) for name in NODES] == [(False, None)] * 3


def test_an_interval_reports_the_builds_that_are_left(drain: Drain) -> None:
    drain.build("mine", "build-1")
    drain.own_writes()
    first = drain.done("build-1", interval=0)
    assert first["changed"] is True
    assert first["drained"] is False
    assert [build["name"] for build in first["builds"]] == ["mine"]
    again = drain.done("build-1", interval=1, force=True)
    assert again["changed"] is False
    assert again["drained"] is False
    assert drain.phases() == {"mine": "Running"}
    late = drain("build-1", timeout=1)
    assert late["failed"] is True
    assert late["drained"] is False
    drain.end("mine")
    assert drain.done("build-1", interval=60)["drained"] is True
    assert drain.own_writes() == [("patch", "nodes/build-1"), ("patch", "pods/mine/status")]


def test_a_node_that_vanishes_is_not_a_failure(drain: Drain) -> None:
    """Many nodes are written a few at a time, so the last one goes while the first ones are written."""
    names = [f"drain-{number}" for number in range(60)]
    nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"test": "drain"}}} for name in names]
    drain.lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
    try:
        process = drain.module.start("build_drain", **drain.parameters(*names))
        drain.wait_until_cordoned(names[0])
        drain.lab.kubectl("delete", "node", names[-1])
        done = drain.module.result(process)
        assert not done.get("failed"), done["msg"]
        assert done["drained"] is True
    finally:
        drain.lab.kubectl("delete", "nodes", "-l", "test=drain")


PERMISSIONS = [
    ("get", "nodes", ""),
    ("patch", "nodes", ""),
    ("list", "pods", NAMESPACE),
    ("watch", "pods", NAMESPACE),
    ("create", "pods/eviction", NAMESPACE),
]


def test_permissions(drain: Drain) -> None:
    drain.build("mine", "build-1")
    for one in PERMISSIONS:
        with granted(drain.lab, [other for other in PERMISSIONS if other != one]) as limited:
            found = limited("build_drain", **drain.parameters("build-1", timeout=1, force=True))
            assert found["failed"] is True
            assert "not allowed (403). Grant the permission or use other credentials: " in found["msg"]
            assert f'cannot {one[0]} resource "{one[1]}"' in found["msg"]
            assert drain.phases() == {"mine": "Running"}
    with granted(drain.lab, PERMISSIONS) as limited:
        done = limited("build_drain", **drain.parameters("build-1", timeout=1, force=True))
        assert done.get("failed") is None
        assert done["drained"] is True


def test_an_administrators_cordon_survives(drain: Drain) -> None:
    drain.lab.kubectl("cordon", "build-1")
    drain.build("mine", "build-1")
    drain.own_writes()
    late = drain("build-1", reason="Kata is installed")
    assert late["msg"].startswith("1 build still runs on build-1 after 0 s: drain/mine (")
    drain.end("mine")
    drained = drain.done("build-1", "build-2", reason="Kata is installed")
    assert [(node["changed"], node["cordoned"], node["note"]) for node in drained["nodes"]] == [(False, True, FOREIGN), (True, True, "")]
    back = drain.done("build-1", "build-2", state="uncordoned")
    assert [(node["changed"], node["cordoned"], node["note"]) for node in back["nodes"]] == [(False, True, FOREIGN), (True, False, "")]
    assert drain.node("build-1") == (True, None)
    assert drain.node("build-2") == (False, None)
    assert [item for item in drain.own_writes() if "build-1" in item[1]] == []


def test_force_evicts_builds_alone(drain: Drain) -> None:
    drain.build("mine", "build-1")
    drain.build("elsewhere", "build-2")
    drain.build("service", "build-1", tier="service")
    daemon = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent", "tier": "endless-builds"}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": "build-1"},
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "agent", "image": "agent"}],
                },
            },
        },
    }
    drain.lab.kubectl("create", "-f", "-", stdin=json.dumps(daemon))
    drain.lab.kubectl("rollout", "status", "daemonset/agent", "-n", NAMESPACE, "--timeout=60s")
    try:
        assert len(drain.phases()) == 4
        drain.own_writes()
        done = drain.done("build-1", force=True, timeout=1)
        assert done["builds"] == []
        assert done["nodes"][0]["builds"] == 0
        assert drain.own_writes() == [("patch", "nodes/build-1"), ("create", "pods/mine/eviction")]
        left = drain.phases()
        assert {name.partition("-")[0] for name in left} == {"elsewhere", "service", "agent"}
    finally:
        drain.lab.kubectl("delete", "daemonset", "agent", "-n", NAMESPACE)


def test_an_eviction_that_a_budget_forbids(drain: Drain) -> None:
    drain.build("mine", "build-1")
    spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"test": "drain"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "all", "namespace": NAMESPACE}, "spec": spec}
    drain.lab.kubectl("create", "-f", "-", stdin=json.dumps(budget))
    refused = drain("build-1", force=True)
    assert re.sub(r"\(\d+ s\)", "(N s)", refused["msg"]).startswith(
        "1 build still runs on build-1 after 0 s: drain/mine (N s)."
        " Cannot evict Pod drain/mine: Cannot evict pod as it would violate the pod's disruption budget."
    )
    assert refused["msg"].endswith(". The node stays cordoned; run again or raise timeout.")
    assert drain.phases() == {"mine": "Running"}


def test_check_mode_changes_nothing(drain: Drain) -> None:
    drain.build("mine", "build-1")
    drain.own_writes()
    tried = drain.done("build-1", "build-2", check=True, force=True, timeout=600, reason="Kata is installed", holder="ada@ops-1")
    assert [(node["changed"], node["cordoned"], node["builds"]) for node in tried["nodes"]] == [(True, True, 1), (True, True, 0)]
    assert [build["name"] for build in tried["builds"]] == ["mine"]
    assert tried["diff"]["before"]["build-1"] == {"unschedulable": False, "annotations": {}}
    note = '{"by": "ada@ops-1", "reason": "Kata is installed"}'
    assert tried["diff"]["after"]["build-1"] == {"unschedulable": True, "annotations": {ANNOTATION: note}}
    assert [drain.node(name) for name in NODES] == [(False, None)] * 3
    assert drain.phases() == {"mine": "Running"}
    assert drain.own_writes() == []
    drain.end("mine")
    real = drain.done("build-1", "build-2", reason="Kata is installed", holder="ada@ops-1")
    assert real["diff"] == tried["diff"]
    drain.own_writes()
    tried = drain.done("build-1", check=True, state="uncordoned")
    assert tried["changed"] is True
    assert tried["nodes"][0]["cordoned"] is False
    assert drain.node("build-1")[0] is True
    assert drain.own_writes() == []


def test_killed_while_it_waits(drain: Drain) -> None:
    drain.build("mine", "build-1")
    drain.own_writes()
    process = drain.module.start("build_drain", **drain.parameters("build-1", timeout=600, reason="Kata is installed"))
    drain.wait_until_cordoned("build-1")
    drain.wait_until_watched()
    process.kill()
    process.communicate()
    assert drain.phases() == {"mine": "Running"}
    assert drain.own_writes() == [("patch", "nodes/build-1")]
    drain.end("mine")
    again = drain.done("build-1", timeout=600, reason="Kata is installed")
    assert again["changed"] is False
    assert drain.own_writes() == [("patch", "pods/mine/status")]
    drain.done("build-1", state="uncordoned")
    assert drain.node("build-1") == (False, None)


def test_an_api_server_that_is_killed_and_comes_back(drain: Drain) -> None:
    drain.build("mine", "build-1")
    process = drain.module.start("build_drain", **drain.parameters("build-1", timeout=600))
    drain.wait_until_cordoned("build-1")
    drain.wait_until_watched()
    drain.lab.restart_api_server()
    assert process.poll() is None
    drain.end("mine")
    done = drain.module.result(process)
    assert done.get("failed") is None
    assert done["builds"] == []


def test_a_build_that_lands_while_others_end_is_waited_for(drain: Drain) -> None:
    drain.build("first", "build-1")
    process = drain.module.start("build_drain", **drain.parameters("build-1", timeout=120))
    drain.wait_until_cordoned("build-1")
    drain.wait_until_watched()
    drain.build("second", "build-1")
    drain.end("first")
    time.sleep(1)
    assert process.poll() is None
    drain.end("second")
    assert drain.module.result(process)["builds"] == []


def test_refused(drain: Drain, module_as: t.Any, tmp_path: Path) -> None:
    drain.own_writes()
    assert drain("build-1", "nowhere")["msg"] == "nowhere is not a node of this cluster; correct nodes. Nothing was changed."
    assert drain("a", "b", state="uncordoned")["msg"] == "a and b are not nodes of this cluster; correct nodes. Nothing was changed."
    assert drain("build-1/status")["msg"] == "build-1/status is not a node of this cluster; correct nodes. Nothing was changed."
    assert drain()["msg"] == "nodes is empty; name at least one node."
    assert drain("build-1", "")["msg"] == "nodes has an empty name; name each node."
    assert drain("build-1", timeout=-1)["msg"] == "timeout is -1; set it to seconds, or to 0 to not wait."
    assert drain("build-1", interval=-1)["msg"] == "interval is -1; set it to seconds, or to 0 to not wait."
    assert drain("build-1", build_selector=" ")["msg"] == (
        "build_selector is empty, which would match every pod; set it to the label selector of build pods, such as tier=builds."
    )
    assert drain("build-1", build_selector="not a selector")["msg"].startswith("Cannot list Pod: ")
    assert drain("build-1", namespace="nowhere")["msg"] == (
        "Namespace nowhere does not exist; set namespace to the one that builds run in. Nothing was changed."
    )
    limited = module_as(drain.lab.directory / "limited.kubeconfig")("build_drain", **drain.parameters("build-1"))
    assert limited["msg"].startswith("Cannot read Node build-1: not allowed (403). Grant the permission or use other credentials: nodes")
    expired = module_as(drain.lab.write_kubeconfig(tmp_path / "expired", "a-token-of-yesterday"))(
        "build_drain", **drain.parameters("build-1")
    )
    assert expired["msg"] == (
        "Cannot read Node build-1: the API server does not accept the credentials (401). They are wrong or have expired: "
        "renew the kubeconfig or token."
    )
    assert drain.own_writes() == []
    assert drain.node("build-1") == (False, None)
