# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The e-values compared with numerical integrals, and their promise on seeded streams that are evaluated after each build."""

from __future__ import annotations

import math

import numpy
import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import evalue
from scipy.integrate import quad
from scipy.special import beta as beta_function


@pytest.mark.parametrize("hits, builds", [(0, 0), (0, 40), (1, 1), (3, 15), (10, 60), (40, 40)])
@pytest.mark.parametrize("limit", [0.005, 0.02, 0.3])
def test_an_e_value_is_the_mean_likelihood_ratio_above_the_limit(hits: int, builds: int, limit: float) -> None:
    def likelihood(ratio: float) -> float:
        return ratio**hits * (1 - ratio) ** (builds - hits)

    expected = []
    for b in (10, 1):

        def prior(ratio: float, b: int = b) -> float:
            return b * (1 - ratio) ** (b - 1)

        mixed, whole = (quad(density, limit, 1, limit=200)[0] for density in (lambda p: prior(p) * likelihood(p), prior))
        expected.append(mixed / whole / likelihood(limit))
    assert evalue.log_above(hits, builds, limit) == pytest.approx(math.log(sum(expected) / 2), abs=1e-5)


def test_an_e_value_below_a_limit_mirrors_the_one_above() -> None:
    assert evalue.log_below(3, 50, 0.25) == evalue.log_above(47, 50, 0.75, evalue.FLAT_PRIOR)
    assert evalue.log_below(0, 1000, 0.01) > 5.5
    assert evalue.log_below(10, 1000, 0.01) < 1


def test_the_ends_are_finite() -> None:
    assert evalue.log_above(5, 5, 1.0) == 0
    assert evalue.log_above(1, 5, 0.0) == evalue.MOST
    assert evalue.log_above(0, 5, 0.0) == 0
    # Closed forms of both weights; the tail itself is below the least float.
    assert evalue.log_above(0, 1_000_000, 0.9) == pytest.approx(math.log((10 / 1_000_010 + 1 / 1_000_001) / 2))
    assert evalue.log_above(1_000_000, 1_000_000, 0.5) == evalue.MOST
    assert evalue.log_below(0, 50, 1.0) == evalue.MOST


@pytest.mark.parametrize("hits, builds", [(0, 30), (2, 1000), (500, 1000), (3, 50000)])
def test_a_bound_is_where_the_mixture_reaches_its_threshold(hits: int, builds: int) -> None:
    bound = evalue.upper_bound(hits, builds, 0.004)
    likelihood = hits * math.log(bound) + (builds - hits) * math.log1p(-bound)
    mixed = math.lgamma(1 + hits) + math.lgamma(1 + builds - hits) - math.lgamma(2 + builds)
    assert mixed - likelihood == pytest.approx(math.log(1 / 0.004), abs=1e-6)
    assert bound > hits / builds


def test_no_builds_bound_nothing() -> None:
    assert evalue.upper_bound(0, 0, 0.004) == evalue.upper_bound(4, 4, 0.004) == 1
    assert 0.999 < evalue.upper_bound(999, 1000, 0.004) <= 1


@pytest.mark.parametrize(
    "one, other",
    [((3, 20), (1, 60)), ((8, 8), (0, 20)), ((40, 300), (9, 2000)), ((0, 50), (5, 500)), ((9, 60), (12, 80)), ((6, 9), (4, 4))],
)
def test_an_e_value_of_two_ratios_holds_whatever_the_other_ratio_is(one: tuple[int, int], other: tuple[int, int]) -> None:
    hits, builds = other

    def product(ratio: float) -> float:
        mixed = math.log(sum(beta_function(1 + hits, b + builds - hits) / beta_function(1, b) for b in (10, 1)) / 2)
        against = mixed - hits * math.log(ratio) - (builds - hits) * math.log1p(-ratio)
        return evalue.log_above(*one, max(0.02, ratio + 0.02)) + float(numpy.logaddexp(0, against)) - math.log(2)

    least = min(product(ratio / 5000) for ratio in range(1, 5000))
    found = evalue.log_worse(one, other, 0.02, 0.02)
    assert found == pytest.approx(least, abs=0.02) or max(found, least) < 0


def test_nothing_is_worse_than_nothing() -> None:
    assert evalue.log_worse((8, 8), (0, 0), 0.02, 0.02) == 0
    assert evalue.log_worse((0, 0), (0, 100), 0.02, 0.02) < 0
    assert evalue.log_worse((30, 30), (30, 30), 0.02, 0.02) < 0
    assert evalue.log_worse((30, 30), (0, 100), 1.0, 0.0) == 0
    assert evalue.log_worse((30, 30), (0, 100), 0.5, 0.0) > 6


@pytest.mark.parametrize("failed, other, expected", [(4, 20, True), (3, 20, False), (3, 60, True), (3, 2000, True), (2, 2000, False)])
def test_how_soon_a_total_failure_is_proven(failed: int, other: int, expected: bool) -> None:
    assert (evalue.log_worse((failed, failed), (0, other), 0.02, 0.02) >= math.log(250)) == expected


def test_steps_that_have_not_begun_count_as_one() -> None:
    assert evalue.log_mean([0.0], 1) == 0
    assert evalue.log_mean([math.log(1000), math.log(4)], 4) == pytest.approx(math.log((1000 + 4 + 1 + 1) / 4))
    assert evalue.log_mean([math.log(6)] * 3, 2) == pytest.approx(math.log(6))


@pytest.mark.parametrize("ratio", [0.02, 0.2])
def test_a_ratio_at_the_limit_is_rejected_as_seldom_as_promised(ratio: float) -> None:
    """400 streams of 400 builds, evaluated after each: a fixed test at the same level would reject several times as many."""
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


@pytest.mark.parametrize("legacy", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("part", [0.5, 5.0])
def test_what_is_allowed_beside_the_other_is_rejected_as_seldom_as_promised(legacy: float, part: float) -> None:
    """300 pairs of streams at the edge of what is allowed, evaluated after each hit. part: builds of the other for each of one."""
    random = numpy.random.default_rng(11)
    alpha, rejected, allowed = 0.05, 0, max(0.02, legacy + 0.02)
    for _pair in range(300):
        hits = numpy.cumsum(random.random(200) < allowed)
        others = numpy.cumsum(random.random(int(200 * part) + 1) < legacy)
        for n in numpy.flatnonzero(numpy.diff(hits, prepend=0)):
            beside = int((n + 1) * part)
            other = (int(others[beside - 1]), beside) if beside else (0, 0)
            if evalue.log_worse((int(hits[n]), int(n) + 1), other, 0.02, 0.02) >= math.log(1 / alpha):
                rejected += 1
                break
    assert rejected <= 300 * alpha
