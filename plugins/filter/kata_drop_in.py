# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kata_drop_in
short_description: Writes the drop-in of a handler
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Makes the drop-in that goes beside the configuration that Kata ships. Internal to the roles of this collection.
positional: shipped
options:
  _input:
    description: A handler as P(screwdriver.kata.kata_handlers#filter) returns it.
    type: dict
    required: true
  shipped:
    description: The text of the configuration that the release ships for it.
    type: str
    required: true
  systemd_cgroup:
    description: Whether systemd creates the cgroups of pods.
    type: bool
    default: true
requirements:
  - tomli-w
"""

EXAMPLES = r"""
- name: Show the drop-in
  ansible.builtin.debug:
    msg: "{{ (handlers[0] | screwdriver.kata.kata_drop_in(lookup('ansible.builtin.file', 'configuration-qemu.toml'))).content }}"
  vars:
    handlers: "{{ kata_handlers | screwdriver.kata.kata_handlers('4.2.0') }}"
"""

RETURN = r"""
_value:
  description: The C(content) of the drop-in, and C(unknown), the settings that the shipped configuration does not have.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.screwdriver.kata.plugins.module_utils._install.kata import drop_in
from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import TomlError


def kata_drop_in(handler: dict[str, t.Any], shipped: str, systemd_cgroup: bool = True) -> dict[str, t.Any]:
    try:
        return drop_in(handler, shipped, systemd_cgroup)
    except TomlError as error:
        raise AnsibleFilterError(f"Handler {handler['name']}: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"kata_drop_in": kata_drop_in}
