# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: containerd_plan
short_description: Plans the configuration of containerd on a node
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Decides between a whole configuration and a drop-in beside a foreign one, and makes its content. Internal to the roles of this
    collection.
positional: options, migrate
options:
  _input:
    description: What the role's probe has found on the node.
    type: dict
    required: true
  options:
    description: What the role was asked for.
    type: dict
    required: true
  migrate:
    description: The path of the containerd that can convert a foreign file.
    type: str
    required: true
requirements:
  - tomli-w
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ host | screwdriver.kata.containerd_plan(options, '/usr/bin/containerd') }}"
"""

RETURN = r"""
_value:
  description: C(path), C(content), C(written), C(drop_in), C(registry), C(root), C(problems), C(taken) and C(old_format); or only
    C(error).
  type: dict
"""

import base64
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.containerd import plan
from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import TomlError


def containerd_plan(host: dict[str, t.Any], options: dict[str, t.Any], migrate: str) -> dict[str, t.Any]:
    texts = {name: base64.b64decode(host[name]).decode(errors="replace") for name in ("config", "written")}
    lists = {name: host.get(name, []) for name in ("others", "pools")}
    try:
        return plan({**texts, **lists, "installer": host.get("installer")}, options, migrate)
    except TomlError as error:
        return {"error": str(error), "problems": [], "taken": [], "old_format": False}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"containerd_plan": containerd_plan}
