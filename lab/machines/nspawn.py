"""Throw-away build nodes: containers that boot a real Debian systemd at native speed, reached over SSH. They share this machine's kernel.

``python -m lab.machines.nspawn up --nodes 2`` prints an Ansible inventory; ``down`` leaves nothing. They have loopback only, and no device
mapper: a thin pool needs a real machine. It needs root, and a Debian host or another one with mmdebstrap.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from lab.common import CACHE, LabError, locked, progress
from lab.processes import Process
from lab.programs.apt import install_packages

HERE = Path(__file__).parent
CONTAINERS = CACHE / "containers"
SETS = CONTAINERS / "sets"
SUITE = "bookworm"
# A distribution's minimal server; zstd and xz, since there is no network to install them from.
PACKAGES = "systemd-sysv,udev,dbus,openssh-server,python3,python3-apt,sudo,ca-certificates,iproute2,kmod,procps,zstd,xz-utils"
# Programs that run containers here, and their Debian packages.
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ssh": "openssh-client", "zstd": "zstd"}
SSH_SOCKET = """[Socket]
ListenStream=/run/lab/ssh
Accept=yes

[Install]
WantedBy=sockets.target
"""
SSH_SERVICE = """[Unit]
CollectMode=inactive-or-failed

[Service]
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
ExecStart=-/usr/sbin/sshd -i -o UseDNS=no
StandardInput=socket
"""
# Pods need cgroups that can be written; nspawn leaves those of version 1 read-only.
CGROUPS = """[Unit]
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'findmnt -nlo TARGET -t cgroup | while read tree; do mount -o remount,bind,rw "$tree"; done'

[Install]
WantedBy=sysinit.target
"""
UNITS = {"lab-ssh.socket": SSH_SOCKET, "lab-ssh@.service": SSH_SERVICE, "lab-cgroups.service": CGROUPS}
MASKED = ("ssh.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer")
# A stub: a container has no kernel modules, so those that Kata asks for exist by name only, as if built in.
MODULES = """
mkdir -p /lib/modules/$(uname -r) && cd /lib/modules/$(uname -r) && touch modules.order modules.builtin.modinfo
printf 'kernel/drivers/vhost/%s.ko\\n' vhost_vsock vhost_net >modules.builtin && depmod
"""
BOOT_TIMEOUT = 120


def _require_tools() -> None:
    """Installs what is missing where this is a Debian host."""
    if os.geteuid() != 0:
        raise LabError("Containers need root: run as root, or set KATA_NODE_INVENTORY to an inventory with a spare machine.")
    if missing := sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)}):
        install_packages(f"Containers need {' and '.join(missing)}", missing)


def base_image() -> Path:
    """Creates the root file system that all containers start from, and their SSH key, unless the cache has them.

    Returns:
        The directory that has ``root`` and ``key``.
    """
    key = hashlib.sha256(repr((SUITE, PACKAGES, UNITS, MASKED)).encode()).hexdigest()[:8]
    target = CONTAINERS / f"base-{SUITE}-{key}"
    with locked(CONTAINERS / "lock"):
        if target.exists():
            return target
        progress(f"Building the root file system of the containers, Debian {SUITE} (once)")
        work = target.with_suffix(".part")
        shutil.rmtree(work, ignore_errors=True)
        root = work / "root"
        work.mkdir(mode=0o700)
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}", SUITE, str(root)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"mmdebstrap of {SUITE} failed:\n{done.stderr[-2000:]}")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", work / "key"], check=True)
        for name, text in UNITS.items():
            (root / "etc/systemd/system" / name).write_text(text)
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(work / "key.pub", root / "root/.ssh/authorized_keys")
        # It would hide the name that is given at the start.
        (root / "etc/hostname").unlink(missing_ok=True)
        for arguments in (["enable", "lab-ssh.socket", "lab-cgroups.service"], ["mask", *MASKED]):
            subprocess.run(["systemctl", "--quiet", f"--root={root}", *arguments], check=True)
        work.rename(target)
        return target


class Container:
    """One container of a set; its data is in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = f"kata-{directory.parent.name}-{directory.name}"
        self.process = Process(directory / "run", "nspawn")

    def start(self, base: Path) -> None:
        for name in ("root", "upper", "work", "run", "state"):
            (self.directory / name).mkdir(parents=True)
        # The mode that containerd sets.
        (self.directory / "state").chmod(0o700)
        boot = [HERE / "boot.sh", base / "root", self.directory, self.name, self.directory.name]
        self.process.start(["unshare", "--mount", "--propagation", "private", *boot])

    def wait(self, key: Path) -> None:
        """Waits until systemd has started every unit.

        Raises:
            LabError: It did not boot.
        """
        ready = [*self.ssh(key), "systemctl", "is-system-running", "--wait"]
        deadline = time.monotonic() + BOOT_TIMEOUT
        # ssh itself fails with 255; systemctl with 1 where a unit of the system has failed.
        while subprocess.run(ready, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode > 1:
            if not self.process.pid or time.monotonic() > deadline:
                raise LabError(f"Container {self.name} did not boot:\n{self.process.tail(15)}")
            time.sleep(0.2)
        subprocess.run([*self.ssh(key), MODULES], stdin=subprocess.DEVNULL, check=True)

    def _options(self) -> list[str]:
        proxy = f"{sys.executable} {HERE / 'connect.py'} {self.directory / 'run' / 'ssh'}"
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ProxyUseFdpass=yes",
            f"ProxyCommand={proxy}",
        )
        return [word for option in options for word in ("-o", option)]

    def ssh(self, key: Path) -> list[str]:
        """The ssh command, without the command to run."""
        return ["ssh", "-o", "BatchMode=yes", *self._options(), "-i", str(key), f"root@{self.name}"]

    def variables(self, key: Path) -> dict[str, str]:
        """Ansible's connection variables."""
        return {
            # Ansible shares connections by this name.
            "ansible_host": self.name,
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": shlex.join(self._options()),
        }

    def stop(self) -> None:
        """Kills it and removes its data, also after a crash."""
        self.process.kill()
        for tree in _cgroup_trees():
            _remove_cgroup(tree / self.name)
        shutil.rmtree(self.directory, ignore_errors=True)


def _cgroup_trees() -> list[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in mounts if fields[2] in ("cgroup", "cgroup2")]


def _remove_cgroup(group: Path) -> None:
    """Kills all processes in a group and below, and removes it."""
    if not group.exists():
        return
    groups = sorted((path.parent for path in group.rglob("cgroup.procs")), key=lambda path: len(path.parts), reverse=True)
    deadline = time.monotonic() + 10
    while pids := [int(line) for one in groups for line in (one / "cgroup.procs").read_text().split()]:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise LabError(f"Processes {', '.join(map(str, pids))} of {group} do not end after SIGKILL.")
        time.sleep(0.05)
    for one in groups:
        one.rmdir()


class Nodes:
    """A named set of containers: hosts ``node1``, ``node2`` and so on of its inventory."""

    def __init__(self, name: str = "default") -> None:
        self.directory = SETS / name
        self.inventory = self.directory / "inventory.yml"

    @classmethod
    def of_this_process(cls, purpose: str) -> Nodes:
        """A set for this process only. Sets of processes that have ended are removed."""
        for path in SETS.glob(f"{purpose}-*"):
            if not Path("/proc", path.name.rsplit("-", 1)[1]).exists():
                cls(path.name).down()
        return cls(f"{purpose}-{os.getpid()}")

    def containers(self) -> list[Container]:
        return [Container(path) for path in sorted(self.directory.glob("node*"))]

    def up(self, count: int = 1) -> Path:
        """Boots ``count`` fresh containers, in place of those that the set had.

        Returns:
            Their inventory.
        """
        _require_tools()
        self.down()
        base = base_image()
        containers = [Container(self.directory / f"node{number}") for number in range(1, count + 1)]
        try:
            for container in containers:
                container.start(base)
            hosts = {container.directory.name: container.variables(base / "key") for container in containers}
            self.inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
            for container in containers:
                container.wait(base / "key")
        except BaseException:
            self.down()
            raise
        return self.inventory

    def down(self) -> None:
        for container in self.containers():
            container.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def up(nodes: Nodes, options: argparse.Namespace) -> None:
    print(nodes.up(options.nodes))


def down(nodes: Nodes, options: argparse.Namespace) -> None:
    nodes.down()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.machines.nspawn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, text in ((up, "boot a set of containers and print their inventory"), (down, "stop a set and remove its data")):
        command = commands.add_parser(function.__name__, help=text)
        command.set_defaults(function=function)
        command.add_argument("--name", default="default", help="which set (default: %(default)s)")
        if function is up:
            command.add_argument("--nodes", type=int, default=1, help="how many (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    try:
        options.function(Nodes(options.name), options)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
