"""The lab itself, inspected from outside: kubectl and the process table."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from lab.cluster import lab as lab_module
from lab.cluster.lab import ORDER, Lab
from lab.common import LABS, LabError
from lab.processes import Process
from lab.programs import go

from ..helpers import TOP, Writes, wait_until
from .conftest import NODES


@pytest.fixture
def other() -> t.Iterator[Lab]:
    """A second lab, beside the one of all tests."""
    lab = Lab(f"other-{os.getpid()}")
    yield lab
    lab.down()


def command(lab: Lab, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *arguments, "--name", lab.name],
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(lab: Lab, *arguments: str) -> tuple[int, str]:
    process = command(lab, *arguments)
    out, unused = process.communicate(timeout=300)
    return process.returncode, out


def working_in(directory: Path) -> list[str]:
    """Command lines of processes that work in a directory, whoever started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{directory}/" in line and "-m lab" not in line:
            found.append(line)
    return found


def running(lab: Lab) -> list[str]:
    return working_in(lab.directory)


def ready_nodes(lab: Lab) -> int:
    nodes = json.loads(lab.kubectl("get", "nodes", "-o", "json"))["items"]
    return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", [])) for node in nodes)


def test_nodes_are_ready(lab: Lab) -> None:
    wait_until(lambda: ready_nodes(lab) == NODES, f"{NODES} nodes are Ready")


def test_writes_are_counted(lab: Lab, writes: Writes) -> None:
    lab.kubectl("create", "configmap", "written", "-n", "sd", "--from-literal=a=b")
    lab.kubectl("get", "configmap", "written", "-n", "sd")
    lab.kubectl("delete", "configmap", "written", "-n", "sd")
    assert [event["verb"] for event in writes()] == ["create", "delete"]


def test_two_labs_side_by_side_and_nothing_left_of_one(lab: Lab, other: Lab) -> None:
    code, out = run(other, "up", "--nodes", "3")
    assert code == 0, out
    assert other.server != lab.server
    assert json.loads(other.kubectl("get", "nodes", "-o", "json"))["items"].__len__() == 3
    assert json.loads(lab.kubectl("get", "nodes", "-o", "json"))["items"].__len__() == NODES
    assert f"lab {other.name}: up" in run(other, "status")[1]
    assert run(other, "kubeconfig")[1].strip() == str(other.kubeconfig)
    assert run(other, "down")[0] == 0
    assert running(other) == []
    assert list(LABS.glob(f"{other.name}*")) == []
    assert lab.is_up()


def test_a_lab_that_crashed_comes_up_again(other: Lab) -> None:
    assert run(other, "up", "--nodes", "1")[0] == 0
    for name in ("etcd", "kube-apiserver", "kwok"):
        other.process(name).kill()
    assert "incomplete: run up again" in run(other, "status")[1]
    code, out = run(other, "up", "--nodes", "2")
    assert code == 0, out
    assert len(running(other)) == len(ORDER) - 1
    assert len(json.loads(other.kubectl("get", "nodes", "-o", "json"))["items"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing_running(other: Lab, number: signal.Signals) -> None:
    process = command(other, "up", "--nodes", "1")
    wait_until(lambda: running(other), "a process of the lab")
    os.kill(process.pid, number)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert running(other) == []


def test_the_next_up_removes_what_a_killed_one_left(other: Lab) -> None:
    process = command(other, "up", "--nodes", "1")
    wait_until(lambda: running(other), "a process of the lab")
    process.kill()
    process.communicate()
    code, out = run(other, "up", "--nodes", "1")
    assert code == 0, out
    assert len(running(other)) == len(ORDER) - 1


def test_an_interrupted_parent_leaves_no_unknown_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent is interrupted before it has read the child's record."""

    def interrupted(self: Process) -> dict[str, t.Any]:
        raise KeyboardInterrupt

    process = Process(tmp_path / "run", "one")
    with monkeypatch.context() as patch:
        patch.setattr(Process, "_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.start(["touch", tmp_path / "started"])
    process.stop()
    wait_until(lambda: not working_in(tmp_path), "the end of the process")
    assert not (tmp_path / "started").exists()


def test_a_process_that_cannot_be_recorded_does_not_run_its_program(tmp_path: Path) -> None:
    (tmp_path / "one.pid.new").mkdir()
    process = Process(tmp_path, "one")
    process.start(["touch", tmp_path / "started"])
    assert process.pid is None
    assert not (tmp_path / "started").exists()


def test_a_process_has_ended_when_its_last_thread_has(tmp_path: Path) -> None:
    """Otherwise a restarted server may find its own port in use."""
    ends_its_first_thread = (
        "import threading, time, ctypes; threading.Thread(target=time.sleep, args=(600,)).start(); ctypes.CDLL(None).pthread_exit(None)"
    )
    process = Process(tmp_path, "threads")
    process.start([sys.executable, "-c", ends_its_first_thread])
    pid = process.pid
    wait_until(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1], "the end of the first thread")
    assert process.pid == pid
    process.stop()
    assert process.pid is None


@pytest.mark.parametrize("name", ["demo", "e2e"])
def test_one_run_at_a_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two demos would use the same cluster."""
    monkeypatch.setenv("KATA_CACHE", str(tmp_path))
    monkeypatch.setattr(lab_module, "LABS", tmp_path / "labs")
    with Lab(name).held():
        code, out = run(Lab(name), name)
    assert code == 1
    assert out == (f"lab: Lab {name} is held by process {os.getpid()}: wait until it has ended.\n")
    with Lab(name).held():
        pass


def test_an_unknown_lab(other: Lab) -> None:
    code, out = run(other, "status")
    assert code == 1
    assert out == (f"lab: There is no lab named {other.name}: start it with `python -m lab up --name {other.name}`.\n")


def test_an_unreachable_module_proxy_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go, "BINARIES", tmp_path / "bin")
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    etcd = next(part for part in go.PARTS if part.name == "etcd")
    sentence = (
        f"The Go module proxy cannot be reached, and etcd {etcd.version} is not in the cache: "
        "set GOPROXY to one that can be reached and run again."
    )
    with pytest.raises(LabError, match=f"^{re.escape(sentence)}$"):
        go.compile_part(etcd)
