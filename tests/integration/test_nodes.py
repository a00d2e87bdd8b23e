"""The cluster's side of making a node: taken out, kept out, put back. Nodes are looked at with kubectl, writes in the audit log."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t

import pytest

from lab.cluster import Lab

Writes = t.Callable[[], list[dict[str, t.Any]]]
NODE = "build-3"
NAMESPACE = "nodes"
# kwok ends pods of tier=builds by itself; those of this tier run until a test ends them.
ENDLESS = "tier=endless-builds"
READY = "kata.screwdriver.cd/ready"
CORDONED = "kata.screwdriver.cd/cordoned"
PROVEN = "kata.screwdriver.cd/proven"


def role(entry: str, **variables: t.Any) -> dict[str, t.Any]:
    return {"ansible.builtin.import_role": {"name": "screwdriver.kata.cluster", "tasks_from": entry}, "vars": variables}


class Nodes:
    """Plays the entry points for a host of the name of one of kwok's nodes."""

    def __init__(self, lab: Lab, playbook: t.Callable[..., subprocess.CompletedProcess[str]], writes: Writes) -> None:
        self.lab, self.playbook, self.writes = lab, playbook, writes

    def __call__(self, *tasks: dict[str, t.Any], check: bool = False, host: str = NODE, **variables: t.Any) -> subprocess.CompletedProcess[str]:
        path = self.lab.directory / "nodes.yml"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]))
        defaults = {"ansible_connection": "local", "cluster_build_selector": ENDLESS, "cluster_join_timeout": 5}
        return self.playbook(path, "-i", f"{host},", *(["--check"] if check else []), **{**defaults, **variables})

    def done(self, *tasks: dict[str, t.Any], **variables: t.Any) -> str:
        done = self(*tasks, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def node(self) -> dict[str, t.Any]:
        return json.loads(self.lab.kubectl("get", "node", NODE, "-o", "json"))

    def mark(self, key: str) -> str | None:
        """A label or an annotation of the node."""
        meta = self.node()["metadata"]
        return {**meta["labels"], **meta.get("annotations", {})}.get(key)

    def reason(self) -> str:
        return json.loads(self.mark(CORDONED) or "{}").get("reason", "")

    def cordoned(self) -> bool:
        return self.node()["spec"].get("unschedulable", False)

    def own_writes(self) -> list[str]:
        return [event["objectRef"]["resource"] + "/" + event["objectRef"]["name"] for event in self.writes() if event["user"]["username"] == "admin"]

    def build(self, name: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"tier": "endless-builds"}},
            "spec": {"nodeName": NODE, "restartPolicy": "Never", "containers": [{"name": "build", "image": "node:22"}]},
        }
        self.lab.kubectl("create", "-f", "-", stdin=json.dumps(body))
        self.lab.kubectl("wait", f"pod/{name}", "-n", NAMESPACE, "--for=jsonpath={.status.phase}=Running", "--timeout=60s")

    def report_handlers(self, *names: str) -> None:
        """As a kubelet tells what its containerd knows."""
        status = {"status": {"runtimeHandlers": [{"name": name} for name in ("", "runc", *names)]}}
        self.lab.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@pytest.fixture(scope="module", autouse=True)
def namespace(lab: Lab) -> t.Iterator[None]:
    lab.kubectl("create", "namespace", NAMESPACE)
    lab.kubectl("wait", "--for=create", "serviceaccount/default", "-n", NAMESPACE, "--timeout=120s")
    yield
    lab.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def nodes(lab: Lab, playbook: t.Any, writes: Writes) -> t.Iterator[Nodes]:
    nodes = Nodes(lab, playbook, writes)
    before = nodes.node()
    nodes.report_handlers("kata")
    yield nodes
    lab.kubectl("delete", "pods", "-n", NAMESPACE, "--all", "--wait", "--timeout=60s")
    lab.kubectl("delete", "node", NODE)
    kept = {"metadata": {"name": NODE, "labels": before["metadata"]["labels"]}, "spec": {"taints": before["spec"].get("taints", [])}}
    lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", **kept, "status": before["status"]}))
    lab.kubectl("wait", f"node/{NODE}", "--for=condition=Ready", "--timeout=60s")


def test_out_and_back_again(nodes: Nodes) -> None:
    nodes.own_writes()
    tried = nodes.done(role("take_out"), role("put_back"), check=True)
    assert re.search(r"changed=[1-9]", tried)
    assert (nodes.own_writes(), nodes.cordoned()) == ([], False)
    nodes.done(role("take_out"))
    assert (nodes.cordoned(), nodes.reason(), nodes.mark(READY)) == (True, "Kata is being installed.", None)
    nodes.done(role("put_back"))
    node = nodes.node()
    assert (nodes.cordoned(), nodes.mark(CORDONED), nodes.mark(READY)) == (False, None, "true")
    assert node["metadata"]["labels"]["dedicated"] == "screwdriver-kata"
    assert {"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert re.fullmatch("[0-9a-f]{64}", nodes.mark(PROVEN) or "")


def test_a_node_that_is_proven_with_what_is_asked_is_left_alone(nodes: Nodes) -> None:
    both = (role("take_out"), role("put_back"))
    nodes.done(*both, kata_version="4.1.0")
    digest = nodes.mark(PROVEN)
    nodes.build("runs")
    nodes.own_writes()
    again = nodes.done(*both, kata_version="4.1.0", kata_cache="/elsewhere")
    assert "changed=0" in again
    assert (nodes.own_writes(), nodes.mark(PROVEN)) == ([], digest)
    nodes.lab.kubectl("delete", "pod", "runs", "-n", NAMESPACE, "--wait", "--timeout=60s")
    nodes.own_writes()
    assert "changed=0" not in nodes.done(*both, kata_version="3.32.0")
    assert (nodes.own_writes()[0], nodes.mark(PROVEN) != digest) == (f"nodes/{NODE}", True)
    # Whoever takes the label away wants it proven anew.
    nodes.lab.kubectl("label", "node", NODE, f"{READY}-")
    nodes.done(role("take_out"), kata_version="3.32.0")
    assert nodes.cordoned()


def test_builds_are_waited_for_and_named(nodes: Nodes) -> None:
    nodes.build("long")
    stopped = nodes(role("take_out"), cluster_drain_timeout=3, cluster_drain_report=1)
    assert stopped.returncode != 0
    out = re.sub(r"\d+ min", "N min", " ".join(stopped.stdout.split()))
    assert re.search(rf"1 build still runs on {NODE}: nodes/long \(N min\); waiting for at most \d s more\.", out), out
    assert (
        f"After 3 s 1 build still runs on {NODE}: nodes/long (N min). Nothing was done to the node, and it stays cordoned. Run again to wait on, raise"
        " cluster_drain_timeout, or set cluster_drain_force to lose them."
    ) in out
    assert nodes.cordoned()


def test_a_node_that_failed_stays_out_with_its_reason(nodes: Nodes) -> None:
    nodes.done(role("take_out"), role("put_back"))
    nodes.build("runs")
    failed = nodes(role("keep_out", cluster_reason="The proof failed."))
    assert failed.returncode != 0
    assert f"{NODE} stays out of service, cordoned and with that reason noted on it. Mend it, and run again." in failed.stdout
    assert (nodes.cordoned(), nodes.reason(), nodes.mark(READY)) == (True, "The proof failed.", None)
    assert nodes.lab.kubectl("get", "pod", "runs", "-n", NAMESPACE, "-o", "jsonpath={.status.phase}") == "Running"
