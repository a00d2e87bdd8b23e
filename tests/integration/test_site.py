"""The playbook site, read back with kubectl and in the audit log."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
import yaml

from lab.cluster.lab import Lab

from ..helpers import Playbook, Writes

OPERATOR = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "limited"}
VARIABLES: dict[str, t.Any] = {"executor_exclusions": ["rhel6"], "cluster_operators": [OPERATOR]}


@pytest.fixture
def verified(lab: Lab, playbook: Playbook) -> t.Iterator[None]:
    """Two nodes are verified; afterwards everything is as before."""
    config = lab.worker_config()
    lab.convert_nodes(2)
    yield
    tasks = [{"ansible.builtin.include_role": {"name": "screwdriver.kata.cluster", "tasks_from": "absent"}}]
    done = playbook(tasks, **VARIABLES)
    assert done.returncode == 0, done.stdout
    assert lab.kubectl("get", "runtimeclass,clusterrole,role,rolebinding", "-A", "-o", "name").find("kata") == -1
    assert "screwdriver-kata" not in lab.kubectl("get", "nodes", "-o", "yaml")
    lab.revert_nodes(2)
    lab.kubectl("delete", "configmap,lease", "kata-rollout", "-n", "sd", "--ignore-not-found")
    lab.set_worker_config(config)


def own(writes: Writes) -> list[str]:
    return [f"{event['verb']} {event['requestURI']}" for event in writes() if event["user"]["username"] == "admin"]


@pytest.mark.usefixtures("verified")
def test_site_gets_ready_at_zero_and_a_second_run_writes_nothing(lab: Lab, playbook: Playbook, writes: Writes) -> None:
    writes()
    tried = playbook("playbooks/site.yml", "--check", "--diff", **VARIABLES)
    assert tried.returncode == 0, tried.stdout
    assert own(writes) == []
    done = playbook("screwdriver.kata.site", **VARIABLES)
    assert done.returncode == 0, done.stdout
    nodes = {node["metadata"]["name"]: node for node in json.loads(lab.kubectl("get", "nodes", "-o", "json"))["items"]}
    pool = {name for name, node in nodes.items() if node["metadata"]["labels"].get("dedicated") == "screwdriver-kata"}
    assert pool == {"build-1", "build-2"}
    assert {"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"} in nodes["build-1"]["spec"]["taints"]
    assert lab.kubectl("get", "runtimeclass", "kata", "-o", "jsonpath={.handler}") == "kata"
    section = yaml.safe_load(lab.worker_config())["executor"]
    assert section["plugin"] == "k8s-vm"
    assert section["k8s-vm"]["weightage"] == 100
    assert section["k8s-kata"]["weightage"] == 0
    assert section["k8s-kata"]["exclusions"] == ["rhel6"]

    own(writes)
    again = playbook("screwdriver.kata.site", **VARIABLES)
    assert re.search(r"ok=\d+ +changed=0 .*failed=0", again.stdout), again.stdout
    assert own(writes) == []


@pytest.mark.usefixtures("verified")
@pytest.mark.playbooks
def test_each_handler_has_a_runtime_class_with_its_overhead(lab: Lab, playbook: Playbook) -> None:
    """The overhead of each handler comes from the nodes of the run."""
    overhead = {"kata": {"cpu": "250m", "memory": "256Mi"}, "kata-clh": {"cpu": "250m", "memory": "130Mi"}}
    local = {"ansible_connection": "local", "cluster_require_handler": False}
    node = {"ansible.builtin.include_role": {"name": "screwdriver.kata.node", "tasks_from": "return_to_service"}}
    play = lab.directory / "handlers.yml"
    play.write_text(
        json.dumps(
            [
                {"hosts": "build-1", "gather_facts": False, "tasks": [node], "vars": {"kata_handlers_overhead": overhead}},
                {"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["screwdriver.kata.cluster"]},
            ]
        )
    )
    done = playbook(play, "-i", "build-1,", **local, cluster_runtime_class="builds")
    assert done.returncode == 0, done.stdout
    classes = {item["handler"]: item for item in json.loads(lab.kubectl("get", "runtimeclass", "-o", "json"))["items"]}
    assert {handler: item["metadata"]["name"] for handler, item in classes.items()} == {"kata": "builds", "kata-clh": "kata-clh"}
    assert {handler: item["overhead"]["podFixed"] for handler, item in classes.items()} == overhead
    refused = playbook(play, "-i", "build-1,", **local, cluster_handler="kata-fc")
    assert (
        "cluster_handler is kata-fc, but the handlers are kata and kata-clh: set cluster_handler to the one that builds use."
        in refused.stdout
    )
    # Alone, one class with the largest overhead of all hypervisors.
    alone = playbook("playbooks/site.yml")
    assert alone.returncode == 0, alone.stdout
    assert lab.kubectl("get", "runtimeclass", "kata", "-o", "jsonpath={.overhead.podFixed.memory}") == "320Mi"


@pytest.mark.usefixtures("verified")
@pytest.mark.playbooks
def test_the_pool_has_the_named_nodes_alone(lab: Lab, playbook: Playbook) -> None:
    cluster = [{"ansible.builtin.include_role": {"name": "screwdriver.kata.cluster"}}]
    refused = playbook(cluster, cluster_nodes=["build-2", "build-20"])
    assert "build-20 is not a node of this cluster; correct nodes. Nothing was changed." in refused.stdout
    for nodes in (["build-2"], "build-2,build-3"):
        done = playbook(cluster, cluster_nodes=nodes)
        assert done.returncode == 0, done.stdout
        assert lab.kubectl("get", "nodes", "-l", "dedicated=screwdriver-kata", "-o", "name").split() == ["node/build-2"]
    assert "Not in the pool: build-3. Its kubelet does not report handler kata, only runc." in done.stdout


@pytest.mark.usefixtures("verified")
@pytest.mark.playbooks
def test_a_runtime_class_is_recreated_with_another_handler_only_if_asked(lab: Lab, playbook: Playbook) -> None:
    cluster = [{"ansible.builtin.include_role": {"name": "screwdriver.kata.cluster"}}]
    assert playbook(cluster).returncode == 0
    other = {"cluster_handler": "kata-clh", "cluster_runtime_class": "kata", "cluster_require_handler": False}
    handler = ("get", "runtimeclass", "kata", "-o", "jsonpath={.handler}")
    refused = playbook(cluster, **other, cluster_recreate_runtime_class="no")
    assert "RuntimeClass kata has handler kata, which cannot be changed to kata-clh" in refused.stdout
    tried = playbook(cluster, "--check", **other, cluster_recreate_runtime_class="yes")
    assert tried.returncode == 0, tried.stdout
    assert lab.kubectl(*handler) == "kata"
    done = playbook(cluster, **other, cluster_recreate_runtime_class="yes")
    assert done.returncode == 0, done.stdout
    assert lab.kubectl(*handler) == "kata-clh"


KATA_DEPLOY = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: kata-qemu, labels: {app.kubernetes.io/managed-by: Helm}}
handler: kata-qemu
overhead: {podFixed: {memory: 320Mi, cpu: 250m}}
scheduling: {nodeSelector: {katacontainers.io/kata-runtime: "true"}}
"""


@pytest.mark.usefixtures("verified")
@pytest.mark.playbooks
def test_the_runtime_class_of_kata_deploy_stays(lab: Lab, playbook: Playbook, writes: Writes) -> None:
    """Only its handler is checked, and a removal leaves it."""
    lab.kubectl("apply", "-f", "-", stdin=KATA_DEPLOY)
    before = lab.kubectl("get", "runtimeclass", "kata-qemu", "-o", "json")
    try:
        writes()
        done = playbook("playbooks/site.yml", **VARIABLES, cluster_handler="kata-qemu", cluster_require_handler=False)
        assert done.returncode == 0, done.stdout
        assert not [write for write in own(writes) if "runtimeclasses" in write]
        absent = playbook([{"ansible.builtin.include_role": {"name": "screwdriver.kata.cluster", "tasks_from": "absent"}}], **VARIABLES)
        assert absent.returncode == 0, absent.stdout
        assert lab.kubectl("get", "runtimeclass", "kata-qemu", "-o", "json") == before
        refused = playbook("playbooks/site.yml", **VARIABLES, cluster_handler="kata-clh", cluster_runtime_class="kata-qemu")
        assert refused.returncode != 0, refused.stdout
        assert "kata-qemu" in refused.stdout, refused.stdout
    finally:
        lab.kubectl("delete", "runtimeclass", "kata-qemu")


def test_the_callback_prints_messages_changes_and_failures(playbook: Playbook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "screwdriver.kata.progress")
    tasks: list[dict[str, t.Any]] = [
        {"name": "Print", "ansible.builtin.debug": {"msg": "one line\nand another"}},
        {"name": "Do", "ansible.builtin.command": "true"},
        {"name": "Do nothing", "ansible.builtin.command": "true", "changed_when": False},
        {"name": "Try", "ansible.builtin.fail": {"msg": "It did not work."}, "ignore_errors": True},
        {"name": "Stop", "ansible.builtin.fail": {"msg": "It does not work."}},
    ]
    done = playbook(tasks)
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    assert lines[1:4] == ["one line", "and another", "  changed: Do"]
    assert lines[4].startswith("ignored: Try: ")
    assert lines[4].endswith("It did not work.")
    assert lines[5].startswith("FAILED: Stop: ")
    assert lines[5].endswith("It does not work.")
    assert lines[6] == "localhost: 4 ok, 1 failures, 1 changed, 1 ignored"
