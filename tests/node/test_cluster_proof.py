"""The proof in a cluster: a pod of the lab's API server that a real kubelet runs. Kata is the stub, which starts no virtual machine."""

from __future__ import annotations

import json
import os
import typing as t

import pytest

from lab.cluster.lab import Lab
from lab.machines import join

from ..helpers import wait_until
from .conftest import Container, Roles
from .helpers import NODE_ROLES, PROOF, image, prove

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Mirror, Node

IN_CLUSTER: dict[str, t.Any] = {**PROOF, "cluster_handler": "stub"}
# A container has loopback alone and no /dev/kmsg, and the kernel's settings are the machine's: the kubelet gets files in their place.
IN_A_CONTAINER = """
ip address add 192.0.2.10/32 dev lo scope global
ln -sfn /dev/null /dev/kmsg
mkdir -p /run/settings
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  file=/run/settings/$(echo $name | tr / _)
  cat /proc/sys/$name >$file && mount --bind $file /proc/sys/$name
done
"""
# The kubelet's process, and T if it is halted.
PROCESS = (
    "systemctl show --property MainPID --property NRestarts kubelet; "
    "ps -o state= -p $(systemctl show --property MainPID --value kubelet) | tr -d 'RSDI'"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    own = Lab(f"test-cluster-proof-{os.getpid()}")
    own.up(nodes=1)
    yield own
    own.down()


@pytest.fixture(scope="module")
def joined(node: Node, mirror: Mirror, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """A node of the lab's cluster, cordoned and with a taint, as one that is prepared."""
    node.reset()
    roles = Roles(node, mirror, tmp_path_factory.mktemp("cache"))
    image(roles)
    roles.changes(*NODE_ROLES, **IN_CLUSTER)
    if isinstance(node, Container):
        node.run(IN_A_CONTAINER)
    join.join(lab, node)
    if isinstance(node, Container):
        node.run("printf 'featureGates:\\n  KubeletInUserNamespace: true\\n' >>/etc/lab/kubelet.yaml; systemctl restart kubelet")
    join.wait_ready(lab, node.name, 300)
    lab.kubectl("taint", "node", node.name, "dedicated=screwdriver-kata:NoSchedule", "test=test:NoExecute")
    lab.kubectl("cordon", node.name)
    return roles


def proven(roles: Roles, lab: Lab, **variables: t.Any) -> tuple[list[dict[str, t.Any]], str]:
    """What the proof observed of each handler, and the message of one that failed."""
    os.environ["K8S_AUTH_KUBECONFIG"] = str(lab.kubeconfig)
    try:
        found, results = prove(roles, **{**IN_CLUSTER, **variables})
    finally:
        del os.environ["K8S_AUTH_KUBECONFIG"]
    return found, results[-1]["msg"]


def left(lab: Lab) -> list[str]:
    pods = json.loads(lab.kubectl("get", "pods", "-n", "sd-builds", "-l", "kata.screwdriver.cd/proof=true", "-o", "json"))["items"]
    classes = json.loads(lab.kubectl("get", "runtimeclasses", "-o", "json"))["items"]
    return [item["metadata"]["name"] for item in (*pods, *classes) if item["metadata"]["name"].startswith("kata-proof-")]


def test_the_kubelet_runs_the_proof(joined: Roles, lab: Lab) -> None:
    before = joined.node.run(PROCESS)
    found, message = proven(joined, lab)
    assert len(found) == 2, message
    first, second = found
    assert [first["handler"], second["handler"], first["snapshotter"]] == ["stub", "stub-rs", "overlayfs"]
    assert first["guest_kernel"] == joined.node.run("uname -r")
    assert first["setup_seconds"] > 0
    # The kubelet was neither stopped nor halted, and nothing stays.
    assert joined.node.run(PROCESS) == before
    assert left(lab) == []
    wait_until(lambda: joined.node.run("crictl pods --quiet") == "")


def test_a_full_node_keeps_its_last_proof(joined: Roles, lab: Lab) -> None:
    """Builds on a verified node are no reason to take it out of service."""
    oversized = {**RUNTIME_CLASS, "metadata": {"name": "stub"}, "overhead": {"podFixed": {"memory": "1000Gi"}}}
    lab.kubectl("create", "-f", "-", stdin=json.dumps(oversized))
    full = {"node_proof_handlers": ["stub"], "node_proof_timeout": 2}
    try:
        found, message = proven(joined, lab, **full)
        assert found == []
        assert message.startswith(
            "The proof of handler stub failed on node1: the node has no room for the pod: let builds end, or drain it. OutOfmemory: "
        )
        lab.kubectl("label", "node", joined.node.name, "kata.screwdriver.cd/ready=true")
        # A cordoned node may be one that site is changing: what was proven before says nothing of it.
        found, message = proven(joined, lab, **full)
        assert found == []
        assert "failed on node1: the node has no room for the pod" in message
        lab.kubectl("uncordon", joined.node.name)
        os.environ["K8S_AUTH_KUBECONFIG"] = str(lab.kubeconfig)
        found, results = prove(joined, **{**IN_CLUSTER, **full})
    finally:
        os.environ.pop("K8S_AUTH_KUBECONFIG", None)
        lab.kubectl("cordon", joined.node.name)
        lab.kubectl("label", "node", joined.node.name, "kata.screwdriver.cd/ready-")
        lab.kubectl("delete", "runtimeclass", "stub")
    assert found == []
    stands = "node1 has no room for the pod of the proof of handler stub beside its builds, so that the last proof stands. OutOfmemory: "
    assert [result["msg"] for result in results if str(result.get("msg", "")).startswith(stands)]
    assert left(lab) == []


# Stands before crictl, and holds the proof in the middle: its pod runs and is being inspected.
HOLD = """
mv /usr/local/bin/crictl /usr/local/bin/crictl.real
cat >/usr/local/bin/crictl <<'SCRIPT'
#!/bin/sh
case " $* " in *" exec "*) while [ -e /run/hold ]; do touch /run/held; sleep 0.1; done ;; esac
exec /usr/local/bin/crictl.real "$@"
SCRIPT
chmod 755 /usr/local/bin/crictl
touch /run/hold
"""
BUILD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "build", "namespace": "sd-builds", "labels": {"tier": "builds"}},
    "spec": {
        "runtimeClassName": "test-build",
        "restartPolicy": "Never",
        "hostNetwork": True,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "build", "image": "docker.io/library/busybox:1.37.0", "command": ["sh", "-c", "exit 0"]}],
    },
}
RUNTIME_CLASS = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "test-build"}, "handler": "stub"}


def test_a_build_that_starts_during_the_proof_is_not_delayed(joined: Roles, lab: Lab) -> None:
    """The proof is held in its middle until the build has ended, and has neither halted the kubelet nor changed the node."""
    node = joined.node

    def spec() -> str:
        return lab.kubectl("get", "node", node.name, "-o", "jsonpath={.spec}")

    before, process = spec(), node.run(PROCESS)
    build = {**BUILD, "spec": {**t.cast("dict[str, t.Any]", BUILD["spec"]), "nodeName": node.name}}
    node.run(HOLD)
    os.environ["K8S_AUTH_KUBECONFIG"] = str(lab.kubeconfig)
    proof = joined.start("node_proof", **IN_CLUSTER)
    try:
        wait_until(lambda: node.run("ls /run/held", check=False) != "", "the proof inspects its pod", seconds=300)
        lab.kubectl("create", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
        lab.kubectl("create", "-f", "-", stdin=json.dumps(build))

        def phase() -> str:
            return lab.kubectl("get", "pod", "build", "-n", "sd-builds", "-o", "jsonpath={.status.phase}")

        wait_until(lambda: phase() == "Succeeded", "the build ends while the proof is held", seconds=300)
        assert proof.poll() is None
        assert (spec(), node.run(PROCESS)) == (before, process)
    finally:
        del os.environ["K8S_AUTH_KUBECONFIG"]
        node.run("rm -f /run/hold")
        results = node.results(proof)
        node.run("mv /usr/local/bin/crictl.real /usr/local/bin/crictl")
        lab.kubectl("delete", "--ignore-not-found", "pod/build", "-n", "sd-builds")
        lab.kubectl("delete", "--ignore-not-found", "runtimeclass/test-build")
    assert not results[-1]["failed"], results[-1]


def test_message_has_the_kubelets_reason_and_containerds(joined: Roles, lab: Lab) -> None:
    message = proven(joined, lab, node_proof_handlers=["missing"], node_proof_timeout=60)[1]
    assert message.startswith("The proof of handler missing failed on node1: Pod sd-builds/kata-proof-")
    assert "FailedCreatePodSandBox" in message
    assert 'no runtime for "missing" is configured' in message
    assert " containerd logged: level=" in message
    assert left(lab) == []


def test_a_node_of_another_name_is_not_proven_beside_its_kubelet(joined: Roles, lab: Lab) -> None:
    message = proven(joined, lab, node_proof_node="nowhere")[1]
    assert "The service kubelet runs here and would end a pod that is not of its cluster; set cluster_managed to true" in message
