"""The playbooks rollout and status while builds run, checked with kubectl and the worker's figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..helpers import FAST_ROLLOUT, RUNTIME_CLASS, Playbook, Writes, lock_holder, weightages

pytestmark = pytest.mark.usefixtures("no_rollout")
RECORD_VERSION = ("get", "configmap", "kata-rollout", "-n", "sd", "-o", "jsonpath={.metadata.resourceVersion}")


def test_goes_to_the_last_step_on_evidence(lab: Lab, playbook: Playbook, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_steps": [50, 100], "rollout_report": str(report)})
    assert done.returncode == 0, done.stdout
    assert weightages(lab) == {"k8s-vm": 0, "k8s-kata": 100}
    assert lab.record()["phase"] == "finished"
    assert [step["outcome"] for step in lab.record()["history"]] == ["passed", "passed"]
    assert lock_holder(lab) == ""
    page = report.read_text()
    assert "<svg" in page
    assert "finished" in page

    before = lab.kubectl(*RECORD_VERSION)
    again = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_steps": [50, 100]})
    assert again.returncode == 0, again.stdout
    assert lab.kubectl(*RECORD_VERSION) == before
    assert weightages(lab) == {"k8s-vm": 0, "k8s-kata": 100}

    status = playbook("screwdriver.kata.status")
    assert status.returncode == 0
    assert "Rollout sd/kata-rollout: finished" in status.stdout
    assert "Weightages now: k8s-vm 0, k8s-kata 100" in status.stdout


@pytest.mark.playbooks
def test_failed_starts_lead_back_to_zero(lab: Lab, playbook: Playbook) -> None:
    lab.fault("failed-starts")
    try:
        # At 100 % there is no legacy executor to compare with, and a doubt only pauses.
        done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_steps": [50]})
    finally:
        lab.fault("none")
    assert done.returncode != 0
    assert weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0}
    # With three builds the worst image and node are left out, and what is left proves nothing yet; then the run pauses at 0 %.
    assert lab.record()["phase"] in ("rolled_back", "paused"), done.stdout
    assert "failed to start on k8s-kata" in lab.record()["reason"]
    assert lock_holder(lab) == ""


@pytest.mark.playbooks
def test_no_evidence_is_not_success_and_a_second_run_resumes(lab: Lab, playbook: Playbook) -> None:
    done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_min_builds": 100000, "rollout_timeout": 4})
    assert done.returncode != 0, done.stdout
    assert "Paused at step 1 of 1, since the evidence does not suffice" in done.stdout, done.stdout
    assert "Kata's share stands at 100 %." in done.stdout, done.stdout
    assert weightages(lab)["k8s-kata"] == 100
    assert lab.record()["phase"] == "paused"
    again = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
    assert again.returncode == 0, again.stdout
    assert lab.record()["phase"] == "finished"


@pytest.mark.playbooks
def test_a_step_that_lacks_something_is_not_taken(lab: Lab, playbook: Playbook) -> None:
    lab.kubectl("delete", "runtimeclass", "kata")
    try:
        done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
    finally:
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    assert done.returncode != 0
    assert "Step 1 (100 %) was not taken. RuntimeClass kata does not exist; run the playbook screwdriver.kata.site first." in done.stdout
    assert weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0}
    assert lab.record()["phase"] == "paused"
    assert lock_holder(lab) == ""


def test_check_mode_moves_nothing(lab: Lab, playbook: Playbook, writes: Writes) -> None:
    writes()
    done = playbook("playbooks/rollout.yml", "--check", "--diff", **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout
    assert "weightage: 100" in done.stdout
    assert [event for event in writes() if event["user"]["username"] == "admin" and event["objectRef"]["resource"] != "pods"] == []
    assert lab.record() == {}
