# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulation of benchmarks/gate.py in short: few seeded rollouts, whose outcome is the same on every machine."""

from __future__ import annotations

import importlib.util
import sys
import typing as t
from pathlib import Path

import pytest

SIMULATION = Path(__file__).parents[4] / "benchmarks" / "gate.py"


@pytest.fixture(scope="module")
def simulation() -> t.Any:
    if not SIMULATION.exists():
        pytest.skip("the collection's archive has no benchmarks")
    spec = importlib.util.spec_from_file_location("gate_simulation", SIMULATION)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def outcomes(simulation: t.Any, name: str, rollouts: int, rate: float = 1.0) -> list[t.Any]:
    (cell,) = (cell for cell in simulation.CELLS if cell.name == name and cell.rate == rate)
    return [simulation.run(cell, seed) for seed in range(rollouts)]


@pytest.mark.parametrize(
    "name", ["healthy 0.5 %", "both fail 10 %", "outages of a minute, 2 in the first hour", "one broken pipeline, once a minute"]
)
def test_what_is_not_to_blame_on_kata_is_not_rolled_back(simulation: t.Any, name: str) -> None:
    assert "rolled back" not in {one.end for one in outcomes(simulation, name, 1)}


def test_a_healthy_kata_comes_to_its_end(simulation: t.Any) -> None:
    assert {one.end for one in outcomes(simulation, "healthy 0.2 %", 2)} == {"finished"}


def test_a_bad_node_is_named_before_much_is_lost(simulation: t.Any) -> None:
    found = outcomes(simulation, "one bad node of 20", 2)
    assert all("kata-0" in one.named and one.end == "paused" for one in found)


@pytest.mark.parametrize("name", ["Kata +5 points", "Kata +20 points"])
def test_a_bad_kata_is_stopped_before_a_quarter_of_the_builds(simulation: t.Any, name: str) -> None:
    found = outcomes(simulation, name, 2)
    assert all(one.end != "finished" and one.step < simulation.STEPS.index(25.0) for one in found)


@pytest.mark.parametrize("name", ["half of Kata's builds are dropped", "all of Kata's builds are dropped"])
def test_builds_that_never_arrive_are_missed(simulation: t.Any, name: str) -> None:
    found = outcomes(simulation, name, 1)
    assert all((one.end, one.doubt) in (("rolled back", "share"), ("paused", "evidence")) for one in found)
    assert any(one.end == "rolled back" for one in found) or name.startswith("all")
