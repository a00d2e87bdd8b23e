"""The plan of a rollout: weightages, builds and time of each step."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.screwdriver.kata.plugins.filter.rollout_plan import rollout_plan

SECTION: dict[str, t.Any] = {"plugin": "k8s-vm", "k8s-vm": {"weightage": 100}, "k8s-kata": {"pluginName": "k8s", "weightage": 0}}


def test_plans_each_step() -> None:
    pilot, first, last = rollout_plan(["pilot", 1, 100], SECTION, min_builds=20, window=600, rate=0.5)
    assert pilot["builds"] == 20
    assert pilot["seconds"] is None
    assert pilot["weightages"] == {"k8s-kata": 0, "k8s-vm": 100}
    # 20 builds on Kata at 1 % are 2,000 builds, which take 4,000 s at 0.5 a second.
    assert first["builds"] == 2000
    assert first["seconds"] == 4000
    assert first["weightages"] == {"k8s-kata": 1, "k8s-vm": 99}
    # The window is longer than the 40 s that 20 builds take.
    assert last["builds"] == 20
    assert last["seconds"] == 600


def test_an_unknown_rate_gives_no_time() -> None:
    assert rollout_plan([50], SECTION, rate=0)[0]["seconds"] is None


def test_a_share_that_integers_cannot_express_is_a_problem() -> None:
    section = {**SECTION, "k8s": {"weightage": 3}}
    assert "cannot be expressed" in rollout_plan([33.33], section)[0]["problem"]


def test_wrong_steps_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="ascending order"):
        rollout_plan([50, 10], SECTION)
