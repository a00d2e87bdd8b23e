# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Approvals and windows as users write them, and the sentences about those that make no sense."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.holds import find_problems

STEPS = ["pilot", 10, "50", 100]
NO_STEP = "is not a step of this rollout; its steps are pilot, 10, 50 and 100."
DAYS = "give a list of mon, tue, wed, thu, fri, sat, sun."
KEYS = 'give days, from and to, such as {days: [mon, fri], from: "09:00", to: "16:00"}.'
QUOTES = 'give a time from 00:00 to 24:00 in quotes and with two digits each, such as "09:00".'


@pytest.mark.parametrize("approve", [[], ["50"], [50.0], ["50.0", "pilot"], [100, 10]])
def test_approvals_of_steps(approve: list[t.Any]) -> None:
    assert find_problems(STEPS, approve, []) == []


@pytest.mark.parametrize("approve", [30, "5", "0", "half", True, {"share": 50}])
def test_an_approval_of_no_step(approve: t.Any) -> None:
    assert find_problems(STEPS, [50, approve], []) == [f"rollout_approve: {approve} {NO_STEP}"]


def test_steps_that_make_no_sense_come_first() -> None:
    assert find_problems([50, 10], [30], []) == [
        "rollout_steps: step 2 (10 %) is not above the step before it (50 %), give the shares in ascending order."
    ]


@pytest.mark.parametrize(
    ("window", "problem"),
    [
        ('{days: [mon, sun], from: "09:00", to: "16:00"}', ""),
        ('{days: [mon], from: "00:00", to: "24:00"}', ""),
        ('{days: [mon], from: "09:00", to: 16:00}', f"has to 960; {QUOTES}"),
        ('{days: [mon], from: "9:00", to: "16:00"}', f"has from '9:00'; {QUOTES}"),
        ('{days: [mon], from: "09:00", to: "24:01"}', f"has to '24:01'; {QUOTES}"),
        ('{days: [mon], from: "09:00", until: "16:00"}', f"has days, from and until; {KEYS}"),
        ("{}", f"has no keys; {KEYS}"),
        ("mon", f"has 'mon'; {KEYS}"),
        ('{days: [Mon], from: "09:00", to: "16:00"}', f"has days ['Mon']; {DAYS}"),
        ('{days: mon, from: "09:00", to: "16:00"}', f"has days 'mon'; {DAYS}"),
        ('{days: [], from: "09:00", to: "16:00"}', f"has days []; {DAYS}"),
        (
            '{days: [mon], from: "22:00", to: "06:00"}',
            "is from 22:00 to 06:00, and a window ends on the day it begins; for one over midnight give two entries, one to"
            ' "24:00" and one from "00:00" on the next day.',
        ),
    ],
)
def test_windows(window: str, problem: str) -> None:
    open_window = {"days": ["sat"], "from": "00:00", "to": "24:00"}
    found = find_problems(STEPS, [], [open_window, yaml.safe_load(window)])
    assert found == ([f"rollout_windows: entry 2 {problem}"] if problem else [])


def test_windows_that_are_not_a_list() -> None:
    assert find_problems(STEPS, [], "mon") == ["rollout_windows is 'mon': set it to a list, each entry with days, from and to."]
