"""A machine that Ansible's inventory names, over SSH."""

from __future__ import annotations

import json
import shlex
import subprocess
import typing as t

from lab.common import LabError

if t.TYPE_CHECKING:
    from pathlib import Path


class Machine:
    """Host ``name`` of ``inventory``; its commands share one connection, whose socket is in ``directory``."""

    def __init__(self, inventory: Path | str, name: str, directory: Path) -> None:
        self.name = name
        self.inventory = str(inventory)
        output = subprocess.run(
            ["ansible-inventory", "-i", self.inventory, "--host", name], capture_output=True, text=True, check=True
        ).stdout
        host: dict[str, t.Any] = json.loads(output)
        user = host.get("ansible_user", "root")
        self.sudo = [] if user == "root" else ["sudo", "-n"]
        self._options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-p", str(host.get("ansible_port", 22)), "-l", str(user)]
        self._options += shlex.split(host.get("ansible_ssh_common_args", ""))
        if key := host.get("ansible_ssh_private_key_file") or host.get("ansible_private_key_file"):
            self._options += ["-i", key]
        self._address = str(host.get("ansible_host", name))
        self._shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={directory}/ssh-%C"]

    def ssh(self, *options: str) -> list[str]:
        """The ssh command of a separate connection."""
        return ["ssh", "-o", "ControlPath=none", *self._options, *options, self._address]

    def command(self, script: str) -> list[str]:
        """The ssh command that runs a script there as root."""
        return ["ssh", *self._shared, *self._options, self._address, shlex.join([*self.sudo, "bash", "-c", script])]

    def run(self, script: str, check: bool = True, stdin: bytes = b"", timeout: float | None = None) -> str:
        """Runs a script as root.

        Args:
            script: For bash.
            check: Whether a failure is an error.
            stdin: Its standard input.
            timeout: In seconds.

        Returns:
            Its standard output.

        Raises:
            LabError: It failed or timed out.
        """
        try:
            done = subprocess.run(self.command(script), input=stdin, capture_output=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name} did not answer within {timeout:.0f} s: {script}") from error
        if check and done.returncode:
            raise LabError(
                f"A script on {self.name} failed with exit code {done.returncode}: {script}\n{done.stdout.decode()}{done.stderr.decode()}"
            )
        return done.stdout.decode().strip()

    def disconnect(self) -> None:
        """Closes the shared connection, which hangs once the machine is gone."""
        subprocess.run(["ssh", *self._shared, *self._options, "-O", "exit", self._address], capture_output=True, check=False)
