# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Tails of the binomial and the hypergeometric distribution, summed term by term. Pure.

The gate needs these few numbers alone, and a scientific library would be two thirds of what the controller has to install. The unit tests
compare them with scipy's.
"""

from __future__ import annotations

import math
import typing as t

# A term so much smaller than the sum, and all that follow it, change nothing.
NEGLIGIBLE = 2.0**-60


def _log_choose(total: int, part: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(part + 1) - math.lgamma(total - part + 1)


def _sum(ratios: t.Iterator[float]) -> float:
    """1 plus the products of more and more of the ratios, each of which is at most 1."""
    total = term = 1.0
    for ratio in ratios:
        term *= ratio
        total += term
        if term < NEGLIGIBLE * total:
            break
    return total


def log_at_most(hits: int, builds: int, ratio: float) -> float:
    """The log of the probability of at most so many hits among the builds.

    Args:
        hits: From 0 on.
        builds: At least the hits.
        ratio: The probability of each hit.

    Returns:
        Without underflow where the probability is below the least float.
    """
    if hits >= builds or ratio <= 0:
        return 0.0
    if ratio >= 1:
        return -math.inf
    odds = ratio / (1 - ratio)

    def log_exactly(count: int) -> float:
        return _log_choose(builds, count) + count * math.log(ratio) + (builds - count) * math.log1p(-ratio)

    # The side that the mean is not on, since its terms only become smaller.
    if hits < builds * ratio:
        return log_exactly(hits) + math.log(_sum(count / (builds - count + 1) / odds for count in range(hits, 0, -1)))
    above = log_exactly(hits + 1) + math.log(_sum((builds - count) / (count + 1) * odds for count in range(hits + 1, builds)))
    return math.log1p(-min(math.exp(above), 1 - NEGLIGIBLE))


def more_by_chance(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Fisher's exact test: how likely one has at least so many hits, were hits as likely in both.

    Args:
        one: Hits and builds.
        other: Those of what it is compared with.
    """
    hits, total = one[0] + other[0], one[1] + other[1]
    whole = _log_choose(total, one[1])
    counts = range(one[0], min(hits, one[1]) + 1)
    return min(1.0, sum(math.exp(_log_choose(hits, count) + _log_choose(total - hits, one[1] - count) - whole) for count in counts))
