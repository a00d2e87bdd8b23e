"""Shared names: set once, used by every role, also by one used alone."""

from __future__ import annotations

import json
import subprocess
import typing as t
from pathlib import Path

import pytest

from ..helpers import TOP

ENTRY_POINTS = {"cluster": "absent", "node": "report", "node_proof": "main", "executor": "main", "rollout": "main"}
SHARED = {
    "executor_namespace": "ci",
    "executor_kata": "kata-vm",
    "executor_legacy": "k8s",
    "rollout_builds_namespace": "ci-builds",
    "rollout_build_selector": "app=build",
    "cluster_managed": False,
    "cluster_pool_key": "pool",
    "cluster_pool_value": "isolated",
    "cluster_ready_label": "example.com/verified",
    "cluster_handler": "kata-clh",
}
# Each role's variables then.
EXPECTED: dict[str, dict[str, t.Any]] = {
    "cluster": {
        "cluster_pool_key": "pool",
        "cluster_pool_value": "isolated",
        "cluster_ready_label": "example.com/verified",
        "cluster_node_selector": "example.com/verified=true",
        "cluster_handler": "kata-clh",
        "cluster_runtime_class": "kata-clh",
        "executor_namespace": "ci",
        "rollout_namespace": "ci",
        "rollout_builds_namespace": "ci-builds",
    },
    "node": {
        "cluster_managed": False,
        "cluster_pool_key": "pool",
        "cluster_pool_value": "isolated",
        "cluster_ready_label": "example.com/verified",
        "cluster_handler": "kata-clh",
        "rollout_build_selector": "app=build",
        "__names_taint": {"key": "pool", "value": "isolated", "effect": "NoSchedule"},
        "executor_kata": "kata-vm",
    },
    "node_proof": {"node_proof_handler": "kata-clh"},
    "executor": {
        "executor_namespace": "ci",
        "executor_kata": "kata-vm",
        "executor_legacy": "k8s",
        "executor_entry": {
            "pluginName": "k8s",
            "options": {"kubernetes": {"runtimeClass": "kata-clh", "nodeSelectors": {"pool": "isolated"}}},
        },
    },
    "rollout": {
        "rollout_namespace": "ci",
        "rollout_builds_namespace": "ci-builds",
        "rollout_build_selector": "app=build",
        "rollout_runtime_class": "kata-clh",
        "__rollout_pool_labels": {"pool": "isolated", "example.com/verified": "true"},
        "executor_namespace": "ci",
        "executor_kata": "kata-vm",
        "executor_legacy": "k8s",
    },
}


def play(directory: Path, how: str, role: str) -> dict[str, t.Any]:
    """A play that uses this role alone, and writes the role's variables as its tasks have them."""
    pairs = ", ".join(f"'{name}': {name}" for name in EXPECTED[role])
    # Its own tasks are skipped.
    use: dict[str, t.Any] = {
        f"ansible.builtin.{how}": {"name": f"screwdriver.kata.{role}", "tasks_from": ENTRY_POINTS[role], "rolespec_validate": False}
    }
    if how == "include_role":
        use["ansible.builtin.include_role"] |= {"public": True, "apply": {"when": False}}
    else:
        use["when"] = False
    copy = {"ansible.builtin.copy": {"dest": str(directory / f"{how}-{role}.json"), "content": f"{{{{ {{{pairs}}} | to_json }}}}"}}
    return {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [use, copy]}


HOWS = ("import_role", "include_role")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with what each play wrote."""
    directory = tmp_path_factory.mktemp("names")
    path = directory / "plays.yml"
    path.write_text(json.dumps([play(directory, how, role) for role in EXPECTED for how in HOWS]))
    command = ["ansible-playbook", "-e", json.dumps(SHARED), str(path)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("role", EXPECTED)
def test_a_role_used_alone_has_each_shared_name(written: Path, role: str, how: str) -> None:
    assert json.loads((written / f"{how}-{role}.json").read_text()) == EXPECTED[role]
