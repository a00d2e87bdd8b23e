"""The proof on a machine that is in no cluster, through its CRI. Kata is the stub, which starts no virtual machine."""

from __future__ import annotations

import typing as t

import pytest

from ..helpers import TOP
from .conftest import Roles
from .helpers import CONTAINERD, KATA, NODE_ROLES, PROOF, image, prove

if t.TYPE_CHECKING:
    from .conftest import Mirror, Node

PROVE = (TOP / "roles/node_proof/files/prove.sh").read_text()
# A stub of a kubelet: it only has the service's name.
KUBELET = """
printf '[Service]\\nExecStart=/usr/bin/sleep 3600\\n' >/etc/systemd/system/kubelet.service
systemctl daemon-reload
systemctl {command} kubelet
"""
ALONE: dict[str, t.Any] = {**PROOF, "cluster_managed": False}
# A stub of a hypervisor whose shim was killed: a program below /opt/kata with the name of one.
ORPHAN = """
mkdir -p /opt/kata/bin
cp --remove-destination "$(readlink -f /bin/sleep)" /opt/kata/bin/qemu-system-test
systemd-run --quiet --unit test-orphan /opt/kata/bin/qemu-system-test 3600
"""


@pytest.fixture(scope="module")
def proof(node: Node, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """A node whose roles have run; each test leaves it as it was."""
    node.reset()
    roles = Roles(node, mirror, tmp_path_factory.mktemp("cache"))
    image(roles)
    roles.changes(*NODE_ROLES, **ALONE)
    return roles


def observed(roles: Roles, **variables: t.Any) -> list[dict[str, t.Any]]:
    """What the proof of each handler observed, and that no pod stays."""
    found, results = prove(roles, **{**ALONE, **variables})
    assert not results[-1]["failed"], results[-1]
    assert roles.node.run("crictl pods --quiet") == ""
    return found


def test_every_handler_is_proven(proof: Roles) -> None:
    kernel = proof.node.run("uname -r")
    first, second = observed(proof)
    assert [first["handler"], second["handler"]] == ["stub", "stub-rs"]
    assert first["host_kernel"] == kernel
    assert first["guest_kernel"] == kernel
    assert first["snapshotter"] == "overlayfs"
    assert first["shim"] == "rust"
    assert first["kata_version"] == KATA
    assert first["containerd_version"] == CONTAINERD
    assert first["orphans"] == ""
    assert first["vsyscall"] == ""
    assert first["data_percent"] is None
    assert first["shm_bytes"] == int(proof.node.run("df -P -k /dev/shm | awk 'NR == 2 {print $2}'")) * 1024

    # One that containerd does not have is not hidden by the first.
    message = proof.refusal("node_proof", **{**ALONE, "node_proof_handlers": ["stub", "missing"]})
    assert message.startswith("The proof of handler missing failed on node1: Sandbox under handler missing: ")
    assert proof.node.run("crictl pods --quiet") == ""


def test_message_has_what_containerd_logged(proof: Roles) -> None:
    node = proof.node
    shim = node.run('crictl info | sed -n \'s/.*"runtimePath": "\\(.*kata.*\\)".*/\\1/p\' | head -n 1')
    shim = node.run(f"readlink -f {shim}")
    node.run(f"mv {shim} /root/shim && ln -s /bin/false {shim}")
    try:
        message = proof.refusal("node_proof", **{**ALONE, "node_proof_handlers": ["stub"]})
    finally:
        node.run(f"mv --force /root/shim {shim}")
    assert "Sandbox under handler stub: " in message
    assert " containerd logged: level=" in message


def test_a_kubelet_that_would_end_the_pod(proof: Roles) -> None:
    proof.node.run(KUBELET.format(command="start"))
    assert proof.refusal("node_proof", **ALONE) == (
        "The proof of handler stub failed on node1: The service kubelet runs here and would end a pod that is not of its cluster; set "
        "cluster_managed to true and node_proof_node to the name of this node in the cluster, so that the proof is a pod of the cluster."
    )
    proof.node.run(KUBELET.format(command="stop"))
    assert len(observed(proof)) == 2


def test_hypervisor_that_was_left_behind(proof: Roles) -> None:
    proof.node.run(ORPHAN)
    process = proof.node.run("systemctl show --property MainPID --value test-orphan")
    try:
        assert observed(proof)[0]["orphans"] == process
    finally:
        proof.node.run("systemctl stop test-orphan; rm /opt/kata/bin/qemu-system-test")


def test_vsyscall_probe(proof: Roles) -> None:
    """The stub's guest kernel is the host's."""
    emulated = proof.node.run("grep --quiet vsyscall /proc/self/maps && echo yes", check=False) == "yes"
    if emulated:
        assert [result["vsyscall"] for result in observed(proof, node_proof_probe_vsyscall=True)] == ["works", "works"]
    else:
        assert "The guest kernel of handler stub on node1 has no vsyscall emulation" in proof.refusal(
            "node_proof", **{**ALONE, "node_proof_probe_vsyscall": True}
        )


def test_memory_of_the_guests(proof: Roles) -> None:
    size = int(proof.node.run("df -P -k /dev/shm | awk 'NR == 2 {print $2}'")) // 1024
    assert proof.refusal("node_proof", **ALONE, node_proof_guests=size, node_proof_guest_memory=2) == (
        f"/dev/shm on node1 has {size} MiB, and {size} guests of 2 MiB need {size * 2} MiB; enlarge it, or run fewer pods on the node."
    )
    proof.node.run(f"fallocate -l $(({size} * 1024 * 1024 / 20)) /dev/shm/test-guest")
    try:
        assert "/dev/shm, which has the memory of guests, has only " in proof.refusal("node_proof", **ALONE, node_proof_max_shm_percent=1)
    finally:
        proof.node.run("rm /dev/shm/test-guest")


# The part of the proof that asks containerd for the programs of a handler; the stub runs none of these.
FIND_RELEASE = PROVE[PROVE.index("find_release() {") : PROVE.index("inside() {")]
FIND_RELEASE = f"shim= configured= release=; {FIND_RELEASE}\nfind_release"


def test_programs_of_handlers(proof: Roles) -> None:
    """What advisories are judged by: each handler's shim and hypervisor, as containerd has them."""
    handlers = [
        {"name": "plain"},
        {"name": "small", "hypervisor": "dragonball"},
        {"name": "classic", "shim": "go", "hypervisor": "clh"},
    ]
    proof.changes(*NODE_ROLES, **{**ALONE, "kata_handlers": handlers})
    found = {
        name: proof.node.run(f"HANDLER={name}; {FIND_RELEASE}; echo $shim/$configured $release")
        for name in ("plain", "small", "classic", "runc", "missing")
    }
    assert found == {
        "plain": f"rust/qemu {KATA}",
        "small": f"rust/dragonball {KATA}",
        "classic": f"go/clh {KATA}",
        "runc": "/",
        "missing": "/",
    }
    # The stub ships no configuration of Firecracker.
    assert proof.refusal("kata", **{**ALONE, "kata_handlers": [*handlers, {"name": "tiny", "shim": "go", "hypervisor": "fc"}]}) == (
        f"kata_handlers: Kata {KATA} has no configuration-fc.toml, which handler tiny needs. Choose another hypervisor or shim, or give "
        "the handler a config_path of your own."
    )
