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

from ..helpers import (
    BUILDS_PER_SECOND,
    FAST_ROLLOUT,
    RUNTIME_CLASS,
    TOP,
    ModuleRunner,
    Playbook,
    Writes,
    clock_ahead,
    fork_server,
    playbook_environment,
    set_share,
    wait_until,
)

NODES = 8
# Builds start and end within a second or three.
PACE = 4.0
KATA_NODES = 4
# How a line of the audit log begins.
EVENT = b'{"kind":"Event",'


# Those that take longest: begun first, so that no worker is left with one while the others have ended.
LONG = (
    "test_rollout_role.py",
    "test_build_gate.py",
    "test_nodes.py",
    "test_newcomer.py",
    "test_build_drain.py",
    "test_permissions.py",
    "test_executor_role.py",
    "test_node_pool.py",
    "test_site.py",
    "test_secrets.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def lab() -> t.Iterator[Lab]:
    """A lab of this checkout's and this test process's own, so that several can be tested side by side.

    KATA_KEEP_LAB=1 leaves it up for the next run.
    """
    own = Lab(f"test-{hashlib.sha256(str(TOP).encode()).hexdigest()[:8]}-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}")
    own.up(nodes=NODES, pace=PACE)
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
def writes(lab: Lab) -> Writes:
    """Every write that the API server has taken since the fixture or the last call of it: who, verb, object. Dry runs are left out."""
    position = lab.audit_log.stat().st_size if lab.audit_log.exists() else 0

    def since() -> list[dict[str, t.Any]]:
        nonlocal position
        with lab.audit_log.open("rb") as log:
            log.seek(position)
            # What is not a whole line yet is read by the next call.
            text = log.read().rpartition(b"\n")[0]
        position += len(text)
        # A server that was killed leaves half a line, and the next one writes on behind it.
        events = [json.loads(line[line.rindex(EVENT) :]) for line in text.splitlines() if EVENT in line]
        return [event for event in events if "dryRun=" not in event["requestURI"] and event["responseStatus"]["code"] < 400]

    return since


@pytest.fixture(scope="session")
def playbook(lab: Lab) -> Playbook:
    """``playbook("playbooks/status.yml", "--check", variable=1)`` against the lab; a list of tasks works as well.

    With ``minutes_ahead`` the controller's clock is wrong, that of its modules too.
    """

    def run(
        what: str | Path | list[dict[str, t.Any]],
        *options: str,
        kubeconfig: Path | None = None,
        minutes_ahead: int = 0,
        **variables: t.Any,
    ) -> subprocess.CompletedProcess[str]:
        path = what if not isinstance(what, list) else lab.directory / "play.yml"
        if isinstance(what, list):
            Path(path).write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": what}]))
        variables = {"ansible_python_interpreter": str(fork_server(minutes_ahead) / "python"), **variables}
        command = ["ansible-playbook", "-e", json.dumps(variables), *options, str(path)]
        environment = playbook_environment(kubeconfig or lab.kubeconfig) | clock_ahead(minutes_ahead)
        return subprocess.run(command, cwd=TOP, capture_output=True, text=True, env=environment, check=False)

    return run


@pytest.fixture(scope="module")
def builds(lab: Lab, playbook: Playbook, request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Builds run, half of the nodes are Kata's, and the worker's config has an executor for them."""
    before = lab.worker_config()
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    names = lab.convert_nodes(KATA_NODES)
    lab.kubectl("label", "node", *names, "dedicated=screwdriver-kata")
    lab.kubectl("taint", "node", *names, "dedicated=screwdriver-kata:NoSchedule", "--overwrite")
    done = playbook([{"ansible.builtin.include_role": {"name": "screwdriver.kata.executor"}}], **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout
    lab.start_builds(BUILDS_PER_SECOND)
    yield
    stats = lab.stop_builds()
    lab.revert_nodes(KATA_NODES)
    lab.kubectl("delete", "runtimeclass", "kata")
    lab.set_worker_config(before)
    # Last, so that a failure here leaves a clean lab to the other modules.
    assert stats["excluded_on_kata"] == 0
    # The worker drops what the API server refuses, as without the RuntimeClass.
    assert stats["lost"] == 0 or request.module.__name__.endswith("test_rollout_faults")


@pytest.fixture
def no_rollout(lab: Lab, builds: None, module: ModuleRunner) -> None:
    """There is no record, the worker is rolled out with Kata's share at 0 %, and no builds of an earlier test are left."""
    lab.kubectl("delete", "configmap,lease", "kata-rollout", "-n", "sd", "--ignore-not-found")
    set_share(module, "0")
    lab.kubectl("rollout", "status", "deployment/buildcluster-queue-worker", "-n", "sd", "--timeout=120s")
    wait_until(lambda: lab.stats().get("in_flight", 0) < BUILDS_PER_SECOND * 25, "the builds in flight end")
