"""What several test files use: waiting, modules as processes, the roles' defaults, and objects of the cluster."""

from __future__ import annotations

import functools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import typing as t
from contextlib import contextmanager
from pathlib import Path

import yaml

if t.TYPE_CHECKING:
    from lab.cluster.lab import Lab

TOP = Path(__file__).resolve().parents[1]
Playbook = t.Callable[..., "subprocess.CompletedProcess[str]"]
Writes = t.Callable[[], list[dict[str, t.Any]]]
RUNTIME_CLASS: dict[str, t.Any] = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "kata"},
    "handler": "kata",
    "scheduling": {
        "nodeSelector": {"dedicated": "screwdriver-kata", "kata.screwdriver.cd/ready": "true"},
        "tolerations": [{"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"}],
    },
}


def wait_until(holds: t.Callable[[], t.Any], what: object = "", seconds: float = 180, interval: float = 0.1) -> t.Any:
    """Calls ``holds`` until it returns something true.

    Args:
        holds: The condition.
        what: Named in the failure; a callable is called for it then.
        seconds: The time limit, far above what an idle machine needs.
        interval: Seconds between two calls.

    Returns:
        What ``holds`` returned last.
    """
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what() if callable(what) else what or holds}"
        time.sleep(interval)
    return found


@contextmanager
def granted(lab: Lab, rules: t.Iterable[tuple[str, str, str]]) -> t.Iterator[ModuleRunner]:
    """A ModuleRunner as the lab's user ``limited`` with these permissions alone.

    Args:
        lab: The lab.
        rules: Verb, resource (``pods``, ``pods/eviction``, ``leases.coordination.k8s.io``) and namespace, empty for the whole cluster.
    """
    rules = list(rules)
    objects, reviews = [], []
    for number, (verb, resource, namespace) in enumerate(rules):
        plural, _dot, group = resource.partition(".")
        kind = "Role" if namespace else "ClusterRole"
        meta = {"name": f"test-granted-{number}", **({"namespace": namespace} if namespace else {})}
        api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
        objects.append({**api, "kind": kind, "rules": [{"apiGroups": [group], "resources": [plural], "verbs": [verb]}]})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]}
        objects.append({**api, "kind": f"{kind}Binding", "roleRef": reference, "subjects": [{"kind": "User", "name": "limited"}]})
        name, _slash, subresource = plural.partition("/")
        attributes = {"verb": verb, "resource": name, "subresource": subresource, "group": group, "namespace": namespace}
        review = {"kind": "SubjectAccessReview", "spec": {"user": "limited", "resourceAttributes": attributes}}
        reviews.append({"apiVersion": "authorization.k8s.io/v1", **review})
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})

    def allowed() -> set[bool]:
        asked = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        answers = lab.kubectl("create", "-o", "jsonpath={.status.allowed}{'\\n'}", "-f", "-", stdin=asked)
        return {answer == "true" for answer in answers.split()}

    lab.kubectl("create", "-f", "-", stdin=listed)
    try:
        wait_until(lambda: allowed() == {True}, "the permissions hold")
        yield ModuleRunner(lab.directory / "limited.kubeconfig")
    finally:
        lab.kubectl("delete", "-f", "-", stdin=listed)
        wait_until(lambda: allowed() == {False}, "the permissions are gone")


def default(role: str, variable: str) -> t.Any:
    """The default of a role's variable, as its file has it."""
    return yaml.safe_load((TOP / "roles" / role / "defaults" / "main.yml").read_text())[variable]


class ModuleCall:
    """A module that runs in a process of its own."""

    def __init__(self, pid: int, directory: tempfile.TemporaryDirectory[str]) -> None:
        self.pid = pid
        self._directory = directory
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._descriptor = None

    def _ended(self, seconds: float | None) -> bool:
        if self._descriptor is not None and select.select([self._descriptor], [], [], seconds)[0]:
            os.close(self._descriptor)
            self._descriptor = None
        return self._descriptor is None

    def poll(self) -> int | None:
        """None while it runs."""
        return 0 if self._ended(0) else None

    def send_signal(self, number: int) -> None:
        if not self._ended(0):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)

    def communicate(self) -> tuple[str, str]:
        """Waits for its end, and returns standard output and error."""
        self._ended(None)
        out, err = ((Path(self._directory.name) / name).read_text() for name in ("out", "err"))
        return out, err


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One server of modules for all tests of this process; it ends with it, as its standard input is closed."""
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("module_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


class ModuleRunner:
    """Runs a module as Ansible does, in a process of its own, and returns the JSON that it printed."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig

    def start(self, name: str, /, check: bool = False, **parameters: t.Any) -> ModuleCall:
        kubeconfig = {"kubeconfig": str(self._kubeconfig)} if self._kubeconfig else {}
        arguments = {**kubeconfig, **parameters, "_ansible_check_mode": check, "_ansible_diff": True}
        directory = tempfile.TemporaryDirectory(prefix="kata-module-")
        paths = {key: Path(directory.name) / key for key in ("in", "out", "err")}
        for path in paths.values():
            path.touch()
        paths["in"].write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        call = {"module": name, "environment": dict(os.environ), **{key: str(path) for key, path in paths.items()}}
        server = _server()
        assert server.stdin
        assert server.stdout
        server.stdin.write(f"{json.dumps(call)}\n")
        server.stdin.flush()
        return ModuleCall(int(server.stdout.readline()), directory)

    def __call__(self, name: str, /, check: bool = False, **parameters: t.Any) -> dict[str, t.Any]:
        return self.result(self.start(name, check, **parameters))

    def result(self, call: ModuleCall) -> dict[str, t.Any]:
        out, err = call.communicate()
        try:
            return json.loads(out)
        except ValueError:
            raise AssertionError(f"no JSON from the module:\n{out}\n{err}") from None
