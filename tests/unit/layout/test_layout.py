# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The layout that CONTRIBUTING.md describes: what imports what, the length of a role's main.yml, and where its tables point."""

from __future__ import annotations

import ast
import graphlib
import re
import typing as t
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[3]
ROLES = [path.name for path in sorted((TOP / "roles").iterdir()) if (path / "tasks" / "main.yml").exists()]


def imported(path: Path) -> t.Iterator[str]:
    """The names that a file imports when it is loaded; those under TYPE_CHECKING are not."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ["lab", "plugins/module_utils"])
def test_no_import_circle(package: str) -> None:
    prefix = "lab" if package == "lab" else "ansible_collections.screwdriver.kata.plugins.module_utils"
    files = {
        ".".join((prefix, *path.relative_to(TOP / package).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in (TOP / package).rglob("*.py")
    }
    graph = {name: [other for other in imported(path) if other in files and other != name] for name, path in files.items()}
    assert any(graph.values())
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("role", ROLES)
def test_the_main_tasks_are_a_table_of_contents(role: str) -> None:
    assert len((TOP / "roles" / role / "tasks" / "main.yml").read_text().splitlines()) <= 40


def test_the_tables_of_contributing_point_at_files() -> None:
    rows = [line for line in (TOP / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    top = "|".join(path.name for path in TOP.iterdir() if path.is_dir())
    named = [word for row in rows for word in re.findall(rf"`((?:{top})/[\w./-]*)`", row)]
    assert len(named) > 15
    assert [name for name in named if not (TOP / name).exists()] == []


def facts(tasks: t.Any) -> t.Iterator[str]:
    for task in tasks or []:
        yield from task.get("ansible.builtin.set_fact", {})
        for part in ("block", "rescue", "always"):
            yield from facts(task.get(part))


def test_what_a_run_finds_is_not_what_a_node_was_asked_to_be() -> None:
    """Otherwise the next run would drain the node: role node compares the variables of these roles with those of the last proof."""
    names = yaml.safe_load((TOP / "roles" / "node" / "vars" / "main.yml").read_text())["__node_asked_names"]
    asked, ignored = (re.search(rf"{word}', '([^']*)'", names) for word in ("varnames", "search"))
    assert asked
    assert ignored
    found = {name for path in TOP.glob("roles/*/tasks/*.yml") for name in facts(yaml.safe_load(path.read_text()))}
    assert "node_proof_result" in found
    assert [name for name in sorted(found) if re.search(asked[1], name) and not re.search(ignored[1], name)] == []
