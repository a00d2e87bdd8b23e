# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables of the role rollout decide, as Ansible evaluates them."""

from __future__ import annotations

import typing as t

import pytest

from ... import helpers

ROLE = helpers.TOP / "roles" / "rollout"
MONDAY = "2026-11-23T12:05:00Z"
OPEN = [{"days": ["mon"], "from": "09:00", "to": "16:00"}]
CLOSED = [{"days": ["mon"], "from": "14:00", "to": "24:00"}]
OUTSIDE = "it is mon 12:05 UTC, outside of rollout_windows."
APPROVAL = "it needs an approval: run ansible-playbook screwdriver.kata.approve."


def evaluate(name: str, **values: t.Any) -> t.Any:
    """A variable of the role, with its defaults and these values."""
    return helpers.evaluate("{{ " + name + " }}", "rollout", **values)


def record(**more: t.Any) -> dict[str, t.Any]:
    """What the module rollout returns at the step of 50 %."""
    rollout = {
        "phase": "running",
        "step": 2,
        "steps": [{"share": 0, "pilot": True}, {"share": 50, "pilot": False}],
        "share": 50,
        "step_share": 50,
        "pilot": False,
        "approvals": [],
        "reason": "",
        "doubt": "",
        "step_began": "2026-11-23T12:00:00Z",
    }
    return {"rollout": {**rollout, **more}, "now": MONDAY, "freeze": "", "evidence": {}}


@pytest.mark.parametrize(
    ("steps", "listed"),
    [("pilot,10,20", ["pilot", "10", "20"]), ("pilot, 10", ["pilot", "10"]), (["pilot", 10], ["pilot", 10]), ("10", ["10"])],
)
def test_steps_may_be_text(steps: t.Any, listed: list[t.Any]) -> None:
    assert evaluate("__rollout_step_list", rollout_steps=steps) == listed


@pytest.mark.parametrize("file", ["_begin", "_observe", "_plan", "_validate"])
def test_nothing_takes_the_steps_as_they_are_given(file: str) -> None:
    text = (ROLE / "tasks" / f"{file}.yml").read_text()
    assert "__rollout_step_list" in text
    assert "{{ rollout_steps" not in text


@pytest.mark.parametrize(
    ("approve", "pilot", "hold"),
    [
        (["50"], False, APPROVAL),
        ("50", False, APPROVAL),
        ("10, 50", False, APPROVAL),
        ([50.0], False, APPROVAL),
        (["pilot"], False, ""),
        (["pilot", "100"], True, APPROVAL),
        ([5], False, ""),
        ([], False, ""),
        ("", False, ""),
    ],
)
def test_a_step_waits_for_its_approval(approve: t.Any, pilot: bool, hold: str) -> None:
    held = record(pilot=pilot)
    assert evaluate("__rollout_hold", rollout_approve=approve, __rollout_record=held) == hold
    approved = record(pilot=pilot, approvals=[{"step": 2, "by": "dan"}])
    assert evaluate("__rollout_hold", rollout_approve=approve, __rollout_record=approved) == ""


@pytest.mark.parametrize(
    ("values", "freeze", "hold"),
    [
        ({"rollout_windows": OPEN}, "", ""),
        ({"rollout_windows": CLOSED}, "", OUTSIDE),
        ({"rollout_windows": [*CLOSED, *OPEN]}, "", ""),
        ({"rollout_windows": OPEN}, "no reason given", "the annotation kata.screwdriver.cd/freeze is: no reason given."),
        ({"rollout_freeze": "true"}, "", "rollout_freeze is set."),
    ],
)
def test_a_step_waits_for_a_window_and_the_end_of_a_freeze(values: dict[str, t.Any], freeze: str, hold: str) -> None:
    assert evaluate("__rollout_hold", **values, __rollout_record={**record(), "freeze": freeze}) == hold


@pytest.mark.parametrize(
    ("reason", "doubt", "mode", "stays"),
    [
        ("Step 2 of 2 (50 %) is held: it is mon 08:00 UTC, outside of rollout_windows.", "approval", "once", True),
        ("Step 2 of 2 (50 %) is held: it is mon 08:00 UTC, outside of rollout_windows.", "approval", "run", True),
        (f"Step 2 of 2 (50 %) is held: {APPROVAL}", "approval", "once", False),
        ("Upgrade tonight.", "operator", "once", True),
        ("Upgrade tonight.", "operator", "run", False),
    ],
)
def test_a_hold_that_goes_on_changes_nothing(reason: str, doubt: str, mode: str, stays: bool) -> None:
    paused = record(phase="paused", reason=reason, doubt=doubt)
    assert evaluate("__rollout_stays_paused", rollout_mode=mode, rollout_windows=CLOSED, __rollout_record=paused) is stays
    if doubt == "approval":
        assert evaluate("__rollout_stays_paused", rollout_mode=mode, rollout_windows=OPEN, __rollout_record=paused) is False


@pytest.mark.parametrize(
    ("mode", "step", "observed", "window"),
    [("once", 2, 600.2, 630), ("once", 2, 4000, 4030), ("once", 2, 0, 600), ("once", 1, 600.2, 600), ("run", 2, 600.2, 600)],
)
def test_no_evidence_ends_the_watch_of_the_last_step(mode: str, step: int, observed: float, window: int) -> None:
    seen = {**record(), "evidence": {"observed_seconds": observed}}
    values = {"rollout_mode": mode, "__rollout_step": step, "__rollout_seconds": "30", "__rollout_record": seen}
    assert evaluate("__rollout_gate_window", **values) == window


def test_without_a_rollout_the_window_is_the_users() -> None:
    values: dict[str, t.Any] = {"rollout_mode": "once", "rollout_window": "60", "__rollout_seconds": "1", "__rollout_record": {}}
    assert evaluate("__rollout_gate_window", **values) == 60


@pytest.mark.parametrize(
    ("verdict", "doubt", "pause", "bake", "decision"),
    [
        ("pass", "", False, 86400, "_stay"),
        ("pass", "", False, 60, "_pass"),
        ("fail", "failures", False, 86400, "_fail"),
        ("inconclusive", "evidence", False, 86400, "_stay"),
        ("inconclusive", "evidence", False, 60, "_pause"),
        ("inconclusive", "failures", False, 86400, "_pause"),
        ("inconclusive", "evidence", True, 86400, "_pause"),
    ],
)
def test_the_last_step_is_judged_for_longer_than_the_timeout(verdict: str, doubt: str, pause: bool, bake: int, decision: str) -> None:
    gate = {"verdict": verdict, "doubt": doubt, "pause": pause, "observed_seconds": 4000.0}
    values = {"rollout_mode": "once", "rollout_bake": bake, "__rollout_step": 2, "__rollout_record": record(), "__rollout_gate": gate}
    assert evaluate("__rollout_decision", **values) == decision
