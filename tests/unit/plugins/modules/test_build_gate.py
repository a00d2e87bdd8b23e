# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What build_gate refuses, and what judging an exclusion costs."""

from __future__ import annotations

import itertools
import time
import types
import typing as t
from datetime import UTC, datetime

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Change
from ansible_collections.screwdriver.kata.plugins.modules import build_gate

GOOD: dict[str, t.Any] = {
    "window": 600,
    "interval": None,
    "share": None,
    "alpha": 0.008,
    "steps": 1,
    "start_timeout": 300,
    "min_builds": 20,
    "max_failure_ratio": 0.02,
    "max_failure_increase": 0.02,
    "max_setup_ratio": None,
    "max_setup_seconds": None,
    "share_tolerance": 0.1,
    "kata_executor": "k8s-kata",
    "legacy_executor": "k8s-vm",
    "exclusions": ["rhel6"],
}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"window": 0}, "window is 0: give at least 1 second."),
        ({"interval": 0}, "interval is 0: give at least 1 second."),
        ({"share": 101.0}, "share is 101.0: give a percent from 0 to 100."),
        ({"alpha": 0.0}, "alpha is 0.0: give a number above 0 and below 1, such as 0.008."),
        ({"steps": 0}, "steps is 0: give at least 1."),
        ({"start_timeout": -1}, "start_timeout is -1: give at least 1 second."),
        ({"min_builds": 0}, "min_builds is 0: give at least 1, since no evidence is not success."),
        ({"max_failure_ratio": 2.0}, "max_failure_ratio is 2.0: give a ratio from 0 to 1, such as 0.02 for 2 %."),
        ({"max_failure_increase": -0.1}, "max_failure_increase is -0.1: give a ratio from 0 to 1, such as 0.02 for 2 %."),
        ({"max_setup_ratio": 0.0}, "max_setup_ratio is 0.0: give a number above 0, or leave it out."),
        ({"max_setup_seconds": -3.0}, "max_setup_seconds is -3.0: give a number above 0, or leave it out."),
        ({"share_tolerance": 1.0}, "share_tolerance is 1.0: give a ratio from 0 to below 1, such as 0.1 for 10 %."),
        ({"kata_executor": "k8s-vm"}, "kata_executor and legacy_executor are both k8s-vm: give two names."),
        (
            {"exclusions": ["", "*rhel6"]},
            "exclusions: '*rhel6' is not a JavaScript regular expression (Invalid regular expression: /*rhel6/gi: Nothing to repeat).",
        ),
        ({}, None),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change: dict[str, t.Any], message: str | None) -> None:
    assert build_gate.problem_of({**GOOD, **change}) == message


@pytest.mark.parametrize(
    "exclusions, image, excluded",
    [
        ([], "rhel6", False),
        (["rhel6"], "registry.example/RHEL6-tools:1", True),
        (["^centos:6$"], "registry.example/centos:6", False),
        (["node", r"(?<major>\d+)-tools"], "reg/rhel6-tools", True),
        ([""], "anything", True),
    ],
)
def test_exclusions_are_the_routers(exclusions: list[str], image: str, excluded: bool) -> None:
    assert _javascript.matches_any(exclusions, image) is excluded


def test_thousands_of_builds_of_few_images_ask_the_engine_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compiled = _javascript._compile

    def count(pattern: str) -> t.Any:
        asked.append(pattern)
        return compiled(pattern)

    monkeypatch.setattr(_javascript, "_compile", count)
    _javascript._matches.cache_clear()
    found = [_javascript.matches_any(["rhel6", "centos:6"], f"image-{number % 7}") for number in range(20000)]
    assert len(asked) == 2 * 7
    assert not any(found)


NOW = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)


class StubCluster:
    """An API server whose watch has these events and then would have no more for a long time."""

    def __init__(self, events: list[tuple[str, dict[str, t.Any]]], is_over: bool = False) -> None:
        """is_over: the time of the watch is over after the events."""
        self.events = events
        self.is_over = is_over
        self.watches: list[int] = []

    def now(self) -> datetime:
        return NOW

    def list(self, kind: str, **params: t.Any) -> tuple[list[dict[str, t.Any]], str]:
        return [], "1"

    def get(self, kind: str, name: str) -> dict[str, t.Any]:
        return {}

    def follow(self, kind: str, resource_version: str, seconds: int, **params: t.Any) -> t.Iterator[Change]:
        self.watches.append(seconds)
        for number, (event, pod) in enumerate(self.events, 2):
            yield Change(event, [pod], str(number))
        if not self.is_over:
            raise AssertionError("the watch was not left with the event that decides")


def pod(name: str, kata: bool, state: dict[str, t.Any], image: str = "node:22") -> dict[str, t.Any]:
    return {
        "metadata": {"uid": name, "name": name, "creationTimestamp": "2026-11-23T21:00:00Z", "labels": {"sdbuild": "1"}},
        "spec": {"nodeName": name, "containers": [{"name": "1", "image": image}], **({"runtimeClassName": "kata"} if kata else {})},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "1", "state": state}]},
    }


RUNS = {"running": {"startedAt": "2026-11-23T21:00:05Z"}}
FAILS = {"waiting": {"reason": "CreateContainerError"}}
STREAMS: dict[str, tuple[list[tuple[str, dict[str, t.Any]]], dict[str, t.Any], tuple[str, str, bool]]] = {
    "starts fail": (
        [("ADDED", pod(f"vm-{number}", False, RUNS)) for number in range(60)]
        + [
            event
            for number in range(9)
            for event in (("ADDED", pod(f"k{number}", True, FAILS)), ("DELETED", pod(f"k{number}", True, FAILS)))
        ],
        {},
        ("fail", "failures", False),
    ),
    "an excluded image": ([("ADDED", pod("k", True, RUNS, "rhel6:1"))], {}, ("fail", "excluded", False)),
    "nothing to compare with": (
        [
            event
            for number in range(9)
            for event in (("ADDED", pod(f"k{number}", True, FAILS)), ("DELETED", pod(f"k{number}", True, FAILS)))
        ],
        {"share": 100.0},
        ("inconclusive", "failures", True),
    ),
    "missing builds": ([("ADDED", pod(f"vm-{number}", False, RUNS)) for number in range(60)], {"share": 50.0}, ("fail", "share", False)),
}


def parameters(**change: t.Any) -> dict[str, t.Any]:
    return {
        **GOOD,
        "namespace": "sd-builds",
        "build_selector": "tier=builds",
        "kata_runtime_class": "kata",
        "pilot": False,
        "earlier": [],
        "evidence": None,
        "baseline": None,
        **change,
    }


@pytest.mark.parametrize("name", STREAMS)
def test_the_event_that_decides_ends_the_watch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    events, change, expected = STREAMS[name]
    monkeypatch.setattr(build_gate, "EVENTS_SECONDS", 0)
    params = parameters(**change)
    cluster = StubCluster(events)
    result = build_gate.BuildGate(params, t.cast("t.Any", cluster)).run()
    assert (result["verdict"], result["doubt"], result["pause"]) == expected
    assert cluster.watches == [build_gate.TICK_SECONDS]


@pytest.mark.parametrize("minutes", [5, -5])
def test_a_controller_with_another_clock_continues_with_the_same_times(minutes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a scheduler runs each look on another machine: no build that waits has failed, and none has waited less."""
    waits = {"waiting": {"reason": "ContainerCreating"}}
    # Each question for the time takes a while, so the interval ends.
    steady = types.SimpleNamespace(**{**vars(time), "monotonic": itertools.count(step=0.5).__next__})
    monkeypatch.setattr(build_gate, "time", steady)
    evidence = None
    for ahead, events in ((0, [("ADDED", pod(f"k{number}", True, waits)) for number in range(20)]), (60 * minutes, [])):
        steady.time = lambda ahead=ahead: NOW.timestamp() + ahead
        cluster = StubCluster(events, is_over=True)
        params = parameters(interval=3, start_timeout=60, evidence=evidence)
        result = build_gate.BuildGate(params, t.cast("t.Any", cluster)).run()
        evidence = result["evidence"]
    figures = result["executors"]["k8s-kata"]
    assert (figures["failures"], figures["waiting"]) == ({}, 20)
    assert {state["since"] for state in evidence["waiting"].values()} == {NOW.timestamp()}


def test_evidence_that_passes_is_watched_further_by_a_longer_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the last step of a scheduled rollout is judged: builds that fail later are noticed."""
    steady = types.SimpleNamespace(**{**vars(time), "monotonic": itertools.count(step=1.0).__next__})
    monkeypatch.setattr(build_gate, "time", steady)
    good = [(kind, pod(f"k{number}", True, RUNS)) for number in range(30) for kind in ("ADDED", "MODIFIED")]
    bad = [(kind, pod(f"b{number}", True, FAILS)) for number in range(30) for kind in ("ADDED", "DELETED")]
    found = []
    evidence: dict[str, t.Any] = {"observed_seconds": 0}
    for events in (good, bad):
        cluster = StubCluster(events, is_over=True)
        params = parameters(share=100.0, interval=20, window=int(evidence["observed_seconds"]) + 10, evidence=evidence if found else None)
        result = build_gate.BuildGate(params, t.cast("t.Any", cluster)).run()
        evidence = result["evidence"]
        found.append((result["verdict"], result["doubt"], bool(cluster.watches)))
    assert found == [("pass", "", True), ("inconclusive", "failures", True)]
