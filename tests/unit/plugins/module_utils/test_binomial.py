"""The tails that the gate computes, beside scipy's."""

from __future__ import annotations

import math

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.binomial import log_at_most, more_by_chance
from scipy.stats import binom, fisher_exact


@pytest.mark.parametrize("builds", [1, 7, 60, 1000, 40000])
@pytest.mark.parametrize("ratio", [1e-6, 0.002, 0.05, 0.5, 0.9, 1 - 1e-9])
def test_at_most(builds: int, ratio: float) -> None:
    for hits in {0, 1, builds // 20, builds // 2, builds - 1, builds} & set(range(builds + 1)):
        expected = float(binom.logcdf(hits, builds, ratio))
        # scipy has no number below the least float.
        assert log_at_most(hits, builds, ratio) == pytest.approx(expected, rel=1e-9, abs=1e-11) or expected < -700


def test_at_most_has_ends_and_does_not_underflow() -> None:
    assert log_at_most(0, 40000, 1.0) == -math.inf
    assert log_at_most(0, 40000, 0.0) == 0
    assert log_at_most(0, 40000, 0.5) == pytest.approx(40000 * math.log(0.5))


@pytest.mark.parametrize("one", [(0, 5), (3, 3), (4, 90), (30, 400)])
@pytest.mark.parametrize("other", [(0, 1), (1, 40), (7, 7), (200, 9000)])
def test_more_by_chance(one: tuple[int, int], other: tuple[int, int]) -> None:
    table = [(hits, builds - hits) for hits, builds in (one, other)]
    assert more_by_chance(one, other) == pytest.approx(float(fisher_exact(table, alternative="greater").pvalue), rel=1e-9)
