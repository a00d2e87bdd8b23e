"""What a real machine that joins a lab gets from it, without a machine."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lab.cluster.lab import Lab
from lab.common import LabError
from lab.machines import join
from lab.machines.registry import LAUNCHER
from lab.processes import free_ports
from lab.programs.go import KUBELET, PARTS
from lab.scenarios.e2e import Settings, release_variables

from ..helpers import TOP, wait_until

NAME = "machine"


@pytest.fixture
def as_node(lab: Lab, tmp_path: Path) -> t.Iterator[t.Callable[..., subprocess.CompletedProcess[str]]]:
    """kubectl with the identity that joining gives a machine."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(join.kubeconfig(lab, NAME))

    def run(*arguments: str, stdin: t.Any = None) -> subprocess.CompletedProcess[str]:
        command = [lab.settings["programs"]["kubectl"], "--kubeconfig", str(kubeconfig), *arguments]
        return subprocess.run(command, input=json.dumps(stdin), capture_output=True, text=True, check=False)

    yield run
    lab.kubectl("delete", "node", NAME, "--ignore-not-found")


def node(name: str, **labels: str) -> dict[str, t.Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def test_the_kubelet_is_of_the_control_planes_version() -> None:
    assert KUBELET.version == next(part.version for part in PARTS if part.name == "kubernetes")


def test_a_machine_is_its_own_node_and_no_other(lab: Lab, as_node: t.Any) -> None:
    assert as_node("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").stdout == f"system:node:{NAME}"
    assert as_node("create", "-f", "-", stdin=node(NAME)).returncode == 0
    other = as_node("label", "node", "build-1", "a=b")
    assert other.returncode != 0
    assert "forbidden" in other.stderr
    assert as_node("create", "-f", "-", stdin=node("another")).returncode != 0
    # It may not mark itself as verified.
    assert as_node("label", "node", NAME, "node-restriction.kubernetes.io/proven=true").returncode != 0


def test_kwok_does_not_manage_a_real_machine(lab: Lab, as_node: t.Any) -> None:
    as_node("create", "-f", "-", stdin=node(NAME))
    lab.kubectl("create", "-f", "-", stdin=json.dumps(node("simulated", **{"screwdriver.cd/lab": "simulated"})))
    try:
        lab.kubectl("wait", "node/simulated", "--for=condition=Ready", "--timeout=60s")
        assert "True" not in lab.kubectl("get", "node", NAME, "-o", "jsonpath={.status.conditions[*].status}")
        with pytest.raises(LabError, match=f"^Node {NAME} of lab {lab.name} is not Ready after 0 s: read 'journalctl -u kubelet' there.$"):
            join.wait_ready(lab, NAME, 0)
    finally:
        lab.kubectl("delete", "node", "simulated")


@pytest.fixture(scope="module")
def images() -> t.Iterator[str]:
    """The address of the registry."""
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "lab.machines.registry", "--port", str(port)], cwd=TOP)
    wait_until(lambda: process.poll() is not None or answers(port), "the registry answers", seconds=600)
    assert process.poll() is None
    yield f"http://127.0.0.1:{port}/v2"
    process.terminate()
    process.wait()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


@pytest.mark.parametrize(
    ("name", "entrypoint", "layers"),
    [
        ("library/node/manifests/22", "/bin/sh", 2),
        ("screwdrivercd/launcher/manifests/stable", "/bin/sh", 3),
        ("pause/manifests/3.10.1", "/bin/sleep", 1),
    ],
)
def test_an_image_is_whole(images: str, name: str, entrypoint: str, layers: int) -> None:
    manifest = json.loads(fetch(f"{images}/{name}"))
    repository = name.split("/manifests/")[0]
    for part in (manifest["config"], *manifest["layers"]):
        content = fetch(f"{images}/{repository}/blobs/{part['digest']}")
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == part["digest"]
        assert len(content) == part["size"]
    config = json.loads(fetch(f"{images}/{repository}/blobs/{manifest['config']['digest']}"))
    assert config["config"]["Entrypoint"][0] == entrypoint
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert len(manifest["layers"]) == layers


def test_a_missing_blob_is_not_found(images: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{images}/library/node/blobs/sha256:{'0' * 64}")


def test_the_launcher_runs_the_script_of_a_build_pod(tmp_path: Path) -> None:
    output = subprocess.run([LAUNCHER / "launcher_entrypoint.sh", "echo one; echo two"], capture_output=True, text=True, check=True).stdout
    assert output == "one\ntwo\n"


def test_the_real_release_keeps_the_defaults_of_the_roles() -> None:
    assert release_variables(True) == {}


def test_the_stub_is_accepted_by_the_roles() -> None:
    variables = release_variables(False)
    assert not variables["node_proof_require_guest_kernel"]
    assert not variables["node_proof_require_block_root"]
    assert "kata_require_virtualization" not in variables


def test_settings_of_a_file_take_precedence(tmp_path: Path) -> None:
    (tmp_path / "first.yml").write_text("e2e: {real_kata: false, nodes: 2}")
    (tmp_path / "second.yml").write_text("e2e: {real_kata: true, stages: [upgrade]}")
    settings = Settings.read(tmp_path / "first.yml", tmp_path / "second.yml")
    assert settings.real_kata
    assert settings.nodes == 2
    assert settings.stages == ("upgrade",)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("e2e: {stages: [nap]}", "e2e.stages: nap is not a stage; use site_again, roll_back, upgrade, power_cycle, remove."),
        ("e2e: {rate: 2}", "e2e: rate is not a setting; use "),
    ],
)
def test_unknown_settings_are_refused(tmp_path: Path, given: str, sentence: str) -> None:
    (tmp_path / "variables.yml").write_text(given)
    with pytest.raises(LabError) as refused:
        Settings.read(tmp_path / "variables.yml")
    assert str(refused.value).startswith(sentence)
