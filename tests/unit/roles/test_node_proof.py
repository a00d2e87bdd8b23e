"""What the role node_proof makes of its options, as Ansible evaluates them, and its scripts with stubs of crictl and ctr."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t

import pytest
import yaml

from ... import helpers

if t.TYPE_CHECKING:
    from pathlib import Path

ROLE = helpers.TOP / "roles" / "node_proof"


def evaluate(name: str, **values: t.Any) -> t.Any:
    """A variable of the role, with its defaults and these values."""
    return helpers.evaluate("{{ " + name + " }}", "node_proof", cluster_handler="kata", node_adopted=False, **values)


@pytest.mark.parametrize(
    ("given", "listed"),
    [("kata", ["kata"]), ("kata, kata-clh", ["kata", "kata-clh"]), (["kata"], ["kata"])],
)
def test_lists_may_be_text(given: t.Any, listed: list[str]) -> None:
    assert evaluate("__node_proof_handler_list", node_proof_handlers=given) == listed
    assert evaluate("__node_proof_snapshotter_list", node_proof_benchmark_snapshotters=given) == listed


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("node_proof_write_bytes", "999999", 1000000),
        ("node_proof_timeout", 0, 1),
        ("node_proof_benchmark_runs", "0", 1),
        ("node_proof_benchmark_timeout", -5, 1),
    ],
)
def test_numbers_that_are_too_small(option: str, value: t.Any, least: int) -> None:
    (limits,) = [
        limits
        for file in ("main", "benchmark")
        for task in yaml.safe_load((ROLE / "tasks" / f"{file}.yml").read_text())
        if option in (limits := task.get("vars", {}).get("__node_proof_least", {}))
    ]
    found = evaluate("__node_proof_small", __node_proof_least=limits, **{option: value})
    assert found == [f"{option}: {value} is too small; use at least {least}."]
    assert evaluate("__node_proof_small", __node_proof_least=limits) == []


def stub(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{directory}/calls\n{text}\n')
    (directory / name).chmod(0o755)


def run(directory: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{directory}:{os.environ['PATH']}", **environment}
    return subprocess.run(["sh", str(ROLE / "files" / script), *arguments], env=env, capture_output=True, text=True, check=False)


# A node that does not have the image.
CRICTL = """
case $* in
  *" info "*) exit 1 ;;
  *inspecti*) exit 1 ;;
  *runp*) for file; do :; done; cp "$file" {0}/pod.json; echo pod ;;
  *create*) echo container ;;
  *exec*awk*) echo /dev/vda ext4 ;;
  *exec*"ulimit -n"*) echo 65536 ;;
esac
"""
OPTIONS: dict[str, t.Any] = {
    "node_proof_image": "registry.example.com/tools/busybox:1",
    "node_proof_cgroup_parent": "builds.slice",
    "node_proof_write_bytes": "1500000",
    "node_proof_kubelet_service": "k3s-agent",
    "node_proof_containerd_service": "k3s",
    "node_proof_pool": "",
    "node_proof_max_shm_percent": 100,
}


def test_options_reach_the_pod(tmp_path: Path) -> None:
    given = {"__node_proof_handler": "kata", "__node_proof_container": "", "__node_proof_pod": {}, "__node_proof_started": ""}
    environment = evaluate("__node_proof_environment", **given, **OPTIONS)
    stub(tmp_path, "crictl", CRICTL.format(tmp_path))
    stub(tmp_path, "ctr", "")
    stub(tmp_path, "systemctl", "echo inactive")
    stub(tmp_path, "journalctl", 'echo "level=error of $2"')
    done = run(tmp_path, "prove.sh", "cri", **environment)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "systemctl is-active k3s-agent\n" in calls
    assert f"pull {OPTIONS['node_proof_image']}\n" in calls
    assert json.loads((tmp_path / "pod.json").read_text())["linux"]["cgroup_parent"] == "builds.slice"
    # What is reported is what was written.
    assert "bs=1000000 count=2 " in calls
    (tmp_path / "calls").write_text("")
    assert run(tmp_path, "prove.sh", "explain", **{**environment, "STARTED": "1"}).stdout.strip() == "level=error of k3s"
    stub(tmp_path, "systemctl", "echo active")
    assert run(tmp_path, "prove.sh", "cri", **environment).stderr.startswith("The service k3s-agent runs here and would end a pod")


def test_speed_is_that_of_the_bytes_that_were_written(tmp_path: Path) -> None:
    script = (ROLE / "files" / "prove.sh").read_text()
    stub(tmp_path, "crictl", CRICTL.format(tmp_path))
    stub(tmp_path, "ctr", "")
    (tmp_path / "prove.sh").write_text(script.replace('write=$(seconds "$started")', "write=2.0"))
    env = {"HANDLER": "kata", "WRITE_BYTES": "1500000", "TIMEOUT": "9", "CONTAINER": "c", "SETUP_SECONDS": "1", "MAX_SHM_PERCENT": "100"}
    done = run(tmp_path, str(tmp_path / "prove.sh"), "inspect", **env)
    assert json.loads(done.stdout)["write_bytes_per_second"] == 1000000


def test_benchmark_finds_an_image_by_its_short_name(tmp_path: Path) -> None:
    stub(tmp_path, "crictl", "printf 'docker.io/library/busybox:latest\\ndocker.io/library/busybox@sha256:1\\n\\n'")
    stub(tmp_path, "ctr", 'case "$*" in "plugins ls") echo io.containerd.snapshotter.v1 overlayfs linux/amd64 ok ;; esac')
    given = {"IMAGE": "busybox", "RUNTIME": "kata", "CONFIG_PATH": "", "SNAPSHOTTER": "overlayfs", "WRITE_BYTES": "1024000"}
    done = run(tmp_path, "benchmark.sh", **given, RUNS="1", TIMEOUT="9")
    assert json.loads(done.stdout)["there"] is True
    calls = (tmp_path / "calls").read_text()
    assert "/image.tar docker.io/library/busybox:latest\n" in calls
    assert " docker.io/library/busybox:latest benchmark-cold sleep" in calls
