"""The playbooks rollout, status and rollback on a cluster where builds flow; seen with kubectl and by the worker's side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.cluster.lab import Lab

Playbook = t.Callable[..., "subprocess.CompletedProcess[str]"]
TOP = Path(__file__).resolve().parents[2]
RATE = 2.0
KATA_NODES = 4
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "kata"},
    "handler": "kata",
    "scheduling": {
        "nodeSelector": {"dedicated": "screwdriver-kata", "kata.screwdriver.cd/ready": "true"},
        "tolerations": [{"key": "dedicated", "value": "screwdriver-kata", "effect": "NoSchedule"}],
    },
}
FAST: dict[str, t.Any] = {
    "executor_exclusions": ["rhel6"],
    "rollout_steps": [100],
    "rollout_window": 4,
    "rollout_interval": 2,
    "rollout_timeout": 90,
    "rollout_min_builds": 3,
    "rollout_start_timeout": 25,
    # The lab's machine may be slow, and its speed is not what is tested here.
    "rollout_max_setup_ratio": 100.0,
    "rollout_max_setup_seconds": 1000.0,
}


@pytest.fixture(scope="module", autouse=True)
def flow(lab: Lab, request: pytest.FixtureRequest) -> t.Iterator[None]:
    """Half of the nodes are Kata's, and builds flow."""
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    for name in lab.convert_nodes(KATA_NODES):
        lab.kubectl("label", "node", name, "dedicated=screwdriver-kata")
        lab.kubectl("taint", "node", name, "dedicated=screwdriver-kata:NoSchedule", "--overwrite")
    before = worker_config(lab)
    lab.start_builds(RATE)
    yield
    stats = lab.stop_builds()
    lab.revert_nodes(KATA_NODES)
    lab.kubectl("delete", "runtimeclass", "kata")
    lab.kubectl(
        "patch", "configmap", "buildcluster-queue-worker", "-n", "sd", "--type=merge", "-p", json.dumps({"data": {"local.yaml": before}})
    )
    # After the clean-up, so that a lost build does not fail the tests of other modules.
    assert stats["excluded_on_kata"] == 0
    # The worker drops what the API server refuses, as without the RuntimeClass.
    assert stats["lost"] == 0 or request.module.__name__.endswith("test_rollout_faults")


@pytest.fixture(autouse=True)
def fresh(lab: Lab, playbook: Playbook) -> None:
    """No rollout has been, the Kata executor has no share, and no more builds than usual are under way."""
    lab.kubectl("delete", "configmap,lease", "kata-rollout", "-n", "sd", "--ignore-not-found")
    tasks = [
        {"ansible.builtin.include_role": {"name": "screwdriver.kata.executor"}},
        {"ansible.builtin.include_role": {"name": "screwdriver.kata.executor", "tasks_from": "share"}, "vars": {"executor_share": "0"}},
    ]
    done = playbook(tasks, **FAST)
    assert done.returncode == 0, done.stdout
    until(lambda: lab.stats().get("in_flight", 0) < RATE * 25)


def worker_config(lab: Lab) -> str:
    return lab.kubectl("get", "configmap", "buildcluster-queue-worker", "-n", "sd", "-o", "jsonpath={.data.local\\.yaml}")


def weightages(lab: Lab) -> dict[str, int]:
    section = yaml.safe_load(worker_config(lab))["executor"]
    return {name: section[name]["weightage"] for name in ("k8s-vm", "k8s-kata")}


def record(lab: Lab) -> dict[str, t.Any]:
    return lab.record()


def lock_holder(lab: Lab) -> str:
    return lab.kubectl("get", "lease", "kata-rollout", "-n", "sd", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")


def until(what: t.Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def test_goes_to_the_last_step_on_evidence(lab: Lab, playbook: Playbook, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = playbook("playbooks/rollout.yml", **{**FAST, "rollout_steps": [50, 100], "rollout_report": str(report)})
    assert done.returncode == 0, done.stdout
    assert weightages(lab) == {"k8s-vm": 0, "k8s-kata": 100}
    assert record(lab)["phase"] == "finished"
    assert [step["outcome"] for step in record(lab)["history"]] == ["passed", "passed"]
    assert lock_holder(lab) == ""
    assert "<svg" in report.read_text() and "finished" in report.read_text()

    before = lab.kubectl("get", "configmap", "kata-rollout", "-n", "sd", "-o", "jsonpath={.metadata.resourceVersion}")
    again = playbook("playbooks/rollout.yml", **{**FAST, "rollout_steps": [50, 100]})
    assert again.returncode == 0, again.stdout
    assert lab.kubectl("get", "configmap", "kata-rollout", "-n", "sd", "-o", "jsonpath={.metadata.resourceVersion}") == before
    assert weightages(lab) == {"k8s-vm": 0, "k8s-kata": 100}

    status = playbook("screwdriver.kata.status")
    assert status.returncode == 0
    assert "Rollout sd/kata-rollout: finished" in status.stdout
    assert "Weightages now: k8s-vm 0, k8s-kata 100" in status.stdout


def test_templates_show_a_setup_of_0_seconds_and_an_unknown_one(playbook: Playbook, tmp_path: Path) -> None:
    def figures(builds: int, seconds: int | None) -> dict[str, t.Any]:
        return {"builds": builds, "started": builds, "failures": {}, "setup_seconds": {"p50": seconds, "p95": seconds}}

    gate = {
        "executors": {"k8s-kata": figures(3, 0), "k8s-vm": figures(0, None)},
        "share_observed": {"percent": 100.0},
        "excluded_on_kata": 0,
    }
    gate |= {"observed_seconds": 5, "verdict": "pass", "suspects": [], "reasons": [], "worst": {"image": None, "node": None}}
    moment = "2026-11-26T00:00:00Z"
    step = {"step": 1, "pilot": False, "share": 100, "gate": gate, "outcome": "passed", "began": moment, "ended": moment}
    rollout = {**step, "steps": [100], "phase": "finished", "reason": "", "began": "", "holder": "", "history": [step]}
    names = {"rollout_namespace": "sd", "rollout_name": "kata-rollout", "executor_kata": "k8s-kata", "executor_legacy": "k8s-vm"}
    values = {"__rollout_record": {"rollout": rollout}, "__rollout_stored": rollout, "__rollout_gate": gate, "__rollout_lock_holder": ""}
    templates = TOP / "roles" / "rollout" / "templates"
    lookups = [
        f"{{{{ lookup('ansible.builtin.template', '{templates / name}') }}}}" for name in ("interval.j2", "status.j2", "report.html.j2")
    ]
    tasks = [{"ansible.builtin.debug": {"msg": lookup}} for lookup in lookups]
    path = tmp_path / "templates.yml"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    limits = {"rollout_max_failure_ratio": 0.02, "rollout_max_setup_seconds": 300.0}
    done = playbook(path, **names, **limits, **values, executor_result={"weightages": {}, "findings": []})
    assert "k8s-kata             0 of     3 failed to start  setup 0/0 s" in done.stdout, done.stdout
    assert "k8s-vm               0 of     0 failed to start  setup -" in done.stdout, done.stdout
    assert "k8s-kata                0 of 3        0/0 s" in done.stdout, done.stdout
    assert "k8s-vm                  0 of 0        -" in done.stdout, done.stdout
    assert "<td>0 / 0 s</td>" in done.stdout and "<td>–</td>" in done.stdout, done.stdout


def test_failed_starts_lead_back_to_zero(lab: Lab, playbook: Playbook) -> None:
    lab.fault(True)
    try:
        # At 100 % there is no legacy executor to compare with, and a doubt only pauses.
        done = playbook("playbooks/rollout.yml", **{**FAST, "rollout_steps": [50]})
    finally:
        lab.fault(False)
    assert done.returncode != 0
    assert weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0}
    # With three builds the worst image and node are left out, and what is left proves nothing yet; then the run pauses at 0 %.
    assert record(lab)["phase"] in ("rolled_back", "paused"), done.stdout
    assert "failed to start on k8s-kata" in record(lab)["reason"]
    assert lock_holder(lab) == ""


def test_no_evidence_is_not_success_and_a_second_run_resumes(lab: Lab, playbook: Playbook) -> None:
    done = playbook("playbooks/rollout.yml", **{**FAST, "rollout_min_builds": 100000, "rollout_timeout": 4})
    assert done.returncode != 0, done.stdout
    assert "Paused at step 1 of 1, since the evidence does not suffice" in done.stdout, done.stdout
    assert "Kata's share stands at 100.0 %." in done.stdout, done.stdout
    assert weightages(lab)["k8s-kata"] == 100
    assert record(lab)["phase"] == "paused"
    again = playbook("playbooks/rollout.yml", **FAST)
    assert again.returncode == 0, again.stdout
    assert record(lab)["phase"] == "finished"


@pytest.mark.faults
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_run_lowers_the_share(lab: Lab, playbook: Playbook, signal_number: signal.Signals) -> None:
    variables = {**FAST, "rollout_window": 60, "rollout_timeout": 600, "rollout_interval": 2}
    environment = {**os.environ, "K8S_AUTH_KUBECONFIG": str(lab.kubeconfig)}
    command = ["ansible-playbook", "-e", json.dumps(variables), "playbooks/rollout.yml"]
    running = subprocess.Popen(command, cwd=TOP, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: bool(record(lab).get("evidence")))
    finally:
        os.kill(running.pid, signal_number)
        running.wait()
    until(lambda: weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0} and lock_holder(lab) == "", 60)
    began = record(lab)["began"]
    assert record(lab)["phase"] == "paused"
    assert "was interrupted" in record(lab)["reason"]
    done = playbook("playbooks/rollout.yml", **FAST)
    assert done.returncode == 0, done.stdout
    assert record(lab)["began"] == began
    assert record(lab)["phase"] == "finished"


@pytest.mark.faults
def test_rollback_does_not_wait_for_a_lock(lab: Lab, playbook: Playbook) -> None:
    done = playbook("playbooks/rollout.yml", **{**FAST, "rollout_min_builds": 100000, "rollout_timeout": 4})
    assert done.returncode != 0
    held = {
        "spec": {
            "holderIdentity": "somebody@else",
            "leaseDurationSeconds": 3600,
            "renewTime": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
        }
    }
    lab.kubectl("patch", "lease", "kata-rollout", "-n", "sd", "--type=merge", "-p", json.dumps(held))
    refused = playbook("playbooks/rollout.yml", **FAST)
    assert refused.returncode != 0
    assert "is locked by somebody@else until" in refused.stdout
    back = playbook("screwdriver.kata.rollback", rollout_reason="Builds of a team hang.")
    assert back.returncode == 0, back.stdout
    assert weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0}
    assert record(lab)["phase"] == "rolled_back"
    assert record(lab)["reason"] == "Builds of a team hang."


def test_a_step_that_lacks_something_is_not_taken(lab: Lab, playbook: Playbook) -> None:
    lab.kubectl("delete", "runtimeclass", "kata")
    try:
        done = playbook("playbooks/rollout.yml", **FAST)
    finally:
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    assert done.returncode != 0
    assert "Step 1 (100 %) was not taken. RuntimeClass kata does not exist; run the playbook screwdriver.kata.site first." in done.stdout
    assert weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0}
    assert record(lab)["phase"] == "paused"
    assert lock_holder(lab) == ""


def test_check_mode_moves_nothing(lab: Lab, playbook: Playbook, writes: t.Callable[[], list[dict[str, t.Any]]]) -> None:
    writes()
    done = playbook("playbooks/rollout.yml", "--check", "--diff", **FAST)
    assert done.returncode == 0, done.stdout
    assert "weightage: 100" in done.stdout
    assert [event for event in writes() if event["user"]["username"] == "admin" and event["objectRef"]["resource"] != "pods"] == []
    assert record(lab) == {}
