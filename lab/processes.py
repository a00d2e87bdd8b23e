"""Starts and stops the lab's processes; a recycled process id is never mistaken for one of them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
import typing as t
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from lab.common import LabError

# The child records itself, and runs the program only once its parent has read the record: an interrupted parent leaves no unknown process.
RECORD_THEN_RUN = """
read -r line </proc/$$/stat
printf '{"pid": %d, "started": "%s", "command": %s}' $$ "$(printf %s "${line##*) }" | cut -d ' ' -f 20)" "$2" >"$1.new" \
&& mv "$1.new" "$1" || exit 1
shift 2
read -r go && exec "$@" </dev/null
"""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on; all bound at once, so that they differ.

    None is in the kernel's range for outgoing connections: while a server restarts, such a connection could take its port.

    Raises:
        LabError: Not enough were found.
    """
    # Where that range starts low there is no choice.
    end = max(20000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    with ExitStack() as stack:
        ports: list[int] = []
        for port in random.sample(range(10000, end), 1000):
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise LabError(f"{count} free ports were not found on loopback between 10000 and {end}: stop programs that listen there.")


def _started(pid: int) -> str | None:
    """The kernel's start time of a process (clock ticks since boot), None once all of its threads have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    # Threads may outlive the first one and keep a server's port open (proc_pid_stat(5): state, num_threads).
    return None if fields[0] == "Z" and int(fields[17]) <= 1 else fields[19]


class Process:
    """One program of a lab: ``<run_dir>/<name>.pid`` identifies it across commands, ``<run_dir>/<name>.log`` has its output."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self.name = name
        self.log = run_dir / f"{name}.log"
        self._file = run_dir / f"{name}.pid"

    def start(self, command: list[t.Any], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", RECORD_THEN_RUN, "sh", self._file, json.dumps(words), *words],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        with closing(t.cast(t.BinaryIO, child.stdin)) as stdin:
            while self._record().get("pid") != child.pid and child.poll() is None:
                time.sleep(0.01)
            with suppress(BrokenPipeError):
                stdin.write(b"go\n")

    def _record(self) -> dict[str, t.Any]:
        try:
            return json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        record = self._record()
        return record["pid"] if record and _started(record["pid"]) == record["started"] else None

    def restart(self) -> None:
        """Stops it and starts the same command again."""
        command = self._record()["command"]
        self.stop()
        self.start(command)

    def kill(self) -> None:
        """Kills it, as a crash would."""
        if pid := self.pid:
            os.killpg(pid, signal.SIGKILL)
            self.wait(5)

    def stop(self, seconds: float = 10) -> None:
        """Sends SIGTERM, and SIGKILL after ``seconds``."""
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            self.wait(seconds)
        self.kill()
        self._file.unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        """Waits until it has ended, or for this long."""
        deadline = time.monotonic() + seconds
        while (pid := self.pid) and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)

    def tail(self, lines: int = 5) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def memory(self) -> int:
        """Proportional set size in bytes: shared pages are counted once over all processes."""
        if not (pid := self.pid):
            return 0
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
