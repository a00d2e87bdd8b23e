"""The playbooks over nodes on one that is in no cluster, from a bare machine and back. Kata is the stub, on overlayfs."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t

import pytest

from .helpers import END_PODS, STUBS, image, pod, started, state

if t.TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Node, Roles

VARIABLES: dict[str, t.Any] = {
    "cluster_managed": False,
    "cluster_handler": "stub",
    "kata_hosts": "node1",
    "kata_handlers": STUBS[:1],
    "node_proof_image_archive": "/srv/proof.tar",
    "node_proof_min_nofile": 1024,
    "node_proof_pod_network": False,
    # The stub starts no virtual machine, and overlayfs is not a block device.
    "node_proof_require_guest_kernel": False,
    "node_proof_require_block_root": False,
}
# The sandbox of a pod that Screwdriver would have started.
BUILD = """
echo '{"metadata": {"name": "build", "namespace": "test", "uid": "build"}, "labels": {"tier": "builds"},
  "linux": {"cgroup_parent": "system.slice", "security_context": {"namespace_options": {"network": 2}}}}' >/tmp/build.json
crictl runp --runtime stub /tmp/build.json
"""


class Playbooks:
    def __init__(self, roles: Roles) -> None:
        self.roles, self.node = roles, roles.node
        # The playbooks themselves set what the roles agree on.
        self.variables = {name: value for name, value in roles.variables.items() if name != "containerd_handlers"} | VARIABLES

    def __call__(self, name: str, *options: str, **variables: t.Any) -> subprocess.CompletedProcess[str]:
        return self.node.playbook(f"screwdriver.kata.{name}", "-e", json.dumps(self.variables | variables), *options)

    def done(self, name: str, *options: str, **variables: t.Any) -> str:
        done = self(name, *options, **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout


def files(node: Node) -> list[str]:
    """Everything that the roles could change, but what containerd keeps for itself."""
    return [line for line in state(node).splitlines() if "/var/lib/containerd" not in line]


def changed(out: str) -> int:
    return int(re.findall(r"^node1 .*changed=(\d+)", out, re.MULTILINE)[-1])


@pytest.fixture
def playbooks(roles: Roles) -> Playbooks:
    return Playbooks(roles)


def test_from_a_bare_machine_and_back(playbooks: Playbooks, tmp_path: Path) -> None:
    node = playbooks.node
    image(playbooks.roles)
    before = files(node)
    assert changed(playbooks.done("site", "--check"))
    assert files(node) == before
    assert "node1 is verified: handler stub" in playbooks.done("site")
    since = started(node)
    assert changed(playbooks.done("site")) == 0
    assert started(node) == since
    # A node of a batch that fails does not hold up the others of it, and the next batch does not begin.
    stopped = playbooks("site", "-i", "lost,late,", kata_hosts="node1,lost,late", kata_batches=[2, 1])
    assert stopped.returncode != 0
    assert changed(stopped.stdout) == 0
    assert "late was not changed, since lost failed: fix it as reported above, then run site again." in stopped.stdout

    made = files(node)
    assert re.search(r"node1 +ok ", playbooks.done("verify"))
    failed = playbooks("verify", node_proof_min_nofile=10**9)
    assert failed.returncode != 0
    assert re.search(r"node1 +FAILED ", failed.stdout)
    assert "less than 1000000000; set containerd_nofile." in failed.stdout

    report = tmp_path / "report.md"
    measured = {
        "node_proof_benchmark_bytes": 2048000,
        "node_proof_benchmark_runs": "1",
        "node_proof_benchmark_snapshotters": "overlayfs, zfs",
        "node_proof_image": "busybox:1.37.0",
    }
    playbooks.done("benchmark", node_proof_benchmark_report=str(report), **measured)
    assert re.search(r"\| node1 \| overlayfs \| \d+\.\d\d s \| \d+\.\d MB/s \| \d+\.\d\d s \| \d+\.\d\d s \|", report.read_text())
    assert "write of 2048000 bytes" in report.read_text()
    assert "warm (median of 1)" in report.read_text()
    assert "| node1 | zfs | not on this node |" in report.read_text()
    refused = playbooks("benchmark", node_proof_benchmark_bytes=5)
    assert "node_proof_benchmark_bytes: 5 is too small; use at least 1024000." in refused.stdout
    assert node.run("ctr namespaces ls --quiet") == "k8s.io"
    assert files(node) == made

    # containerd is restarted under a pod that is no build, which does not notice, and not under one that is.
    process = pod(node, "stub")[1]
    playbooks.done("site", containerd_nofile=16000)
    assert started(node) != since
    since = started(node)
    node.run(f"kill -0 {process}")
    node.run(BUILD)
    refused = playbooks("site", containerd_nofile=15000)
    assert "containerd on node1 must restart, but 1 container is running. Drain the node and run again" in refused.stdout
    assert started(node) == since

    made = files(node)
    refused = playbooks("remove")
    assert "Kata sandboxes are still running on node1. Drain the node first (the playbook remove does), then run again." in refused.stdout
    node.run(END_PODS)
    assert changed(playbooks.done("remove", "--check"))
    assert files(node) == made
    playbooks.done("remove")
    assert files(node) == before
    assert node.run("ls -A /var/lib/containerd", check=False) == ""
    # Nor the shim of the pod that containerd was restarted under, which containerd leaves.
    assert node.run("pgrep -af '[c]ontainerd-shim-kata'", check=False) == ""
    assert changed(playbooks.done("remove")) == 0
