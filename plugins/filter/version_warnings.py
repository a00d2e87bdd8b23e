# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: version_warnings
short_description: Judges a version by security advisories
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Names the advisories that a version is affected by, and whether its line still gets fixes.
positional: component, advisories, end_of_life, handlers
options:
  _input:
    description: The version.
    type: str
    required: true
  component:
    description: The program, V(kata), V(containerd) or V(runc).
    type: str
    required: true
  advisories:
    description:
      - Dictionaries with C(id), C(component), C(summary) and C(fixed), the first fixed release of each line. C(introduced) is the first
        release that has the fault. C(shim) and C(hypervisor) limit one to handlers of that shim or hypervisor.
    type: list
    elements: dict
    required: true
  end_of_life:
    description: The end of support by component and line.
    type: dict
    default: {}
  handlers:
    description:
      - The handlers of Kata, dictionaries with C(shim) and C(hypervisor). An empty value is unknown, and so are all handlers without this
        option; what is unknown is taken to be affected.
    type: list
    elements: dict
"""

EXAMPLES = r"""
- name: Warn of a release with known faults
  ansible.builtin.debug:
    msg: "{{ '3.32.0' | screwdriver.kata.version_warnings('kata', download_advisories) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each warning.
  type: list
  elements: str
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.versions import judge


def version_warnings(
    version: str,
    component: str,
    advisories: list[dict[str, t.Any]],
    end_of_life: dict[str, dict[str, t.Any]] | None = None,
    handlers: list[dict[str, t.Any]] | None = None,
) -> list[str]:
    return judge(str(version), component, advisories, end_of_life or {}, handlers)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"version_warnings": version_warnings}
