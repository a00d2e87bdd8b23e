# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Evidence that keeps its promise however often it is evaluated: mixture e-values for ratios, in natural logarithms. Pure.

The method of mixtures is Robbins' (Annals of Mathematical Statistics 41(5), 1970); the form is that of Howard, Ramdas, McAuliffe and Sekhon
(Annals of Statistics 49(2), 2021). Where the ratio is at most the limit, an e-value ever reaches 1 / alpha with a probability of at most
alpha.
"""

from __future__ import annotations

import math
from functools import lru_cache

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.binomial import log_at_most

# What ratios are weighted with: the second parameters of Beta distributions whose first one is 1, each as much as the others. Failures are
# rare, or any ratio is as likely as another.
FAILURE_PRIOR = (10, 1)
# Any ratio is as likely as another.
FLAT_PRIOR = (1,)
# The results stay finite, since JSON has no infinity. e**-50 is no evidence, e**700 is certainty.
LEAST, MOST = -50.0, 700.0
# How often the range is narrowed in which the least product lies, by the golden ratio each time.
NARROWINGS = 10
# How often the range of a bound is halved: as often as a float has bits.
HALVINGS = 53
GOLDEN = (math.sqrt(5) - 1) / 2


def log_above(hits: int, builds: int, limit: float, prior: tuple[int, ...] = FAILURE_PRIOR) -> float:
    """The log e-value against "the ratio is at most the limit".

    Args:
        hits: Builds that have the property in question, such as a failed start.
        builds: All builds.
        limit: The ratio, from 0 to 1.
        prior: How the ratios above the limit are weighted.

    Returns:
        From ``LEAST`` to ``MOST``; 0 where there is no ratio above the limit.
    """
    if limit >= 1:
        return 0.0
    if limit <= 0:
        return MOST if hits else 0.0
    likelihood = hits * math.log(limit) + (builds - hits) * math.log1p(-limit)
    parts = []
    for b in prior:
        # The part of the Beta distribution above the limit, which is a tail of a binomial one, since its parameters are whole.
        tail = log_at_most(hits, builds + b, limit)
        parts.append(_log_beta(1 + hits, b + builds - hits) + math.log(b) + tail - b * math.log1p(-limit) - likelihood)
    return _bounded(_log_mean(parts, len(prior)))


def log_below(hits: int, builds: int, limit: float) -> float:
    """The log e-value against "the ratio is at least the limit". Any ratio below it is as likely as another."""
    return log_above(builds - hits, builds, 1 - limit, FLAT_PRIOR)


def log_worse(one: tuple[int, int], other: tuple[int, int], limit: float, increase: float) -> float:
    """The log e-value against "the ratio of one is at most the limit, or at most the increase above that of the other".

    For each ratio that the other may have, the e-value of one beyond what that allows, times an e-value of the other against it, is an
    e-value. The least of these products is one whatever the other's ratio is.

    Args:
        one: Hits and builds.
        other: Those of what it is compared with, at the same time.
        limit: The ratio that one may have in any case, from 0 to 1.
        increase: How much greater than the other's its ratio may be.

    Returns:
        From ``LEAST`` to ``MOST``; 0 without builds of the other, with which nothing can be compared.
    """
    hits, builds = other
    if not builds or limit >= 1:
        return 0.0
    mixed = _log_mean([_log_beta(1 + hits, b + builds - hits) + math.log(b) for b in FAILURE_PRIOR], len(FAILURE_PRIOR))

    def product(ratio: float) -> float:
        against = mixed - (hits * math.log(ratio) if hits else 0.0) - ((builds - hits) * math.log1p(-ratio) if hits < builds else 0.0)
        # Half of it is 1, so that a ratio that fits the other costs no more than that.
        return log_above(*one, max(limit, ratio + increase)) + _log_mean([0.0, against], 2)

    # Below the other's own ratio the product grows again, and where one's own ratio is allowed there is nothing left to prove.
    low = hits / builds
    high = min((one[0] / one[1] if one[1] else 0.0) - increase, math.nextafter(1, 0))
    if high <= low:
        return _bounded(product(low))
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    values = [product(ratio) for ratio in inner]
    least = min(product(low), product(high), *values)
    for _narrowing in range(NARROWINGS):
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            at = 0
            inner[0] = high - GOLDEN * (high - low)
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            at = 1
            inner[1] = low + GOLDEN * (high - low)
        values[at] = product(inner[at])
        least = min(least, values[at])
    return _bounded(least)


@lru_cache(64)
def upper_bound(hits: int, builds: int, alpha: float) -> float:
    """A bound that the ratio ever exceeds with a probability of at most alpha, at whatever times it is computed. 1 without builds."""
    if not builds or hits == builds:
        return 1.0
    mixed = _log_beta(1 + hits, 1 + builds - hits) + math.log(alpha)

    def excess(ratio: float) -> float:
        return mixed - hits * math.log(ratio) - (builds - hits) * math.log1p(-ratio)

    low, high = hits / builds or 1e-12, math.nextafter(1, 0)
    if excess(high) <= 0:
        return 1.0
    for _halving in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return high


def is_below(hits: int, builds: int, ratio: float, level: float) -> bool:
    """Whether so few hits are no more likely than the level where the ratio is this great. A test for a single look, for pauses alone."""
    return math.exp(log_at_most(hits, builds, ratio)) <= level


def log_mean(values: list[float], steps: int) -> float:
    """The log of the mean e-value over a rollout, in which each step that has not begun yet counts as 1.

    Args:
        values: The log e-values of the steps so far.
        steps: How many steps the rollout has.
    """
    ahead = max(0, steps - len(values))
    greatest = max(values, default=0.0)
    mean = sum(math.exp(value - greatest) for value in values) + ahead * math.exp(-max(greatest, LEAST))
    return greatest + math.log(mean) - math.log(len(values) + ahead)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_mean(logs: list[float], count: int) -> float:
    """The log of the sum of these, by their logs, over the count."""
    greatest = max(logs)
    return greatest + math.log(sum(math.exp(one - greatest) for one in logs) / count)


def _bounded(value: float) -> float:
    return min(max(value, LEAST), MOST)
