# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: containerd_hosts
short_description: Writes the mirrors of a registry
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Makes the C(hosts.toml) of one registry. Internal to the roles of this collection.
options:
  _input:
    description: URLs of mirrors, or dictionaries with C(url) and keys of containerd's C(hosts.toml).
    type: list
    elements: raw
    required: true
requirements:
  - tomli-w
"""

EXAMPLES = r"""
- name: Show the mirrors
  ansible.builtin.debug:
    msg: "{{ ['https://mirror.example.com'] | screwdriver.kata.containerd_hosts }}"
"""

RETURN = r"""
_value:
  description: The content of the file.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.screwdriver.kata.plugins.module_utils._install.containerd import hosts
from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import TomlError


def containerd_hosts(mirrors: list[t.Any]) -> str:
    try:
        return hosts(mirrors)
    except TomlError as error:
        raise AnsibleFilterError(f"containerd_registry_mirrors: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"containerd_hosts": containerd_hosts}
