"""Shared by test files: waiting, modules as processes, defaults of roles, and objects of the cluster."""

from __future__ import annotations

import atexit
import functools
import http.server
import importlib.util
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import typing as t
from contextlib import contextmanager
from pathlib import Path

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig

from lab import common

if t.TYPE_CHECKING:
    from lab.cluster.lab import Lab

TOP = Path(__file__).resolve().parents[1]
Playbook = t.Callable[..., "subprocess.CompletedProcess[str]"]
Writes = t.Callable[[], list[dict[str, t.Any]]]
BUILDS_PER_SECOND = 2.0
# A rollout of one step that needs few builds and little time.
FAST_ROLLOUT: dict[str, t.Any] = {
    "executor_exclusions": ["rhel6"],
    "rollout_steps": [100],
    "rollout_window": 4,
    "rollout_interval": 4,
    "rollout_timeout": 90,
    "rollout_min_builds": 3,
    "rollout_start_timeout": 15,
    # The speed of the machine is not tested.
    "rollout_max_setup_ratio": 100.0,
    "rollout_max_setup_seconds": 1000.0,
}
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
    return common.wait_until(holds, lambda: f"not within {seconds:g} s: {what() if callable(what) else what or holds}", seconds, interval)


def watches_of_pods(lab: Lab) -> int:
    """How many watches of the pods of one namespace the API server serves."""
    marks = ("apiserver_longrunning_requests{", 'resource="pods"', 'scope="namespace"', 'verb="WATCH"')
    lines = lab.kubectl("get", "--raw", "/metrics").splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if all(mark in line for mark in marks))


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
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})

    def allowed() -> set[bool]:
        asked = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        answers = lab.kubectl("create", "-o", "jsonpath={.status.allowed}{'\\n'}", "-f", "-", stdin=asked)
        return {answer == "true" for answer in answers.split()}

    lab.kubectl("create", "-f", "-", stdin=manifest)
    try:
        wait_until(lambda: allowed() == {True}, "the permissions hold")
        yield ModuleRunner(lab.directory / "limited.kubeconfig")
    finally:
        lab.kubectl("delete", "-f", "-", stdin=manifest)
        wait_until(lambda: allowed() == {False}, "the permissions are gone")


def weightages(lab: Lab) -> dict[str, int]:
    """The weightages of the lab's two executors in the worker's config."""
    section = yaml.safe_load(lab.worker_config())["executor"]
    return {name: section[name]["weightage"] for name in ("k8s-vm", "k8s-kata")}


def set_share(module: ModuleRunner, share: str) -> None:
    """Sets Kata's share in the lab's worker config."""
    where = {"namespace": "sd", "name": "buildcluster-queue-worker", "deployment": "buildcluster-queue-worker"}
    done = module("executor_config", config_map=where, kata_executor="k8s-kata", legacy_executor="k8s-vm", kata_share=share)
    assert not done.get("failed"), done


def lock_holder(lab: Lab) -> str:
    """The holder of the rollout's lock; empty where it is free."""
    return lab.kubectl("get", "lease", "kata-rollout", "-n", "sd", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")


def clock_ahead(minutes: int) -> dict[str, str]:
    """The environment variables of a process whose clock, and that of all that it starts, is ahead of the real one."""
    if not minutes:
        return {}
    package = importlib.util.find_spec("libfaketime")
    assert package
    assert package.submodule_search_locations
    library = Path(package.submodule_search_locations[0]) / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    # The clock that processes wait by stays as it is: threads would hang.
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{minutes:+d}m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def playbook_environment(kubeconfig: Path) -> dict[str, str]:
    """The environment of ansible-playbook against the lab of a kubeconfig."""
    return {**os.environ, "K8S_AUTH_KUBECONFIG": str(kubeconfig), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1"}


def default(role: str, variable: str) -> t.Any:
    """The default of a role's variable, as its file has it."""
    return yaml.safe_load((TOP / "roles" / role / "defaults" / "main.yml").read_text())[variable]


class ModuleCall:
    """A module that runs in a process of its own."""

    def __init__(self, connection: socket.socket, directory: tempfile.TemporaryDirectory[str]) -> None:
        self._connection = connection
        self._directory = directory
        self.pid = int(connection.recv(64))

    def _ended(self, seconds: float | None) -> bool:
        return bool(select.select([self._connection], [], [], seconds)[0])

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
def fork_server(minutes_ahead: int) -> Path:
    """The directory of this test process's fork server: its ``socket``, and ``python``, which has it run what Python would.

    The forks have the server's clock. The server ends with the tests, as its standard input is closed.
    """
    directory = Path(tempfile.mkdtemp(prefix="kata-fork-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    here = Path(__file__).parent
    server = subprocess.Popen(
        [sys.executable, here / "fork_server.py", directory / "socket"],
        env=os.environ | clock_ahead(minutes_ahead),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Kept until then: without a reference to it, its standard input would be closed.
    atexit.register(server.terminate)
    assert server.stdout
    assert server.stdout.readline() == "ready\n"
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -IS {here}/fork_client.py {directory}/socket "$@"\n')
    python.chmod(0o755)
    return directory


class ModuleRunner:
    """Runs a module as Ansible does, in a process of its own, and returns the JSON that it printed."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig

    def start(self, name: str, /, check: bool = False, **parameters: t.Any) -> ModuleCall:
        kubeconfig = {"kubeconfig": str(self._kubeconfig)} if self._kubeconfig else {}
        arguments = {**kubeconfig, **parameters, "_ansible_check_mode": check, "_ansible_diff": True}
        directory = tempfile.TemporaryDirectory(prefix="kata-module-")
        given = Path(directory.name) / "in"
        given.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        message = (["-m", f"ansible_collections.screwdriver.kata.plugins.modules.{name}"], os.getcwd(), dict(os.environb))
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(fork_server(0) / "socket"))
        with given.open() as stdin, given.with_name("out").open("w") as out, given.with_name("err").open("w") as err:
            socket.send_fds(connection, [repr(message).encode()], [file.fileno() for file in (stdin, out, err)])
            return ModuleCall(connection, directory)

    def __call__(self, name: str, /, check: bool = False, **parameters: t.Any) -> dict[str, t.Any]:
        return self.result(self.start(name, check, **parameters))

    def result(self, call: ModuleCall) -> dict[str, t.Any]:
        out, err = call.communicate()
        try:
            return json.loads(out)
        except ValueError:
            raise AssertionError(f"no JSON from the module:\n{out}\n{err}") from None


def evaluate(template: str, *roles: str, **values: t.Any) -> t.Any:
    """What a template evaluates to with the defaults and variables of these roles and these values."""
    if not AnsibleCollectionConfig.collection_finder:
        init_plugin_loader([])
    loader = DataLoader()
    variables: dict[str, t.Any] = {"inventory_hostname": "node1", "omit": "omitted"}
    for role in roles:
        for part in ("defaults", "vars"):
            for file in sorted((TOP / "roles" / role / part).rglob("*.yml")):
                variables |= loader.load_from_file(str(file), trusted_as_template=True)
    variables["ansible_search_path"] = [str(TOP / "roles" / role) for role in roles]
    return Templar(loader, variables=variables | values).template(trust_as_template(template))


@contextmanager
def requests_received(method: str) -> t.Iterator[tuple[str, dict[str, str]]]:
    """The URL of a server on loopback, and the bodies that were sent to it with this method, by their paths."""
    received: dict[str, str] = {}

    def receive(handler: http.server.BaseHTTPRequestHandler) -> None:
        received[handler.path] = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        handler.send_response(200)
        handler.end_headers()

    attributes = {f"do_{method}": receive, "log_message": lambda *_: None}
    with http.server.HTTPServer(("127.0.0.1", 0), type("Receiver", (http.server.BaseHTTPRequestHandler,), attributes)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
