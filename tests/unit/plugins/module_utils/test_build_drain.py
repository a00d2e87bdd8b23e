# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose cordon it is, which builds are left, and the sentence about them."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _build_drain

OURS = '{"by": "ada@ops-1", "reason": "Kata"}'


def node(unschedulable: bool = False, annotation: str | None = None) -> dict[str, t.Any]:
    meta: dict[str, t.Any] = {"name": "node-3", "resourceVersion": "7", "annotations": {"foreign": "kept"}}
    if annotation is not None:
        meta["annotations"][_build_drain.ANNOTATION] = annotation
    return {"metadata": meta, "spec": {"unschedulable": True} if unschedulable else {}}


def pod(
    name: str, minute: int = 0, node_name: str | None = "node-3", phase: str = "Running", owner: str = "", grace: int | None = None
) -> dict[str, t.Any]:
    meta: dict[str, t.Any] = {
        "name": name,
        "namespace": "sd-builds",
        "uid": f"uid-{name}",
        "creationTimestamp": f"2026-11-24T10:{minute:02}:00Z",
    }
    if owner:
        meta["ownerReferences"] = [{"kind": owner}]
    spec: dict[str, t.Any] = {"nodeName": node_name} if node_name else {}
    if grace is not None:
        spec["terminationGracePeriodSeconds"] = grace
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def written(patch: dict[str, t.Any]) -> dict[str, t.Any]:
    return json.loads(patch["metadata"]["annotations"][_build_drain.ANNOTATION])


def test_a_cordon_is_noted_and_bound_to_the_version_that_was_read() -> None:
    patch = _build_drain.cordon_patch(node(), "bob@ops-2", "Kata é")
    assert patch["spec"] == {"unschedulable": True}
    assert patch["metadata"]["resourceVersion"] == "7"
    assert patch["metadata"]["annotations"] == {_build_drain.ANNOTATION: '{"by": "bob@ops-2", "reason": "Kata é"}'}
    assert written(_build_drain.cordon_patch(node(), "bob@ops-2", None)) == {"by": "bob@ops-2", "reason": ""}


@pytest.mark.parametrize("reason", ["Kata", None])
def test_a_cordon_as_asked_is_not_written_again(reason: str | None) -> None:
    assert _build_drain.cordon_patch(node(True, OURS), "bob@ops-2", reason) == {}
    assert _build_drain.cordon_patch(node(True, '{"reason":"Kata","by":"ada@ops-1"}'), "bob@ops-2", reason) == {}


def test_another_reason_is_an_update_by_the_same_holder() -> None:
    assert written(_build_drain.cordon_patch(node(True, OURS), "bob@ops-2", "disk")) == {"by": "ada@ops-1", "reason": "disk"}


def test_a_node_that_was_uncordoned_by_hand_is_cordoned_by_who_asks_now() -> None:
    assert written(_build_drain.cordon_patch(node(False, OURS), "bob@ops-2", None)) == {"by": "bob@ops-2", "reason": "Kata"}
    assert _build_drain.cordon_patch(node(False, '{"by": "bob@ops-2", "reason": "Kata"}'), "bob@ops-2", None)["spec"] == {
        "unschedulable": True
    }


@pytest.mark.parametrize("garbage", ["", "yes", "[1]", "{"])
def test_an_annotation_that_somebody_spoilt_is_still_ours(garbage: str) -> None:
    assert not _build_drain.is_foreign(node(True, garbage))
    assert written(_build_drain.cordon_patch(node(True, garbage), "bob@ops-2", "Kata")) == {"by": "bob@ops-2", "reason": "Kata"}
    assert _build_drain.uncordon_patch(node(True, garbage))["spec"] == {"unschedulable": None}


def test_a_cordon_of_somebody_else_is_never_written() -> None:
    assert _build_drain.is_foreign(node(True))
    assert not _build_drain.is_foreign(node())
    assert _build_drain.cordon_patch(node(True), "bob@ops-2", "Kata") == {}
    assert _build_drain.uncordon_patch(node(True)) == {}
    assert _build_drain.uncordon_patch(node()) == {}


def test_uncordoning_takes_our_own_alone() -> None:
    meta = {"annotations": {_build_drain.ANNOTATION: None}, "resourceVersion": "7"}
    assert _build_drain.uncordon_patch(node(True, OURS)) == {"metadata": meta, "spec": {"unschedulable": None}}


def test_shown_leaves_out_what_is_not_ours() -> None:
    assert _build_drain.diff_view(node()) == {"unschedulable": False, "annotations": {}}
    assert _build_drain.diff_view(node(True, OURS)) == {"unschedulable": True, "annotations": {_build_drain.ANNOTATION: OURS}}


def test_builds_that_count() -> None:
    builds = _build_drain.Builds(["node-3"])
    pods = [
        pod("young", 30),
        pod("old", 10, phase="Pending"),
        pod("elsewhere", node_name="node-4"),
        pod("nowhere", node_name=None, phase="Pending"),
        pod("done", phase="Succeeded"),
        pod("broken", phase="Failed"),
        pod("daemon", owner="DaemonSet"),
        pod("static", owner="Node"),
        pod("of-a-job", 20, owner="Job"),
    ]
    builds.replace(pods)
    now = 1795516200  # 2026-11-24T10:30:00Z
    assert [(build["name"], build["phase"], build["age_seconds"]) for build in builds.left(now - 60)] == [
        ("old", "Pending", 1140),
        ("of-a-job", "Running", 540),
        ("young", "Running", 0),
    ]
    assert builds.left(now)[0] == {"name": "old", "namespace": "sd-builds", "node": "node-3", "age_seconds": 1200, "phase": "Pending"}


def test_builds_follow_the_watch() -> None:
    builds = _build_drain.Builds(["node-3"])
    assert not builds
    builds.event("MODIFIED", pod("bound-after-the-cordon"))
    builds.event("ADDED", pod("second"))
    assert [item["metadata"]["name"] for item in builds.pods] == ["bound-after-the-cordon", "second"]
    builds.event("MODIFIED", pod("second", phase="Succeeded"))
    builds.event("DELETED", pod("bound-after-the-cordon"))
    builds.event("DELETED", pod("never-seen"))
    assert not builds
    builds.replace([pod("third")])
    builds.replace([])
    assert not builds


def test_grace_is_that_of_the_slowest() -> None:
    assert _build_drain.grace_seconds([]) == 0
    assert _build_drain.grace_seconds([pod("a", grace=0)]) == 0
    assert _build_drain.grace_seconds([pod("a", grace=5), pod("b")]) == 30
    assert _build_drain.grace_seconds([pod("a", grace=60), pod("b")]) == 60


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (779, "12 min"),
        (3599, "59 min"),
        (10921, "3 h 2 min"),
        (86399, "23 h 59 min"),
        (97200, "1 d 3 h"),
    ],
)
def test_age(seconds: int, expected: str) -> None:
    assert _build_drain.age(seconds) == expected


def build(name: str, on: str, age_seconds: int) -> dict[str, t.Any]:
    return {"name": name, "namespace": "sd-builds", "node": on, "age_seconds": age_seconds, "phase": "Running"}


def test_the_sentence_about_the_deadline() -> None:
    two = [build("build-17", "node-3", 10921), build("build-18", "node-3", 725)]
    assert _build_drain.deadline_sentence(two, ["node-3"], 600, forced=False) == (
        "2 builds still run on node-3 after 600 s: sd-builds/build-17 (3 h 2 min) and sd-builds/build-18 (12 min)."
        " The node stays cordoned; run again, raise timeout, or set force."
    )
    assert _build_drain.deadline_sentence(two[:1], ["node-3", "node-4"], 5, forced=True, refusal="Cannot evict it.") == (
        "1 build still runs on node-3 after 5 s: sd-builds/build-17 (3 h 2 min). Cannot evict it. The nodes stay cordoned; "
        "run again or raise timeout."
    )
    assert _build_drain.deadline_sentence([two[0], build("build-20", "node-4", 3)], ["node-4", "node-3"], 5, forced=False) == (
        "2 builds still run on node-4 and node-3 after 5 s: sd-builds/build-17 on node-3 (3 h 2 min) and sd-builds/build-20 on node-4 (3 "
        "s). The nodes stay cordoned; run again, raise timeout, or set force."
    )


def test_the_sentence_names_ten_of_many() -> None:
    sentence = _build_drain.deadline_sentence([build(f"build-{n}", "node-3", 60) for n in range(12)], ["node-3"], 600, forced=False)
    assert sentence.startswith("12 builds still run on node-3 after 600 s: sd-builds/build-0 (1 min), ")
    assert "sd-builds/build-9 (1 min) and 2 more. The node stays cordoned;" in sentence
