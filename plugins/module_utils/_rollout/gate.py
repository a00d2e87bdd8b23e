# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From evidence to a verdict. Pure.

A threshold fails the gate as soon as an exact test says, with the asked confidence, that it is exceeded. The gate passes only when the
window is over, there are enough builds and no figure, taken as it stands, is above its threshold. Everything else is inconclusive.
"""

from __future__ import annotations

import math
import traceback
import typing as t
from dataclasses import dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import evalue
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import (
    MAX_IMAGES,
    Observation,
    Tally,
    suggested_exclusion,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY

try:
    import numpy
    from scipy.stats import binomtest, fisher_exact, quantile_test

    SCIPY_TRACEBACK = None
except ImportError:
    SCIPY_TRACEBACK = traceback.format_exc()

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
# Fewer failures than this are never proof: they may be one bad node or one bad image.
MIN_FAILURES = 3
# Images with fewer builds than this on either executor are not suspected.
MIN_IMAGE_BUILDS = 3
# Timestamps are whole seconds, so a difference of two of them may be off by one.
RESOLUTION_SECONDS = 1


@dataclass(frozen=True)
class Limits:
    """The thresholds. Ratios and confidence are fractions of 1, times are seconds; None switches a threshold off."""

    window: int
    min_builds: int
    max_failure_ratio: float
    max_failure_increase: float
    max_setup_ratio: float | None
    max_setup_seconds: float | None
    confidence: float
    alpha: float = field(default=0.008, kw_only=True)
    steps: int = field(default=1, kw_only=True)
    earlier: tuple[float, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Names:
    kata: str
    legacy: str


class Judgement(t.NamedTuple):
    """The verdict with what it rests on.

    Attributes:
        pause: Inconclusive, and more watching will not settle it.
        doubt: What stands against passing: failures, share, setup, excluded, evidence, or an empty string.
        log_e: The log e-value of this step.
        log_m: That of the rollout.
        log_threshold: What log_m has to reach for a failure.
        worst: The image and the node that were left out.
    """

    verdict: str
    reasons: list[str]
    pause: bool
    doubt: str
    log_e: float
    log_m: float
    log_threshold: float
    worst: dict[str, t.Any]


@dataclass
class Findings:
    """Sentences of what fails the gate, of what holds it back, and of what it saw."""

    failures: list[str]
    doubts: list[str]
    notes: list[str]


def judge(observation: Observation, limits: Limits, names: Names, now: int) -> Judgement:
    """The verdict and its reasons. now: epoch seconds of the clock that the observation was fed with."""
    kata = observation.tallies[KATA]
    legacy = compared_legacy(observation, limits.min_builds)
    found = Findings([], [], [])
    if observation.excluded_on_kata:
        images = ", ".join(sorted(observation.excluded_on_kata)[:3])
        found.failures.append(f"{_builds(kata.excluded)} of excluded images reached {names.kata}: {images}.")
    if round(observation.observed_seconds) < limits.window:
        found.doubts.append(f"Observed {observation.observed_seconds:.0f} of {limits.window} s.")
    if kata.outcomes < limits.min_builds:
        found.doubts.append(f"{kata.outcomes} of {limits.min_builds} builds on {names.kata}.")
    _judge_failures(observation, legacy, limits, names, now, found)
    _judge_exit_codes(kata, legacy, limits, names, found)
    _judge_setup(kata, legacy, limits, names, found)
    verdict, reasons = (FAIL, found.failures) if found.failures else (INCONCLUSIVE, found.doubts) if found.doubts else (PASS, found.notes)
    log_e = evalue.log_above(kata.failed, kata.outcomes, limits.max_failure_ratio)
    doubt = "excluded" if observation.excluded_on_kata else "failures" if verdict == FAIL else "evidence" if verdict == INCONCLUSIVE else ""
    log_m = evalue.log_mean([*limits.earlier, log_e], limits.steps)
    return Judgement(verdict, reasons, False, doubt, log_e, log_m, math.log(2 / limits.alpha), {"image": None, "node": None})


def compared_legacy(observation: Observation, min_builds: int) -> Tally:
    """The legacy executor's own figures; where its builds are too few by now, with those of earlier steps added."""
    own = observation.tallies[LEGACY]
    if own.outcomes >= min_builds or not observation.baseline:
        return own
    return own.plus(Tally(**observation.baseline["legacy"]))


def next_baseline(observation: Observation, min_builds: int) -> dict[str, t.Any]:
    """What a later step needs to know about the legacy executor once it has few builds or none."""
    tally = compared_legacy(observation, min_builds)
    images = {name: counts[LEGACY] for name, counts in _images(observation).items() if LEGACY in counts}
    images = dict(sorted(images.items(), key=lambda item: -sum(item[1]))[:MAX_IMAGES])
    return {"legacy": {**vars(tally), "details": {}}, "images": images}


def _judge_failures(observation: Observation, legacy: Tally, limits: Limits, names: Names, now: int, found: Findings) -> None:
    kata = observation.tallies[KATA]
    if not kata.outcomes:
        return
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(kata.failures.items(), key=lambda item: -item[1]))
    saw = f"{kata.failed} of {_builds(kata.outcomes)} ({_percent(kata.failed, kata.outcomes)}) failed to start on {names.kata}"
    saw += f" ({causes})" if causes else ""
    enough = kata.failed >= MIN_FAILURES
    above = binomtest(kata.failed, kata.outcomes, limits.max_failure_ratio, alternative="greater")
    if enough and above.pvalue <= 1 - limits.confidence:
        found.failures.append(f"{saw}, above the limit of {limits.max_failure_ratio:.4g} with {limits.confidence:.4g} confidence.")
    elif kata.failed > limits.max_failure_ratio * kata.outcomes:
        found.doubts.append(f"{saw}, above the limit of {limits.max_failure_ratio:.4g} but not proven yet.")
    else:
        found.notes.append(f"{saw}.")

    if legacy.outcomes >= limits.min_builds:
        worse = kata.failed / kata.outcomes - legacy.failed / legacy.outcomes > limits.max_failure_increase
        than = (
            f"{saw}, on {names.legacy} {legacy.failed} of {legacy.outcomes} ({_percent(legacy.failed, legacy.outcomes)}):"
            f" more than {limits.max_failure_increase:.4g} worse"
        )
        if worse and enough and _greater((kata.failed, kata.started), (legacy.failed, legacy.started), limits.confidence):
            found.failures.append(f"{than} with {limits.confidence:.4g} confidence.")
        elif worse:
            found.doubts.append(f"{than} but not proven yet.")
    else:
        found.notes.append(f"{names.legacy} had {_builds(legacy.outcomes)}, too few to compare with: only the absolute limits were judged.")

    slowest = max(map(int, kata.setup), default=0)
    stuck = sum(now - since > slowest + RESOLUTION_SECONDS for since in observation.waiting_since(KATA))
    if stuck and kata.failed + stuck > limits.max_failure_ratio * (kata.outcomes + stuck):
        found.doubts.append(f"{_builds(stuck)} on {names.kata} waited longer for the start than any that started ({slowest} s).")


def _judge_exit_codes(kata: Tally, legacy: Tally, limits: Limits, names: Names, found: Findings) -> None:
    """Users' own failures vary by nature: only a proven difference counts, and only against the legacy executor."""
    bad, good = _exits(kata)
    legacy_bad, legacy_good = _exits(legacy)
    if bad < MIN_FAILURES or legacy_bad + legacy_good < limits.min_builds:
        return
    worse = bad / (bad + good) - legacy_bad / (legacy_bad + legacy_good) > limits.max_failure_increase
    if worse and _greater((bad, good), (legacy_bad, legacy_good), limits.confidence):
        found.failures.append(
            f"{bad} of {_builds(bad + good)} ({_percent(bad, bad + good)}) ended with a non-zero exit code on {names.kata},"
            f" on {names.legacy} {legacy_bad} of {legacy_bad + legacy_good} ({_percent(legacy_bad, legacy_bad + legacy_good)}):"
            f" more than {limits.max_failure_increase:.4g} worse with {limits.confidence:.4g} confidence."
        )


def _judge_setup(kata: Tally, legacy: Tally, limits: Limits, names: Names, found: Findings) -> None:
    if not kata.setup:
        return
    seconds = _samples(kata)
    p95 = percentiles(kata)["p95"]
    bounds = []
    if limits.max_setup_seconds is not None:
        bounds.append((limits.max_setup_seconds, "the limit"))
    if limits.max_setup_ratio is not None and min(kata.started, legacy.started) >= limits.min_builds:
        legacy_p95 = percentiles(legacy)["p95"]
        bounds.append(
            (
                limits.max_setup_ratio * legacy_p95 + RESOLUTION_SECONDS,
                f"{limits.max_setup_ratio:.4g} times the {legacy_p95} s of {names.legacy} and {RESOLUTION_SECONDS} s of resolution",
            )
        )
    saw = f"Setup p95 on {names.kata} is {p95} s over {_builds(len(seconds))}"
    for bound, origin in bounds:
        enough = (seconds > bound).sum() >= MIN_FAILURES
        if enough and quantile_test(seconds, q=bound, p=0.95, alternative="greater").pvalue <= 1 - limits.confidence:
            found.failures.append(f"{saw}, above {bound:.4g} s ({origin}) with {limits.confidence:.4g} confidence.")
        elif p95 > bound:
            found.doubts.append(f"{saw}, above {bound:.4g} s ({origin}) but not proven yet.")
    found.notes.append(f"{saw}.")


def percentiles(tally: Tally) -> dict[str, t.Any]:
    """p50 and p95 of the setup seconds, as values that really occurred; None where no build has started."""
    if not tally.setup:
        return {"p50": None, "p95": None}
    p50, p95 = numpy.percentile(_samples(tally), [50, 95], method="inverted_cdf")
    return {"p50": int(p50), "p95": int(p95)}


def suspects(observation: Observation, confidence: float) -> list[dict[str, t.Any]]:
    """Images that fail on Kata significantly more often than on the legacy executor and than Kata's other images, the worst first."""
    found = []
    images = _images(observation)
    all_good, all_bad = (sum(counts.get(KATA, [0, 0])[at] for counts in images.values()) for at in (0, 1))
    for image, counts in images.items():
        good, bad = counts.get(KATA, [0, 0])
        legacy_good, legacy_bad = counts.get(LEGACY, [0, 0])
        if bad < MIN_IMAGE_BUILDS or legacy_good + legacy_bad < MIN_IMAGE_BUILDS:
            continue
        # Where all of Kata's images fail, Kata does, and an exclusion would not help.
        others = [(legacy_bad, legacy_good), (all_bad - bad, all_good - good)]
        if all(_greater((bad, good), other, confidence) for other in others if any(other)):
            found.append(
                {
                    "image": image,
                    "exclusion": suggested_exclusion(image),
                    "kata": {"builds": good + bad, "failed": bad},
                    "legacy": {"builds": legacy_good + legacy_bad, "failed": legacy_bad},
                }
            )
    return sorted(found, key=lambda item: -item["kata"]["failed"])


def share_observed(observation: Observation) -> dict[str, t.Any]:
    """Kata's part of the builds that no exclusion names."""
    kata, builds = observation.tallies[KATA].seen, sum(tally.seen for tally in observation.tallies.values())
    return {"percent": round(100 * kata / builds, 2) if builds else None, "builds": builds}


def _images(observation: Observation) -> dict[str, dict[str, list[int]]]:
    """[good, bad] by image and executor, the baseline's among them."""
    images = {name: dict(counts) for name, counts in observation.images.items()}
    for name, (good, bad) in observation.baseline.get("images", {}).items():
        own = images.setdefault(name, {}).get(LEGACY, [0, 0])
        images[name][LEGACY] = [own[0] + good, own[1] + bad]
    return images


def _exits(tally: Tally) -> tuple[int, int]:
    return tally.ended.get("failed", 0) + tally.ended.get("oom_killed", 0), tally.ended.get("ok", 0)


def _greater(kata: tuple[int, int], legacy: tuple[int, int], confidence: float) -> bool:
    """(bad, good) of each: is Kata's part of bad ones proven to be the greater one."""
    return bool(fisher_exact([kata, legacy], alternative="greater").pvalue <= 1 - confidence)


def _samples(tally: Tally) -> t.Any:
    return numpy.repeat([int(key) for key in tally.setup], list(tally.setup.values()))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _builds(count: int) -> str:
    return "1 build" if count == 1 else f"{count} builds"
