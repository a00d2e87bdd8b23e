# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kata_problems
short_description: Finds what is wrong with handlers
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Checks names, shims, annotations and settings of handlers before a node is changed. Internal to the roles of this collection.
positional: version, advisories
options:
  _input:
    description: Handlers as P(screwdriver.kata.kata_handlers#filter) returns them.
    type: list
    elements: dict
    required: true
  version:
    description: The release of Kata.
    type: str
    required: true
  advisories:
    description: Known faults of releases, as P(screwdriver.kata.version_warnings#filter) takes them.
    type: list
    elements: dict
    required: true
  allow_patterns:
    description: Whether annotations may be given as patterns.
    type: bool
    default: false
  rolled_back_to:
    description: The release that is to be used instead of the one of O(version), with what was configured for it.
    type: str
    default: ""
requirements:
  - tomli-w
"""

EXAMPLES = r"""
- name: Fail with the first problem
  ansible.builtin.fail:
    msg: "{{ problems[0] }}"
  when: problems | length > 0
  vars:
    problems: "{{ kata_handlers | screwdriver.kata.kata_handlers('4.2.0') | screwdriver.kata.kata_problems('4.2.0', download_advisories) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.kata import find_problems


def kata_problems(
    handlers: list[dict[str, t.Any]],
    version: str,
    advisories: list[dict[str, t.Any]],
    allow_patterns: bool = False,
    rolled_back_to: str = "",
) -> list[str]:
    return find_problems(handlers, str(version), allow_patterns, advisories, rolled_back_to)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"kata_problems": kata_problems}
