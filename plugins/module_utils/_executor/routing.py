# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How screwdriver-executor-router picks an executor, and the weightages that make it pick as asked.

The one place that knows these rules (index.js of the router, 5.0.0): a build's annotation first; then a draw by weightage among
the executors that do not exclude the build's image; then C(plugin), exclusions or not. Shares here are those of builds without
an annotation.
"""

from __future__ import annotations

import math
import typing as t
from decimal import Decimal
from fractions import Fraction

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import unknowns
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import PatternError, integer, matches, number

# npm modules screwdriver-executor-<name> that buildcluster-queue-worker 5 depends on; an entry of another name is dropped at load.
PLUGINS = ("k8s", "k8s-vm")
# Entries that the worker's own default.yaml has, whatever local.yaml has.
SHIPPED = ("k8s", "k8s-sandbox", "k8s-vm")
# Smallest sum of two weightages that expresses a share of 0, 1 and 2 decimals.
SCALES = (100, 1000, 10000)

Entries = dict[str, dict[str, t.Any]]


def entries(section: t.Mapping[str, t.Any]) -> Entries:
    """The executors of an ``executor:`` section: every key but plugin. One without a map has no options to the worker."""
    return {name: dict(entry) if isinstance(entry, t.Mapping) else {} for name, entry in section.items() if name != "plugin"}


def plugin_name(name: str, entry: t.Mapping[str, t.Any]) -> str:
    """The npm module that serves an entry, without its prefix."""
    return str(entry.get("pluginName") or name)


def loaded(section: t.Mapping[str, t.Any]) -> Entries:
    """The executors that the router really has: those whose npm module can be required."""
    return {name: entry for name, entry in entries(section).items() if plugin_name(name, entry) in PLUGINS}


def weightages(section: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Each executor's weightage as it stands in the section; 0 where none does."""
    return {name: entry.get("weightage", 0) for name, entry in entries(section).items()}


def is_excluded(entry: t.Mapping[str, t.Any], image: str | None) -> bool:
    """Whether an executor is left out for an image; None stands for an image that no pattern names.

    Raises:
        PatternError: the router's rule throws here: C(exclusions) is not a list, or a pattern is not valid.
    """
    exclusions = entry.get("exclusions")
    if not exclusions and not isinstance(exclusions, (list, dict)):
        return False
    if not isinstance(exclusions, list):
        raise PatternError(f"exclusions is a {type(exclusions).__name__} and not a list")
    # Every pattern is compiled until one matches, so an invalid one after a match goes unseen, as in the router.
    if image is None:
        for item in exclusions:
            matches(item, "")
        return False
    return any(matches(item, image) for item in exclusions)


def shares(section: t.Mapping[str, t.Any], image: str | None = None) -> dict[str, Fraction]:
    """Each executor's probability for a build of an image (0 to 1); None: an image that no exclusion names.

    A name that is no loaded executor can be in it: the router takes ``plugin`` unseen, and such builds fail.
    """
    executors = loaded(section)
    require_known(section)
    result = {name: Fraction(0) for name in executors}
    try:
        allowed = {name: entry for name, entry in executors.items() if not is_excluded(entry, image)}
        drawn = _draw({name: entry.get("weightage") for name, entry in allowed.items()})
    except PatternError:
        # The router logs what a rule throws and continues with the next rule.
        drawn = {}
    if not drawn and (fallback := section.get("plugin") or next(iter(executors), None)):
        drawn = {str(fallback): Fraction(1)}
    return {**result, **drawn}


def _draw(weights: dict[str, t.Any]) -> dict[str, Fraction]:
    # number = floor(random * total), random in [0, 1); for an integer s, floor(x) < s exactly where x < s.
    summed = sum(number(weight) for weight in weights.values())
    if not summed or not weights:
        return {}
    first = next(iter(weights))
    # No sum is above an infinite number, nor above one that is none.
    if not math.isfinite(summed):
        return {first: Fraction(1)}
    total = Fraction(summed)
    result: dict[str, Fraction] = {}
    covered, reached = Fraction(0), 0
    for name, weight in weights.items():
        reached += integer(weight)
        below = Fraction(reached) / total
        below = min(max(below if total > 0 else 1 - below, Fraction(0)), Fraction(1))
        result[name] = max(below - covered, Fraction(0))
        covered = max(covered, below)
    result[first] += 1 - covered
    return result


def require_known(section: t.Mapping[str, t.Any]) -> None:
    """Fails where the routing depends on a value that cannot be read.

    Raises:
        UserError: which key, and where its value comes from.
    """
    routed = {"plugin": section.get("plugin")}
    for name, entry in entries(section).items():
        routed.update({f"{name}.{key}": entry.get(key) for key in ("weightage", "exclusions", "pluginName")})
    for path, value in unknowns(routed):
        raise UserError(
            f"The routing cannot be known: executor.{path} comes from {value.source}, which is not read. "
            "Remove the variable there, or grant get on its source."
        )


def weights_for(section: t.Mapping[str, t.Any], kata: str, legacy: str, share: Decimal) -> dict[str, int]:
    """The weightages of the two executors that send ``share`` percent of the builds that no exclusion names to Kata.

    Other executors that have a weightage keep it, and so does the sum of all.

    Raises:
        UserError: integers cannot express the share beside those other weightages.
    """
    others = {name: entry.get("weightage") for name, entry in loaded(section).items() if name not in (kata, legacy)}
    others = {name: weight for name, weight in others.items() if number(weight)}
    if not others:
        total = next(scale for scale in SCALES if share * scale % 100 == 0)
        part = int(share * total / 100)
        return {kata: part, legacy: total - part}
    standing = ", ".join(f"{name} has {weight}" for name, weight in others.items())
    if any(number(weight) != integer(weight) or number(weight) < 0 for weight in others.values()):
        raise UserError(f"kata_share {share} cannot be expressed while {standing}: make that weightage a positive integer or 0.")
    rest = sum(integer(weight) for weight in others.values())
    total = rest + sum(integer(entries(section).get(name, {}).get("weightage")) for name in (kata, legacy))
    asked = share * total / 100
    if asked != int(asked) or asked + rest > total:
        raise UserError(
            f"kata_share {share} cannot be expressed: of weightages that sum to {total}, {standing}. "
            f"Set that weightage to 0, or give {legacy} a weightage that makes the share a whole number."
        )
    return {kata: int(asked), legacy: total - rest - int(asked)}
