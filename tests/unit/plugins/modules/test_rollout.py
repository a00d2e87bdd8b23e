# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module rollout does with annotations and in check mode."""

from __future__ import annotations

import typing as t
from copy import deepcopy
from datetime import UTC, datetime

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.modules.rollout import Rollout

NOW = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)
APPROVE = "kata.screwdriver.cd/approve-step-"
FREEZE = "kata.screwdriver.cd/freeze"
APPROVED = [{"step": 2, "by": "dan", "at": "2026-11-23T21:00:00Z"}]


class StubCluster:
    """An API server that keeps the ConfigMap and the Lease."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, t.Any]] = {}
        self.is_dry_run = False

    @property
    def annotations(self) -> dict[str, t.Any]:
        return self.objects["ConfigMap"]["metadata"].setdefault("annotations", {})

    def now(self) -> datetime:
        return NOW

    def update(self, attempt: t.Callable[[], t.Any]) -> t.Any:
        return attempt()

    def get(self, kind: str, name: str, namespace: str, api_version: str = "v1") -> dict[str, t.Any] | None:
        return deepcopy(self.objects.get(kind))

    def create(self, body: dict[str, t.Any]) -> dict[str, t.Any]:
        return self._store(body["kind"], {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}})

    def patch(self, kind: str, name: str, patch: dict[str, t.Any], namespace: str, api_version: str = "v1") -> dict[str, t.Any]:
        return self._store(kind, merged(self.objects[kind], patch))

    def _store(self, kind: str, body: dict[str, t.Any]) -> dict[str, t.Any]:
        if not self.is_dry_run:
            self.objects[kind] = body
        return body

    def act(self, action: str, **change: t.Any) -> dict[str, t.Any]:
        params: dict[str, t.Any] = {
            "action": action,
            "name": "kata-rollout",
            "namespace": "sd",
            "steps": [],
            "step": None,
            "holder": "ada",
            "unique": False,
            "take_over": False,
            "ttl": 60,
            "reason": "why",
            "doubt": "",
            "share": None,
            "gate": {},
            "evidence": None,
            "baseline": None,
            **change,
        }
        return Rollout(params, t.cast("t.Any", self), self.is_dry_run).run()


def merged(old: dict[str, t.Any], patch: dict[str, t.Any]) -> dict[str, t.Any]:
    """A JSON merge patch."""
    new = {**old}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key) or {}, value) if isinstance(value, dict) else value
    return new


@pytest.fixture
def cluster() -> StubCluster:
    """With a rollout at its second step, of 50 %."""
    stub = StubCluster()
    stub.act("begin", steps=["pilot", 50, 100])
    stub.act("advance", step=1)
    return stub


@pytest.mark.parametrize("action", ["begin", "resume"])
def test_an_annotation_approves_a_step_that_waits_for_it(cluster: StubCluster, action: str) -> None:
    cluster.act("pause", doubt="approval", share=0)
    cluster.annotations[APPROVE + "2"] = "dan"
    assert cluster.act(action)["rollout"]["approvals"] == APPROVED
    assert cluster.act("read")["rollout"]["approvals"] == APPROVED
    assert cluster.annotations == {}


def test_an_annotation_approves_the_next_step(cluster: StubCluster) -> None:
    cluster.annotations[APPROVE + "3"] = "dan"
    assert cluster.act("advance", step=2)["rollout"]["approvals"] == [{**APPROVED[0], "step": 3}]


def test_reading_an_annotation_writes_nothing(cluster: StubCluster) -> None:
    cluster.annotations.update({APPROVE + "2": "dan", "other": "x"})
    before = deepcopy(cluster.objects)
    assert cluster.act("read")["rollout"]["approvals"] == APPROVED
    assert cluster.objects == before


def test_an_approval_is_for_one_rollout(cluster: StubCluster) -> None:
    cluster.annotations.update({APPROVE + "2": "dan", APPROVE + "9": "dan", "other": "x"})
    cluster.act("observe", evidence={"seen": 1})
    assert cluster.annotations == {APPROVE + "9": "dan", "other": "x"}
    cluster.annotations[APPROVE + "3"] = "dan"
    cluster.act("roll_back")
    cluster.act("begin", steps=["pilot", 50, 100])
    assert cluster.annotations == {"other": "x"}
    assert cluster.act("observe", evidence={"seen": 1})["rollout"]["approvals"] == []


@pytest.mark.parametrize(
    ("annotations", "freeze"),
    [({}, ""), ({FREEZE: "Release day"}, "Release day"), ({FREEZE: ""}, "no reason given"), ({FREEZE: " "}, "no reason given")],
)
def test_the_annotation_freezes_also_without_a_reason(cluster: StubCluster, annotations: dict[str, str], freeze: str) -> None:
    cluster.annotations.update(annotations)
    assert cluster.act("read")["freeze"] == freeze


def test_check_mode_resumes_with_a_lock_that_was_not_stored(cluster: StubCluster) -> None:
    cluster.act("pause")
    cluster.act("release")
    before = deepcopy(cluster.objects)
    cluster.is_dry_run = True
    holder = cluster.act("begin", unique=True)["lock"]["holder"]
    resumed = cluster.act("resume", holder=holder)
    assert (resumed["rollout"]["phase"], resumed["changed"]) == ("running", True)
    assert cluster.objects == before


def test_check_mode_respects_the_lock_of_another_run(cluster: StubCluster) -> None:
    cluster.is_dry_run = True
    with pytest.raises(UserError) as refused:
        cluster.act("resume", holder="eve")
    assert "is locked by ada until" in str(refused.value)
