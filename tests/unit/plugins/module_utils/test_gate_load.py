# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a build costs the gate as a window fills, in steps of the interpreter, which are the same on every machine."""

from __future__ import annotations

import importlib.util
import sys
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript

BENCHMARK = Path(__file__).parents[4] / "benchmarks" / "gate_load.py"
# Builds whose steps are counted: those up to 1,000, and as many later on.
EARLY, LATE = range(800, 1000), range(5800, 6000)


@pytest.fixture(scope="module")
def benchmark() -> t.Any:
    if not BENCHMARK.exists():
        pytest.skip("the collection's archive has no benchmarks")
    spec = importlib.util.spec_from_file_location("gate_load", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Steps:
    """Counts the bytecodes that run."""

    def __init__(self) -> None:
        self.count = 0

    def trace(self, frame: types.FrameType, event: str, argument: t.Any) -> t.Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.count += event == "opcode"
        return self.trace


@pytest.mark.parametrize("images", [30, 6000])
def test_a_build_costs_the_same_however_many_came_before(benchmark: t.Any, images: int) -> None:
    seen, steps = benchmark.observation(), {EARLY: Steps(), LATE: Steps()}
    before = sys.gettrace()
    for number in range(LATE.stop):
        life = benchmark.lives(number, benchmark.image(number, images))
        part = next((part for part in steps if number in part), None)
        if part:
            sys.settrace(steps[part].trace)
        try:
            benchmark.take(seen, number, life)
        finally:
            sys.settrace(before)
    assert steps[EARLY].count > 1000 * len(EARLY)
    # The terms of a binomial sum are a few more.
    assert steps[LATE].count < 1.05 * steps[EARLY].count


def test_images_that_never_come_again_do_not_fill_the_memory() -> None:
    for number in range(3 * _javascript.MAX_CACHED_MATCHES):
        assert not _javascript.matches("rhel6", f"image-{number}")
    assert _javascript._matches.cache_info().currsize == _javascript.MAX_CACHED_MATCHES
