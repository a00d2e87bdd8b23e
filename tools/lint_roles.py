"""Checks every role's argument specs against its defaults and the shared ones of role names: the same variables, the same values."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[1]
# Defaults that other roles depend on: it has no entry point.
SHARED = TOP / "roles" / "names"


def variables(role: Path) -> dict[str, t.Any]:
    return yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}


def depends_on_names(role: Path) -> bool:
    meta = role / "meta" / "main.yml"
    dependencies = yaml.safe_load(meta.read_text()).get("dependencies", []) if meta.exists() else []
    return {"role": "screwdriver.kata.names"} in dependencies


def problems(role: Path) -> t.Iterator[str]:
    defaults = variables(role)
    shared = variables(SHARED) if depends_on_names(role) else {}
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    entry_points = {path.stem for path in (role / "tasks").glob("*.yml") if not path.stem.startswith("_")}
    if missing := entry_points - specs.keys():
        yield f"{role.name}: tasks without an argument spec: {', '.join(sorted(missing))} (a leading _ makes a file private)"
    if unknown := specs.keys() - entry_points:
        yield f"{role.name}: argument specs without tasks: {', '.join(sorted(unknown))}"
    options = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
    for name in sorted(options.keys() | defaults.keys()):
        if name not in options:
            yield f"{role.name}: {name} has a default and no argument spec"
        elif name in shared and name not in defaults:
            if options[name].get("default") != shared[name]:
                yield f"{role.name}: {name} is {shared[name]!r} in role names and {options[name].get('default')!r} in the argument spec"
        elif name not in defaults:
            if not options[name].get("required") and "default" in options[name]:
                yield f"{role.name}: {name} has a default in the argument spec alone"
        elif options[name].get("default") != defaults[name]:
            yield f"{role.name}: {name} is {defaults[name]!r} in defaults and {options[name].get('default')!r} in the argument spec"


def main() -> int:
    found = [problem for role in sorted((TOP / "roles").glob("*/")) if role != SHARED for problem in problems(role)]
    print("\n".join(found) or f"{len(list((TOP / 'roles').glob('*/')))} roles: argument specs and defaults agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
