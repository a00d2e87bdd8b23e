"""Role node on kwok's nodes, read back with kubectl; writes are counted in the audit log."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..helpers import Playbook, Writes, default

NODE = "build-3"
pytestmark = pytest.mark.usefixtures("namespace")
NAMESPACE = "nodes"
# kwok ends pods of tier=builds by itself; those of this tier run until a test ends them.
ENDLESS = "tier=endless-builds"
READY = "kata.screwdriver.cd/ready"
# A host named as a node that is this machine.
LOCAL = {"ansible_connection": "local"}
CORDONED = "kata.screwdriver.cd/cordoned"
PROVEN = "kata.screwdriver.cd/proven"


def role(entry: str, **variables: t.Any) -> dict[str, t.Any]:
    return {"ansible.builtin.import_role": {"name": "screwdriver.kata.node", "tasks_from": entry}, "vars": variables}


class Nodes:
    """Runs the entry points for a host named as one of kwok's nodes."""

    def __init__(self, lab: Lab, playbook: Playbook, writes: Writes) -> None:
        self.lab, self.playbook, self.writes = lab, playbook, writes

    def __call__(
        self, *tasks: dict[str, t.Any], check: bool = False, host: str = NODE, **variables: t.Any
    ) -> subprocess.CompletedProcess[str]:
        path = self.lab.directory / "nodes.yml"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]))
        defaults = {**LOCAL, "rollout_build_selector": ENDLESS, "node_join_timeout": 5}
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
        return [
            event["objectRef"]["resource"] + "/" + event["objectRef"]["name"]
            for event in self.writes()
            if event["user"]["username"] == "admin"
        ]

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
        """As a kubelet reports the handlers of its containerd."""
        status = {"status": {"runtimeHandlers": [{"name": name} for name in ("", "runc", *names)]}}
        self.lab.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(status))


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


def test_a_node_is_drained_and_returned_to_service(nodes: Nodes) -> None:
    nodes.own_writes()
    tried = nodes.done(role("drain"), role("return_to_service"), check=True)
    assert re.search(r"changed=[1-9]", tried)
    assert nodes.own_writes() == []
    assert nodes.cordoned() is False
    nodes.done(role("drain"))
    assert nodes.cordoned() is True
    assert nodes.reason() == "Kata is being installed."
    assert nodes.mark(READY) is None
    nodes.done(role("return_to_service"))
    node = nodes.node()
    assert nodes.cordoned() is False
    assert nodes.mark(CORDONED) is None
    assert nodes.mark(READY) == "true"
    assert node["metadata"]["labels"]["dedicated"] == "screwdriver-kata"
    assert {"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert re.fullmatch("[0-9a-f]{64}", nodes.mark(PROVEN) or "")


@pytest.mark.playbooks
def test_a_node_verified_as_asked_is_left_alone(nodes: Nodes) -> None:
    both = (role("drain"), role("return_to_service"))
    nodes.done(*both, kata_version="4.1.0")
    digest = nodes.mark(PROVEN)
    nodes.build("runs")
    nodes.own_writes()
    again = nodes.done(*both, kata_version="4.1.0", kata_cache="/elsewhere")
    assert "changed=0" in again
    assert nodes.own_writes() == []
    assert nodes.mark(PROVEN) == digest
    nodes.lab.kubectl("delete", "pod", "runs", "-n", NAMESPACE, "--wait", "--timeout=60s")
    nodes.own_writes()
    assert "changed=0" not in nodes.done(*both, kata_version="3.32.0")
    assert nodes.own_writes()[0] == f"nodes/{NODE}"
    assert nodes.mark(PROVEN) != digest
    # Whoever removes the label wants it verified again.
    nodes.lab.kubectl("label", "node", NODE, f"{READY}-")
    nodes.done(role("drain"), kata_version="3.32.0")
    assert nodes.cordoned()


@pytest.mark.playbooks
def test_remaining_builds_are_waited_for_and_named(nodes: Nodes) -> None:
    nodes.build("long")
    stopped = nodes(role("drain"), node_drain_timeout=3, node_drain_interval=1)
    assert stopped.returncode != 0
    out = re.sub(r"\d+ min", "N min", " ".join(stopped.stdout.split()))
    assert re.search(rf"1 build still runs on {NODE}: nodes/long \(N min\); waiting for at most \d s more\.", out), out
    assert (
        f"After 3 s 1 build still runs on {NODE}: nodes/long (N min). Nothing was changed on the host, and the node stays cordoned."
        " Run again to keep waiting, raise node_drain_timeout, or set node_drain_force to evict and lose these builds."
    ) in out
    assert nodes.cordoned()


@pytest.mark.playbooks
def test_a_failed_node_is_quarantined_with_its_reason(nodes: Nodes) -> None:
    nodes.done(role("drain"), role("return_to_service"))
    nodes.build("runs")
    failed = nodes(role("quarantine", node_reason="The proof failed."))
    assert failed.returncode != 0
    assert f"{NODE} stays out of service, cordoned and annotated with the reason: fix what failed and run again." in failed.stdout
    assert nodes.cordoned() is True
    assert nodes.reason() == "The proof failed."
    assert nodes.mark(READY) is None
    assert nodes.lab.kubectl("get", "pod", "runs", "-n", NAMESPACE, "-o", "jsonpath={.status.phase}") == "Running"


@pytest.mark.playbooks
def test_a_foreign_cordon_stays(nodes: Nodes) -> None:
    nodes.lab.kubectl("cordon", NODE)
    out = nodes.done(role("drain"), role("return_to_service"))
    assert f"Node {NODE} is verified and stays cordoned. It has a foreign cordon, which this module does not remove." in out
    assert nodes.cordoned() is True
    assert nodes.mark(READY) == "true"


@pytest.mark.playbooks
def test_a_node_that_cannot_take_builds_is_not_returned_to_service(nodes: Nodes) -> None:
    nodes.report_handlers("other")
    nodes.done(role("drain"))
    refused = nodes(role("return_to_service"))
    assert (
        f"The kubelet of {NODE} does not report handler kata, only runc, other: this needs Kubernetes 1.30 and containerd 2.0. Set"
        " cluster_require_handler to false where they are older. Waited for 5 s."
    ) in refused.stdout
    assert refused.returncode != 0
    assert nodes.cordoned() is True
    assert nodes.mark(READY) is None
    nodes.done(role("return_to_service"), cluster_require_handler=False)
    assert nodes.cordoned() is False
    assert nodes.mark(READY) == "true"
    nodes.own_writes()
    nodes.done(role("drain"), host="elsewhere")
    missing = nodes(role("return_to_service"), host="elsewhere")
    assert (
        "Node elsewhere is not in the cluster: start its kubelet, set node_name to its name in the cluster, or set cluster_managed to false"
        " for a host outside of a cluster. Waited for 5 s."
    ) in missing.stdout
    # In check mode it has not been made yet.
    assert "Node elsewhere would be labelled once it is in the cluster." in nodes.done(
        role("return_to_service"), host="elsewhere", check=True
    )
    assert nodes.own_writes() == []


def test_hosts_outside_of_a_cluster_call_no_api_server(nodes: Nodes) -> None:
    entries = [role(entry) for entry in ("drain", "return_to_service", "label", "report", "release")]
    assert "failed=0" in nodes.done(*entries, cluster_managed=False, kubeconfig=Path("/nonexistent"), node_hosts=[NODE])
    assert (
        "There is no node to report: add hosts to the group kata_nodes of the inventory, or name them in kata_hosts."
        in nodes(role("report")).stdout
    )


@pytest.mark.playbooks
def test_a_failed_node_stops_the_next_batch(nodes: Nodes) -> None:
    nodes.build("long")
    both = nodes.lab.directory / "inventory"
    both.write_text(f"[kata_nodes]\n{NODE}\nbuild-4\n")
    variables = {**LOCAL, "rollout_build_selector": ENDLESS, "node_drain_timeout": 0}
    stopped = nodes.playbook("playbooks/site.yml", "-i", str(both), **variables)
    assert stopped.returncode != 0
    assert "build-4" not in stopped.stdout
    assert "Prepare the cluster for Kata" not in stopped.stdout
    assert nodes.cordoned()
    assert nodes.reason().startswith(f"Kata is being installed. After 0 s 1 build still runs on {NODE}: nodes/long")
    assert nodes.lab.kubectl("get", "node", "build-4", "-o", "jsonpath={.spec.unschedulable}") == ""


@pytest.mark.playbooks
def test_a_proof_sets_and_removes_the_ready_label(nodes: Nodes) -> None:
    nodes.done(role("label"))
    assert nodes.mark(READY) == "true"
    nodes.own_writes()
    nodes.done(role("label"))
    assert nodes.own_writes() == []
    nodes.done(role("label"), check=True, node_failure="No pod ran.")
    assert nodes.mark(READY) == "true"
    failed = nodes(role("label", node_failure="No pod ran."), role("report"), node_hosts=[NODE])
    assert failed.returncode != 0
    assert nodes.mark(READY) is None
    assert nodes.cordoned() is False
    assert re.search(rf"{NODE} +FAILED .*Ready, not in the pool", failed.stdout), failed.stdout
    assert "    No pod ran." in failed.stdout
    assert f"{NODE} failed: see the table." in failed.stdout
    full = f"{NODE} has no room for the pod of the proof of handler kata beside its builds, so that the last proof stands."
    kept = nodes.done(role("report"), node_hosts=[NODE], node_proof_kept_result=full)
    assert re.search(rf"{NODE} +earlier .*Ready, not in the pool", kept), kept
    assert f"    {full}" in kept


def proofs(version: str, **programs: tuple[str, str]) -> list[dict[str, str]]:
    """What the proof of a node finds of each handler, as far as its versions go."""
    return [
        {
            "handler": handler,
            "shim": shim,
            "configured_hypervisor": hypervisor,
            "hypervisor": "",
            "kata_version": version,
            "containerd_version": default("containerd", "containerd_version"),
        }
        for handler, (shim, hypervisor) in programs.items()
    ]


@pytest.mark.playbooks
def test_a_version_with_a_known_vulnerability_is_reported(nodes: Nodes) -> None:
    # What was asked for does not count, what the proof found does.
    found = proofs("3.32.0", kata=("go", "qemu"))
    nodes.done(role("drain"), role("return_to_service"), kata_version="4.2.0", node_proof_handlers_result=found)
    out = nodes.done(role("report"), node_proofs=False)
    assert re.search(rf"{NODE} +\S+ +3\.32\.0 +Ready, verified", out), out
    assert "kata 3.32.0 has CVE-2026-50540: " in out
    assert "runs programs as root on the host. It is fixed in 4.0.0." in " ".join(out.replace("\\n", " ").split())
    # Those of another shim or hypervisor are not reported.
    assert "GHSA-" not in out
    assert "kata 3.32.0 has CVE-2026-50540: " in nodes.done(role("report"), node_hosts=[NODE])
    # verify finds another one on the node.
    both = proofs("3.32.0", kata=("go", "qemu"), small=("rust", "dragonball"))
    nodes.done(role("label"), node_proof_handlers_result=both)
    assert "kata 3.32.0 has GHSA-fgm4-mv68-h344: " in nodes.done(role("report"), node_proofs=False)
    # Nothing is known of the handlers of a node that an older release has annotated.
    nodes.lab.kubectl("annotate", "node", NODE, "kata.screwdriver.cd/kata-handlers-")
    assert "kata 3.32.0 has GHSA-fgm4-mv68-h344: " in nodes.done(role("report"), node_proofs=False)
    nodes.done(role("label"), node_proof_handlers_result=proofs("4.2.0", kata=("rust", "qemu")))
    assert "has CVE-" not in nodes.done(role("report"), node_proofs=False)
    # A node that failed keeps what is known of it.
    nodes.done(role("label"), node_failure="No pod ran.", node_proof_handlers_result=found)
    assert nodes.mark("kata.screwdriver.cd/kata-version") == "4.2.0"
    refused = nodes.done(role("report"), node_proofs=False, kubeconfig=nodes.lab.directory / "limited.kubeconfig")
    assert "Nodes: unknown, they could not be listed with these credentials." in refused


@pytest.mark.playbooks
def test_a_removed_node_is_released(nodes: Nodes) -> None:
    remove: dict[str, t.Any] = {"node_purpose": "remove", "node_reason": "Kata is being removed."}
    nodes.done(role("drain"), role("return_to_service"))
    share = {"ansible.builtin.import_role": {"name": "screwdriver.kata.executor", "tasks_from": "share"}, "delegate_to": "localhost"}
    config = nodes.lab.worker_config()
    try:
        nodes.done({"ansible.builtin.import_role": {"name": "screwdriver.kata.executor"}})
        nodes.done(share, executor_share="50")
        refused = nodes(role("drain"), **remove)
        assert re.search(
            rf"Draining {NODE} would leave no verified node in service, and Kata's weightage is \d+, so builds would wait for one. Run"
            r" screwdriver.kata.rollback first, or leave a node out of kata_hosts. Nothing was changed.",
            refused.stdout,
        )
        assert nodes.cordoned() is False
        assert nodes.mark(READY) == "true"
        # Nor is it drained for another release, unless another verified node serves.
        refused = nodes(role("drain"), kata_version="9.9.9")
        assert "or verify another node first, with fewer nodes in a batch. Nothing was changed." in refused.stdout
        assert nodes.cordoned() is False
        assert nodes.mark(READY) == "true"
        nodes.lab.kubectl("label", "node", "build-4", f"{READY}=true")
        nodes.lab.kubectl("cordon", "build-4")
        assert nodes(role("drain"), kata_version="9.9.9").returncode != 0
        nodes.lab.kubectl("uncordon", "build-4")
        nodes.done(role("drain"), role("return_to_service"), kata_version="9.9.9")
        nodes.lab.kubectl("label", "node", "build-4", f"{READY}-")
        nodes.done(share, executor_share="0")
        nodes.done(role("drain"), **remove)
        assert nodes.cordoned() is True
        assert nodes.reason() == "Kata is being removed."
        assert nodes.mark(READY) is None
        nodes.done(role("release"), node_usable=False)
        assert nodes.cordoned() is True
        assert nodes.reason() == "Kata was removed, and no other containerd is left on the node."
        assert nodes.mark("dedicated") is None
        assert nodes.mark(PROVEN) is None
        assert "screwdriver-kata" not in json.dumps(nodes.node()["spec"])
        nodes.own_writes()
        nodes.done(role("drain"), role("release"), node_usable=False, **remove)
        assert nodes.own_writes() == []
        # One that has a containerd of its own runs other pods.
        nodes.done(role("drain"), role("return_to_service"))
        nodes.done(role("drain"), role("release"), **remove)
        assert nodes.cordoned() is False
        assert nodes.mark(CORDONED) is None
        assert nodes.mark(READY) is None
        assert nodes.mark("dedicated") is None
    finally:
        nodes.lab.set_worker_config(config)
