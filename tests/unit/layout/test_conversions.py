# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables of -e and of INI inventories are text: whatever reads a bool or a number of a role converts it."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).parents[3]
SPECS = [yaml.safe_load(path.read_text())["argument_specs"] for path in TOP.glob("roles/*/meta/argument_specs.yml")]
TYPED = {
    name
    for spec in SPECS
    for entry_point in spec.values()
    for name, option in entry_point.get("options", {}).items()
    if option.get("type") in ("bool", "int", "float")
}
# Keys whose values are expressions without braces.
BARE = {"when", "that", "until", "changed_when", "failed_when"}
FILES = [
    path
    for pattern in ("roles/*/tasks/*.yml", "roles/*/vars/**/*.yml", "roles/*/handlers/*.yml", "playbooks/**/*.yml")
    for path in sorted(TOP.glob(pattern))
]
TEMPLATES = sorted(TOP.glob("roles/*/templates/*"))


def expressions(text: str) -> list[str]:
    return [found.strip() for found in re.findall(r"\{[{%][-+]?(.*?)[-+]?[%}]\}", text, re.DOTALL)]


def walk(value: t.Any, key: str = "") -> t.Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from walk(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item, key)
    elif isinstance(value, str):
        # A condition uses what it names, also where it names nothing else.
        yield from [f"({value})"] if key in BARE and "{{" not in value else expressions(value)


def unconverted(expression: str) -> list[str]:
    """The typed variables of an expression that are used as they are. One that is printed or passed on as a whole need not be converted."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "''", expression)
    if re.fullmatch(r"\w+", bare):
        return []
    converted = r"(?!\s*\|\s*(?:default\([^()]*\)\s*\|\s*)?(?:bool|int|float|string)\b)"
    # What a tilde joins to a text is printed.
    joined = r"(?<!~ )"
    names = re.findall(rf"(?<![\w.]){joined}(\w+)\b(?!\s*[=(](?!=)){converted}", bare)
    return [name for name in names if name in TYPED]


@pytest.mark.parametrize("path", [*FILES, *TEMPLATES], ids=lambda path: str(path.relative_to(TOP)))
def test_typed_variables_are_converted_where_they_are_used(path: Path) -> None:
    text = path.read_text()
    found = expressions(text) if path in TEMPLATES else list(walk(yaml.safe_load(text)))
    assert [(expression, names) for expression in found if (names := unconverted(expression))] == []


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("thin_pool_watch", []),
        ("(thin_pool_watch)", ["thin_pool_watch"]),
        ("not thin_pool_watch", ["thin_pool_watch"]),
        ("not thin_pool_watch | bool", []),
        ("'x' if thin_pool_watch else 'thin_pool_watch'", ["thin_pool_watch"]),
        ("node_proof_timeout * 2", ["node_proof_timeout"]),
        ("node_proof_timeout | int * 2", []),
        ("node_adopted | default(false) | bool and true", []),
        ("'after ' ~ node_proof_timeout ~ ' s'", []),
    ],
)
def test_what_is_not_converted_is_found(expression: str, names: list[str]) -> None:
    assert unconverted(expression) == names
