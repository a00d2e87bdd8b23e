# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Streams of pods, as a watch shows them, whose verdict is easy to get wrong; each kind with several inputs."""

from __future__ import annotations

import random
import typing as t
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import Observation, Tally
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY, Build, read_build

T0 = 1_800_000_000
LIMITS = gate.Limits(
    window=600, min_builds=20, max_failure_ratio=0.02, max_failure_increase=0.02, max_setup_ratio=2.0, max_setup_seconds=300.0
)
VM = gate.Names("k8s-kata", "k8s-vm")
K8S = gate.Names("k8s-kata", "k8s")
PIN = {"screwdriver.cd/executor": "k8s-kata"}
LOOK_SECONDS = 5


def stamp(second: float) -> str:
    return datetime.fromtimestamp(T0 + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build(
    uid: str,
    created: int,
    kata: bool,
    *,
    started: float | None = None,
    ended: float | None = None,
    exit_code: int = 0,
    waits_for: str = "",
    start_error: bool = False,
    image: str = "node:22",
    node: str = "node-1",
    deleted: bool = False,
    annotations: dict[str, str] | None = None,
    launcher: bool = False,
) -> Build:
    """One version of a pod; its sandbox is up."""
    state: dict[str, t.Any] = {"waiting": {"reason": waits_for}} if waits_for else {}
    if start_error:
        state = {"terminated": {"reason": "StartError", "exitCode": 128, "startedAt": "1970-01-01T00:00:00Z", "finishedAt": stamp(created)}}
    elif ended is not None:
        state = {"terminated": {"startedAt": stamp(started or 0), "finishedAt": stamp(ended), "exitCode": exit_code}}
    elif started is not None:
        state = {"running": {"startedAt": stamp(started)}}
    metadata = {
        "uid": uid,
        "name": uid,
        "creationTimestamp": stamp(created),
        "labels": {"sdbuild": "b"},
        "annotations": annotations or {},
        **({"deletionTimestamp": stamp(created)} if deleted else {}),
    }
    container = {"name": "b", "image": "launcher:1", "args": ["--container", image]} if launcher else {"name": "b", "image": image}
    spec = {"nodeName": node, "containers": [container], **({"runtimeClassName": "kata"} if kata else {})}
    conditions = [{"type": "PodReadyToStartContainers", "status": "True"}]
    status = {"phase": "Pending", "conditions": conditions, "containerStatuses": [{"name": "b", "state": state}]}
    return read_build({"metadata": metadata, "spec": spec, "status": status}, "kata")


class Stream:
    """Events by their second, fed in order and judged every few seconds as the module does it."""

    def __init__(self, names: gate.Names = VM, start_timeout: int = 300, baseline: dict[str, t.Any] | None = None, **limits: t.Any) -> None:
        self.names = names
        self.limits = replace(LIMITS, **limits)
        self.seen = Observation({}, start_timeout, lambda image: "rhel6" in image, lambda uid: "")
        self.seen.begin([], "1", baseline or {})
        self.seen.newest = T0
        self.events: list[tuple[float, str, Build]] = []
        self.verdicts: set[str] = set()

    def add(self, at: float, kind: str, version: Build) -> None:
        self.events.append((at, kind, version))

    def start(self, uid: str, at: int, kata: bool, took: float = 9, **figures: t.Any) -> None:
        """A build that starts, and perhaps ends."""
        ended = figures.pop("ended", None)
        exit_code = figures.pop("exit_code", 0)
        self.add(at, "ADDED", build(uid, at, kata, **figures))
        self.add(at + took, "MODIFIED", build(uid, at, kata, started=at + took, **figures))
        if ended is not None:
            self.add(ended, "MODIFIED", build(uid, at, kata, started=at + took, ended=ended, exit_code=exit_code, **figures))

    def fail(self, uid: str, at: int, kata: bool, **figures: t.Any) -> None:
        """A build that fails 3 s after its creation."""
        quiet = {key: value for key, value in figures.items() if key not in ("waits_for", "start_error")}
        self.add(at, "ADDED", build(uid, at, kata, **quiet))
        self.add(at + 3, "MODIFIED", build(uid, at, kata, **figures))

    def one_of_each_fails(self, every: int, builds: int, nodes: int, images: int) -> None:
        """Builds on Kata in ten minutes, on so many nodes and of so many images in turn; the first of each ``every`` cannot start."""
        for number in range(builds):
            at, place = number * 600 // builds, {"node": f"node-{number % nodes}", "image": f"image-{number % images}"}
            if number % every:
                self.start(f"kata-{number}", at, True, **place)
            else:
                self.fail(f"kata-{number}", at, True, start_error=True, **place)

    def run(self, seconds: int) -> gate.Judgement:
        """What is judged at the end; verdicts has all on the way there."""
        events = sorted(self.events, key=lambda event: event[0])
        at = 0
        for second in range(0, seconds + LOOK_SECONDS, LOOK_SECONDS):
            while at < len(events) and events[at][0] < second:
                self.seen.event(events[at][1], events[at][2], T0 + int(events[at][0]))
                at += 1
            self.seen.tick(T0 + second)
            self.seen.observed_seconds = second
            found = gate.judge(self.seen, self.limits, self.names, T0 + second)
            self.verdicts.add(found.verdict)
        return found

    @property
    def kata(self) -> Tally:
        return self.seen.tallies[KATA]


@pytest.mark.parametrize("gap, bad", [(8 * 3600, 0.003), (3600, 0.02), (900, 0.2)])
def test_the_survivors_of_a_gap_are_not_evidence(gap: int, bad: float) -> None:
    """Pods of builds that ended are gone, those with a bad image are still there."""
    random_ = random.Random(3)
    stream = Stream(share=10)
    for number in range(300):
        stream.start(f"before-{number}", number, number % 10 == 0)
    stream.run(600)
    left = []
    for number in range(gap):
        kata = random_.random() < 0.1
        if random_.random() < bad:
            left.append(build(f"bad-{number}", 600 + number, kata, waits_for="ImagePullBackOff", image=f"typo:{number}"))
        elif gap - number < random_.expovariate(1 / 300):
            left.append(build(f"runs-{number}", 600 + number, kata, started=609 + number))
    stream.seen.relist(left, "99", T0 + 600 + gap)
    for second in range(0, 601, LOOK_SECONDS):
        stream.seen.tick(T0 + 600 + gap + second)
        found = gate.judge(stream.seen, stream.limits, stream.names, T0 + 600 + gap + second)
        assert found.verdict == gate.PASS
    assert stream.kata.failed == 0
    assert stream.kata.started == 30
    assert found.reasons[-1] == "The watch had 1 gap: builds that were under way are left out."


@pytest.mark.parametrize("start_timeout, deleted", [(300, 300), (300, 304), (300, 287), (900, 301), (120, 119)])
def test_builds_that_the_worker_deletes_at_its_timeout_have_failed(start_timeout: int, deleted: int) -> None:
    stream = Stream(start_timeout=start_timeout)
    for number in range(60):
        at = number * 10 + number % 5
        stream.start(f"legacy-{number}", at, False)
        if number % 3:
            stream.start(f"kata-{number}", at, True)
            continue
        stream.add(at, "ADDED", build(f"kata-{number}", at, True))
        stream.add(at + deleted, "MODIFIED", build(f"kata-{number}", at, True, deleted=True))
        stream.add(at + deleted + 1, "DELETED", build(f"kata-{number}", at, True, deleted=True))
    found = stream.run(1000)
    assert stream.kata.failures == {"StartTimeout": 20}
    assert stream.kata.withdrawn == 0
    assert found.verdict == gate.FAIL
    assert found.doubt == gate.FAILURES


@pytest.mark.parametrize(
    "share, kata, legacy, pinned", [(25, 0, 2700, 0), (25, 0, 2700, 30), (50, 153, 300, 0), (10, 0, 600, 12), (100, 0, 30, 0)]
)
def test_builds_that_are_dropped_without_a_trace_are_missed(share: int, kata: int, legacy: int, pinned: int) -> None:
    """kata: of the builds that the router sent to Kata, those that the API server accepted. pinned: builds whose pods do not show it."""
    stream = Stream(share=share, steps=7)
    for number in range(legacy):
        stream.start(f"legacy-{number}", number * 3600 // legacy, False)
    for number in range(kata + pinned):
        stream.start(f"kata-{number}", number * 3600 // (kata + pinned), True)
    found = stream.run(3600)
    assert found.verdict == gate.FAIL
    assert found.doubt == gate.SHARE
    assert gate.PASS not in stream.verdicts or share == 50
    assert ": builds are missing. " in found.reasons[0]


def test_no_build_at_all_pauses() -> None:
    found = Stream(share=25).run(605)
    assert found.verdict == gate.INCONCLUSIVE
    assert found.pause is True
    assert found.doubt == gate.EVIDENCE


@pytest.mark.parametrize("slowest, hang", [(10, 5), (299, 5), (120, 4), (299, 3)])
def test_one_slow_start_does_not_hide_builds_that_hang(slowest: int, hang: int) -> None:
    """hang: two of this many builds of the last minutes never start."""
    stream = Stream()
    for number in range(60):
        at = number * 10
        if number >= 31 and number % hang < 2:
            stream.add(at, "ADDED", build(f"kata-{number}", at, True))
        else:
            stream.start(f"kata-{number}", at, True, slowest if number == 0 else 8)
        for beside in range(3):
            stream.start(f"legacy-{number}-{beside}", at, False, 8)
    found = stream.run(600)
    assert found.verdict == gate.INCONCLUSIVE
    assert found.doubt == gate.FAILURES
    assert stream.kata.failed == 0
    assert gate.PASS not in stream.verdicts
    assert "without a start" in found.reasons[-1]


@pytest.mark.parametrize("every, names, launcher", [(40, VM, False), (25, VM, True), (15, gate.Names("k8s-kata", "old"), True)])
def test_images_that_do_not_exist_are_left_out_where_launchers_hide_them(every: int, names: gate.Names, launcher: bool) -> None:
    stream = Stream(names)
    for number in range(400):
        stream.start(f"legacy-{number}", number, False, launcher=launcher)
        if number % every:
            stream.start(f"kata-{number}", number, True)
        else:
            stream.fail(f"kata-{number}", number, True, waits_for="ImagePullBackOff", image=f"typo:{number}")
    found = stream.run(900)
    assert found.verdict == gate.PASS
    assert found.pause is False
    assert gate.FAIL not in stream.verdicts


@pytest.mark.parametrize("every", [40, 25, 15])
def test_images_that_do_not_exist_fail_on_both_where_both_show_them(every: int) -> None:
    stream = Stream(K8S)
    for number in range(400):
        for kata in (True, False):
            if number % every:
                stream.start(f"{kata}-{number}", number, kata)
            else:
                stream.fail(f"{kata}-{number}", number, kata, waits_for="ErrImagePull", image=f"typo:{number}")
    stream.run(900)
    assert gate.FAIL not in stream.verdicts


@pytest.mark.parametrize("names, launcher, pull", [(VM, False, 40), (VM, True, 200), (gate.Names("k8s-kata", "old"), True, 90)])
def test_setup_times_are_not_compared_with_those_of_launchers(names: gate.Names, launcher: bool, pull: int) -> None:
    random_ = random.Random(3)
    stream = Stream(names)
    for number in range(120):
        for kata in (True, False):
            took = random_.choice((5, 6, 6, 7, 8)) + (random_.randint(5, pull) if kata else 0)
            stream.start(f"{kata}-{number}", number * 5, kata, took, launcher=launcher and not kata)
    found = stream.run(900)
    assert found.verdict == gate.PASS
    assert gate.FAIL not in stream.verdicts
    assert "Setup times are not compared: pods of " in found.reasons[1]


@pytest.mark.parametrize("every, annotations", [(60, None), (60, PIN), (10, PIN), (5, None)])
@pytest.mark.parametrize("counted", [True, False], ids=["after-a-pilot", "without-a-pilot"])
def test_a_pinned_job_that_is_always_red_fails_nothing(every: int, annotations: dict[str, str] | None, counted: bool) -> None:
    random_ = random.Random(3)
    pins = {"pins": {"kata": 1200 // every, "builds": 1200}} if counted else {}
    stream = Stream(share=1, steps=7, baseline=pins)
    for number in range(3000):
        kata = random_.random() < 0.01
        stream.start(f"build-{number}", number, kata, ended=number + 60, exit_code=int(random_.random() < 0.2))
        if number % every == 0:
            stream.start(f"pinned-{number}", number, True, ended=number + 60, exit_code=1, annotations=annotations)
    found = stream.run(3000)
    assert gate.FAIL not in stream.verdicts
    # What cannot be told from builds of the router is too many of them, unless the pilot counted it.
    assert (found.doubt == gate.SHARE) == (annotations is None and not counted)


@pytest.mark.parametrize("annotations", [None, {"screwdriver.cd/executor": "k8s-vm"}])
@pytest.mark.parametrize("legacy, took", [(25, 2), (8, 1), (40, 3)])
def test_builds_pinned_to_legacy_do_not_replace_a_baseline(annotations: dict[str, str] | None, legacy: int, took: int) -> None:
    baseline = {"legacy": vars(Tally(seen=3000, started=3000, ended={"ok": 2400, "failed": 600}, setup={"9": 3000})), "images": {}}
    stream = Stream(K8S, share=100, steps=7, baseline=baseline)
    for number in range(600):
        stream.start(f"kata-{number}", number, True, ended=number + 90, exit_code=int(number % 5 == 0))
    for number in range(legacy):
        stream.start(f"legacy-{number}", number * 600 // legacy, False, took, ended=number * 600 // legacy + 62, annotations=annotations)
    found = stream.run(700)
    assert found.verdict == gate.PASS
    assert gate.FAIL not in stream.verdicts
    assert found.pause is False


@pytest.mark.parametrize("nodes, builds, legacy", [(20, 60, 0), (20, 60, 600), (8, 60, 600), (3, 45, 600), (50, 400, 4000)])
def test_a_bad_node_is_named_and_not_held_against_kata(nodes: int, builds: int, legacy: int) -> None:
    stream = Stream(K8S)
    stream.one_of_each_fails(nodes, builds, nodes=nodes, images=7)
    for number in range(legacy):
        stream.start(f"legacy-{number}", number * 600 // legacy, False, node=f"vm-{number % 9}", image=f"image-{number % 7}")
    found = stream.run(700)
    failed = -(-builds // nodes)
    assert found.worst == {"image": None, "node": {"name": "node-0", "builds": failed, "failed": failed}}
    assert gate.FAIL not in stream.verdicts
    assert f"node node-0 ({failed} of {failed})" in found.reasons[0]


@pytest.mark.parametrize("images, builds", [(20, 60), (8, 60), (30, 400)])
def test_an_image_that_fails_on_kata_alone_is_named_and_not_held_against_kata(images: int, builds: int) -> None:
    stream = Stream(K8S)
    stream.one_of_each_fails(images, builds, nodes=7, images=images)
    for number in range(5 * builds):
        stream.start(f"legacy-{number}", number * 120 // builds, False, node=f"vm-{number % 9}", image=f"image-{number % images}")
    found = stream.run(700)
    failed = -(-builds // images)
    assert found.worst == {"image": {"name": "image-0", "builds": failed, "failed": failed}, "node": None}
    assert gate.FAIL not in stream.verdicts


@pytest.mark.parametrize("red, share", [(5, 100), (2, 50), (1, 100)])
def test_young_red_builds_fail_nothing(red: int, share: int) -> None:
    """At first only the builds that failed early have ended."""
    baseline = {"legacy": vars(Tally(seen=600, started=600, ended={"ok": 400, "failed": 100}, setup={"9": 600})), "images": {}}
    stream = Stream(share=share, steps=7, baseline=baseline)
    for number in range(60):
        ended = number + 39 if number % red == 0 else None
        stream.start(f"kata-{number}", number, True, ended=ended, exit_code=1)
        if share < 100:
            stream.start(f"legacy-{number}", number, False)
    found = stream.run(90)
    assert found.verdict == gate.INCONCLUSIVE
    assert found.doubt == gate.EVIDENCE
    assert stream.verdicts == {gate.INCONCLUSIVE}


@pytest.mark.parametrize("listed, later", [(5, 5), (5, 6), (9, 9)])
def test_a_build_of_the_second_of_a_list_counts_when_it_comes_after_it(listed: int, later: int) -> None:
    stream = Stream()
    stream.seen.event("ADDED", build("a", 5, True), T0 + 5)
    stream.seen.relist([build("a", 5, True), build("b", listed, True)], "9", T0 + 9)
    stream.seen.event("ADDED", build("c", later, True), T0 + 9)
    assert list(stream.seen.waiting) == ["c"]
    assert stream.kata.seen == 2
    assert stream.kata.unobserved == 1


@pytest.mark.parametrize("ahead", [20, -60, 300])
def test_the_clocks_of_nodes_do_not_matter(ahead: int) -> None:
    stream = Stream(K8S)
    for number in range(60):
        for kata in (True, False):
            at, off = number * 10, ahead if kata else 0
            stream.add(at, "ADDED", build(f"{kata}-{number}", at, kata))
            stream.add(at + 9, "MODIFIED", build(f"{kata}-{number}", at, kata, started=max(0, at + 9 + off)))
    found = stream.run(700)
    assert found.verdict == gate.PASS
    assert gate.percentiles(stream.kata) == {"p50": 9, "p95": 9}
    assert gate.percentiles(stream.seen.tallies[LEGACY]) == {"p50": 9, "p95": 9}
