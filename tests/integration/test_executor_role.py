"""The role executor where its config is managed by another tool, and what a rollout says to that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.cluster.lab import Lab

from ..helpers import BUILDS_PER_SECOND, FAST_ROLLOUT, TOP, Playbook, lock_holder, playbook_environment, wait_until

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

pytestmark = [pytest.mark.playbooks, pytest.mark.usefixtures("no_rollout")]
SHARE = {"ansible.builtin.include_role": {"name": "screwdriver.kata.executor", "tasks_from": "share"}}


@pytest.fixture
def no_builds(lab: Lab) -> t.Iterator[None]:
    """No build is routed by what a test does to the config."""
    assert lab.stop_builds()["excluded_on_kata"] == 0
    yield
    lab.start_builds(BUILDS_PER_SECOND)


def test_a_share_is_printed_and_not_written(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    done = playbook([{**SHARE, "vars": {"executor_share": "10"}}], executor_print_patch=True, **FAST_ROLLOUT)
    assert done.returncode != 0
    assert "Kata's share was not set to 10 %, because executor_print_patch is true: make this change where the config is" in done.stdout
    assert "+    weightage: 10" in done.stdout
    assert lab.worker_config() == before
    done = playbook([{**SHARE, "vars": {"executor_share": "0"}}], executor_print_patch=True, **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout


def test_a_rollout_refuses_shares_that_are_only_printed(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    done = playbook("playbooks/rollout.yml", executor_print_patch="true", **FAST_ROLLOUT)
    assert done.returncode != 0
    assert (
        "executor_print_patch is true, and a rollout writes a share at each step: set it to false, and let the tool that manages ConfigMap "
        "sd/buildcluster-queue-worker ignore key local.yaml. Nothing was changed."
    ) in done.stdout
    assert lab.worker_config() == before
    assert lab.record() == {}


def test_a_rollout_refuses_executors_that_are_not_configured(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    says = (
        "k8s-kta and vm are not configured in ConfigMap sd/buildcluster-queue-worker: run the playbook screwdriver.kata.site, which adds "
        "Kata's executor, or correct executor_kata and executor_legacy."
    )
    names = {**FAST_ROLLOUT, "executor_kata": "k8s-kta", "executor_legacy": "vm"}
    done = playbook("playbooks/rollout.yml", **names)
    assert done.returncode != 0
    assert f"{says} Nothing was changed." in done.stdout
    planned = playbook("playbooks/rollout.yml", "--check", **names)
    assert planned.returncode == 0, planned.stdout
    assert f"problem: {says}" in planned.stdout
    assert lab.worker_config() == before
    assert lab.record() == {}


# A rollback is 0 % to the worker, or fails


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "executor_kata",
            "k8s-kta",
            "k8s-kta is not configured in the worker's config, so no share was changed: set executor_kata to the name of Kata's executor.",
        ),
        (
            "executor_namespace",
            "nope",
            "Deployment nope/buildcluster-queue-worker does not exist: name the worker's, or leave deployment out. The share was not set "
            "to 0. Run rollback again, or set the weightage of k8s-kata to 0 in the worker's config and restart the worker.",
        ),
    ],
)
def test_a_rollback_that_does_not_find_the_share_says_what_to_do(
    lab: Lab, playbook: Playbook, variable: str, value: str, says: str
) -> None:
    before = lab.worker_config()
    done = playbook("playbooks/rollback.yml", **{**FAST_ROLLOUT, variable: value})
    assert done.returncode != 0
    assert says in done.stdout
    assert lab.worker_config() == before


def test_a_rollback_that_a_variable_overrides_says_so(lab: Lab, playbook: Playbook) -> None:
    over = {"executor": {"k8s-kata": {"weightage": 50}}, "rabbitmq": {"prefetchCount": 5}}
    name = ("deployment", "buildcluster-queue-worker", "-n", "sd")
    lab.kubectl("set", "env", *name, f"NODE_CONFIG={json.dumps(over)}")
    try:
        done = playbook("playbooks/rollback.yml", **FAST_ROLLOUT)
        assert done.returncode != 0
        assert "kata_share 0 has no effect: the worker would send 33.3333 % of the builds to k8s-kata, because NODE_CONFIG" in done.stdout
        assert "NODE_CONFIG overrides executor.k8s-kata.weightage. Remove the variables from the worker, or set" in done.stdout
        assert "The share was not set to 0." in done.stdout
        done = playbook("playbooks/rollback.yml", executor_override_environment="remove", **FAST_ROLLOUT)
        assert done.returncode == 0, done.stdout
        (container,) = json.loads(lab.kubectl("get", *name, "-o", "json"))["spec"]["template"]["spec"]["containers"]
        (left,) = [json.loads(item["value"]) for item in container["env"] if item["name"] == "NODE_CONFIG"]
        assert left == {"executor": {}, "rabbitmq": {"prefetchCount": 5}}
    finally:
        lab.kubectl("set", "env", *name, "NODE_CONFIG-")


# One meaning of the exclusions


def excluded(lab: Lab) -> list[str]:
    return yaml.safe_load(lab.worker_config())["executor"]["k8s-kata"].get("exclusions", [])


def test_exclusions_are_written_with_a_share_and_not_needed_for_0(lab: Lab, playbook: Playbook, no_builds: None) -> None:
    # A share without exclusions would send rhel6 builds to Kata.
    for share, given, wanted in (
        ("10", ["rhel6", "centos:6"], ["rhel6", "centos:6"]),
        ("10", [], []),
        ("0", ["*bad"], []),
        ("5", ["a"], ["a"]),
    ):
        variables = {**FAST_ROLLOUT, "executor_exclusions": given}
        done = playbook([{**SHARE, "vars": {"executor_share": share}}], **variables)
        assert done.returncode == 0, done.stdout
        assert excluded(lab) == wanted
    without = {key: value for key, value in FAST_ROLLOUT.items() if key != "executor_exclusions"}
    assert playbook([{**SHARE, "vars": {"executor_share": "10"}}], **without).returncode == 0
    assert excluded(lab) == ["a"]
    assert playbook([{**SHARE, "vars": {"executor_share": "10"}}], **FAST_ROLLOUT).returncode == 0


def test_exclusions_as_text_are_not_split_at_a_comma(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    done = playbook([{**SHARE, "vars": {"executor_share": "10"}}], **{**FAST_ROLLOUT, "executor_exclusions": "centos:6{1,2}"})
    assert done.returncode != 0
    assert (
        'executor_exclusions is the text centos:6{1,2}: give a list, such as ["rhel6", "centos:6"], since a comma may belong to a pattern. '
        "Nothing was changed."
    ) in done.stdout
    assert lab.worker_config() == before


def test_a_finished_rollout_does_not_ignore_other_exclusions(lab: Lab, module: ModuleRunner, playbook: Playbook) -> None:
    done = playbook([{**SHARE, "vars": {"executor_share": "100"}}], **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout
    own: dict[str, t.Any] = {"name": "kata-rollout", "namespace": "sd", "holder": "test"}
    steps: list[dict[str, t.Any]] = [{"action": "begin", "steps": [100]}, {"action": "finish"}, {"action": "release"}]
    for more in steps:
        result = module("rollout", **own, **more)
        assert not result.get("failed"), result
    assert lab.record()["phase"] == "finished"
    done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout
    done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "executor_exclusions": ["rhel6", "centos:6"]})
    assert done.returncode != 0
    assert (
        'executor_exclusions is ["rhel6", "centos:6"] and the worker\'s config has ["rhel6"], but the rollout is finished and sets no '
        "share: run screwdriver.kata.site, which writes them, or set executor_exclusions to what the config has."
    ) in done.stdout


def test_the_legacy_executor_is_not_removed_while_builds_run_there(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    wait_until(lambda: lab.stats()["running"], "a build runs")
    done = playbook([{"ansible.builtin.include_role": {"name": "screwdriver.kata.executor"}}], executor_remove_legacy=True, **FAST_ROLLOUT)
    assert done.returncode != 0
    assert re.search(r"k8s-vm cannot be removed: \d+ builds are not on k8s-kata now, such as ", done.stdout), done.stdout
    assert lab.worker_config() == before


# A worker of another form

IMAGE = "registry.example/mirror/queue-worker:5"
CONFIG_DIRECTORY = "/usr/src/app/node_modules/screwdriver-buildcluster-queue-worker/config"
DIRECTORIES = {"name": "NODE_CONFIG_DIR", "value": f"{CONFIG_DIRECTORY}:/etc/sd"}


def workload(kind: str, name: str, containers: list[dict[str, t.Any]], volumes: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    labels = {"app": name}
    simulated = {"nodeSelector": {"screwdriver.cd/lab": "simulated"}, "tolerations": [{"operator": "Exists"}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, "volumes": volumes, **simulated}}
    body = {"selector": {"matchLabels": labels}, "template": template, **({"serviceName": name} if kind == "StatefulSet" else {})}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "sd"}, "spec": body}


@pytest.fixture
def create(lab: Lab) -> t.Iterator[t.Callable[..., None]]:
    """Creates objects in the worker's namespace, and removes them and the ConfigMap ``other`` after the test."""

    def run(*objects: dict[str, t.Any]) -> None:
        lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    yield run
    lab.kubectl("delete", "configmap,deployment,statefulset", "other", "-n", "sd", "--ignore-not-found")


def test_the_share_of_a_stateful_set_with_several_containers(lab: Lab, playbook: Playbook, create: t.Callable[..., None]) -> None:
    """The config is under another key, which the worker reads by its NODE_ENV."""
    mount = {"name": "config", "mountPath": "/etc/sd"}
    worker = {"name": "worker", "image": IMAGE, "env": [DIRECTORIES, {"name": "NODE_ENV", "value": "production"}], "volumeMounts": [mount]}
    # It reads the same directory, and not this file.
    proxy = {"name": "proxy", "image": "registry.example/proxy:1", "env": [DIRECTORIES], "volumeMounts": [mount]}
    data = {"local.yaml": "{}", "production.yaml": lab.worker_config()}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": "sd"}, "data": data}
    volume = {"name": "config", "configMap": {"name": "other", "items": [{"key": "production.yaml", "path": "production.yaml"}]}}
    create(config_map, workload("StatefulSet", "other", [proxy, worker], [volume]))
    asked = {**FAST_ROLLOUT, "executor_config_map": "other", "executor_deployment": "other", "executor_workload_kind": "StatefulSet"}
    asked["executor_key"] = "production.yaml"
    share = [{**SHARE, "vars": {"executor_share": "10"}}]
    refused = playbook(share, **asked)
    assert "StatefulSet sd/other has several containers that could be the worker: set config_map.container to one of" in refused.stdout
    done = playbook(share, **asked, executor_container="worker")
    assert done.returncode == 0, done.stdout
    after = json.loads(lab.kubectl("get", "configmap", "other", "-n", "sd", "-o", "json"))["data"]
    assert yaml.safe_load(after["production.yaml"])["executor"]["k8s-kata"]["weightage"] == 10
    assert after["local.yaml"] == "{}"
    template = ("get", "statefulset", "other", "-n", "sd", "-o", "jsonpath={.spec.template.metadata.annotations}")
    assert "kata.screwdriver.cd/config-digest" in lab.kubectl(*template)


def test_a_worker_with_variables_alone_gets_a_config(lab: Lab, playbook: Playbook, create: t.Callable[..., None]) -> None:
    variables = [{"name": "K8S_HOST", "value": "kubernetes.default"}, {"name": "K8S_VM_BASE_IMAGE", "value": "hyperctl"}]
    worker = {"name": "worker", "image": "screwdrivercd/buildcluster-queue-worker:stable", "env": variables}
    create(workload("Deployment", "other", [worker], []))
    asked = {**FAST_ROLLOUT, "executor_config_map": "other", "executor_deployment": "other"}
    role = [{"ansible.builtin.include_role": {"name": "screwdriver.kata.executor"}}]
    refused = playbook(role, **asked, executor_mount="no")
    assert "ConfigMap sd/other does not exist: name the one that the worker mounts." in refused.stdout
    done = playbook(role, **asked, executor_mount="yes")
    assert done.returncode == 0, done.stdout
    config = lab.kubectl("get", "configmap", "other", "-n", "sd", "-o", "jsonpath={.data.local\\.yaml}")
    assert yaml.safe_load(config)["executor"]["k8s-kata"]["weightage"] == 0
    mounts = ("get", "deployment", "other", "-n", "sd", "-o", "jsonpath={.spec.template.spec.containers[0].volumeMounts[0]['mountPath']}")
    assert lab.kubectl(*mounts) == f"{CONFIG_DIRECTORY}/local.yaml"
    again = playbook(role, **asked, executor_mount="yes")
    assert re.search(r"ok=\d+ +changed=0 .*failed=0", again.stdout), again.stdout


# A file in place of the ConfigMap


@pytest.fixture
def file(lab: Lab, tmp_path: Path) -> Path:
    """A copy of the worker's config without Kata's executor."""
    config = yaml.safe_load(lab.worker_config())
    del config["executor"]["k8s-kata"]
    path = tmp_path / "local.yaml"
    path.write_text(f"# Deployed by hand.\n{yaml.safe_dump(config)}")
    return path


def kata_weightage(path: Path) -> int | None:
    return yaml.safe_load(path.read_text())["executor"].get("k8s-kata", {}).get("weightage")


def through(path: Path) -> dict[str, t.Any]:
    """A path relative to where ansible-playbook runs. Neither the ConfigMap nor the Deployment of these names exists."""
    nowhere = {"executor_config_map": "none", "executor_deployment": "none"}
    return {**FAST_ROLLOUT, **nowhere, "executor_path": os.path.relpath(path, TOP)}


def test_a_relative_path_is_read_and_written_by_each_playbook(lab: Lab, playbook: Playbook, file: Path) -> None:
    before, config = file.read_text(), lab.worker_config()
    tried = playbook("screwdriver.kata.site", "--check", **through(file))
    assert tried.returncode == 0, tried.stdout
    assert file.read_text() == before
    done = playbook("screwdriver.kata.site", **through(file))
    assert done.returncode == 0, done.stdout
    assert kata_weightage(file) == 0
    assert file.read_text().startswith("# Deployed by hand.\n")
    changed = file.stat().st_mtime_ns
    again = playbook("screwdriver.kata.site", **through(file))
    assert re.search(r"ok=\d+ +changed=0 .*failed=0", again.stdout), again.stdout
    assert file.stat().st_mtime_ns == changed

    assert playbook([{**SHARE, "vars": {"executor_share": "10"}}], **through(file)).returncode == 0
    assert kata_weightage(file) == 10
    status = playbook("screwdriver.kata.status", **through(file))
    assert "Weightages now: k8s-vm 90, k8s-kata 10" in status.stdout, status.stdout
    back = playbook("screwdriver.kata.rollback", **through(file))
    assert back.returncode == 0, back.stdout
    assert kata_weightage(file) == 0
    assert f"Kata's share is 0 % in {file}. New builds go to k8s-vm once the worker has this file" in back.stdout
    assert lab.worker_config() == config


def test_the_guard_of_an_interrupted_run_lowers_the_share_in_the_file(lab: Lab, playbook: Playbook, file: Path, tmp_path: Path) -> None:
    assert playbook("screwdriver.kata.site", **through(file)).returncode == 0
    command = ["ansible-playbook", "-e", json.dumps({**through(file), "rollout_steps": [50]}), "screwdriver.kata.rollout"]
    out = tmp_path / "out"
    with out.open("w") as stream:
        environment = playbook_environment(lab.kubeconfig)
        process = subprocess.Popen(command, cwd=TOP, env=environment, stdout=stream, stderr=stream, start_new_session=True)
    try:
        wait_until(lambda: kata_weightage(file) == 50 or process.poll() is not None, out.read_text)
        assert process.poll() is None, out.read_text()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: kata_weightage(file) == 0 and lock_holder(lab) == "", "the guard lowers the share", seconds=60)
    assert "was interrupted" in lab.record()["reason"]


def test_a_rollout_through_a_file_names_the_file_where_shares_are_only_printed(playbook: Playbook, file: Path) -> None:
    assert playbook("screwdriver.kata.site", **through(file)).returncode == 0
    done = playbook("screwdriver.kata.rollout", executor_print_patch=True, **through(file))
    assert done.returncode != 0
    assert "executor_print_patch is true, and a rollout writes a share at each step: set it to false. Nothing was changed." in done.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("executor:\n\tplugin: k8s-vm\n", "is not valid YAML: found character '\\t' that cannot start any token (line 2, column 1)"),
        ("- executor\n", "holds a list and not a map with the key executor"),
    ],
)
def test_a_config_that_cannot_be_parsed_is_named_by_each_playbook(
    text: str, problem: str, lab: Lab, playbook: Playbook, no_builds: None
) -> None:
    """Status prints it and succeeds; rollback and rollout end with it, and none of them writes."""
    before = lab.worker_config()
    lab.set_worker_config(text)
    try:
        done = {name: playbook(f"playbooks/{name}.yml", **FAST_ROLLOUT) for name in ("status", "rollback", "rollout")}
        assert lab.worker_config() == text
        assert lab.record() == {}
    finally:
        lab.set_worker_config(before)
    said = f"key local.yaml of ConfigMap sd/buildcluster-queue-worker {problem}. Nothing was changed."
    shown = {name: run.stdout.replace("\\\\t", "\\t") for name, run in done.items()}
    assert [run.returncode for run in done.values()] == [0, 2, 2], shown
    assert f"Weightages now: unknown. {said}" in shown["status"]
    assert f"{said} The share was not set to 0." in shown["rollback"]
    assert said in shown["rollout"]
