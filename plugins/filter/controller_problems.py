# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: controller_problems
short_description: Finds what the controller lacks
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Looks for Python libraries, the inventory and the kubeconfig before a playbook does anything. Internal to the playbooks of this
    collection.
options:
  _input:
    description: Sources of the inventory, as in C(ansible_inventory_sources).
    type: list
    elements: str
    required: true
  requirements:
    description: The path of this collection's C(requirements.txt).
    type: path
    required: true
  python:
    description: The interpreter that needs the libraries.
    type: path
    required: true
  kubeconfig:
    description: What the variable E(K8S_AUTH_KUBECONFIG) names. Empty if it is not set.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Print what the controller lacks
  ansible.builtin.debug:
    msg: "{{ ansible_inventory_sources | screwdriver.kata.controller_problems('requirements.txt', ansible_playbook_python) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem, with what to do.
  type: list
  elements: str
"""

import importlib.util
import os
import typing as t

# The module of each distribution in requirements.txt.
LIBRARIES = {"kubernetes": "kubernetes", "PyYAML": "yaml", "regress": "regress", "tomli-w": "tomli_w"}
# Where Ansible looks without -i; it need not exist.
DEFAULT_INVENTORY = "/etc/ansible/hosts"


def controller_problems(sources: list[str], requirements: str, python: str, kubeconfig: str = "") -> list[str]:
    problems = []
    if missing := [name for name, module in LIBRARIES.items() if not importlib.util.find_spec(module)]:
        problems.append(
            f"The controller lacks the Python libraries {', '.join(missing)}: "
            f"run '{python} -m pip install -r {os.path.realpath(requirements)}'."
        )
    problems += [
        f"The inventory {source} does not exist: create it with your hosts in the group kata_nodes, or name another one with -i."
        for source in sources
        if "," not in source and source != DEFAULT_INVENTORY and not os.path.exists(source)
    ]
    # Modules run in a directory of their own, so that a relative path would be another one there.
    for path in filter(None, kubeconfig.split(os.pathsep)):
        if not os.path.isabs(os.path.expanduser(path)):
            problems.append(f"K8S_AUTH_KUBECONFIG is {path}, which is not an absolute path: set it to {os.path.abspath(path)}.")
        elif not os.path.exists(os.path.expanduser(path)):
            problems.append(f"K8S_AUTH_KUBECONFIG names {path}, which does not exist: set it to the kubeconfig of the build cluster.")
    return problems


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"controller_problems": controller_problems}
