# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_problems
short_description: Finds what is wrong with the steps of a rollout and with when they may be taken
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Checks steps, approvals and windows before a rollout begins. Internal to the roles of this collection.
options:
  _input:
    description: The steps, as O(screwdriver.kata.rollout#module:steps) takes them.
    type: list
    elements: raw
    required: true
  approve:
    description: The steps that need an approval.
    type: list
    elements: raw
    default: []
  windows:
    description: When a step may be taken.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Fail with the first problem
  ansible.builtin.fail:
    msg: "{{ problems[0] }}"
  when: problems | length > 0
  vars:
    problems: "{{ rollout_steps | screwdriver.kata.rollout_problems(rollout_approve, rollout_windows) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.holds import find_problems


def rollout_problems(steps: list[t.Any], approve: t.Sequence[t.Any] = (), windows: t.Any = None) -> list[str]:
    return find_problems(steps, list(approve), [] if windows is None else windows)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rollout_problems": rollout_problems}
