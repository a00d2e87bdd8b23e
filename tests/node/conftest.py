"""
A spare machine that these tests may do anything to: host `node1` of the Ansible inventory that KATA_NODE_INVENTORY names.

It needs systemd, containerd, root or sudo without a password over SSH, and three disks that hold nothing of value: they are erased.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import typing as t
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
HOST = "node1"
BOOT_TIMEOUT = 300


class Node:
    def __init__(self, inventory: str, directory: Path) -> None:
        self._inventory = inventory
        self._directory = directory
        shown = subprocess.run(["ansible-inventory", "-i", inventory, "--host", HOST], capture_output=True, text=True, check=True).stdout
        host: dict[str, t.Any] = json.loads(shown)
        self._sudo = [] if host.get("ansible_user", "root") == "root" else ["sudo", "-n"]
        self._ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
        self._ssh += ["-o", f"ControlPath={directory}/ssh-%C", "-p", str(host.get("ansible_port", 22))]
        self._ssh += ["-l", str(host.get("ansible_user", "root"))]
        self._ssh += shlex.split(host.get("ansible_ssh_common_args", ""))
        if key := host.get("ansible_ssh_private_key_file") or host.get("ansible_private_key_file"):
            self._ssh += ["-i", key]
        self._ssh.append(host.get("ansible_host", HOST))

    def command(self, script: str) -> list[str]:
        return [*self._ssh, shlex.join([*self._sudo, "bash", "-c", script])]

    def run(self, script: str, check: bool = True) -> str:
        """What a script said; a script that fails fails the test unless ``check`` is false."""
        done = subprocess.run(self.command(script), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def start(self, tasks: list[dict[str, t.Any]], *options: str) -> subprocess.Popen[str]:
        playbook = self._directory / "play.yml"
        playbook.write_text(json.dumps([{"hosts": HOST, "gather_facts": False, "become": bool(self._sudo), "tasks": tasks}]))
        (self._directory / "results").write_text("")
        settings = {
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
            "KATA_TEST_RESULTS": str(self._directory / "results"),
        }
        command = ["ansible-playbook", "-i", self._inventory, "--diff", *options, str(playbook)]
        return subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **settings})

    def results(self, process: subprocess.Popen[str]) -> list[dict[str, t.Any]]:
        out, _err = process.communicate()
        found = [json.loads(line) for line in (self._directory / "results").read_text().splitlines()]
        assert found, out
        return found

    def play(self, tasks: list[dict[str, t.Any]], *options: str) -> list[dict[str, t.Any]]:
        """The results of the tasks, which all run: one that fails is in the results as failed."""
        return self.results(self.start([{"ignore_errors": True, **task} for task in tasks], *options))

    def modules(self, name: str, *parameters: dict[str, t.Any], check: bool = False) -> list[dict[str, t.Any]]:
        """The results of a module, called once for each of the parameters."""
        return self.play([{f"screwdriver.kata.{name}": given} for given in parameters], *(["--check"] if check else []))

    def module(self, name: str, check: bool = False, **parameters: t.Any) -> dict[str, t.Any]:
        return self.modules(name, parameters, check=check)[0]

    def reboot(self) -> None:
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.run("systemctl reboot", check=False)
        subprocess.run([*self._ssh[:-1], "-O", "exit", self._ssh[-1]], capture_output=True, check=False)
        deadline = time.monotonic() + BOOT_TIMEOUT
        while self.run("cat /proc/sys/kernel/random/boot_id", check=False) in ("", before):
            assert time.monotonic() < deadline, f"not back {BOOT_TIMEOUT} s after a reboot"
            time.sleep(2)
        self.run("systemctl is-system-running --wait", check=False)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    if not (inventory := os.environ.get("KATA_NODE_INVENTORY")):
        pytest.skip("KATA_NODE_INVENTORY names no inventory with a spare machine")
    return Node(inventory, tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="session")
def disks(node: Node) -> list[str]:
    """Disks that the machine does not run from."""
    found = json.loads(node.run("lsblk --json --paths --output NAME,TYPE,MOUNTPOINT,RO,SIZE --bytes"))["blockdevices"]

    def mounted(device: dict[str, t.Any]) -> bool:
        return bool(device["mountpoint"]) or any(mounted(child) for child in device.get("children", []))

    spare = [device["name"] for device in found if device["type"] == "disk" and device["size"] >= 2**30 and not mounted(device)]
    if len(spare) < 3:
        pytest.skip(f"{HOST} has {len(spare)} spare disks, and 3 are needed")
    return spare[:3]
