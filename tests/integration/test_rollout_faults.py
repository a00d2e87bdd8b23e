"""Faults during a rollout: the share and the record afterwards, and that the lock is free."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import signal
import subprocess
import time
import typing as t
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..api_proxy import Request, disturbed
from ..helpers import (
    FAST_ROLLOUT,
    RUNTIME_CLASS,
    TOP,
    Playbook,
    Writes,
    clock_ahead,
    lock_holder,
    playbook_environment,
    requests_received,
    wait_until,
    weightages,
)

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("no_rollout")]
ZERO = {"k8s-vm": 100, "k8s-kata": 0}
# A step that watches long enough for a fault to be injected.
WATCHING = {**FAST_ROLLOUT, "rollout_window": 300, "rollout_timeout": 600}


@pytest.fixture(autouse=True)
def no_build_is_lost(lab: Lab, no_rollout: None, request: pytest.FixtureRequest) -> t.Iterator[None]:
    """What the worker counts as lost stays as it is, except where the API server itself refuses builds."""
    before = lab.stats().get("lost", 0)
    yield
    assert lab.stats().get("lost", 0) == before or request.node.name == "test_a_step_never_passes_if_its_runtime_class_is_deleted"


@contextmanager
def running(lab: Lab, path: Path, minutes_ahead: int = 0, **variables: t.Any) -> t.Iterator[subprocess.Popen[bytes]]:
    """A rollout in the background, until its evidence was stored for the first time; ``path`` gets its output."""
    environment = playbook_environment(lab.kubeconfig) | clock_ahead(minutes_ahead)
    command = ["ansible-playbook", "-e", json.dumps(variables), "playbooks/rollout.yml"]
    with path.open("w") as out:
        # A session of its own, as of a terminal: no signal to the tests reaches it.
        process = subprocess.Popen(command, cwd=TOP, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            wait_until(lambda: lab.record().get("evidence") or process.poll() is not None, path.read_text, seconds=600)
            assert process.poll() is None, path.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def stopped(process: subprocess.Popen[bytes], path: Path) -> str:
    """The output of a rollout that has to end by itself with an error."""
    assert process.wait(900) != 0, path.read_text()
    return path.read_text()


def test_a_config_edited_by_hand_is_lowered_and_named(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running(lab, out, **{**WATCHING, "rollout_steps": [10]}) as process:
        text = lab.worker_config()
        edited = text.replace("weightage: 10\n", "weightage: 80\n").replace("weightage: 90\n", "weightage: 20\n")
        assert edited != text
        lab.set_worker_config(edited)
        output = stopped(process, out)
    assert "a share of 80 %, and this step set 10 %: it was changed by someone else" in output, output
    assert weightages(lab) == ZERO
    assert lab.record()["phase"] == "paused"
    assert lock_holder(lab) == ""


def test_a_rollout_waits_for_an_api_server_that_hangs_for_30_seconds(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running(lab, out, **{**FAST_ROLLOUT, "rollout_window": 60, "rollout_timeout": 600}) as process:
        server = lab.process("kube-apiserver").pid
        assert server
        os.kill(server, signal.SIGSTOP)
        try:
            time.sleep(30)
        finally:
            os.kill(server, signal.SIGCONT)
        process.wait(900)
    phase = lab.record()["phase"]
    # Either the watch continued, or the share was lowered once the API server answered: no share stands unwatched.
    assert phase in ("finished", "paused"), out.read_text()
    assert weightages(lab) == ({"k8s-vm": 0, "k8s-kata": 100} if phase == "finished" else ZERO), out.read_text()
    assert lock_holder(lab) == ""


def test_a_pool_that_shrinks_stops_the_next_step_at_the_last_share(lab: Lab, playbook: Playbook, tmp_path: Path) -> None:
    nodes = [f"build-{number}" for number in range(1, 5)]
    out = tmp_path / "out"
    try:
        with running(lab, out, **{**FAST_ROLLOUT, "rollout_steps": [10, 100], "rollout_window": 20}) as process:
            for name in nodes:
                lab.kubectl("cordon", name)
            output = stopped(process, out)
    finally:
        for name in nodes:
            lab.kubectl("uncordon", name)
    # Without nodes the first step may have failed too; then nothing has passed.
    outcomes = [step["outcome"] for step in lab.record()["history"]]
    assert (lab.record()["phase"], weightages(lab)["k8s-kata"]) == (("paused", 10) if outcomes == ["passed"] else ("rolled_back", 0)), (
        output
    )
    assert lock_holder(lab) == ""


def test_a_step_never_passes_if_its_runtime_class_is_deleted(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    try:
        with running(lab, out, **{**FAST_ROLLOUT, "rollout_window": 30, "rollout_timeout": 60}) as process:
            lab.kubectl("delete", "runtimeclass", "kata")
            output = stopped(process, out)
    finally:
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME_CLASS))
    assert lab.record()["phase"] in ("paused", "rolled_back"), output
    assert weightages(lab) == ZERO, output
    assert lock_holder(lab) == ""


def test_a_second_operator_is_refused_and_may_take_over(lab: Lab, playbook: Playbook, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running(lab, out, **WATCHING) as process:
        refused = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
        assert refused.returncode != 0, refused.stdout
        assert "is locked by" in refused.stdout, refused.stdout
        assert weightages(lab)["k8s-kata"] == 100, "the share of the run that holds the lock was touched"
        taken = playbook("playbooks/rollout.yml", **FAST_ROLLOUT, rollout_take_over=True)
        assert taken.returncode == 0, taken.stdout
        output = stopped(process, out)
    assert lab.record()["phase"] == "finished", output
    assert weightages(lab) == {"k8s-vm": 0, "k8s-kata": 100}, "the run that lost its lock lowered the share of the other one"


def test_a_missing_permission_is_named_before_the_first_write(lab: Lab, playbook: Playbook) -> None:
    before = lab.kubectl("get", "configmap", "buildcluster-queue-worker", "-n", "sd", "-o", "jsonpath={.metadata.resourceVersion}")
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "half", "namespace": "sd"}, "rules": rules}
    binding = {**role, "kind": "RoleBinding", "subjects": [{"kind": "User", "name": "limited", "apiGroup": "rbac.authorization.k8s.io"}]}
    binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "half"}
    del binding["rules"]
    lab.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]}))
    done = playbook("playbooks/rollout.yml", kubeconfig=lab.directory / "limited.kubeconfig", **FAST_ROLLOUT)
    assert done.returncode != 0
    assert "Missing permissions: " in done.stdout, done.stdout
    assert "watch pods in namespace sd-builds" in done.stdout, done.stdout
    assert lab.record() == {}
    after = lab.kubectl("get", "configmap", "buildcluster-queue-worker", "-n", "sd", "-o", "jsonpath={.metadata.resourceVersion}")
    assert after == before


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"rollout_interval": "0"}, "rollout_interval is 0: set it to at least 1."),
        (
            {"rollout_interval": "90000", "rollout_timeout": "90000"},
            "rollout_interval is 90000 s and rollout_timeout 90000 s, so that the lock of an interrupted run would end only after 90030 s:"
            " set rollout_interval to at most 3570 and rollout_timeout to at most 535500.",
        ),
        ({"rollout_timeout": "3"}, "rollout_timeout is 3 s and rollout_window 4 s"),
        ({"rollout_report": "/nonexistent/report.html"}, "is not a directory that can be written to"),
        ({"rollout_steps": [50, 10]}, "give the shares in ascending order"),
        ({"rollout_approve": "30"}, "rollout_approve: 30 is not a step of this rollout; its steps are 100."),
        ({"rollout_windows": [{"days": ["mon"], "from": 540, "to": 960}]}, "rollout_windows: entry 1 has from 540; give a time from"),
    ],
)
def test_wrong_values_are_refused_before_the_first_write(lab: Lab, playbook: Playbook, variables: dict[str, t.Any], sentence: str) -> None:
    done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, **variables})
    assert done.returncode != 0, done.stdout
    assert sentence in " ".join(done.stdout.split()), done.stdout
    assert lab.record() == {}
    assert weightages(lab) == ZERO
    assert lock_holder(lab) == ""


def test_a_step_waits_for_its_approval(lab: Lab, playbook: Playbook) -> None:
    held = playbook("playbooks/rollout.yml", **FAST_ROLLOUT, rollout_approve=["100"])
    assert held.returncode == 0, held.stdout
    assert "needs an approval" in held.stdout
    assert weightages(lab) == ZERO
    notes = lab.record()["notes"]
    again = playbook("playbooks/rollout.yml", **FAST_ROLLOUT, rollout_approve="100", rollout_mode="once")
    assert again.returncode == 0, again.stdout
    assert "The rollout stays paused at step 1: it needs an approval" in " ".join(again.stdout.split()), again.stdout
    assert lab.record()["notes"] == notes
    approved = playbook("playbooks/approve.yml", rollout_holder="ada")
    assert approved.returncode == 0, approved.stdout
    assert "step 1 by ada" in approved.stdout, approved.stdout
    done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT, rollout_approve=["100"])
    assert done.returncode == 0, done.stdout
    assert lab.record()["phase"] == "finished"


def test_once_takes_at_most_one_step_and_bakes_the_last(lab: Lab, playbook: Playbook) -> None:
    once = {**FAST_ROLLOUT, "rollout_mode": "once", "rollout_steps": [50, 100], "rollout_interval": 10}
    for _attempt in range(6):
        done = playbook("playbooks/rollout.yml", **once)
        assert done.returncode == 0, done.stdout
        assert lock_holder(lab) == ""
        if lab.record()["step"] == 2 and lab.record()["evidence"]:
            break
    assert lab.record()["phase"] == "running"
    assert lab.record()["step"] == 2
    finished = playbook("playbooks/rollout.yml", **once, rollout_bake=1)
    assert finished.returncode == 0, finished.stdout
    assert lab.record()["phase"] == "finished"


def test_pause_lowers_the_share_and_once_stays_paused_until_resumed(lab: Lab, playbook: Playbook) -> None:
    once = {**FAST_ROLLOUT, "rollout_mode": "once", "rollout_min_builds": 100000}
    assert playbook("playbooks/rollout.yml", **once).returncode == 0
    assert weightages(lab)["k8s-kata"] == 100
    paused = playbook("playbooks/pause.yml", rollout_reason="Upgrade tonight.")
    assert paused.returncode == 0, paused.stdout
    assert "Kata's share was lowered from 100 % to 0 %." in paused.stdout, paused.stdout
    stays = playbook("playbooks/rollout.yml", **once)
    assert stays.returncode == 0, stays.stdout
    assert weightages(lab) == ZERO, stays.stdout
    assert lab.record()["phase"] == "paused", stays.stdout
    assert playbook("playbooks/resume.yml").returncode == 0
    assert lab.record()["phase"] == "running"
    assert lock_holder(lab) == ""
    assert weightages(lab) == ZERO


def test_a_rollback_is_reported_by_webhook_and_event_and_does_not_wait_for_a_dead_webhook(lab: Lab, playbook: Playbook) -> None:
    with requests_received("POST") as (url, received):
        hook = f"{url}/hook"
        done = playbook("playbooks/rollback.yml", rollout_notify=hook, rollout_reason="Builds hang.")
        assert done.returncode == 0, done.stdout
        wait_until(lambda: received, "no message at the webhook")
    message = json.loads(received["/hook"])
    assert message["text"] == "Kata rollout sd/kata-rollout: Rolled back to 0 %: Builds hang."
    assert message["event"] == "rollback"
    events = json.loads(lab.kubectl("get", "events", "-n", "sd", "-o", "json"))["items"]
    assert any(event["reason"] == "RolloutRollback" and "Builds hang." in event["message"] for event in events), events
    # The receiver has stopped.
    dead = playbook("playbooks/rollback.yml", rollout_notify=hook, rollout_reason="Again.")
    assert dead.returncode == 0, dead.stdout


def test_rollback_lists_the_builds_on_kata_and_how_to_move_pinned_ones(lab: Lab, playbook: Playbook) -> None:
    done = playbook("playbooks/rollback.yml")
    assert done.returncode == 0, done.stdout
    assert "Kata's share is 0 %." in done.stdout, done.stdout
    assert "only removing the annotation does" in done.stdout, done.stdout


def test_status_names_a_missing_permission_and_an_unreachable_server(lab: Lab, playbook: Playbook, tmp_path: Path) -> None:
    limited = playbook("playbooks/status.yml", kubeconfig=lab.directory / "limited.kubeconfig")
    assert limited.returncode != 0, limited.stdout
    assert "not allowed (403)" in limited.stdout, limited.stdout
    away = tmp_path / "kubeconfig"
    away.write_text(lab.kubeconfig.read_text().replace(lab.server, "127.0.0.1:1"))
    unreachable = playbook("playbooks/status.yml", kubeconfig=away)
    assert unreachable.returncode != 0, unreachable.stdout
    assert "no answer from the API server" in unreachable.stdout, unreachable.stdout


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_run_lowers_the_share(lab: Lab, playbook: Playbook, tmp_path: Path, signal_number: signal.Signals) -> None:
    with running(lab, tmp_path / "out", **WATCHING) as process:
        process.send_signal(signal_number)
        process.wait()
    wait_until(lambda: weightages(lab) == ZERO and lock_holder(lab) == "", "the guard lowers the share", seconds=60)
    began = lab.record()["began"]
    assert lab.record()["phase"] == "paused"
    assert "was interrupted" in lab.record()["reason"]
    done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout
    assert lab.record()["began"] == began
    assert lab.record()["phase"] == "finished"


def test_rollback_does_not_wait_for_a_lock(lab: Lab, playbook: Playbook) -> None:
    done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_min_builds": 100000, "rollout_timeout": 4})
    assert done.returncode != 0
    held = {
        "spec": {
            "holderIdentity": "eve@ops-2",
            "leaseDurationSeconds": 3600,
            "renewTime": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
        }
    }
    lab.kubectl("patch", "lease", "kata-rollout", "-n", "sd", "--type=merge", "-p", json.dumps(held))
    refused = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
    assert refused.returncode != 0
    assert "is locked by eve@ops-2 until" in refused.stdout
    back = playbook("screwdriver.kata.rollback", rollout_reason="Builds of a team hang.")
    assert back.returncode == 0, back.stdout
    assert weightages(lab) == {"k8s-vm": 100, "k8s-kata": 0}
    assert lab.record()["phase"] == "rolled_back"
    assert lab.record()["reason"] == "Builds of a team hang."


def test_slow_starts_pause_and_do_not_roll_back(lab: Lab, playbook: Playbook) -> None:
    lab.fault("slow-starts")
    try:
        # The pods of k8s-vm do not show how long an image is pulled, so its times are no measure: the limit is.
        # On a busy machine a build may wait for its start much longer than others: that is not what is judged here.
        limits = {"rollout_max_setup_seconds": 5, "rollout_start_timeout": 120, "rollout_max_failure_ratio": 1}
        variables = {**FAST_ROLLOUT, "rollout_steps": [50], **limits}
        done = playbook("playbooks/rollout.yml", **variables)
    finally:
        lab.fault("none")
    assert done.returncode != 0
    assert lab.record()["phase"] == "paused", done.stdout
    assert lab.record()["doubt"] == "setup", done.stdout
    assert weightages(lab) == ZERO, done.stdout
    assert lock_holder(lab) == ""


def test_starts_that_fail_on_both_executors_pause_and_do_not_roll_back(lab: Lab, playbook: Playbook) -> None:
    lab.fault("all-starts-fail")
    try:
        done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_steps": [50], "rollout_timeout": 30})
    finally:
        lab.fault("none")
    assert done.returncode != 0
    assert lab.record()["phase"] == "paused", done.stdout
    assert weightages(lab) == ZERO, done.stdout
    assert lock_holder(lab) == ""


def test_an_api_server_that_fails_a_tenth_of_the_requests_stops_nothing(lab: Lab, playbook: Playbook, tmp_path: Path) -> None:
    choices = random.Random(1)
    refused: list[int] = []

    def disturb(request: Request) -> int | None:
        # A watch that has begun is answered with events.
        if choices.random() >= 0.1 or (request.answered and "watch=" in request.path):
            return None
        refused.append(choices.choice([429, 500]))
        return refused[-1]

    with disturbed(lab, tmp_path, disturb) as kubeconfig:
        done = playbook("playbooks/rollout.yml", kubeconfig=kubeconfig, **FAST_ROLLOUT)
    assert refused
    phase = lab.record()["phase"]
    # What asks once alone may fail; then no share stands unwatched.
    assert phase in ("finished", "paused"), done.stdout
    assert weightages(lab) == ({"k8s-vm": 0, "k8s-kata": 100} if phase == "finished" else ZERO), done.stdout
    assert lock_holder(lab) == ""


def test_a_worker_that_does_not_restart_gets_the_last_share_back(lab: Lab, playbook: Playbook) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full", "namespace": "sd"}, "spec": {"hard": {"pods": "0"}}}
    lab.kubectl("rollout", "status", "deployment/buildcluster-queue-worker", "-n", "sd", "--timeout=120s")
    lab.kubectl("create", "-f", "-", stdin=json.dumps(quota))
    try:
        in_force = ("get", "resourcequota", "full", "-n", "sd", "-o", "jsonpath={.status.hard.pods}")
        wait_until(lambda: lab.kubectl(*in_force) == "0", "the quota is in force")
        done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT, rollout_worker_timeout=5)
        sentence = (
            "has 0 updated and 1 available of 1 pods, so it is unknown which config routes builds: its rollout was not complete after 5 s."
        )
        assert done.returncode != 0, done.stdout
        assert sentence in " ".join(done.stdout.split()), done.stdout
        assert lab.record()["phase"] == "paused", done.stdout
        assert weightages(lab) == ZERO, done.stdout
        assert lock_holder(lab) == ""
        # The pod that still runs has the old config, but another revision is wanted.
        lab.kubectl("rollout", "restart", "deployment/buildcluster-queue-worker", "-n", "sd")
        back = playbook("playbooks/rollback.yml")
        assert back.returncode == 0, back.stdout
        assert "has 0 updated of 1 pods" in back.stdout, back.stdout
        assert lab.record()["phase"] == "rolled_back", back.stdout
    finally:
        lab.kubectl("delete", "resourcequota", "full", "-n", "sd")
        lab.kubectl("rollout", "status", "deployment/buildcluster-queue-worker", "-n", "sd", "--timeout=120s")


def test_another_worker_of_the_config_that_does_not_restart_stops_the_step(lab: Lab, playbook: Playbook) -> None:
    named = json.loads(lab.kubectl("get", "deployment", "buildcluster-queue-worker", "-n", "sd", "-o", "json"))
    other = {key: named[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "other-worker", "namespace": "sd"}}
    labels = {"app": "other-worker"}
    other["spec"] |= {"selector": {"matchLabels": labels}, "replicas": 1}
    other["spec"]["template"]["metadata"]["labels"] = labels
    lab.kubectl("create", "-f", "-", stdin=json.dumps(other))
    try:
        lab.kubectl("rollout", "status", "deployment/other-worker", "-n", "sd", "--timeout=120s")
        # Its template changes then, and its pods do not.
        lab.kubectl("rollout", "pause", "deployment/other-worker", "-n", "sd")
        done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT, rollout_worker_timeout=5)
        assert done.returncode != 0, done.stdout
        assert "Deployment sd/other-worker has 0 updated and 1 available of 1 pods" in " ".join(done.stdout.split()), done.stdout
        assert lab.record()["phase"] == "paused", done.stdout
        assert weightages(lab) == ZERO, done.stdout
        assert lock_holder(lab) == ""
        # The template of the old share is that of the pod that still runs; another variable makes it a new one.
        lab.kubectl("set", "env", "deployment/other-worker", "-n", "sd", "TEST=1")
        back = playbook("playbooks/rollback.yml")
        assert back.returncode == 0, back.stdout
        assert "Deployment sd/other-worker has 0 updated of 1 pods: the others may still route by the old share." in back.stdout, (
            back.stdout
        )
    finally:
        lab.kubectl("delete", "deployment", "other-worker", "-n", "sd")


def test_a_node_that_is_not_ready_is_no_reason_to_roll_back(lab: Lab, playbook: Playbook) -> None:
    lost = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}
    # kwok reports only on nodes with its label.
    lab.kubectl("label", "node", "build-1", "screwdriver.cd/lab-")
    try:
        lab.kubectl("patch", "node", "build-1", "--subresource=status", "--type=strategic", "-p", json.dumps(lost))
        done = playbook("playbooks/rollout.yml", **FAST_ROLLOUT)
        assert done.returncode == 0, done.stdout
        assert lab.record()["phase"] == "finished"
    finally:
        lab.kubectl("label", "node", "build-1", "screwdriver.cd/lab=simulated")
        lab.kubectl("wait", "--for=condition=Ready", "node/build-1", "--timeout=120s")


def test_the_time_from_the_deciding_event_to_a_share_of_zero_is_printed(lab: Lab, playbook: Playbook) -> None:
    lab.fault("failed-starts")
    try:
        done = playbook("playbooks/rollout.yml", **{**FAST_ROLLOUT, "rollout_steps": [50], "rollout_min_builds": 20})
    finally:
        lab.fault("none")
    assert lab.record()["phase"] == "rolled_back", done.stdout
    assert weightages(lab) == ZERO, done.stdout
    assert re.search(r"Kata's share was at 0 % \d+\.\d s after the event that decided\.", done.stdout), done.stdout


@pytest.fixture(params=[5, -5])
def minutes(request: pytest.FixtureRequest) -> int:
    """How far the controller's clock is ahead of the API server's."""
    if platform.machine() != "x86_64":
        pytest.skip("The package libfaketime has its library for x86_64 alone.")
    return request.param


def test_operators_with_wrong_clocks_hand_over_by_the_ttl_and_finish(
    lab: Lab, playbook: Playbook, writes: Writes, tmp_path: Path, minutes: int
) -> None:
    """One is killed in the middle of a step, and the other, whose clock is wrong the other way, continues with its evidence."""
    began = datetime.now(UTC).replace(microsecond=0)
    variables = {**FAST_ROLLOUT, "rollout_steps": [50, 100], "rollout_guard": False}
    out = tmp_path / "out"
    with running(lab, out, minutes, **{**variables, "rollout_window": 300, "rollout_timeout": 600}) as process:
        process.kill()
        process.wait()
    assert weightages(lab) == {"k8s-vm": 50, "k8s-kata": 50}
    lease = json.loads(lab.kubectl("get", "lease", "kata-rollout", "-n", "sd", "-o", "json", "--show-managed-fields"))
    renewed = max(datetime.fromisoformat(entry["time"]) for entry in lease["metadata"]["managedFields"])
    expires = renewed + timedelta(seconds=lease["spec"]["leaseDurationSeconds"])
    writes()

    done = playbook("playbooks/rollout.yml", minutes_ahead=-minutes, **variables)
    if done.returncode != 0:
        assert "is locked by" in done.stdout, done.stdout
        wait_until(lambda: datetime.now(UTC) > expires + timedelta(seconds=2), "the lock expires")
        done = playbook("playbooks/rollout.yml", minutes_ahead=-minutes, **variables)
    assert done.returncode == 0, done.stdout
    taken = next(event for event in writes() if event["objectRef"]["resource"] == "leases" and event["objectRef"]["namespace"] == "sd")
    assert datetime.fromisoformat(taken["requestReceivedTimestamp"]) >= expires

    record = lab.record()
    assert record["phase"] == "finished"
    assert [step["outcome"] for step in record["history"]] == ["passed", "passed"]
    assert [figures["failures"] for step in record["history"] for figures in step["gate"]["executors"].values()] == [{}] * 4
    times = [record["began"], *(step[key] for step in record["history"] for key in ("began", "ended")), record["ended"]]
    assert times == sorted(times)
    assert began <= datetime.fromisoformat(times[0])
    assert datetime.fromisoformat(times[-1]) <= datetime.now(UTC)
    assert weightages(lab) == {"k8s-vm": 0, "k8s-kata": 100}
    assert lock_holder(lab) == ""


def test_failed_starts_are_rolled_back_by_a_controller_with_a_wrong_clock(lab: Lab, playbook: Playbook, minutes: int) -> None:
    lab.fault("failed-starts")
    try:
        variables = {**FAST_ROLLOUT, "rollout_steps": [50], "rollout_min_builds": 20}
        done = playbook("playbooks/rollout.yml", minutes_ahead=minutes, **variables)
    finally:
        lab.fault("none")
    assert lab.record()["phase"] == "rolled_back", done.stdout
    assert weightages(lab) == ZERO, done.stdout
    assert lock_holder(lab) == ""
    took = re.search(r"Kata's share was at 0 % (\S+) s after the event that decided\.", done.stdout)
    assert took, done.stdout
    # A difference of two clocks would be 300 s.
    assert 0 <= float(took[1]) < 200


def test_a_window_is_open_by_the_api_servers_clock(lab: Lab, playbook: Playbook, minutes: int) -> None:
    before = datetime.now(UTC)
    near = {f"{before + timedelta(days=days):%a}".lower() for days in (-1, 0, 1)}
    far = sorted({"mon", "tue", "wed", "thu", "fri", "sat", "sun"} - near)
    windows = [{"days": far, "from": "00:00", "to": "24:00"}]
    done = playbook("playbooks/rollout.yml", minutes_ahead=minutes, **FAST_ROLLOUT, rollout_windows=windows)
    assert done.returncode == 0, done.stdout
    held = re.search(r"is held: it is (\w+ \S+) UTC, outside of rollout_windows\.", done.stdout)
    assert held, done.stdout
    passed = range(int((datetime.now(UTC) - before).total_seconds() // 60) + 2)
    assert held[1] in [f"{before + timedelta(minutes=number):%a %H:%M}".lower() for number in passed]
    assert lab.record()["phase"] == "paused"
    assert weightages(lab) == ZERO
    assert lock_holder(lab) == ""
    opened = [{"days": sorted(near), "from": "00:00", "to": "24:00"}]
    assert playbook("playbooks/rollout.yml", minutes_ahead=minutes, **FAST_ROLLOUT, rollout_windows=opened).returncode == 0
    assert lab.record()["phase"] == "finished"


def test_modules_of_a_controller_with_a_wrong_clock_have_that_clock(playbook: Playbook, minutes: int) -> None:
    """Else the tests above would prove nothing."""
    before = int(time.time())
    tasks: list[dict[str, t.Any]] = [
        {"ansible.builtin.setup": {"gather_subset": ["!all", "date_time"]}},
        {
            "ansible.builtin.debug": {
                "msg": "by the module {{ ansible_facts.date_time.epoch }}, by the controller {{ now().timestamp() | int }}"
            }
        },
    ]
    done = playbook(tasks, minutes_ahead=minutes)
    told = re.search(r"by the module (\d+), by the controller (\d+)", done.stdout)
    assert told, done.stdout
    assert all(before <= int(epoch) - 60 * minutes <= time.time() for epoch in told.groups())
