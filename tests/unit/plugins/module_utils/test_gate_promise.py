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
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def outcomes(simulation: t.Any, name: str, rollouts: int, rate: float = 1.0) -> list[t.Any]:
    (cell,) = (cell for cell in simulation.CELLS if cell.name == name and cell.rate == rate)
    return [simulation.run(cell, simulation.seed_of(cell, number)) for number in range(rollouts)]


@pytest.mark.parametrize(
    "name",
    ["healthy 0.5 %", "both fail 10 %", "three failures in a row, 15 % a step", "outages of a minute, 2 in the first hour"],
)
def test_what_is_not_to_blame_on_kata_is_not_rolled_back(simulation: t.Any, name: str) -> None:
    assert "rolled back" not in {one.end for one in outcomes(simulation, name, 3)}


def test_a_healthy_kata_comes_to_its_end(simulation: t.Any) -> None:
    assert {one.end for one in outcomes(simulation, "healthy 0.2 %", 3)} == {"finished"}


@pytest.mark.parametrize("name", ["one bad node of 20", "one image fails on Kata alone"])
def test_what_is_bad_is_named_before_many_builds_move(simulation: t.Any, name: str) -> None:
    found = outcomes(simulation, name, 4)
    assert all(one.end == "paused" and one.step < simulation.STEPS.index(25.0) for one in found)
    assert all(one.named for one in found if one.hits >= simulation.HITS)
    assert any(one.named for one in found)


def test_a_pipeline_that_fails_everywhere_stops_nothing(simulation: t.Any) -> None:
    assert all(one.end == "finished" and one.named for one in outcomes(simulation, "one broken pipeline, once a minute", 2))


@pytest.mark.parametrize("name, rate", [("Kata +5 points", 1.0), ("Kata +5 points", 0.2), ("Kata +20 points", 1.0)])
def test_a_bad_kata_is_stopped_before_a_quarter_of_the_builds(simulation: t.Any, name: str, rate: float) -> None:
    found = outcomes(simulation, name, 3, rate)
    assert all(one.end != "finished" and one.step < simulation.STEPS.index(25.0) for one in found)


def test_a_kata_that_fails_all_is_rolled_back_after_a_handful(simulation: t.Any) -> None:
    found = outcomes(simulation, "Kata fails all", 5)
    assert all((one.end, one.step) == ("rolled back", 0) and one.failed <= 10 for one in found)


@pytest.mark.parametrize("name", ["half of Kata's builds are dropped", "all of Kata's builds are dropped"])
def test_builds_that_never_arrive_are_missed(simulation: t.Any, name: str) -> None:
    found = outcomes(simulation, name, 1)
    assert all((one.end, one.doubt) in (("rolled back", "share"), ("paused", "evidence")) for one in found)
    assert any(one.end == "rolled back" for one in found) or name.startswith("all")


def test_an_interrupted_simulation_continues(simulation: t.Any, tmp_path: Path, capsys: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results.jsonl"
    for rollouts in ("1", "2"):
        arguments = ["gate", "--cells", "Kata fails all", "--rate", "1", "--rollouts", rollouts, "--results", str(results)]
        monkeypatch.setattr(sys, "argv", arguments)
        simulation.main()
    assert len(results.read_text().splitlines()) == 2
    assert capsys.readouterr().out.splitlines()[-1].split()[:8] == ["Kata", "fails", "all", "1", "2", "100.0", "(15.8-100.0)", "0.0"]
