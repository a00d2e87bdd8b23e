# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From pods and their events to outcomes and causes."""

from __future__ import annotations

import hashlib
import json
import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import observation as _builds
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import record as _record
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import Observation
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY, read_build, seconds_of

CREATED = "2026-11-23T21:00:00Z"
EPOCH = 1795467600
SCOPE = {"namespace": "sd-builds", "build_selector": "tier=builds", "kata_runtime_class": "kata"}


def at(second: int) -> str:
    return f"2026-11-23T21:{second // 60:02}:{second % 60:02}Z"


def pod(
    name: str = "build-1",
    *,
    kata: bool = True,
    image: str = "node:22",
    node: str = "node-1",
    created: int = 0,
    state: dict[str, t.Any] | None = None,
    init: dict[str, t.Any] | None = None,
    conditions: t.Iterable[dict[str, str]] = (),
    deleted: bool = False,
    reported: int | None = None,
    annotations: dict[str, str] | None = None,
    **status: t.Any,
) -> dict[str, t.Any]:
    """A pod of executor-k8s; state is its build container's. reported: when the API server wrote the status, by default when it changed."""
    run = (state or {}).get("running") or (state or {}).get("terminated") or {}
    written = run.get("finishedAt") or run.get("startedAt") if reported is None else at(reported)
    return {
        "metadata": {
            "uid": f"uid-{name}",
            "name": name,
            "creationTimestamp": at(created),
            "labels": {"sdbuild": "7", "tier": "builds"},
            "annotations": annotations or {},
            "managedFields": [{"manager": "executor", "time": at(59)}, *([{"subresource": "status", "time": written}] if written else [])],
            **({"deletionTimestamp": at(created)} if deleted else {}),
        },
        "spec": {
            **({"runtimeClassName": "kata"} if kata else {}),
            **({"nodeName": node} if node else {}),
            "containers": [{"name": "dind", "image": "docker:20.10-dind"}, {"name": "7", "image": image}],
        },
        "status": {
            "phase": "Pending",
            "containerStatuses": [{"name": "7", "state": state}] if state else [],
            "initContainerStatuses": [{"name": "launcher-7", "state": init}] if init else [],
            "conditions": list(conditions),
            **status,
        },
    }


def waits_for(reason: str) -> dict[str, t.Any]:
    return {"waiting": {"reason": reason}}


def runs(since: int) -> dict[str, t.Any]:
    return {"running": {"startedAt": at(since)}}


def ended(code: int, since: int = 5, until: int = 60, reason: str = "Error") -> dict[str, t.Any]:
    return {"terminated": {"exitCode": code, "startedAt": at(since), "finishedAt": at(until), "reason": reason}}


START_ERROR = {"terminated": {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z", "finishedAt": at(3)}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
SANDBOX_READY = {"type": "PodReadyToStartContainers", "status": "True"}


def disruption(reason: str) -> dict[str, str]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason}


@pytest.mark.parametrize("timestamp, seconds", [("1970-01-01T00:00:01Z", 1), (CREATED, EPOCH)])
def test_seconds_of_a_timestamp(timestamp: str, seconds: int) -> None:
    assert seconds_of(timestamp) == seconds


def test_a_build_is_read_from_the_container_that_is_named_like_the_build() -> None:
    build = read_build(pod(state=runs(9)), "kata")
    assert build.uid == "uid-build-1"
    assert build.name == "build-1"
    assert build.image == "node:22"
    assert build.executor == KATA
    assert build.created == EPOCH
    assert build.started is True
    assert build.reported == EPOCH + 9
    assert build.exit_code is None
    assert build.node == "node-1"
    assert build.pinned is False
    assert build.launcher is False


def test_a_build_of_executor_k8s_vm_is_read_from_its_launcher() -> None:
    seen = pod(kata=False)
    seen["metadata"]["labels"]["app"] = "screwdriver-vm"
    seen["spec"]["containers"] = [
        {"name": "vm-launcher", "image": "hyperctl", "args": ["--cpu", "2", "--container", "centos:6", "--api_uri", "x"]}
    ]
    seen["status"]["containerStatuses"] = [{"name": "vm-launcher", "state": runs(12)}]
    build = read_build(seen, "kata")
    assert build.image == "centos:6"
    assert build.executor == LEGACY
    assert build.started is True
    assert build.launcher is True


def test_another_runtime_class_is_the_legacy_executors() -> None:
    seen = pod()
    seen["spec"]["runtimeClassName"] = "gvisor"
    assert read_build(seen, "kata").executor == LEGACY
    assert read_build(seen, "gvisor").executor == KATA


def test_a_job_that_asks_for_an_executor_is_pinned() -> None:
    assert read_build(pod(annotations={"screwdriver.cd/executor": "k8s-kata"}), "kata").pinned
    assert read_build(pod(annotations={"beta.screwdriver.cd/executor": "k8s-kata"}), "kata").pinned
    assert not read_build(pod(annotations={"screwdriver.cd/executor": ""}), "kata").pinned


JOB = {"screwdriver.cd/pipeline": "7", "screwdriver.cd/job": "nightly"}


def test_a_job_is_read_from_the_labels() -> None:
    labelled, unlabelled = pod(), pod()
    labelled["metadata"]["labels"] |= JOB
    assert read_build(labelled, "kata").job == "7/nightly"
    assert read_build(unlabelled, "kata").job == ""


@pytest.mark.parametrize(
    "labels, expected", [(JOB, {}), ({**JOB, "screwdriver.cd/job": "other"}, {"reg/rhel6:1": 1}), ({}, {"reg/rhel6:1": 1})]
)
def test_a_job_that_brought_an_excluded_image_to_kata_at_the_pilot_is_pinned(labels: dict[str, str], expected: dict[str, int]) -> None:
    """Its pods do not show the annotation."""
    first, later = pod("first", image="reg/rhel6:1"), pod("later", image="reg/rhel6:1")
    first["metadata"]["labels"] |= JOB
    later["metadata"]["labels"] |= labels
    pilot = Watched(pilot=True).see("ADDED", first)
    limits = gate.Limits(600, 20, 0.02, 0.02, None, None)
    baseline: dict[str, t.Any] = {}
    for _step in range(2):
        carried = Watched()
        carried.observation.load(json.loads(json.dumps(pilot.observation.dump())))
        baseline = gate.next_baseline(carried.observation, limits, gate.Names("k8s-kata", "k8s-vm"))
        pilot = Watched(baseline=baseline)
    assert Watched(baseline=baseline).see("ADDED", later).observation.excluded_on_kata == expected


def test_a_deletion_was_requested_before_its_grace_period() -> None:
    seen = pod(deleted=True, created=30)
    assert read_build(seen, "kata").stopped is None
    seen["metadata"]["deletionGracePeriodSeconds"] = 10
    assert read_build(seen, "kata").stopped == EPOCH + 20


TROUBLES = [
    ({"state": waits_for("ErrImagePull")}, "ImagePull"),
    ({"state": waits_for("ImagePullBackOff")}, "ImagePull"),
    ({"state": waits_for("InvalidImageName")}, "ImagePull"),
    ({"init": waits_for("ImagePullBackOff")}, "ImagePull"),
    ({"state": waits_for("CreateContainerError")}, "CreateContainerError"),
    ({"state": waits_for("CreateContainerConfigError")}, "CreateContainerConfigError"),
    ({"state": waits_for("RunContainerError")}, "RunContainerError"),
    ({"state": START_ERROR}, "RunContainerError"),
    ({"init": ended(1)}, "InitContainerFailed"),
    ({"node": "", "conditions": [UNSCHEDULABLE]}, "Unschedulable"),
    ({"phase": "Failed", "reason": "OutOfcpu"}, "OutOfcpu"),
    ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
    ({"conditions": [disruption("PreemptionByScheduler")]}, "Evicted"),
    ({"conditions": [disruption("EvictionByEvictionAPI")]}, "Evicted"),
    ({"conditions": [disruption("DeletionByTaintManager")]}, "NodeLost"),
    ({"reason": "NodeLost"}, "NodeLost"),
    ({"state": waits_for("ContainerCreating")}, ""),
    ({"init": ended(0)}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(
    "seen, trouble", TROUBLES, ids=[f"{number}-{trouble or 'none'}" for number, (_seen, trouble) in enumerate(TROUBLES)]
)
def test_trouble_that_a_pod_names(seen: dict[str, t.Any], trouble: str) -> None:
    assert read_build(pod(**seen), "kata").trouble == trouble


@pytest.mark.parametrize(
    "seen, overdue",
    [
        ({"node": ""}, "Unschedulable"),
        ({}, "SandboxFailed"),
        ({"state": waits_for("ContainerCreating")}, "SandboxFailed"),
        ({"conditions": [SANDBOX_READY]}, "StartTimeout"),
        ({"init": runs(3)}, "StartTimeout"),
    ],
)
def test_what_a_build_that_does_not_start_is_judged_as(seen: dict[str, t.Any], overdue: str) -> None:
    assert read_build(pod(**seen), "kata").overdue == overdue


class Watched:
    """An observation that is fed with pods. The time is in seconds since the pods' creation."""

    def __init__(self, *existing: dict[str, t.Any], baseline: dict[str, t.Any] | None = None, pilot: bool = False) -> None:
        self.events = {}
        self.observation = Observation(SCOPE, 300, lambda image: "rhel6" in image.lower(), lambda uid: self.events.get(uid, ""), pilot)
        self.observation.begin([read_build(seen, "kata") for seen in existing], "1", baseline or {})

    def see(self, kind: str, *seen: dict[str, t.Any], now: int = 0) -> Watched:
        for one in seen:
            self.observation.event(kind, read_build(one, "kata"), EPOCH + now)
        return self

    def tick(self, now: int) -> Watched:
        self.observation.tick(EPOCH + now)
        return self

    def relist(self, *seen: dict[str, t.Any], now: int = 0) -> Watched:
        self.observation.relist([read_build(one, "kata") for one in seen], "9", EPOCH + now)
        return self

    @property
    def kata(self) -> _builds.Tally:
        return self.observation.tallies[KATA]

    @property
    def legacy(self) -> _builds.Tally:
        return self.observation.tallies[LEGACY]


def tally(**figures: t.Any) -> _builds.Tally:
    return _builds.Tally(**figures)


STARTED = {"seen": 1, "started": 1}
FINISHED = {**STARTED, "setup": {"5": 1}}


LIVES = {
    "starts and succeeds": (
        [
            ("ADDED", {}),
            ("MODIFIED", {"state": runs(5)}),
            ("MODIFIED", {"state": ended(0)}),
            ("DELETED", {"state": ended(0), "deleted": True}),
        ],
        {**FINISHED, "ended": {"ok": 1}},
    ),
    "is only seen when it has ended": ([("ADDED", {"state": ended(0)})], {**STARTED, "ended": {"ok": 1}}),
    "the user's own failure": (
        [("ADDED", {}), ("MODIFIED", {"state": runs(5)}), ("MODIFIED", {"state": ended(1)})],
        {**FINISHED, "ended": {"failed": 1}},
    ),
    "is stopped by its user": (
        [("ADDED", {}), ("MODIFIED", {"state": runs(5)}), ("DELETED", {"state": ended(143), "deleted": True})],
        {**FINISHED, "ended": {"stopped": 1}},
    ),
    "is stopped by its user at its start": (
        [("ADDED", {"state": runs(5)}), ("DELETED", {"state": ended(134, until=6), "deleted": True})],
        {**FINISHED, "ended": {"stopped": 1}},
    ),
    "is deleted by force while it runs": (
        [("ADDED", {"state": runs(5)}), ("DELETED", {"state": runs(5)})],
        {**FINISHED, "ended": {"stopped": 1}},
    ),
    "uses too much memory": (
        [("ADDED", {"state": runs(5)}), ("MODIFIED", {"state": ended(137, reason="OOMKilled")})],
        {**FINISHED, "ended": {"oom_killed": 1}},
    ),
    "is killed for memory at its start": (
        [("ADDED", {"state": runs(5)}), ("MODIFIED", {"state": ended(137, until=15, reason="OOMKilled")})],
        {"seen": 1, "setup": {"5": 1}, "failures": {"OOMKilled": 1}, "details": {"OOMKilled": "build-1"}},
    ),
    "crashes at its start as el6 without vsyscall": (
        [("ADDED", {"state": runs(5)}), ("MODIFIED", {"state": ended(139, until=6)})],
        {"seen": 1, "setup": {"5": 1}, "failures": {"Crash": 1}, "details": {"Crash": "build-1"}},
    ),
    "crashes later": ([("ADDED", {"state": ended(139, until=16)})], {**STARTED, "ended": {"failed": 1}}),
    "loses its node while it runs": (
        [
            ("ADDED", {"state": runs(5)}),
            ("MODIFIED", {"state": runs(5), "conditions": [disruption("DeletionByTaintManager")], "deleted": True}),
        ],
        {**FINISHED, "ended": {"lost": 1}},
    ),
    "is evicted long after its start": (
        [
            ("ADDED", {"state": runs(5)}),
            ("MODIFIED", {"phase": "Failed", "reason": "Evicted"}),
            ("DELETED", {"phase": "Failed", "reason": "Evicted"}),
        ],
        {**FINISHED, "ended": {"lost": 1}},
    ),
    "is evicted before its start": (
        [("ADDED", {}), ("MODIFIED", {"phase": "Failed", "reason": "Evicted"})],
        {"seen": 1, "failures": {"Evicted": 1}, "details": {"Evicted": "build-1"}},
    ),
    "is refused by the kubelet": (
        [("ADDED", {}), ("MODIFIED", {"phase": "Failed", "reason": "OutOfcpu"})],
        {"seen": 1, "failures": {"OutOfcpu": 1}, "details": {"OutOfcpu": "build-1"}},
    ),
    "fails without a word": (
        [("ADDED", {}), ("MODIFIED", {"phase": "Failed"})],
        {"seen": 1, "failures": {"StartFailed": 1}, "details": {"StartFailed": "build-1"}},
    ),
    "cannot be run by the runtime": (
        [("ADDED", {}), ("MODIFIED", {"state": START_ERROR})],
        {"seen": 1, "failures": {"RunContainerError": 1}, "details": {"RunContainerError": "build-1"}},
    ),
    "is deleted with a visible cause that it no longer names": (
        [
            ("ADDED", {}),
            ("MODIFIED", {"state": waits_for("ImagePullBackOff")}),
            ("MODIFIED", {"deleted": True}),
            ("DELETED", {"deleted": True}),
        ],
        {"seen": 1, "failures": {"ImagePull": 1}, "details": {"ImagePull": "build-1"}},
    ),
    "recovers and is then deleted": (
        [
            ("ADDED", {}),
            ("MODIFIED", {"state": waits_for("ErrImagePull")}),
            ("MODIFIED", {"state": waits_for("ContainerCreating")}),
            ("DELETED", {"deleted": True}),
        ],
        {"seen": 1, "withdrawn_after": {"0": 1}},
    ),
    "is withdrawn before it starts": ([("ADDED", {}), ("DELETED", {"deleted": True})], {"seen": 1, "withdrawn_after": {"0": 1}}),
    "ends by its own deletion before it starts": (
        [("ADDED", {}), ("MODIFIED", {"phase": "Failed", "deleted": True})],
        {"seen": 1, "withdrawn_after": {"0": 1}},
    ),
    "existed before": ([("MODIFIED", {"state": runs(5)}), ("MODIFIED", {"state": ended(1)}), ("DELETED", {"state": ended(1)})], {}),
    "is of an excluded image": (
        [("ADDED", {"image": "reg/RHEL6:1"}), ("MODIFIED", {"image": "reg/RHEL6:1", "state": ended(139, until=6)})],
        {"excluded": 1},
    ),
}


@pytest.mark.parametrize("kata", [True, False], ids=["kata", "legacy"])
@pytest.mark.parametrize("life", LIVES, ids=[name.replace(" ", "-") for name in LIVES])
def test_lives_of_a_build(life: str, kata: bool) -> None:
    events, figures = LIVES[life]
    watched = Watched()
    for kind, seen in events:
        watched.see(kind, pod(kata=kata, **seen))
    own, other = (watched.kata, watched.legacy) if kata else (watched.legacy, watched.kata)
    assert own == tally(**figures)
    assert other == tally()


def test_a_build_that_does_not_start_in_time_has_failed() -> None:
    watched = (
        Watched().see("ADDED", pod("stuck"), pod("pulling", state=waits_for("ImagePullBackOff")), pod("alone", node=""), now=0).tick(299)
    )
    assert watched.kata.failed == 0
    assert watched.observation.waiting_since(KATA) == [EPOCH, EPOCH, EPOCH]
    watched.tick(300)
    assert watched.kata.failures == {"SandboxFailed": 1, "ImagePull": 1, "Unschedulable": 1}
    assert watched.observation.waiting_since(KATA) == []
    watched.see("MODIFIED", pod("stuck", state=runs(301))).tick(900)
    assert watched.kata.started == 0
    assert watched.kata.failed == 3


def test_the_next_timeout_is_that_of_the_build_that_has_waited_longest() -> None:
    watched = Watched()
    assert watched.observation.overdue_in(EPOCH + 50) == 300
    watched.see("ADDED", pod("first"), now=10).see("ADDED", pod("second"), now=20)
    assert watched.observation.overdue_in(EPOCH + 50) == 260
    watched.see("MODIFIED", pod("first", state=runs(30)), now=30)
    assert watched.observation.overdue_in(EPOCH + 50) == 270


def test_a_failed_sandbox_is_explained_by_its_event() -> None:
    watched = Watched()
    watched.events = {"uid-a": "no runtime for kata is configured", "uid-b": "x" * 500}
    watched.see("ADDED", pod("a"), pod("b")).see("DELETED", pod("a", deleted=True)).tick(300)
    assert watched.kata == tally(seen=2, failures={"SandboxFailed": 2}, details={"SandboxFailed": "a: no runtime for kata is configured"})
    other = Watched()
    other.events = {"uid-b": "x" * 500}
    assert len(other.see("ADDED", pod("b")).tick(300).kata.details["SandboxFailed"]) == _builds.MAX_DETAIL


def test_builds_of_before_are_no_evidence() -> None:
    watched = Watched(pod("old"), pod("older"))
    watched.see("MODIFIED", pod("old", state=runs(5))).see("DELETED", pod("older")).tick(900)
    assert watched.kata == tally()


def test_only_an_excluded_image_on_kata_is_held_against_it() -> None:
    watched = Watched().see(
        "ADDED", pod("a", image="reg/rhel6:1"), pod("b", image="reg/rhel6:1"), pod("c", kata=False, image="reg/rhel6:1")
    )
    assert watched.observation.excluded_on_kata == {"reg/rhel6:1": 2}
    assert watched.kata.excluded == 2
    assert watched.legacy.excluded == 1
    assert watched.kata.seen == 0


def test_an_exclusion_is_judged_with_the_digest_and_an_image_is_counted_without() -> None:
    asked: list[str] = []
    observation = Observation(SCOPE, 300, lambda image: bool(asked.append(image)), lambda uid: "")
    observation.begin([], "1", {})
    for digest in ("1" * 64, "2" * 64):
        observation.event("ADDED", read_build(pod(digest, image=f"centos:6@sha256:{digest}", state=ended(139, until=6)), "kata"), EPOCH)
    assert asked == [f"centos:6@sha256:{'1' * 64}", f"centos:6@sha256:{'2' * 64}"]
    assert observation.images == {"centos:6": {KATA: [0, 2, 0], LEGACY: [0, 0, 0]}}


def test_images_and_nodes_count_what_says_something_about_them() -> None:
    watched = Watched().see(
        "ADDED",
        pod("ok", state=ended(0)),
        pod("failed", state=ended(2)),
        pod("crashed", state=ended(139, until=6)),
        pod("no-such-image", state=waits_for("ErrImagePull")),
        pod("no-room", node=""),
        pod("evicted", phase="Failed", reason="Evicted", node="node-2"),
        pod("elsewhere", kata=False, state=ended(0), node="vm-1"),
    )
    watched.tick(300)
    assert watched.observation.images == {"node:22": {KATA: [2, 1, 1], LEGACY: [1, 0, 0]}}
    assert watched.observation.nodes == {
        "node-1": {KATA: [2, 1, 1], LEGACY: [0, 0, 0]},
        "node-2": {KATA: [0, 1, 0], LEGACY: [0, 0, 0]},
        "vm-1": {KATA: [0, 0, 0], LEGACY: [1, 0, 0]},
    }
    assert watched.observation.both == {"node-1 node:22": 1}


def test_a_build_counts_for_the_node_that_it_was_scheduled_to_later() -> None:
    watched = Watched().see("ADDED", pod("a", node="")).see("MODIFIED", pod("a", node="node-7", state=START_ERROR))
    assert watched.observation.nodes == {"node-7": {KATA: [0, 1, 0], LEGACY: [0, 0, 0]}}


def test_survivors_of_a_gap_are_no_evidence() -> None:
    """Of the builds that came in a gap, those that failed are still listed and most that did well are gone."""
    watched = Watched(pod("before", created=0)).see(
        "ADDED", pod("waits", created=1), pod("hangs", created=1), pod("runs", created=1, state=runs(5)), pod("gone", created=2)
    )
    watched.relist(
        pod("before", created=0, state=runs(9)),
        pod("waits", created=1, state=runs(9)),
        pod("hangs", created=1, state=waits_for("ImagePullBackOff")),
        pod("runs", created=1, state=ended(139, until=8)),
        *(pod(f"new-{number}", created=3, state=waits_for("ImagePullBackOff")) for number in range(5)),
        now=9,
    )
    assert watched.observation.gaps == 1
    assert watched.observation.resource_version == "9"
    watched.see("MODIFIED", pod("hangs", created=1, phase="Failed"), pod("new-1", created=3, phase="Failed")).tick(600)
    assert watched.kata == tally(seen=4, started=1, unobserved=3, setup={"4": 1})
    watched.see("ADDED", pod("after", created=3, state=runs(9)), now=601)
    assert watched.kata.seen == 5
    assert watched.kata.started == 2


def test_a_pod_that_comes_late_into_the_selector_is_no_new_build() -> None:
    watched = Watched(pod("youngest", created=5)).see("ADDED", pod("old", created=4, state=waits_for("ErrImagePull"))).tick(900)
    assert watched.kata == tally()


@pytest.mark.parametrize("ahead", [-60, 0, 20])
def test_a_start_is_timed_by_one_clock(ahead: int) -> None:
    """The node's clock is ahead of the API server's, or behind it."""
    watched = Watched()
    for number, reported in enumerate((7, None)):
        watched.see("ADDED", pod(f"b{number}", created=2), now=100)
        seen = pod(f"b{number}", created=2, state=runs(9 + ahead if ahead >= -9 else 0), reported=reported)
        if reported is None:
            del seen["metadata"]["managedFields"]
        watched.see("MODIFIED", seen, now=105)
    assert watched.kata.setup == {"5": 2}


@pytest.mark.parametrize(
    "start_timeout, waited, failed", [(300, 299, 1), (300, 290, 1), (300, 200, 0), (900, 301, 1), (60, 58, 1), (60, 30, 0)]
)
def test_a_deletion_at_the_end_of_the_time_to_start_is_the_workers(start_timeout: int, waited: int, failed: int) -> None:
    observation = Observation(SCOPE, start_timeout, lambda image: False, lambda uid: "")
    observation.begin([], "1", {})
    observation.event("ADDED", read_build(pod(conditions=[SANDBOX_READY]), "kata"), EPOCH)
    for kind in ("MODIFIED", "DELETED"):
        observation.event(kind, read_build(pod(deleted=True, conditions=[SANDBOX_READY]), "kata"), EPOCH + waited)
    observation.tick(EPOCH + waited)
    figures = observation.tallies[KATA]
    assert figures.failures == ({"StartTimeout": failed} if failed else {})
    assert figures.withdrawn == 1 - failed


def test_the_wait_before_a_deletion_is_also_known_from_the_api_server() -> None:
    """The events of an interval that nobody watched arrive all at once."""
    seen = pod(deleted=True)
    seen["metadata"] |= {"deletionTimestamp": "2026-11-23T21:05:30Z", "deletionGracePeriodSeconds": 30}
    assert Watched().see("ADDED", pod()).see("DELETED", seen).kata.failures == {"SandboxFailed": 1}


def test_a_build_that_its_user_aborts_has_not_failed_however_late_that_is_read() -> None:
    seen = pod(created=1, deleted=True)
    seen["metadata"] |= {"deletionTimestamp": "2026-11-23T21:00:38Z", "deletionGracePeriodSeconds": 30}
    kata = Watched().see("ADDED", pod(created=1), now=2).see("DELETED", seen, now=300).kata
    assert (kata.failures, kata.withdrawn_after) == ({}, {"7": 1})


PIN = {"screwdriver.cd/executor": "k8s-kata"}


def test_pinned_builds_are_kept_out_of_draws() -> None:
    watched = Watched().see(
        "ADDED",
        pod("a", annotations=PIN, state=ended(139, until=6)),
        pod("b", annotations=PIN, image="reg/rhel6:1"),
        pod("c", kata=False, annotations={"screwdriver.cd/executor": "k8s-vm"}, phase="Failed"),
        pod("d", state=runs(5)),
    )
    assert watched.kata == tally(seen=1, started=1, pinned=1, excluded=1, setup={"5": 1})
    assert watched.legacy == tally(pinned=1)
    assert watched.observation.excluded_on_kata == {}


def test_at_the_pilot_all_builds_on_kata_are_pinned_and_judged() -> None:
    watched = Watched(pilot=True).see(
        "ADDED", pod("a", annotations=PIN, state=runs(5)), pod("b", state=runs(7)), pod("c", image="reg/rhel6:1")
    )
    assert watched.kata == tally(seen=2, started=2, excluded=1, setup={"5": 1, "7": 1})
    assert watched.observation.excluded_on_kata == {}


def test_evidence_resumes_where_it_was_left() -> None:
    one = Watched(baseline={"legacy": {}, "images": {}})
    lives = [
        ("ADDED", pod("a")),
        ("ADDED", pod("b", kata=False, image="reg/rhel6:1")),
        ("MODIFIED", pod("a", state=runs(5))),
        ("ADDED", pod("c", state=waits_for("ErrImagePull"))),
        ("MODIFIED", pod("a", state=ended(0))),
    ]
    carried = Watched(baseline={"legacy": {}, "images": {}})
    for kind, seen in lives:
        one.see(kind, seen)
        evidence = json.loads(json.dumps(carried.observation.dump()))
        carried = Watched()
        carried.observation.load(evidence)
        carried.see(kind, seen)
    assert carried.tick(300).observation.dump() == one.tick(300).observation.dump()
    assert one.kata.outcomes == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 3}, "evidence has version 3, this module reads version 2: leave evidence out to begin the observation again."),
        ({"version": None}, "evidence has version None, this module reads version 2: leave evidence out to begin the observation again."),
        (
            {"scope": {**SCOPE, "namespace": "other"}},
            "evidence was taken with namespace 'other', not 'sd-builds': leave evidence out to begin the observation again.",
        ),
    ],
)
def test_evidence_of_another_observation_is_refused(change: dict[str, t.Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        Watched().observation.load({**Watched().observation.dump(), **change})
    assert str(refused.value) == message


def test_the_evidence_is_bounded_by_the_oldest_going_first() -> None:
    watched = Watched()
    for number in range(_builds.MAX_RUNNING + 3):
        watched.see("ADDED", pod(f"runs-{number}", state=runs(5)))
    for number in range(_builds.MAX_WAITING + 3):
        watched.see("ADDED", pod(f"waits-{number}"))
    evidence = watched.observation.dump()
    assert len(evidence["running"]) == _builds.MAX_RUNNING
    assert evidence["running"][0] == "uid-runs-3"
    assert "uid-runs-0" not in evidence["running"]
    assert len(evidence["waiting"]) == _builds.MAX_WAITING
    # What has no room is left out of all figures, so that these stay whole.
    assert watched.kata.seen == watched.kata.started + len(evidence["waiting"])
    watched.see("MODIFIED", pod("runs-0", state=ended(0)), pod("runs-3", state=ended(0)))
    assert watched.kata.ended == {"ok": 1}


def test_images_without_a_failure_on_kata_go_first() -> None:
    watched = Watched().see("ADDED", pod("bad", image="bad:1", state=ended(139, until=6)))
    for number in range(_builds.MAX_IMAGES + 100):
        watched.see("ADDED", pod(f"b{number}", image=f"registry/{number}", state=ended(0)))
        watched.see("ADDED", pod(f"x{number}", image=f"registry/rhel6-{number}"))
    assert _builds.MAX_IMAGES // 2 <= len(watched.observation.images) <= _builds.MAX_IMAGES
    assert watched.observation.images["bad:1"] == {KATA: [0, 1, 0], LEGACY: [0, 0, 0]}
    assert len(watched.observation.excluded_on_kata) == _builds.MAX_EXCLUDED_IMAGES + 1
    assert sum(watched.observation.excluded_on_kata.values()) == watched.kata.excluded
    assert watched.kata.excluded == _builds.MAX_IMAGES + 100


def uid(number: int) -> str:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def crowd(builds: int) -> Observation:
    """As many builds as asked for are running and as many are waiting, each of an image of its own."""
    watched = Watched()
    for number in range(2 * builds):
        name = hashlib.sha256(f"image {number}".encode()).hexdigest()[:40]
        seen = pod(f"screwdriver-{number}", image=f"registry.example.com/team/service:{name}", node="", conditions=[UNSCHEDULABLE])
        if number % 2:
            seen["status"]["containerStatuses"] = [{"name": "7", "state": runs(5)}]
        seen["metadata"]["uid"] = uid(number)
        watched.see("ADDED", seen)
    return watched.observation


def test_the_evidence_of_thousands_of_live_builds_fits_into_a_config_map_twice() -> None:
    record = _record.begin(None, "sd/kata-rollout", _record.parse_steps([1, 100]), "ada", "2026-11-23T21:00:00Z")
    data = _record.to_data(_record.observe(record, "sd/kata-rollout", 1, crowd(20000).dump(), None), "sd/kata-rollout")
    assert sum(map(len, data.values())) < 512 * 1024


def test_the_fullest_record_fits_into_a_config_map() -> None:
    """As many live builds, images, nodes, steps, suspects and notes as are kept, with names that do not compress."""

    def name(number: int, kind: str) -> str:
        return f"registry.example.com/{kind}/" + hashlib.sha256(f"{kind} {number}".encode()).hexdigest()

    seen = crowd(20000)
    seen.images = {name(number, "image"): {KATA: [number, 1, 1], LEGACY: [number, 1, 1]} for number in range(_builds.MAX_IMAGES)}
    seen.nodes = {name(number, "node"): {KATA: [number, 1, 1], LEGACY: [0, 0, 0]} for number in range(_builds.MAX_NODES)}
    seen.both = {f"{node} {image}": 1 for node, image in zip(list(seen.nodes) * 4, list(seen.images)[::-1] * 4, strict=True)}
    limits = gate.Limits(600, 20, 0.02, 0.02, 2.0, 300.0, share=5, steps=7)
    baseline = gate.next_baseline(seen, limits, gate.Names("k8s-kata", "k8s"))
    assert len(baseline["kata"]["images"]) == gate.MAX_EARLIER
    record = _record.begin(None, "sd/kata-rollout", _record.parse_steps(list(range(1, 41))), "ada", "2026-11-23T21:00:00Z")
    closed = {"verdict": "pass", "reasons": [name(number, "reason") * 3 for number in range(99)]}
    closed["suspects"] = [{"image": name(number, "suspect"), "exclusion": name(number, "pattern")} for number in range(500)]
    for step in range(1, 40):
        record = _record.advance(record, "sd/kata-rollout", step, closed, baseline, "2026-11-23T21:00:00Z")
    for number in range(99):
        record = _record.note(record, name(number, "note") * 20, "ada", "2026-11-23T21:00:00Z")
    record = _record.observe(record, "sd/kata-rollout", 40, seen.dump(), None)
    assert sum(map(len, _record.to_data(record, "sd/kata-rollout").values())) < 1_000_000


@pytest.mark.parametrize("image", ["centos:6", "reg.example:5000/a+b/c:1.0", "reg.example/(odd)[name]{1}|$x"])
def test_a_suggested_exclusion_names_one_image(image: str) -> None:
    pattern = _builds.suggested_exclusion(image)
    assert _javascript.matches(pattern, image)
    assert _javascript.matches(pattern, f"{image}@sha256:{'1' * 64}")
    assert not _javascript.matches(pattern, f"{image}1")
    assert not _javascript.matches(pattern, f"mirror/{image}")
    assert not _javascript.matches(pattern, image.replace(".", "-").replace(":", "-"))
