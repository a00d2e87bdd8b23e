"""Scripts on a node whose locale has a decimal comma: what they print and compare are numbers all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from ...helpers import TOP

ROLES = TOP / "roles"
# A program that prints a decimal comma, unless it is asked not to.
COMMA = 'output=$({program}) || exit\n[ "$LC_ALL" = C ] || output=$(echo "$output" | tr . ,)\nprintf %s "$output"'


def run(directory: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{directory}:{os.environ['PATH']}", "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", **environment}
    return subprocess.run(["sh", str(ROLES / script), *arguments], env=env, capture_output=True, text=True, check=False)


def stub(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


def test_proof(tmp_path: Path) -> None:
    stub(tmp_path, "lvs", COMMA.format(program="echo '  12.34|56.78||'"))
    given = {"POOL": "kata/pool", "MAX_METADATA_PERCENT": "80", "MAX_SHM_PERCENT": "100"}
    done = run(tmp_path, "node_proof/files/prove.sh", "before", MAX_DATA_PERCENT="12", **given)
    assert done.stderr == "Pool kata/pool has 12.34 % of its data in use, more than 12 %; add a disk to thin_pool_devices.\n"
    done = run(tmp_path, "node_proof/files/prove.sh", "before", MAX_DATA_PERCENT="12.5", **given)
    assert json.loads(done.stdout).keys() == {"started"}


def test_benchmark(tmp_path: Path) -> None:
    stub(tmp_path, "ctr", 'case "$*" in "plugins ls") echo io.containerd.snapshotter.v1 overlayfs linux/amd64 ok ;; esac')
    stub(tmp_path, "awk", COMMA.format(program=f'{shutil.which("awk")} "$@"'))
    given = {"IMAGE": "busybox", "RUNTIME": "kata", "CONFIG_PATH": "", "SNAPSHOTTER": "overlayfs"}
    done = run(tmp_path, "node_proof/files/benchmark.sh", **given, WRITE_BYTES="1024000", RUNS="1", TIMEOUT="9")
    measured = json.loads(done.stdout)
    assert [type(measured[name]) for name in ("cold_seconds", "warm_seconds", "write_seconds")] == [float] * 3


def test_probes() -> None:
    functions = (ROLES / "download/files/probe_functions.sh").read_text()
    env = {**os.environ, "LC_ALL": "de_DE.UTF-8"}
    done = subprocess.run(["sh", "-s"], input=f"{functions}\nprintenv LC_ALL\n", env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "C\n"
