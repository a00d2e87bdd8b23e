"""What a newcomer's controller may lack, each in one sentence with what to do."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible_collections.screwdriver.kata.plugins.filter import controller_problems as module

if t.TYPE_CHECKING:
    import pytest


def problems(*sources: str, kubeconfig: str = "") -> list[str]:
    return module.controller_problems(list(sources), "/srv/requirements.txt", "/venv/bin/python", kubeconfig)


def test_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text("")
    assert problems(str(tmp_path / "inventory.yml"), "build-1,", "/etc/ansible/hosts", kubeconfig=str(tmp_path / "inventory.yml")) == []


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIBRARIES", {"PyYAML": "yaml", "one-of-these": "no_such_module", "two": "nor_this"})
    assert problems() == [
        "The controller lacks the Python libraries one-of-these, two: run '/venv/bin/python -m pip install -r /srv/requirements.txt'."
    ]


def test_every_requirement_is_looked_for() -> None:
    """The collection's own list has no library that nothing looks for."""
    lines = (Path(__file__).parents[4] / "requirements.txt").read_text().splitlines()
    assert {re.split(r"[><=;]", line)[0] for line in lines if not line.startswith("#")} == set(module.LIBRARIES)


def test_inventory_and_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems("/srv/inventory.yml") == [
        "The inventory /srv/inventory.yml does not exist: create it with your hosts in the group kata_nodes, or name another one with -i."
    ]
    assert problems(kubeconfig="/srv/config") == [
        "K8S_AUTH_KUBECONFIG names /srv/config, which does not exist: set it to the kubeconfig of the build cluster."
    ]
    assert problems(kubeconfig="config") == [f"K8S_AUTH_KUBECONFIG is config, which is not an absolute path: set it to {tmp_path}/config."]
