# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: release_problems
short_description: Judges a role's directory of releases
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Finds what stands against installing releases into a directory of the node. Internal to the roles of this collection.
positional: role, directory, timeout, node
options:
  _input:
    description: What the probe found, with C(foreign_entries) and C(other_releases).
    type: dict
    required: true
  role:
    description: The role, whose name its options begin with.
    type: str
    required: true
  directory:
    description: The option for the directory of releases.
    type: str
    required: true
  timeout:
    description: The option for the timeout of a download.
    type: int
    required: true
  node:
    description: The node's name.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Print what stands against the directory
  ansible.builtin.debug:
    msg: "{{ host | screwdriver.kata.release_problems('kata', kata_releases, kata_download_timeout, inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem, with what to do.
  type: list
  elements: str
"""

import re
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
# The link to Kata's release, which a switch replaces.
LINK = "/opt/kata/"


def release_problems(host: dict[str, t.Any], role: str, directory: str, timeout: int, node: str) -> list[str]:
    problems = []
    if not PATH.fullmatch(directory) or f"{directory}/".startswith(LINK):
        problems.append(
            f"{role}_releases: '{directory}' is not a valid directory of releases; use an absolute path of letters, digits, '.', '_' and "
            f"'-' outside of /opt/kata, for example /opt/{role}-releases."
        )
    if timeout < 1:
        problems.append(f"{role}_download_timeout: {timeout} is not a number of seconds from 1 on; use for example 60.")
    if host["other_releases"]:
        problems.append(
            f"{role}_releases: the releases on {node} are in {host['other_releases']}, not in {directory}; set it to that directory, or "
            "run the playbook remove with that directory first."
        )
    if host["foreign_entries"]:
        problems.append(
            f"{role}_releases: {directory} on {node} contains {join_names(host['foreign_entries'])}, which this role did not create; use a "
            f"directory of its own, for example {directory}/{role}."
        )
    return problems


class FilterModule:
    """Filters of the roles."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"release_problems": release_problems}
