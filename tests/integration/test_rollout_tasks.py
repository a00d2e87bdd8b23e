"""The tasks of a rollout, with stubs in place of the modules: what stands afterwards, and what the record says."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from lab.processes import free_ports

from ..helpers import TOP, requests_received, wait_until

pytestmark = pytest.mark.playbooks
STUB = """
import json
import os

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        name, args = self._task.action.rpartition(".")[2], dict(self._task.args)
        with open(os.environ["KATA_STATE"]) as file:
            state = json.load(file)
        state["calls"].append([name, args])
        call = " ".join([name, *(str(args[key]) for key in ("action", "kata_share") if key in args)])
        errors = state["errors"].get(call)
        result = {"failed": True, "msg": errors.pop(0)} if errors else getattr(self, name)(state, args)
        state.update(state["then"].pop(call, {}))
        with open(os.environ["KATA_STATE"], "w") as file:
            json.dump(state, file)
        return result

    def rollout(self, state, args):
        action, phase = args["action"], state["phase"]
        if action in ("renew", "observe") and args["holder"] != state["holder"]:
            return {"failed": True, "msg": f"The rollout is locked by {state['holder']}."}
        if action == "observe" and phase != "running":
            return {"failed": True, "msg": f"Cannot observe the rollout: it is {phase}."}
        if action in ("pause", "roll_back"):
            state.update(phase={"pause": "paused", "roll_back": "rolled_back"}[action], reason=args["reason"])
        if action == "pause":
            state["standing"] = args.get("share")
        if action == "release":
            state["holder"] = ""
        standing = state["standing"]
        record = {
            "phase": state["phase"],
            "reason": state.get("reason", ""),
            "doubt": "",
            "share": 0 if state["phase"] == "rolled_back" else 25 if standing is None else standing,
            "step_share": 25,
            "passed_share": 10,
            "step": 1,
            "pilot": False,
            "steps": [{"share": 25, "pilot": False}],
            "holder": "ada",
            "began": "2026-11-23T20:00:00Z",
            "step_began": "2026-11-23T20:00:00Z",
            "ended": "",
            "approvals": [],
            "notes": [],
            "earlier": [],
            "history": [],
        }
        lock = {"holder": state["holder"], "expires": ""} if state["holder"] else None
        now = "2026-11-23T20:12:31Z"
        return {"rollout": record, "lock": lock, "evidence": state["evidence"], "baseline": {}, "freeze": "", "now": now, "resumed": True}

    def executor_config(self, state, args):
        before, state["share"] = state["share"], float(args["kata_share"])
        return {**self.executor_config_info(state, args), "rolled": before != state["share"], "patch": ""}

    def executor_config_info(self, state, args):
        weightages = {"k8s-vm": 100 - int(state["share"]), "k8s-kata": int(state["share"])}
        effective = {"k8s-vm": {}, "k8s-kata": {}}
        return {"weightages": weightages, "effective": effective, "executor": {}, "findings": [], "workers": state["workers"]}

    def pool_info(self, state, args):
        return {"problems": state["problems"]}

    def build_gate(self, state, args):
        return state["gate"]

    def access_info(self, state, args):
        return {"denied": []}

    def k8s(self, state, args):
        return {}

    def k8s_info(self, state, args):
        answers = state["objects"][args["kind"]]
        return {"resources": answers.pop(0) if len(answers) > 1 else answers[0]}
"""
MODULES = {
    "screwdriver/kata": ("rollout", "executor_config", "executor_config_info", "pool_info", "build_gate", "access_info"),
    "kubernetes/core": ("k8s", "k8s_info"),
}
FIGURES = {"builds": 30, "started": 30, "failures": {}, "details": {}, "setup_seconds": {"p50": 5, "p95": 9}}
GATE: dict[str, t.Any] = {
    "verdict": "inconclusive",
    "reasons": ["Too few builds."],
    "doubt": "evidence",
    "pause": True,
    "observed_seconds": 60.0,
    "executors": {"k8s-kata": FIGURES, "k8s-vm": FIGURES},
    "share_observed": {"percent": 25.0, "builds": 60},
    "excluded_on_kata": 0,
    "suspects": [],
    "worst": {},
    "log_e": 0.1,
    "log_m": 0.2,
    "log_threshold": 5.5,
    "evidence": {"builds": 60},
    "baseline": {},
    "decided": "2026-11-23T20:12:31.000000Z",
}
WORKER = {"kind": "Deployment", "name": "worker"}
DEPLOYMENT = {
    "metadata": {"name": "worker", "generation": 2},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "worker"}}},
    "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
}
NEW_POD = {"metadata": {"name": "worker-new"}, "status": {"phase": "Running"}}
OLD_POD = {"metadata": {"name": "worker-old", "deletionTimestamp": "2026-11-23T20:12:31Z"}, "status": {"phase": "Running"}}


class Tasks:
    """Runs task files of the role."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Where the user runs ansible-playbook.
        self.caller = path / "caller"
        self.caller.mkdir()
        self.state: dict[str, t.Any] = {
            "calls": [],
            "errors": {},
            "then": {},
            "phase": "running",
            "standing": None,
            "holder": "ada 1",
            "evidence": {},
            "share": 10.0,
            "problems": [],
            "workers": [],
            "gate": GATE,
            "objects": {"Deployment": [[DEPLOYMENT]], "Pod": [[NEW_POD]]},
        }
        for collection, names in MODULES.items():
            actions = path / "ansible_collections" / collection / "plugins" / "action"
            actions.mkdir(parents=True)
            for name in names:
                (actions / f"{name}.py").write_text(STUB)
        kata = path / "ansible_collections" / "screwdriver" / "kata"
        (kata / "roles").symlink_to(TOP / "roles")
        for plugins in ("filter", "module_utils", "modules"):
            (kata / "plugins" / plugins).symlink_to(TOP / "plugins" / plugins)

    def run(self, entry: str, role: str = "rollout", **variables: t.Any) -> str:
        """The output of one entry of a role; ``state`` is what it left behind."""
        state, play = self.path / "state.json", self.path / "play.yml"
        state.write_text(json.dumps(self.state))
        asked = {"name": f"screwdriver.kata.{role}", "tasks_from": entry}
        config = {"name": "screwdriver.kata.executor", "tasks_from": "info", "public": True}
        tasks = [{"ansible.builtin.include_role": included} for included in (config, asked)]
        play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        quiet = {"rollout_guard": False, "rollout_notify_events": False, "rollout_error_timeout": 0}
        command = ["ansible-playbook", "-e", json.dumps({**quiet, "rollout_steps": [25], **variables}), str(play)]
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self.path), "KATA_STATE": str(state), "COLUMNS": "1000"}
        done = subprocess.run(command, cwd=self.caller, capture_output=True, text=True, env=environment, check=False)
        self.state = json.loads(state.read_text())
        return " ".join((done.stdout + done.stderr).split())

    def calls(self, name: str) -> list[dict[str, t.Any]]:
        return [args for called, args in self.state["calls"] if called == name]


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


@pytest.mark.parametrize(("phase", "share"), [("rolled_back", 0), ("paused", 10)])
def test_what_an_operator_did_while_a_step_began_is_not_undone(tasks: Tasks, phase: str, share: int) -> None:
    tasks.state["then"] = {"pool_info": {"phase": phase, "share": share}}
    output = tasks.run("_run")
    stands = "lowered from 25 % to 0 %." if not share else "lowered from 25 % to 10 %, the last that passed."
    words = phase.replace("_", " ")
    assert f"Rollout sd/kata-rollout was {words} while this run set Kata's share to 25 %. Kata's share was {stands}" in output, output
    assert tasks.state["share"] == share
    assert tasks.state["phase"] == phase
    assert tasks.calls("build_gate") == []


def test_a_rollback_while_builds_are_watched_names_the_share_that_stands(tasks: Tasks) -> None:
    tasks.state["then"] = {"build_gate": {"phase": "rolled_back", "share": 0}}
    output = tasks.run("_run")
    assert "Cannot observe the rollout: it is rolled_back. Kata's share stands at 0 %. The rollout is rolled back." in output, output
    assert tasks.state["share"] == 0


def test_a_run_that_lost_its_lock_leaves_the_share_and_names_it(tasks: Tasks) -> None:
    tasks.state["then"] = {"build_gate": {"holder": "bob 2", "share": 50}}
    output = tasks.run("_run")
    assert "Kata's share was left alone: bob 2 holds the lock now and watches the rollout at 25 %." in output, output
    assert tasks.state["share"] == 50


@pytest.mark.parametrize(("phase", "after", "share"), [("running", "paused", 10), ("rolled_back", "rolled_back", 0)])
def test_the_guard_lowers_the_share_of_an_interrupted_run(tasks: Tasks, phase: str, after: str, share: int) -> None:
    tasks.state |= {"phase": phase, "share": 25}
    output = tasks.run("_interrupted", rollout_holder="ada", __rollout_holder="ada 1")
    assert (tasks.state["phase"], tasks.state["share"], tasks.state["holder"]) == (after, share, ""), output


FAILED: dict[str, t.Any] = {**GATE, "verdict": "fail", "reasons": ["8 of 30 builds failed to start on k8s-kata."], "doubt": "failures"}


@pytest.mark.parametrize("phase", ["running", "paused"])
def test_a_proven_failure_is_rolled_back_also_where_the_first_write_fails(tasks: Tasks, phase: str) -> None:
    tasks.state |= {"gate": FAILED, "errors": {"executor_config 0": ["No answer."]}, "then": {"build_gate": {"phase": phase}}}
    output = tasks.run("_run")
    assert "8 of 30 builds failed to start on k8s-kata. No answer. Kata's share was lowered from 25 % to 0 %." in output, output
    assert tasks.state["share"] == 0
    assert (tasks.state["phase"], tasks.state["reason"]) == ("rolled_back", FAILED["reasons"][0])


def test_a_proven_failure_is_named_where_no_write_succeeds(tasks: Tasks) -> None:
    tasks.state |= {"gate": FAILED, "errors": {"executor_config 0": ["No answer."] * 2}}
    output = tasks.run("_run")
    assert "8 of 30 builds failed to start on k8s-kata. No answer. Kata's share stands at 25 % unwatched" in output, output


def test_a_share_that_was_changed_by_hand_is_not_raised_again(tasks: Tasks) -> None:
    tasks.state |= {"evidence": GATE["evidence"], "share": 0}
    output = tasks.run("_run", rollout_mode="once")
    assert "a share of 0 %, and this step set 25 %: it was changed by someone else." in output, output
    assert [args["kata_share"] for args in tasks.calls("executor_config")] == []
    assert tasks.state["phase"] == "paused"


def test_a_step_whose_builds_are_refused_is_paused_at_the_last_share(tasks: Tasks) -> None:
    tasks.state["then"] = {"build_gate": {"problems": ["RuntimeClass kata does not exist."]}}
    output = tasks.run("_run")
    assert (tasks.state["share"], tasks.state["phase"]) == (10, "paused"), output
    assert tasks.state["reason"] == "Too few builds. RuntimeClass kata does not exist."


def test_a_step_that_has_too_few_builds_is_paused_at_its_share(tasks: Tasks) -> None:
    output = tasks.run("_run")
    assert "Too few builds. Kata's share stands at 25 %. Run the rollout again to resume" in output, output
    assert (tasks.state["share"], tasks.state["phase"]) == (25, "paused")


@pytest.mark.parametrize(("policy", "share"), [("step_back", 10), ("keep", 25), ("zero", 0)])
def test_a_step_in_doubt_leaves_the_share_that_rollout_on_pause_names(tasks: Tasks, policy: str, share: int) -> None:
    tasks.state["gate"] = {**GATE, "doubt": "failures"}
    output = tasks.run("_run", rollout_on_pause=policy)
    assert (tasks.state["share"], tasks.state["phase"]) == (share, "paused"), output


@pytest.mark.parametrize(("policy", "share"), [("step_back", 10), ("keep", 25), ("zero", 0)])
def test_an_error_leaves_the_share_that_rollout_on_error_names(tasks: Tasks, policy: str, share: int) -> None:
    tasks.state["errors"] = {"build_gate": ["No answer."]}
    output = tasks.run("_run", rollout_on_error=policy)
    assert f"No answer. Kata's share {'stands at' if policy == 'keep' else 'was lowered from 25 % to'} {share} %" in output, output
    assert (tasks.state["share"], tasks.state["phase"]) == (share, "paused"), output


def test_an_observation_proposes_limits_and_changes_nothing(tasks: Tasks) -> None:
    tasks.state["gate"] = {**GATE, "executors": {**GATE["executors"], "k8s-vm": {**FIGURES, "started": 95, "failures": {"image": 5}}}}
    output = tasks.run("_observe", rollout_observe="true")
    assert "rollout_max_failure_ratio" in output, output
    assert tasks.calls("rollout") == tasks.calls("executor_config") == []


def test_relative_paths_begin_where_the_user_is_and_links_are_followed(tasks: Tasks) -> None:
    published = tasks.path / "published.html"
    published.write_text("An earlier report.")
    (tasks.caller / "page.html").symlink_to(published)
    output = tasks.run("status", rollout_report="page.html", rollout_metrics="kata.prom")
    assert "Begun 2026-11-23" in published.read_text(), output
    assert sorted(path.name for path in tasks.caller.iterdir()) == ["kata.prom", "page.html"]
    assert (tasks.caller / "page.html").is_symlink()
    assert "screwdriver_kata_rollout_step{" in (tasks.caller / "kata.prom").read_text()


def test_the_guard_works_where_the_user_is_and_with_the_same_python(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tasks.path / "bin"
    programs.mkdir()
    for name in ("python3", *(f"python3.{minor}" for minor in range(9, 20))):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    tasks.state["share"] = 25
    tasks.run("_guard", __rollout_holder="ada 1", rollout_report="page.html")
    wait_until((tasks.caller / "page.html").exists, "no report of the guard")


@pytest.mark.parametrize("name", ["rollout_report", "rollout_metrics"])
def test_a_directory_that_does_not_exist_is_refused_before_the_first_step(tasks: Tasks, name: str) -> None:
    output = tasks.run("_validate", rollout_error_timeout=1, **{name: "/nonexistent/file"})
    assert (
        f"{name} is /nonexistent/file, and /nonexistent is not a directory that can be written to: create it, or set another path."
        in output
    ), output


@pytest.mark.parametrize("name", ["rollout_notify", "rollout_pushgateway"])
def test_what_is_no_url_is_refused_and_not_printed(tasks: Tasks, name: str) -> None:
    output = tasks.run("_validate", rollout_error_timeout=1, **{name: "hooks.example/s3cret"})
    assert f"{name} is not a URL: set it to one that begins with http:// or https://, or leave it empty." in output, output
    assert "s3cret" not in output


def test_a_webhook_that_does_not_take_the_first_message_is_named_without_its_url(tasks: Tasks) -> None:
    (port,) = free_ports(1)
    variables: dict[str, t.Any] = {"__rollout_text": "Begun by ada.", "__rollout_record": {}}
    variables["rollout_notify"] = f"http://127.0.0.1:{port}/s3cret"
    output = tasks.run("_notify", **variables, __rollout_event="begin")
    assert "The webhook of rollout_notify did not take the message that the rollout began (" in output, output
    assert "Connection refused" in output, output
    assert "s3cret" not in output
    assert "did not take the message" not in tasks.run("_notify", **variables, __rollout_event="step")


def test_the_metrics_of_each_rollout_are_a_group_of_their_own(tasks: Tasks) -> None:
    with requests_received("PUT") as (url, received):
        for name in ("kata-rollout", "pool?b"):
            output = tasks.run("status", rollout_pushgateway=f"{url}/", rollout_name=name)
        wait_until(lambda: len(received) == 2, lambda: output)
    for name in ("kata-rollout", "pool?b"):
        group = base64.urlsafe_b64encode(f"sd/{name}".encode()).decode()
        pushed = received[f"/metrics/job/screwdriver_kata_rollout/rollout@base64/{group}"]
        assert f'screwdriver_kata_rollout_step{{rollout="sd/{name}"}} 1\n' in pushed


def test_a_step_begins_when_the_last_pod_with_the_old_share_is_gone(tasks: Tasks) -> None:
    tasks.state |= {"workers": [WORKER], "objects": {"Deployment": [[DEPLOYMENT]], "Pod": [[NEW_POD, OLD_POD]] * 2 + [[NEW_POD]]}}
    output = tasks.run("_run")
    assert len(tasks.calls("build_gate")) == 1, output
    asked = [args for args in tasks.calls("k8s_info") if args["kind"] == "Pod"]
    assert len(asked) == 3, output
    assert asked[0]["label_selectors"] == ["app=worker"]
    # Get is granted for the worker that executor_deployment names alone.
    [listed] = [args for args in tasks.calls("k8s_info") if args["kind"] == "Deployment"]
    assert "name" not in listed
    assert listed["field_selectors"] == ["metadata.name=worker"]


def test_a_pod_with_the_old_share_that_does_not_end_stops_the_step(tasks: Tasks) -> None:
    tasks.state |= {"workers": [WORKER], "objects": {"Deployment": [[DEPLOYMENT]], "Pod": [[NEW_POD, OLD_POD]]}}
    output = tasks.run("_run", rollout_worker_timeout=2)
    assert (
        "Pods worker-old of Deployment sd/worker are still terminating, so it is unknown which config routes builds: its rollout was not "
        "complete after 2 s." in output
    ), output
    assert tasks.calls("build_gate") == []
    assert tasks.state["share"] == 10


def test_a_rollback_reports_the_pods_of_a_worker_also_after_a_refused_request(tasks: Tasks) -> None:
    behind = {**DEPLOYMENT, "status": {"replicas": 1, "updatedReplicas": 0}}
    tasks.state |= {"errors": {"k8s_info": ["Too many requests."]}, "objects": {"Deployment": [[behind]]}}
    output = tasks.run("_report_worker", __rollout_named=WORKER)
    assert len(tasks.calls("k8s_info")) == 2, output
    assert "Deployment sd/worker has 0 updated of 1 pods: the others may still route by the old share." in output, output


KINDS = {"executor_workload_kind": "StatefulSet", "executor_config_kind": "Secret"}


def test_the_permissions_are_checked_for_the_kinds_of_the_worker_and_for_each_other_worker(tasks: Tasks) -> None:
    tasks.state["workers"] = [{"kind": "StatefulSet", "name": "buildcluster-queue-worker"}, {"kind": "Deployment", "name": "second"}]
    output = tasks.run("_permissions", **KINDS)
    [asked] = tasks.calls("access_info")
    patched = {(each["resource"], each["name"]) for each in asked["permissions"] if "patch" in each["verbs"]}
    worker = "buildcluster-queue-worker"
    record = {("configmaps", "kata-rollout"), ("leases", "kata-rollout")}
    assert patched == {("secrets", worker), ("statefulsets", worker), ("deployments", "second"), *record}, output


def test_the_permissions_are_granted_for_the_kinds_of_the_worker(tasks: Tasks) -> None:
    tasks.state["objects"] = {kind: [[]] for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")}
    lists = ("cluster_rollback_operators", "cluster_operators", "cluster_node_operators")
    output = tasks.run("_permissions", "cluster", **KINDS, **{name: [{"kind": "User", "name": "ada"}] for name in lists})
    [applied] = tasks.calls("k8s")
    granted = [
        (each["metadata"]["name"], rule["resources"][0], rule["verbs"])
        for each in applied["definition"]
        for rule in each.get("rules", [])
        if rule.get("resourceNames") == ["buildcluster-queue-worker"]
    ]
    playbooks = ("rollback", "rollout", "site")
    kinds = ("secrets", "statefulsets")
    assert granted == [(f"screwdriver-kata-{name}", kind, ["get", "patch"]) for name in playbooks for kind in kinds], output


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "No answer. The config has a share of 0 % now, but the worker was not restarted, so it may still route by the old one."),
        ("/etc/sd/local.yaml", "No answer. /etc/sd/local.yaml has a share of 0 %. Run rollback again for the record."),
    ],
)
def test_a_rollback_that_fails_restarts_no_worker_of_a_file(tasks: Tasks, path: str, says: str) -> None:
    tasks.state |= {"share": 0.0, "errors": {"executor_config 0": ["No answer."]}}
    assert says in tasks.run("roll_back", executor_path=path)
