"""Makes a build node of a bare container, and once more: seconds, tasks and bytes of the first and the second run of the node roles."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from lab.common import LabError
from lab.machines.nspawn import Nodes
from lab.programs import mirror

ROLES = ("kata", "containerd", "crictl")
# A container has no virtualisation, no thin pool, and may raise no limit.
CONTAINER = {
    "kata_require_virtualization": False,
    "kata_snapshotter": "overlayfs",
    "containerd_handlers": "{{ kata_containerd_handlers }}",
    "containerd_nofile": 16384,
    "containerd_restrict_oom_score_adj": True,
}


def play(inventory: Path, directory: Path, variables: dict[str, t.Any]) -> tuple[float, int]:
    """The seconds that ansible-playbook takes, and how many tasks it ran."""
    roles = [f"screwdriver.kata.{role}" for role in ROLES]
    playbook = directory / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "node1", "gather_facts": False, "vars": variables, "roles": roles}]))
    settings = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1", "ANSIBLE_HOST_KEY_CHECKING": "false"}
    began = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", inventory, playbook], capture_output=True, text=True, check=False, env={**os.environ, **settings}
    )
    if done.returncode:
        raise LabError(f"The roles failed:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    ran = re.search(r"node1\s*: ok=(\d+)", done.stdout)
    assert ran, done.stdout
    return time.monotonic() - began, int(ran[1])


def served(log: Path) -> int:
    """The bytes of the files that the mirror has served in full so far, after its own log."""
    lines = log.read_text().splitlines() if log.exists() else []
    paths = [found[1] for line in lines if (found := re.match(r'"GET /(\S+) \S+" 200 ', line))]
    return sum((mirror.pack() / "files" / path).stat().st_size for path in paths)


def bench(directory: Path) -> None:
    nodes = Nodes.of_this_process("bench")
    log = directory / "requests.log"
    server = mirror.serve(0, log)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        inventory = nodes.up()
        caches = {f"{role}_cache": str(directory / "cache") for role in ROLES}
        variables = {**mirror.variables(server.server_address[1]), **CONTAINER, **caches}
        print("| run | seconds | tasks | bytes downloaded | to the first |\n|---|---:|---:|---:|---:|")
        first, before = 0.0, 0
        for run in ("first", "second"):
            seconds, tasks = play(inventory, directory, variables)
            first, total = first or seconds, served(log)
            print(f"| {run} | {seconds:.1f} | {tasks} | {total - before:,} | {100 * seconds / first:.0f} % |", flush=True)
            before = total
    finally:
        nodes.down()
        server.shutdown()


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.node", description=__doc__).parse_args()
    try:
        with tempfile.TemporaryDirectory() as directory:
            bench(Path(directory))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
