"""What a controller needs is said in one way: by each module and filter, the list for pip, and the files of other tools."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
# Distributions by what is imported of them.
DISTRIBUTIONS = {"yaml": "PyYAML", "regress": "regress", "tomli_w": "tomli-w", "kubernetes": "kubernetes"}
PLUGINS = [path for kind in ("modules", "filter") for path in sorted((TOP / "plugins" / kind).glob("[!_]*.py"))]
OWN = "ansible_collections.screwdriver.kata.plugins.module_utils"


def imported(path: Path, seen: set[Path] | None = None) -> set[str]:
    """The libraries that a plugin imports, with those of the module_utils that it uses."""
    seen = set() if seen is None else seen
    if path in seen or not path.exists():
        return set()
    seen.add(path)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A name may be a module of its own.
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name.split(".")[0] for name in names} & DISTRIBUTIONS.keys()
        for name in names:
            if name.startswith(OWN):
                found |= imported(TOP / "plugins/module_utils" / (name.removeprefix(OWN).lstrip(".").replace(".", "/") + ".py"), seen)
    return found


def documented(path: Path) -> set[str]:
    """The distributions that the documentation of a plugin lists, with those of the fragment of modules that call the API server."""
    found = re.search(r'DOCUMENTATION = r"""\n(.*?)"""', path.read_text(), re.DOTALL)
    assert found, path
    text = yaml.safe_load(found[1])
    listed = {re.split(r"[ ><=]", entry)[0] for entry in text.get("requirements", [])}
    if any("actiongroup_k8s" in fragment for fragment in text.get("extends_documentation_fragment", [])):
        listed.add("kubernetes")
    return listed


@pytest.mark.parametrize("path", PLUGINS, ids=[path.stem for path in PLUGINS])
def test_each_plugin_lists_what_it_imports(path: Path) -> None:
    assert documented(path) == {DISTRIBUTIONS[name] for name in imported(path)}


def test_the_fragment_lists_kubernetes() -> None:
    text = (TOP / "plugins/doc_fragments/_attributes.py").read_text()
    assert "requirements:\n  - kubernetes >= 29.0.0\n" in text.split("ACTIONGROUP_K8S")[1].split('"""')[1]


def test_the_lists_agree() -> None:
    galaxy = yaml.safe_load((TOP / "galaxy.yml").read_text())["dependencies"]
    collections = yaml.safe_load((TOP / "requirements.yml").read_text())["collections"]
    assert {entry["name"]: entry["version"] for entry in collections} == galaxy
    lines = [line for line in (TOP / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert {re.split(r"[><=]", line)[0] for line in lines} == set(DISTRIBUTIONS.values())
    environment = yaml.safe_load((TOP / "meta/execution-environment.yml").read_text())["dependencies"]
    assert all((TOP / name).exists() for name in environment.values())
