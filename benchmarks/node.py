"""Measures the first and the second run of the node roles on bare containers.

``--against COMMIT`` runs the roles of an older commit in turn with those of this checkout, and prints the ratios of the medians. Equal
releases are installed from a mirror on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lab.common import TOP, LabError
from lab.machines.nspawn import Nodes
from lab.programs import mirror

if t.TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = ("kata", "containerd", "crictl")
# A container has no virtualization and no thin pool, and cannot raise limits. Older commits know this release of Kata too.
CONTAINER = {
    "kata_version": "3.32.0",
    "kata_require_virtualization": False,
    "kata_snapshotter": "overlayfs",
    "containerd_handlers": "{{ kata_containerd_handlers }}",
    "containerd_nofile": 16384,
    "containerd_restrict_oom_score_adj": True,
}
SETTINGS = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1", "ANSIBLE_HOST_KEY_CHECKING": "false", "ANSIBLE_FORKS": "10"}
# Stands before a program of the connection, and counts its calls.
COUNTER = '#!/bin/sh\necho {name} >>{log}\nexec {name} "$@"\n'
RUNS = ("first", "second")


@dataclass
class Run:
    """What one run took."""

    seconds: float
    cpu: float
    tasks: int
    changed: int
    commands: int
    copies: int
    downloaded: int


class Bench:
    """Measures runs of the roles on fresh containers; its data is in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes = Nodes.of_this_process("bench")
        self.requests, self.calls = directory / "requests.log", directory / "calls.log"
        self.server = mirror.serve(0, self.requests)
        self.measured = 0
        for name in ("ssh", "sftp"):
            counter = directory / name
            counter.write_text(COUNTER.format(name=name, log=self.calls))
            counter.chmod(0o755)

    def __enter__(self) -> Bench:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.nodes.down()
        self.server.shutdown()

    def served(self) -> int:
        """The bytes of the files that the mirror has served in full so far, from its log."""
        lines = self.requests.read_text().splitlines() if self.requests.exists() else []
        paths = [found[1] for line in lines if (found := re.match(r'"GET /(\S+) \S+" 200 ', line))]
        return sum((mirror.pack() / "files" / path).stat().st_size for path in paths)

    def play(self, playbook: Path, inventory: Path, settings: dict[str, str]) -> Run:
        self.calls.write_text("")
        downloaded, before, began = self.served(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            ["ansible-playbook", "-i", inventory, playbook], capture_output=True, text=True, check=False, env={**os.environ, **settings}
        )
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise LabError(f"The roles failed:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
        found = re.search(r"node1\s*: ok=(\d+)\s+changed=(\d+)", done.stdout)
        assert found, done.stdout
        calls = self.calls.read_text().split()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Run(seconds, cpu, int(found[1]), int(found[2]), calls.count("ssh"), calls.count("sftp"), self.served() - downloaded)

    def measure(self, collections: str, nodes: int = 1, delay: float = 0) -> dict[str, Run]:
        """The first and the second run on fresh containers that are ``delay`` milliseconds away, with nothing downloaded yet."""
        self.measured += 1
        work = self.directory / str(self.measured)
        (work / "connections").mkdir(parents=True)
        inventory = self.nodes.up(nodes)
        if delay:
            relay = Path(__file__).with_name("delay.py")
            text = inventory.read_text().replace("ProxyUseFdpass=yes", "ProxyUseFdpass=no")
            inventory.write_text(re.sub(r"\S+/connect\.py", f"{relay} {delay}", text))
        caches = {f"{role}_cache": str(work / "cache") for role in ROLES}
        variables = {**mirror.variables(self.server.server_address[1]), **CONTAINER, **caches}
        playbook = work / "play.yml"
        roles = [f"screwdriver.kata.{role}" for role in ROLES]
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "vars": variables, "roles": roles}]))
        programs = {f"ANSIBLE_{name.upper()}_EXECUTABLE": str(self.directory / name) for name in ("ssh", "sftp")}
        paths = {"ANSIBLE_COLLECTIONS_PATH": collections, "ANSIBLE_SSH_CONTROL_PATH_DIR": str(work / "connections")}
        return {run: self.play(playbook, inventory, {**SETTINGS, **programs, **paths}) for run in RUNS}


@contextlib.contextmanager
def checkout(commit: str, directory: Path) -> Iterator[str]:
    """A tree of collections with this one as of a commit."""
    own = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"]) / "ansible_collections"
    tree = directory / "ansible_collections"
    for namespace in ("kubernetes", "screwdriver"):
        (tree / namespace).mkdir(parents=True)
    (tree / "kubernetes/core").symlink_to((own / "kubernetes/core").resolve())
    git = ["git", "-C", str(TOP), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree / "screwdriver/kata"), commit], check=True)
    try:
        yield str(directory)
    finally:
        subprocess.run([*git, "remove", "--force", str(tree / "screwdriver/kata")], check=True)


def middle(runs: list[Run]) -> Run:
    """The run with the median of each figure."""
    seconds, cpu = median(run.seconds for run in runs), median(run.cpu for run in runs)
    last = runs[-1]
    return Run(seconds, cpu, last.tasks, last.changed, last.commands, last.copies, last.downloaded)


def compare(bench: Bench, sides: dict[str, str], rounds: int, delay: float) -> None:
    """Prints a table of all sides, which take turns."""
    measured: dict[tuple[str, str], list[Run]] = {(side, run): [] for side in sides for run in RUNS}
    for _round in range(rounds):
        for side, collections in sides.items():
            for run, found in bench.measure(collections, delay=delay).items():
                measured[side, run].append(found)
    print(f"\nOne node, round-trip time {delay:g} ms, median of {rounds}\n")
    print("| run | roles | seconds | ratio | CPU s | ratio | tasks | changed | commands + copies | bytes downloaded |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for run in RUNS:
        # The older roles are the last side, which the others are divided by.
        base = middle(measured[list(sides)[-1], run])
        for side in sides:
            of = middle(measured[side, run])
            print(
                f"| {run} | {side} | {of.seconds:.1f} | {of.seconds / base.seconds:.2f} | {of.cpu:.1f} | {of.cpu / base.cpu:.2f} "
                f"| {of.tasks} | {of.changed} | {of.commands} + {of.copies} | {of.downloaded:,} |",
                flush=True,
            )


def fleet(bench: Bench, collections: str, sizes: list[int]) -> None:
    """Prints a table by the number of nodes."""
    print("\n| nodes | first run, seconds | second run, seconds | bytes downloaded |\n|---:|---:|---:|---:|")
    for size in sizes:
        found = bench.measure(collections, nodes=size)
        total = sum(run.downloaded for run in found.values())
        print(f"| {size} | {found['first'].seconds:.1f} | {found['second'].seconds:.1f} | {total:,} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="COMMIT", help="an older commit, whose roles are measured in turn with these")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--delay", type=float, nargs="*", default=[0, 20], help="round-trip times in milliseconds (default: 0 20)")
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 3, 6], help="sizes of a fleet (default: 1 3 6)")
    options = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sides = {"this checkout": os.environ["ANSIBLE_COLLECTIONS_PATH"]}
            if options.against:
                sides[options.against] = stack.enter_context(checkout(options.against, directory / "against"))
            bench = stack.enter_context(Bench(directory))
            for delay in options.delay:
                compare(bench, sides, options.rounds, delay)
            if options.nodes:
                fleet(bench, sides["this checkout"], options.nodes)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
