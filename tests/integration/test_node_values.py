"""Values that role node and the playbooks derive, evaluated by Ansible without a cluster."""

from __future__ import annotations

import json
import subprocess
import typing as t
from pathlib import Path

from ..helpers import TOP

ROUTINGS: list[tuple[dict[str, t.Any], str]] = [
    ({"weightages": {"k8s-kata": 0}, "effective": {"plugin": "k8s-vm"}}, ""),
    ({"weightages": {"k8s-kata": 10}, "effective": {"plugin": "k8s-vm"}}, "Kata's weightage is 10"),
    ({"weightages": {}, "effective": {"plugin": "k8s-kata"}}, "the worker's default is k8s-kata"),
    ({"weightages": {}, "effective": {}}, ""),
    # Unknown is not 0.
    ({"weightages": {"k8s-kata": "from secret worker"}, "effective": {}}, "Kata's weightage is from secret worker"),
]
SELECTORS = [
    ("tier=builds", {"tier": "builds"}),
    ("tier==builds,app=sd", {"tier": "builds", "app": "sd"}),
    # Terms that a CRI cannot filter by are left out, so more pods count as builds.
    ("tier=builds,env!=test", {"tier": "builds"}),
    ("tier in (builds)", {}),
]


def evaluate(tmp_path: Path, expression: str, values: list[t.Any], name: str) -> list[t.Any]:
    """The expression in the scope of role node and of the playbooks, for each value of a variable."""
    result = tmp_path / "result.json"
    variables = {f"value_{number}": value for number, value in enumerate(values)}
    tasks: list[dict[str, t.Any]] = [
        {"ansible.builtin.import_role": {"name": "screwdriver.kata.node", "tasks_from": "report"}, "when": False},
        *(
            {
                "ansible.builtin.copy": {"dest": f"{result}.{number}", "content": f"{{{{ {expression} | to_json }}}}"},
                "vars": {name: f"{{{{ value_{number} }}}}"},
            }
            for number in range(len(values))
        ),
    ]
    play = tmp_path / "play.yml"
    files = [str(TOP / "playbooks" / "vars" / "nodes.yml")]
    play.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars_files": files, "tasks": tasks}]))
    done = subprocess.run(
        ["ansible-playbook", "-e", json.dumps(variables), str(play)], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(Path(f"{result}.{number}").read_text()) for number in range(len(values))]


def test_whether_builds_go_to_kata(tmp_path: Path) -> None:
    found = evaluate(tmp_path, "__node_kata_share", [routing for routing, unused in ROUTINGS], "executor_result")
    assert found == [expected for unused, expected in ROUTINGS]


def test_the_labels_of_builds_follow_from_the_selector(tmp_path: Path) -> None:
    found = evaluate(tmp_path, "containerd_build_labels", [selector for selector, unused in SELECTORS], "rollout_build_selector")
    assert found == [expected for unused, expected in SELECTORS]


def test_who_leaves_service_with_a_node(tmp_path: Path) -> None:
    """A cordoned node and one that is not Ready do not count as left."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    nodes = [
        {"metadata": {"name": "localhost"}, "spec": {}, "status": ready},
        {"metadata": {"name": "cordoned"}, "spec": {"unschedulable": True}, "status": ready},
        {"metadata": {"name": "away"}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
    ]
    spare = {"metadata": {"name": "spare"}, "spec": {}, "status": ready}
    values = [{"resources": nodes}, {"resources": [*nodes, spare]}]
    assert evaluate(tmp_path, "__node_others", values, "__node_verified") == [[], ["spare"]]
