"""Secrets stay where they are: canaries in each place that has some, and a search of everything that leaves it."""

from __future__ import annotations

import json
import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.cluster.lab import Lab

from ..helpers import FAST_ROLLOUT, TOP, fork_server, playbook_environment

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJDYW5hcnkiOiJqd3QifQ.c2lnbmF0dXJl"
# Where each one is planted.
CANARIES = {
    "a token in the file": "Canary-File-Token",
    "a password in the file": "Canary-File-Password",
    "a URI in the file": "Canary-File-Uri",
    "a URI without a user": "Canary-Redis-Uri",
    "a JSON web token in an annotation": JWT,
    "a password in a variable": "Canary-Variable",
    "a URI in a variable": "Canary-Variable-Uri",
    "NODE_CONFIG": "Canary-Node-Config",
    "a Secret that a variable is taken from": "Canary-Secret",
    "the kubeconfig": "Canary-Kubeconfig",
    "the inventory": "Canary-Inventory",
    "the entry in the inventory": "Canary-Entry",
    "AMQP options": "Canary-Amqp-Options",
}
FILE = {
    "rabbitmq": {
        "password": CANARIES["a password in the file"],
        "uri": f"amqp://user:{CANARIES['a URI in the file']}@mq",
        "connectOptions": f'{{"password": "{CANARIES["AMQP options"]}"}}',
    },
    "redis": {"uri": f"redis://:{CANARIES['a URI without a user']}@cache:6379"},
}
VARIABLES: list[dict[str, t.Any]] = [
    {"name": "RABBITMQ_PASSWORD", "value": CANARIES["a password in a variable"]},
    {"name": "RABBITMQ_URI", "value": f"amqps://user:{CANARIES['a URI in a variable']}@mq/vhost"},
    {"name": "NODE_CONFIG", "value": json.dumps({"rabbitmq": {"password": CANARIES["NODE_CONFIG"]}})},
    {"name": "EXECUTOR_JENKINS_PASSWORD", "value": CANARIES["a password in a variable"]},
    {"name": "EXECUTOR_JENKINS_USERNAME", "valueFrom": {"secretKeyRef": {"name": "canary", "key": "user"}}},
]
LEGACY = {
    "token": CANARIES["a token in the file"],
    "annotations": {"example.com/session": JWT, "example.com/queue": f"amqp://user:{CANARIES['a URI in the file']}@mq"},
}


@pytest.fixture
def planted(lab: Lab, tmp_path: Path) -> t.Iterator[dict[str, t.Any]]:
    """Canaries in the worker's file, its variables, a Secret, the kubeconfig and the inventory; gives paths of the last two."""
    before = lab.worker_config()
    document = yaml.safe_load(before)
    legacy = document["executor"]["k8s-vm"]
    legacy["options"] = {**legacy.get("options", {}), "kubernetes": {**legacy.get("options", {}).get("kubernetes", {}), **LEGACY}}
    text = yaml.safe_dump({**document, **FILE}, sort_keys=False)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary", "namespace": "sd"}}
    secret["stringData"] = {"user": CANARIES["a Secret that a variable is taken from"]}
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    deployment = json.loads(lab.kubectl("get", "deployment", "buildcluster-queue-worker", "-n", "sd", "-o", "json"))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    patch(lab, "deployment", {"spec": {"template": {"spec": {"containers": [{**container, "env": [*container["env"], *VARIABLES]}]}}}})
    patch(lab, "configmap", {"data": {"local.yaml": text}})
    kubeconfig = yaml.safe_load(Path(lab.kubeconfig).read_text())
    kubeconfig["users"].append({"name": "other", "user": {"token": CANARIES["the kubeconfig"], "password": CANARIES["the kubeconfig"]}})
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    entry = {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata", "nodeSelectors": {"dedicated": "screwdriver-kata"}}}}
    entry["options"]["kubernetes"]["token"] = CANARIES["the entry in the inventory"]  # type: ignore[index]
    variables = {"ansible_connection": "local", "ansible_become_password": CANARIES["the inventory"], "executor_entry": entry}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": variables}}}))
    yield {"kubeconfig": tmp_path / "kubeconfig", "inventory": tmp_path / "inventory.yml", "text": text}
    patch(lab, "deployment", {"spec": {"template": {"spec": {"containers": [container]}}}})
    patch(lab, "configmap", {"data": {"local.yaml": before}})
    lab.kubectl("delete", "secret", "canary", "-n", "sd")


def patch(lab: Lab, kind: str, body: dict[str, t.Any]) -> None:
    lab.kubectl("patch", kind, "buildcluster-queue-worker", "-n", "sd", "--type=merge", "-p", json.dumps(body))


def run(planted: dict[str, t.Any], what: str | list[dict[str, t.Any]], *options: str, **variables: t.Any) -> str:
    """Everything that a run prints, at -vvv with diffs, and every result as JSON."""
    results = planted["inventory"].with_name("results.json")
    results.unlink(missing_ok=True)
    if not isinstance(what, str):
        path = planted["inventory"].with_name("play.yml")
        path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": what}]))
        what = str(path)
    environment = {
        **playbook_environment(planted["kubeconfig"]),
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "files" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "results_json",
        "RESULTS_JSON": str(results),
        "ANSIBLE_LOG_PATH": str(results.with_name("ansible.log")),
    }
    variables = {"ansible_python_interpreter": str(fork_server(0) / "python"), **variables}
    command = ["ansible-playbook", "-i", str(planted["inventory"]), "-vvv", "--diff", "-e", json.dumps(variables), *options, what]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert results.read_text().count("\n") > 1
    return done.stdout + done.stderr + results.read_text() + results.with_name("ansible.log").read_text()


def assert_clean(text: str, where: str) -> None:
    # The command line of a build has its token.
    assert "/opt/sd/run.sh" not in text, where
    found = [
        f"{place} in {where}: ...{text[max(0, text.index(canary) - 300) : text.index(canary) + 80]}"
        for place, canary in CANARIES.items()
        if canary in text
    ]
    assert not found, "\n".join(found)


def test_the_modules_print_no_secret(lab: Lab, planted: dict[str, t.Any], tmp_path: Path) -> None:
    where = {
        "config_map": {"namespace": "sd", "name": "buildcluster-queue-worker", "deployment": "buildcluster-queue-worker"},
        "legacy_executor": "k8s-vm",
        "kubeconfig": yaml.safe_load(planted["kubeconfig"].read_text()),
    }
    given = {"k8s-kata": {"pluginName": "k8s", "options": {"kubernetes": {"token": CANARIES["the entry in the inventory"]}}}}
    tasks: list[dict[str, t.Any]] = [
        {"screwdriver.kata.executor_config_info": {**where, "images": ["node"]}},
        {"screwdriver.kata.executor_config": {**where, "executors": given, "print_patch": True}},
        {"screwdriver.kata.executor_config": {**where, "executors": given, "kata_share": "10"}},
        {"screwdriver.kata.executor_config": {**where, "kata_share": "101"}, "ignore_errors": True},
        {"screwdriver.kata.executor_config": {**where, "executors": {"x": CANARIES["the entry in the inventory"]}}, "ignore_errors": True},
        {"screwdriver.kata.pool_info": {"namespace": "sd-builds", **{key: where[key] for key in ("kubeconfig",)}}, "ignore_errors": True},
    ]
    for options in ((), ("--check",)):
        assert_clean(run(planted, tasks, *options), "the output of the modules")


def test_a_backup_is_as_private_as_the_file(planted: dict[str, t.Any], tmp_path: Path) -> None:
    path = tmp_path / "worker" / "local.yaml"
    path.parent.mkdir()
    path.write_text(planted["text"])
    path.chmod(0o640)
    asked: dict[str, t.Any] = {
        "path": str(path),
        "legacy_executor": "k8s-vm",
        "kata_share": "10",
        "executors": {"k8s-kata": {"pluginName": "k8s"}},
        "backup": True,
    }
    assert_clean(run(planted, [{"screwdriver.kata.executor_config": asked}, {"ansible.builtin.debug": {"msg": "done"}}]), "the output")
    (backup,) = [other for other in path.parent.iterdir() if other != path]
    assert backup.read_text() == planted["text"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in (path, backup)} == {0o640}


@pytest.mark.playbooks
@pytest.mark.usefixtures("no_rollout")
def test_a_rollout_prints_and_keeps_no_secret(lab: Lab, planted: dict[str, t.Any], tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    variables = {**FAST_ROLLOUT, "rollout_report": str(report)}
    assert_clean(run(planted, "playbooks/rollout.yml", **variables), "the output of rollout")
    assert lab.record()["phase"] == "finished"
    for playbook in ("playbooks/status.yml", "playbooks/rollback.yml", "playbooks/status.yml"):
        assert_clean(run(planted, playbook, **variables), f"the output of {playbook}")
    for path in (report, report.with_suffix(".json")):
        assert_clean(path.read_text(), path.name)
    for kind in ("configmap", "lease"):
        assert_clean(lab.kubectl("get", kind, "kata-rollout", "-n", "sd", "-o", "json"), f"the {kind} of the record")
    assert_clean(lab.kubectl("get", "events", "-A", "-o", "json"), "the events")
