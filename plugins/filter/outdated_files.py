# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: outdated_files
short_description: Selects the files that a node does not have yet
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Compares files by digest, mode and owner, so that M(screwdriver.kata.node_files) is called for those alone that differ. Internal to the
    roles of this collection.
positional: digests
options:
  _input:
    description: Files as M(screwdriver.kata.node_files) takes them.
    type: list
    elements: dict
    required: true
  digests:
    description: What the node has, as C(<sha256> <mode>:<owner>) by path.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the files that differ
  screwdriver.kata.node_files:
    files: "{{ files | screwdriver.kata.outdated_files(host.files) }}"
"""

RETURN = r"""
_value:
  description: The files that differ.
  type: list
  elements: dict
"""

import hashlib
import typing as t


def outdated_files(files: list[dict[str, t.Any]], digests: dict[str, str]) -> list[dict[str, t.Any]]:
    def signature(file: dict[str, t.Any]) -> str:
        content = file.get("secret_content") or file.get("content", "")
        return f"{hashlib.sha256(content.encode()).hexdigest()} {int(file.get('mode', '0644'), 8):o}:0"

    return [file for file in files if digests.get(file["path"]) != signature(file)]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"outdated_files": outdated_files}
