"""The lab that these tests run against, and ways to run what they test as a user's machine would."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..helpers import TOP, ModuleRunner

NODES = 8


@pytest.fixture(scope="session")
def lab() -> t.Iterator[Lab]:
    """A lab of this checkout's and this test process's own, so that several can be tested side by side.

    KATA_KEEP_LAB=1 leaves it up for the next run.
    """
    own = Lab(f"test-{hashlib.sha256(str(TOP).encode()).hexdigest()[:8]}-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}")
    own.up(nodes=NODES)
    yield own
    if not os.environ.get("KATA_KEEP_LAB"):
        own.down()


@pytest.fixture(scope="module")
def namespace(lab: Lab, request: pytest.FixtureRequest) -> t.Iterator[None]:
    """The namespace that a test module names NAMESPACE, once it takes pods."""
    name = request.module.NAMESPACE
    lab.kubectl("create", "namespace", name)
    # Pods are refused until the controller manager has made it.
    lab.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=120s")
    yield
    lab.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def module(lab: Lab) -> ModuleRunner:
    """``module("runtime_class", name="kata", handler="kata")`` as the lab's administrator."""
    return ModuleRunner(lab.kubeconfig)


@pytest.fixture
def module_as(lab: Lab) -> t.Callable[[Path | None], ModuleRunner]:
    """``module_as(kubeconfig)("runtime_class", ...)`` with another kubeconfig, or with none."""
    return ModuleRunner


@pytest.fixture
def writes(lab: Lab) -> t.Callable[[], list[dict[str, t.Any]]]:
    """Every write that the API server has taken since the fixture or the last call of it: who, verb, object. Dry runs are left out."""
    position = lab.audit_log.stat().st_size if lab.audit_log.exists() else 0

    def since() -> list[dict[str, t.Any]]:
        nonlocal position
        with lab.audit_log.open("rb") as log:
            log.seek(position)
            text = log.read()
        position += len(text)
        events = [json.loads(line) for line in text.splitlines()]
        return [event for event in events if "dryRun=" not in event["requestURI"] and event["responseStatus"]["code"] < 400]

    return since


@pytest.fixture
def playbook(lab: Lab) -> t.Callable[..., subprocess.CompletedProcess[str]]:
    """``playbook("playbooks/status.yml", "--check", variable=1)`` against the lab; a list of tasks works as well."""

    def run(
        what: str | Path | list[dict[str, t.Any]], *options: str, kubeconfig: Path | None = None, **variables: t.Any
    ) -> subprocess.CompletedProcess[str]:
        path = what if not isinstance(what, list) else lab.directory / "play.yml"
        if isinstance(what, list):
            Path(path).write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": what}]))
        command = ["ansible-playbook", "-e", json.dumps(variables), *options, str(path)]
        environment = {**os.environ, "K8S_AUTH_KUBECONFIG": str(kubeconfig or lab.kubeconfig), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(command, cwd=TOP, capture_output=True, text=True, env=environment, check=False)

    return run
