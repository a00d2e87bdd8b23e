# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""When a step may be taken, as users write it. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.record import parse_steps
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
KEYS = ("days", "from", "to")
# Two digits each, so that times compare as text.
TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")


def find_problems(steps: list[t.Any], approve: list[t.Any], windows: t.Any) -> list[str]:
    """One sentence for each value of rollout_steps, rollout_approve and rollout_windows that makes no sense."""
    try:
        parsed = parse_steps(steps)
    except UserError as exc:
        return [f"rollout_{exc}"]
    shares = join_names(["pilot" if step["pilot"] else f"{step['share']:g}" for step in parsed], len(parsed))
    problems = [
        f"rollout_approve: {entry} is not a step of this rollout; its steps are {shares}."
        for entry in approve
        if not _is_step(entry, parsed)
    ]
    if not isinstance(windows, list):
        return [*problems, f"rollout_windows is {windows!r}: set it to a list, each entry with days, from and to."]
    return problems + [problem for number, window in enumerate(windows, 1) if (problem := _window_problem(number, window))]


def _is_step(entry: t.Any, steps: list[dict[str, t.Any]]) -> bool:
    try:
        return parse_steps([str(entry)])[0] in steps
    except UserError:
        return False


def _window_problem(number: int, window: t.Any) -> str:
    place = f"rollout_windows: entry {number}"
    if not isinstance(window, dict) or sorted(window) != sorted(KEYS):
        keys = join_names(list(map(str, window)), len(window)) if isinstance(window, dict) else repr(window)
        return f'{place} has {keys or "no keys"}; give days, from and to, such as {{days: [mon, fri], from: "09:00", to: "16:00"}}.'
    days = window["days"] if isinstance(window["days"], list) else []
    if not days or any(day not in DAYS for day in days):
        return f"{place} has days {window['days']!r}; give a list of {', '.join(DAYS)}."
    for key in KEYS[1:]:
        if not isinstance(window[key], str) or not TIME.fullmatch(window[key]):
            return (
                f'{place} has {key} {window[key]!r}; give a time from 00:00 to 24:00 in quotes and with two digits each, such as "09:00".'
            )
    if window["from"] >= window["to"]:
        return (
            f"{place} is from {window['from']} to {window['to']}, and a window ends on the day it begins; for one over midnight give two"
            ' entries, one to "24:00" and one from "00:00" on the next day.'
        )
    return ""
