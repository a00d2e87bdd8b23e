# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The e-values against integrals computed here another way, and their promise on seeded streams that are looked at all the time."""

from __future__ import annotations

import math

import numpy
import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import evalue
from scipy.integrate import quad


@pytest.mark.parametrize("hits, builds", [(0, 0), (0, 40), (1, 1), (3, 15), (10, 60), (40, 40)])
@pytest.mark.parametrize("limit", [0.005, 0.02, 0.3])
def test_an_e_value_is_the_mean_likelihood_ratio_above_the_limit(hits: int, builds: int, limit: float) -> None:
    def prior(ratio: float) -> float:
        return 10 * (1 - ratio) ** 9

    def likelihood(ratio: float) -> float:
        return ratio**hits * (1 - ratio) ** (builds - hits)

    mixed, whole = (quad(density, limit, 1, limit=200)[0] for density in (lambda p: prior(p) * likelihood(p), prior))
    expected = mixed / whole / likelihood(limit)
    assert evalue.log_above(hits, builds, limit) == pytest.approx(math.log(expected), abs=1e-5)


def test_an_e_value_below_a_limit_mirrors_the_one_above() -> None:
    assert evalue.log_below(3, 50, 0.25) == evalue.log_above(47, 50, 0.75, (1, 1))
    assert evalue.log_below(0, 1000, 0.01) > 5.5
    assert evalue.log_below(10, 1000, 0.01) < 1


def test_the_ends_are_finite() -> None:
    assert evalue.log_above(5, 5, 1.0) == 0
    assert evalue.log_above(1, 5, 0.0) == evalue.MOST
    assert evalue.log_above(0, 5, 0.0) == 0
    assert evalue.log_above(0, 1_000_000, 0.9) == evalue.LEAST
    assert evalue.log_above(1_000_000, 1_000_000, 0.5) == evalue.MOST
    assert evalue.log_below(0, 50, 1.0) == evalue.MOST


@pytest.mark.parametrize("hits, builds", [(0, 30), (2, 1000), (500, 1000), (3, 50000)])
def test_a_bound_is_where_the_mixture_reaches_its_threshold(hits: int, builds: int) -> None:
    bound = evalue.upper_bound(hits, builds, 0.004)
    likelihood = hits * math.log(bound) + (builds - hits) * math.log1p(-bound)
    mixed = math.lgamma(1 + hits) + math.lgamma(10 + builds - hits) - math.lgamma(11 + builds) + math.log(10)
    assert mixed - likelihood == pytest.approx(math.log(1 / 0.004), abs=1e-6)
    assert bound > hits / builds


def test_no_builds_bound_nothing() -> None:
    assert evalue.upper_bound(0, 0, 0.004) == evalue.upper_bound(4, 4, 0.004) == 1
    assert 0.999 < evalue.upper_bound(999, 1000, 0.004) <= 1


def test_steps_that_have_not_begun_count_as_one() -> None:
    assert evalue.log_mean([0.0], 1) == 0
    assert evalue.log_mean([math.log(1000), math.log(4)], 4) == pytest.approx(math.log((1000 + 4 + 1 + 1) / 4))
    assert evalue.log_mean([math.log(6)] * 3, 2) == pytest.approx(math.log(6))


@pytest.mark.parametrize("ratio", [0.02, 0.2])
def test_a_ratio_at_the_limit_is_rejected_as_seldom_as_promised(ratio: float) -> None:
    """400 streams of 400 builds, looked at after each: a fixed test at the same level would reject several times as many."""
    random = numpy.random.default_rng(7)
    alpha, rejected, exceeded = 0.05, 0, 0
    for _stream in range(400):
        hits = numpy.cumsum(random.random(400) < ratio)
        # A value changes upwards with a hit alone, and a bound is exceeded without one alone.
        at = numpy.flatnonzero(numpy.diff(hits, prepend=0))
        rejected += any(evalue.log_above(int(hits[n]), int(n) + 1, ratio) >= math.log(1 / alpha) for n in at)
        before = [int(n) for n in at if n] + [400]
        exceeded += any(evalue.upper_bound(int(hits[n - 1]), n, alpha) < ratio for n in before)
    assert rejected <= 400 * alpha
    assert exceeded <= 400 * alpha
