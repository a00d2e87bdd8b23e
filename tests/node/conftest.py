"""
A spare machine that these tests may do anything to: host `node1` of the Ansible inventory that KATA_NODE_INVENTORY names, else a container.

A machine needs systemd, root or sudo without a password over SSH, and for the thin pool containerd and three disks without data of value:
they are erased. A container has no disks, and needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import typing as t
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.machines.nspawn import Nodes
from lab.machines.ssh import Machine
from lab.programs import mirror as lab_mirror

from ..helpers import TOP, wait_until

if t.TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "node1"
BOOT_TIMEOUT = 300
# Of every run of Ansible.
SETTINGS = {
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_HOST_KEY_CHECKING": "false",
    "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
}


class Node(Machine):
    def __init__(self, inventory: str, directory: Path) -> None:
        super().__init__(inventory, HOST, directory)
        self._directory = directory

    @contextmanager
    def tunnel(self, *ports: int, proxy: int | None = None) -> Iterator[None]:
        """The machine reaches these ports of this one on its loopback, under their own numbers.

        It reaches all that this one reaches through a SOCKS proxy.
        """
        forwards = [word for port in ports for word in ("-R", f"127.0.0.1:{port}:127.0.0.1:{port}")]
        if proxy:
            ports, forwards = (*ports, proxy), [*forwards, "-R", f"127.0.0.1:{proxy}"]
        process = subprocess.Popen(self.ssh("-o", "ExitOnForwardFailure=yes", "-N", *forwards), stdin=subprocess.DEVNULL)
        try:
            self.run(
                f"for port in {' '.join(map(str, ports))}; do until (: </dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.1; done; done"
            )
            yield
        finally:
            process.terminate()
            process.wait()

    def start(self, tasks: list[dict[str, t.Any]], *options: str, killed_at: str = "") -> subprocess.Popen[str]:
        """A running playbook; ``killed_at`` names the task in which it is killed, with its child processes."""
        playbook = self._directory / "play.yml"
        playbook.write_text(json.dumps([{"hosts": HOST, "gather_facts": False, "become": bool(self.sudo), "tasks": tasks}]))
        (self._directory / "results").write_text("")
        settings = {
            "ANSIBLE_LIBRARY": str(Path(__file__).parent / "library"),
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "results,killer",
            "KATA_TEST_KILLED_AT": killed_at,
            "KATA_TEST_RESULTS": str(self._directory / "results"),
        }
        command = ["ansible-playbook", "-i", self.inventory, "--diff", *options, str(playbook)]
        return subprocess.Popen(
            command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **SETTINGS, **settings}
        )

    def playbook(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """A whole playbook of the collection, on the inventory of this machine."""
        command = ["ansible-playbook", "-i", self.inventory, *options, name]
        return subprocess.run(
            command,
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **SETTINGS},
            check=False,
        )

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

    def reset(self) -> None:
        """Removes what the roles make."""
        self.run(CLEAN, check=False)

    def reboot(self) -> None:
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.run("systemctl reboot", check=False)
        self.disconnect()

        def rebooted() -> bool:
            return self.run("cat /proc/sys/kernel/random/boot_id", check=False) not in ("", before)

        wait_until(rebooted, "the reboot", seconds=BOOT_TIMEOUT, interval=2)
        self.run("systemctl is-system-running --wait", check=False)


# Stops and removes what the roles make on a machine; a container is made again instead.
CLEAN = """
shopt -s nullglob
for pod in $(crictl pods -q); do crictl stopp "$pod"; crictl rmp -f "$pod"; done
systemctl disable --now containerd
apt-get -qq -y purge containerd runc containernetworking-plugins
rm -rf /opt/kata /opt/kata-releases /opt/containerd-releases /opt/cni /var/lib/containerd /etc/containerd /etc/crictl.yaml* \
/usr/local/bin/* /usr/local/sbin/*
rm -rf /etc/systemd/system/containerd.service* /etc/modules-load.d/screwdriver-kata* /var/cache/screwdriver-kata
systemctl daemon-reload
"""


class Container(Node):
    """A container in the place of a machine."""

    def __init__(self, nodes: Nodes, directory: Path) -> None:
        self._nodes = nodes
        super().__init__(str(nodes.up()), directory)

    def reset(self) -> None:
        self.disconnect()
        self._nodes.up()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    if inventory := os.environ.get("KATA_NODE_INVENTORY"):
        yield Node(inventory, directory)
    elif os.geteuid() != 0:
        pytest.skip("KATA_NODE_INVENTORY names no inventory with a spare machine, and a container needs root")
    else:
        nodes = Nodes.of_this_process("test")
        try:
            yield Container(nodes, directory)
        finally:
            nodes.down()


@pytest.fixture
def bare(node: Node) -> Node:
    """The machine without anything that the roles make."""
    node.reset()
    return node


@dataclass
class Mirror:
    port: int
    log: Path
    directory: Path

    def variables(self, *broken: str, fault: str = "") -> dict[str, t.Any]:
        """What makes the roles use it; the components that are ``broken`` come from its directory of a fault."""
        return lab_mirror.variables(self.port, *broken, fault=fault)

    def requests(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    log = tmp_path_factory.mktemp("mirror") / "requests.log"
    with lab_mirror.serve(0, log) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Mirror(server.server_address[1], log, lab_mirror.pack())
        server.shutdown()


class Roles:
    """The node roles on a machine, with archives from the mirror. The release of Kata there is a stub, which needs no virtualisation."""

    def __init__(self, node: Node, mirror: Mirror, cache: Path) -> None:
        self.node = node
        self.mirror = mirror
        self.cache = cache
        self.variables: dict[str, t.Any] = {
            **mirror.variables(),
            **{f"{role}_cache": str(cache) for role in ("containerd", "crictl", "kata")},
            **{f"{role}_download_timeout": 1 for role in ("containerd", "crictl", "kata")},
            "kata_require_virtualization": False,
            "kata_snapshotter": "overlayfs",
        }
        if isinstance(node, Container):
            # Its processes may raise neither limit.
            self.variables |= {"containerd_nofile": 16384, "containerd_restrict_oom_score_adj": True}

    def start(
        self, *roles: str, entry: str = "main", options: tuple[str, ...] = (), killed_at: str = "", **variables: t.Any
    ) -> subprocess.Popen[str]:
        handlers = {"containerd_handlers": "{{ kata_containerd_handlers }}"} if "kata" in roles else {}
        tasks = [
            {
                "ansible.builtin.include_role": {"name": f"screwdriver.kata.{role}", "tasks_from": entry, "public": True},
                "vars": {**handlers, **self.variables, **variables},
            }
            for role in roles
        ]
        if killed_at:
            # However fast its task is, the run is there to be killed.
            tasks.append({"ansible.builtin.wait_for": {"timeout": 60}})
        return self.node.start(tasks, *options, killed_at=killed_at)

    def run(self, *roles: str, **how: t.Any) -> list[dict[str, t.Any]]:
        return self.node.results(self.start(*roles, **how))

    def changes(self, *roles: str, **how: t.Any) -> list[str]:
        """The tasks that changed something, in a run in which none failed."""
        results = self.run(*roles, **how)
        assert not results[-1]["failed"], results[-1]
        return [result["task"] for result in results if result.get("changed")]

    def refusal(self, *roles: str, **how: t.Any) -> str:
        """The sentence with which a run ended."""
        results = self.run(*roles, **how)
        assert results[-1]["failed"], results[-1]
        return results[-1]["msg"]


@pytest.fixture
def roles(bare: Node, mirror: Mirror, tmp_path: Path) -> Roles:
    return Roles(bare, mirror, tmp_path / "cache")


@pytest.fixture(scope="session")
def disks(node: Node) -> list[str]:
    """Disks that the machine does not run from."""
    if isinstance(node, Container):
        pytest.skip("a container has no disks: KATA_NODE_INVENTORY has to name an inventory with a spare machine")
    found = json.loads(node.run("lsblk --json --paths --output NAME,TYPE,MOUNTPOINT,RO,SIZE --bytes"))["blockdevices"]

    def mounted(device: dict[str, t.Any]) -> bool:
        return bool(device["mountpoint"]) or any(mounted(child) for child in device.get("children", []))

    spare = [device["name"] for device in found if device["type"] == "disk" and device["size"] >= 2**30 and not mounted(device)]
    if len(spare) < 3:
        pytest.skip(f"{HOST} has {len(spare)} spare disks, and 3 are needed")
    return spare[:3]
