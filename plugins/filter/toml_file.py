# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: toml_file
short_description: Protects a TOML file with a password in it
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Makes the content and mode of a file. One that has a password, a token, a header or credentials in a URL can be read by its owner alone,
    and is shown nowhere. Internal to the roles of this collection.
options:
  _input:
    description: The content of the file.
    type: str
    required: true
requirements:
  - tomli-w
"""

EXAMPLES = r"""
- name: Write the configuration
  screwdriver.kata.node_files:
    files:
      - "{{ {'path': '/etc/containerd/config.toml'} | combine(content | screwdriver.kata.toml_file) }}"
"""

RETURN = r"""
_value:
  description: C(mode), and C(content) or C(secret_content), as M(screwdriver.kata.node_files) takes them.
  type: dict
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import has_secret


def toml_file(text: str) -> dict[str, str]:
    return {"mode": "0600", "secret_content": text} if has_secret(text) else {"mode": "0644", "content": text}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"toml_file": toml_file}
