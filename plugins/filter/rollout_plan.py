# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_plan
short_description: Plans the steps of a rollout
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Lists for each step the weightages that its share needs, the builds that have to come before it can pass, and how long that takes.
options:
  _input:
    description: The steps, as O(screwdriver.kata.rollout#module:steps) takes them.
    type: list
    elements: raw
    required: true
  executor:
    description: The executor section of the worker's config.
    type: dict
    required: true
  kata_executor:
    description: The name of the Kata executor.
    type: str
    default: k8s-kata
  legacy_executor:
    description: The name of the legacy executor.
    type: str
    default: k8s-vm
  min_builds:
    description: Builds on Kata that each step needs.
    type: int
    default: 20
  window:
    description: Seconds for which each step is watched at least.
    type: int
    default: 600
  rate:
    description: Builds a second, of both executors. V(0) if unknown.
    type: float
    default: 0
requirements:
  - PyYAML >= 6.0
  - regress >= 2026.9.1
"""

EXAMPLES = r"""
- name: Print the plan
  ansible.builtin.debug:
    msg: "{{ [1, 10, 100] | screwdriver.kata.rollout_plan(executor_result.executor, rate=0.5) }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary for each step, with C(step), C(share), C(pilot), C(weightages), C(builds) (of both executors; pinned ones at the
      pilot), C(seconds) (V(null) if unknown) and C(problem) (why integers cannot express the share, empty if they can).
  type: list
  elements: dict
"""

import math
import typing as t
from decimal import Decimal

from ansible.errors import AnsibleFilterError
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.routing import weights_for
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.record import parse_steps


def rollout_plan(
    steps: list[t.Any],
    executor: dict[str, t.Any],
    kata_executor: str = "k8s-kata",
    legacy_executor: str = "k8s-vm",
    min_builds: int = 20,
    window: int = 600,
    rate: float = 0,
) -> list[dict[str, t.Any]]:
    try:
        parsed = parse_steps(steps)
    except UserError as exc:
        raise AnsibleFilterError(str(exc)) from exc
    rows = []
    for number, step in enumerate(parsed, 1):
        builds = min_builds if step["pilot"] else math.ceil(min_builds * 100 / step["share"])
        seconds = None if step["pilot"] or rate <= 0 else max(window, math.ceil(builds / rate))
        row = {"step": number, **step, "builds": builds, "seconds": seconds, "weightages": {}, "problem": ""}
        try:
            row["weightages"] = weights_for(executor, kata_executor, legacy_executor, Decimal(str(step["share"])))
        except UserError as exc:
            row["problem"] = str(exc)
        rows.append(row)
    return rows


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rollout_plan": rollout_plan}
