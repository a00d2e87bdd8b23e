# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: misspelled_variables
short_description: Finds misspelled variables of this collection
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Finds names that differ by one letter, or by two neighbors that changed places, from a variable of a role or playbook. Ansible ignores
    such a variable, so that the default would be used. Internal to the playbooks of this collection.
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
  roles:
    description: The directory of the roles of this collection.
    type: path
    required: true
requirements:
  - PyYAML
"""

EXAMPLES = r"""
- name: Print what is misspelled
  ansible.builtin.debug:
    msg: "{{ query('ansible.builtin.varnames', '.') | screwdriver.kata.misspelled_variables(playbook_dir ~ '/../roles') }}"
"""

RETURN = r"""
_value:
  description: One sentence for each misspelled variable, with what was probably meant.
  type: list
  elements: str
"""

import typing as t
from pathlib import Path

import yaml

# Not of a role.
PLAYBOOK_VARIABLES = {"kata_batches", "kata_hosts"}
# Other collections have such names as well: containerd_checksum is kubespray's, and node_names one of lablabs.rke2.
SHARED_PREFIXES = ("cluster_", "containerd_", "crictl_", "download_", "node_")
# Several times as fast, where PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _known(roles: str) -> set[str]:
    specs = [yaml.load(path.read_text(), LOADER)["argument_specs"] for path in Path(roles).glob("*/meta/argument_specs.yml")]
    return PLAYBOOK_VARIABLES | {name for spec in specs for entry_point in spec.values() for name in entry_point.get("options", {})}


def _shapes(name: str) -> set[str]:
    """The name, and the name without any one of its letters: two names with a shape in common are one slip apart."""
    return {name, *(name[:index] + name[index + 1 :] for index in range(len(name)))}


def _plain(name: str) -> str:
    return name.replace("_", "").rstrip("s")


def _is_foreign(name: str, known: str) -> bool:
    return name[0] != known[0] or (name.startswith(SHARED_PREFIXES) and _plain(name) == _plain(known))


def misspelled_variables(names: list[str], roles: str) -> list[str]:
    known = _known(roles)
    meant = {shape: name for name in sorted(known) for shape in _shapes(name)}
    found = []
    for name in sorted(set(names) - known):
        near = next((meant[shape] for shape in sorted(_shapes(name)) if shape in meant), None)
        if near and not _is_foreign(name, near):
            found.append(f"{name} is not a variable of screwdriver.kata: did you mean {near}? Nothing was changed.")
    return found


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"misspelled_variables": misspelled_variables}
