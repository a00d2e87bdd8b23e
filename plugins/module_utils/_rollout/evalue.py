# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Evidence that keeps its promise however often it is looked at: mixture e-values for a ratio, in natural logarithms. Pure.

The method of mixtures is Robbins' (Annals of Mathematical Statistics 41(5), 1970); the form is that of Howard, Ramdas, McAuliffe and Sekhon
(Annals of Statistics 49(2), 2021). Where the ratio is at most the limit, an e-value ever reaches 1 / alpha with a probability of at most
alpha.
"""

from __future__ import annotations

import math
import traceback

try:
    from scipy.optimize import brentq
    from scipy.special import betaincc, betaln

    SCIPY_TRACEBACK = None
except ImportError:
    SCIPY_TRACEBACK = traceback.format_exc()

# The Beta distribution that the alternatives are weighted with: failures are rare, so most of it lies at small ratios.
FAILURE_PRIOR = (1.0, 10.0)
# Any ratio is as likely as another.
FLAT_PRIOR = (1.0, 1.0)
# The results stay finite, since JSON has no infinity. e**-50 is no evidence, e**700 is certainty.
LEAST, MOST = -50.0, 700.0


def log_above(hits: int, builds: int, limit: float, prior: tuple[float, float] = FAILURE_PRIOR) -> float:
    """The log e-value against "the ratio is at most the limit".

    Args:
        hits: Builds that have the property in question, such as a failed start.
        builds: All builds.
        limit: The ratio, from 0 to 1.
        prior: The Beta distribution of the ratios above the limit.

    Returns:
        From ``LEAST`` to ``MOST``; 0 where there is no ratio above the limit.
    """
    if limit >= 1:
        return 0.0
    if limit <= 0:
        return MOST if hits else 0.0
    a, b = prior
    tail = betaincc(a + hits, b + builds - hits, limit)
    if tail <= 0:
        return LEAST
    likelihood = hits * math.log(limit) + (builds - hits) * math.log1p(-limit)
    value = betaln(a + hits, b + builds - hits) + math.log(tail) - betaln(a, b) - math.log(betaincc(a, b, limit)) - likelihood
    return min(max(float(value), LEAST), MOST)


def log_below(hits: int, builds: int, limit: float, prior: tuple[float, float] = FLAT_PRIOR) -> float:
    """The log e-value against "the ratio is at least the limit"."""
    a, b = prior
    return log_above(builds - hits, builds, 1 - limit, (b, a))


def upper_bound(hits: int, builds: int, alpha: float, prior: tuple[float, float] = FAILURE_PRIOR) -> float:
    """A bound that the ratio ever exceeds with a probability of at most alpha, at whatever times it is computed. 1 without builds."""
    if not builds or hits == builds:
        return 1.0
    a, b = prior
    mixed = float(betaln(a + hits, b + builds - hits) - betaln(a, b)) + math.log(alpha)

    def excess(ratio: float) -> float:
        return mixed - hits * math.log(ratio) - (builds - hits) * math.log1p(-ratio)

    end = math.nextafter(1, 0)
    return float(brentq(excess, hits / builds or 1e-12, end)) if excess(end) > 0 else 1.0


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
