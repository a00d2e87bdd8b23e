# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kata_handlers
short_description: Describes handlers by the release of Kata
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Adds to each handler of C(kata_handlers) what follows from the release, its shim and its hypervisor.
positional: version
options:
  _input:
    description: Handlers as the role P(screwdriver.kata.kata#role) takes them.
    type: list
    elements: dict
    required: true
  version:
    description: The release of Kata.
    type: str
    required: true
  defaults:
    description: Values of handlers that do not set them.
    type: dict
    default: {}
requirements:
  - tomli-w
"""

EXAMPLES = r"""
- name: Show the overhead of each handler
  ansible.builtin.debug:
    msg: "{{ kata_handlers | screwdriver.kata.kata_handlers('4.2.0') | items2dict(key_name='name', value_name='overhead') }}"
"""

RETURN = r"""
_value:
  description:
    - The handlers with C(shim), C(hypervisor), C(shim_path), C(shipped), C(table), C(archive), C(config_path), C(managed) and C(overhead).
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.kata import describe


def kata_handlers(handlers: list[dict[str, t.Any]], version: str, defaults: dict[str, t.Any] | None = None) -> list[dict[str, t.Any]]:
    return describe(handlers, str(version), **(defaults or {}))


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"kata_handlers": kata_handlers}
