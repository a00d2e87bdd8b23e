"""The permissions per playbook: each runs with exactly those granted, uses all of them, and names the one that is missing."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t

import pytest
import yaml

from lab.cluster.lab import Lab

from ..helpers import TOP, ModuleRunner, Playbook, set_share

Request = tuple[str, str, str, str]
OPERATOR = {"kind": "User", "name": "operator"}
# In this order, so that the rollout that is rolled back is there.
LISTS = {
    "status": "cluster_viewers",
    "rollout": "cluster_operators",
    "rollback": "cluster_rollback_operators",
    "site": "cluster_node_operators",
}
# One of its permissions, which the second test revokes.
MISSING = {
    "status": ("get", "leases"),
    "rollout": ("watch", "pods"),
    "rollback": ("patch", "configmaps"),
    "site": ("patch", "nodes"),
}
HANDLERS = {"kata": {"memory": "320Mi"}}
# No build flows, so the rollout is paused after its first interval.
VARIABLES: dict[str, t.Any] = {
    "executor_exclusions": ["rhel6"],
    "rollout_steps": [50],
    "rollout_window": 2,
    "rollout_interval": 1,
    "rollout_timeout": 2,
}
NODE = "build-3"
# Events are read only where a build or the pod of a proof did not start, the namespace only where it has no build.
EVENTS: Request = ("list", "events", "sd-builds", "")
# The worker's pods are listed only where they mount the config by subPath, which those of the lab do not.
PODS: Request = ("list", "pods", "sd", "")
CONDITIONAL: dict[str, set[Request]] = {
    "status": {PODS},
    "rollback": {PODS},
    "rollout": {PODS, EVENTS, ("get", "namespaces", "", "sd-builds")},
    "site": {PODS, EVENTS},
}


@pytest.fixture(scope="module", autouse=True)
def prepared(lab: Lab) -> t.Iterator[None]:
    """Two nodes are verified, and there is no record; afterwards everything is as before."""
    lab.kubectl("delete", "configmap,lease", "kata-rollout", "-n", "sd", "--ignore-not-found")
    config = lab.worker_config()
    lab.convert_nodes(2)
    yield
    lab.revert_nodes(2)
    lab.kubectl("delete", "runtimeclass", "kata", "--ignore-not-found")
    lab.kubectl("delete", "clusterrole,role,clusterrolebinding,rolebinding", "-A", "-l", "app.kubernetes.io/managed-by=screwdriver.kata")
    lab.kubectl("delete", "configmap,lease", "kata-rollout", "-n", "sd", "--ignore-not-found")
    lab.set_worker_config(config)


@pytest.fixture(scope="module", params=LISTS)
def name(lab: Lab, playbook: Playbook, request: pytest.FixtureRequest) -> str:
    """A playbook for which the role cluster has granted user operator its permissions."""
    roles: list[dict[str, t.Any]] = [
        {"ansible.builtin.include_role": {"name": f"screwdriver.kata.{role}"}} for role in ("cluster", "executor")
    ]
    done = playbook(roles, **VARIABLES, cluster_handlers=HANDLERS, **{LISTS[request.param]: [OPERATOR]})
    assert done.returncode == 0, done.stdout
    # A rollout's preflight does not wait for it.
    lab.kubectl("rollout", "status", "deployment/buildcluster-queue-worker", "-n", "sd", "--timeout=120s")
    return request.param


@pytest.fixture
def operate(lab: Lab, playbook: Playbook, module: ModuleRunner) -> Playbook:
    """Runs a playbook as user operator."""

    def run(name: str) -> subprocess.CompletedProcess[str]:
        if name == "rollback":
            # It writes the config only where Kata has a share.
            set_share(module, "5")
        variables = {**VARIABLES, "kubeconfig": lab.directory / "operator.kubeconfig"}
        if name != "site":
            return playbook(f"playbooks/{name}.yml", **variables)
        entries = [
            {"ansible.builtin.include_role": {"name": "screwdriver.kata.node", "tasks_from": entry}}
            for entry in ("drain", "return_to_service", "label", "report", "release")
        ]
        proof = {"node": NODE, "namespace": "sd-builds", "image": "busybox:1"}
        entries.insert(1, {"screwdriver.kata.proof_pod": proof})
        entries.insert(2, {"screwdriver.kata.proof_pod": {**proof, "state": "absent"}})
        play = lab.directory / "node-play.yml"
        play.write_text(json.dumps([{"hosts": NODE, "gather_facts": False, "tasks": entries}]))
        local = {"ansible_connection": "local", "cluster_require_handler": False}
        done = playbook(play, "-i", f"{NODE},", **variables, **local, node_hosts=[NODE])
        if done.returncode:
            return done
        # Another overhead and exclusion, so that both are written.
        other = {"cluster_handlers": {"kata": {"memory": "1Gi"}}, "executor_exclusions": ["rhel7"]}
        return playbook("playbooks/site.yml", **{**variables, **other})

    return run


def objects(lab: Lab) -> list[dict[str, t.Any]]:
    found = lab.kubectl("get", "clusterrole,role", "-A", "-l", "app.kubernetes.io/managed-by=screwdriver.kata", "-o", "json")
    return json.loads(found)["items"]


def revoke(lab: Lab, verb: str, resource: str) -> None:
    """Revokes one verb on one resource."""
    for item in objects(lab):
        for rule in item["rules"]:
            if rule["resources"] == [resource]:
                rule["verbs"] = [known for known in rule["verbs"] if known != verb] or ["none"]
        lab.kubectl("replace", "-f", "-", stdin=json.dumps(item))


def granted(lab: Lab) -> set[Request]:
    """(verb, resource, namespace, name) of each permission; the name is empty where it holds for all."""
    return {
        (verb, rule["resources"][0], item["metadata"].get("namespace", ""), (rule.get("resourceNames") or [""])[0])
        for item in objects(lab)
        for rule in item["rules"]
        for verb in rule["verbs"]
    }


def asked(lab: Lab, position: int) -> tuple[set[Request], list[str]]:
    """What user operator asked for since then, with the name and without it, and what was refused."""
    with lab.audit_log.open("rb") as log:
        log.seek(position)
        events = [json.loads(line) for line in log]
    requests: set[Request] = set()
    refused = []
    for event in events:
        if event["user"]["username"] == "operator" and (what := event.get("objectRef")):
            namespace, name = what.get("namespace", ""), what.get("name", "")
            if namespace == name and what["resource"] == "namespaces":
                namespace = ""
            requests |= {(event["verb"], what["resource"], namespace, name), (event["verb"], what["resource"], namespace, "")}
            if event["responseStatus"]["code"] == 403:
                refused.append(event["requestURI"])
    return requests, refused


@pytest.mark.playbooks
def test_a_playbook_runs_with_its_permissions_and_uses_all(lab: Lab, operate: Playbook, name: str) -> None:
    position = lab.audit_log.stat().st_size
    done = operate(name)
    if name not in ("status", "site"):
        # Whoever may change the share may print the status.
        operate("status")
    requests, refused = asked(lab, position)
    assert refused == [], done.stdout
    assert done.returncode == 0 or (name == "rollout" and "Paused at step" in done.stdout), done.stdout
    assert granted(lab) >= CONDITIONAL[name]
    assert granted(lab) - requests - CONDITIONAL[name] == set(), done.stdout
    if name == "status":
        assert {verb for verb, *unused in granted(lab)} == {"get", "list"}
    assert {what for what in granted(lab) if what[:2] == ("create", "pods")} == (
        {("create", "pods", "sd-builds", "")} if name in ("rollout", "site") else set()
    )


@pytest.mark.playbooks
def test_a_missing_permission_is_named(lab: Lab, operate: Playbook, name: str) -> None:
    verb, resource = MISSING[name]
    revoke(lab, verb, resource)
    done = operate(name)
    assert done.returncode != 0, done.stdout
    assert re.search(rf"{resource}.*forbidden|{verb} {resource}", done.stdout), done.stdout


def test_who_may_roll_out_may_roll_back_and_print_the_status() -> None:
    rules = yaml.safe_load((TOP / "roles" / "names" / "vars" / "main.yml").read_text())["__names_rules"]
    for rule in rules:
        verbs = [set(rule["verbs"].get(name, [])) for name in ("status", "rollback", "rollout")]
        assert verbs[0] <= verbs[1] <= verbs[2], rule
