# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From evidence to a verdict. Pure.

The gate fails on what is proven beyond chance however often it is evaluated, and only on what Kata alone can be blamed for: starts that
fail more often than the limit and than on the legacy executor at the same time, builds of excluded images, and builds that never arrive. It
passes when the window is over, there are enough builds, and no figure, taken as it stands, is above its limit. All else is inconclusive.
"""

from __future__ import annotations

import bisect
import itertools
import math
import typing as t
from dataclasses import dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import evalue
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.binomial import more_by_chance
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import (
    FAILED,
    MAX_IMAGES,
    NOT_PULLED,
    Counts,
    Observation,
    Tally,
    node_and_image_of,
    suggested_exclusion,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import IMAGE_PULL, KATA, LEGACY
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
# What may stand against passing, the gravest first.
EXCLUDED, FAILURES, SHARE, SETUP, EVIDENCE = "excluded", "failures", "share", "setup", "evidence"
DOUBTS = (EXCLUDED, FAILURES, SHARE, SETUP, EVIDENCE)

# Images and nodes with fewer failures or builds than this stand for nothing of their own.
MIN_FAILURES = 3
MIN_IMAGE_BUILDS = 3
MAX_SUSPECTS = 20
# Images, nodes and pairs with failures that later steps know of.
MAX_EARLIER = 100
# How unlikely it must be that an image fails on Kata alone by chance, before it is suspected.
SUSPECT_LEVEL = 0.05
# Timestamps are whole seconds, so a difference of two of them may be off by one.
RESOLUTION_SECONDS = 1
# The quantile of the setup times that is compared.
QUANTILE = 0.95
# The legacy executor is comparable from this part of Kata's builds on: below it few are left to it, such as pinned ones.
COMPARABLE_PART = 0.25
# Where so many fail, a few more builds prove it, also after the window.
SURE_RATIO = 0.5
# From this share on the next step moves many builds: where builds have failed, more is asked than that the figures are within the limit.
CAREFUL_SHARE = 10
CAREFUL_LEVEL = 0.05
# A build that waits for more than this many times the median start is late.
LATE_MEDIANS = 3
# The entry of the worker's default config for executor-k8s-vm.
VM_EXECUTOR = "k8s-vm"
# Where pulls are not compared, this part of Kata's builds may fail to pull before they stand against passing.
MAX_PULL_FAILURES = 0.1


# Kata's starts at earlier steps where there are none. failed and builds are of those that count against passing, all has both of all, as
# have images and nodes.
NOTHING_BEFORE: dict[str, t.Any] = {"failed": 0, "builds": 0, "all": (0, 0), "images": {}, "nodes": {}, "both": {}}


@dataclass(frozen=True)
class Limits:
    """The thresholds. Ratios and alpha are fractions of 1, times are seconds, the share is in percent; None switches a threshold off.

    Attributes:
        share: The share that was asked for.
        share_tolerance: Which part of the asked share may be missing or too much.
        steps: How many steps the rollout has.
        earlier: The log e-values of its earlier steps.
        alpha: How likely a rollout of a Kata that is within its limits may fail.
    """

    window: int
    min_builds: int
    max_failure_ratio: float
    max_failure_increase: float
    max_setup_ratio: float | None
    max_setup_seconds: float | None
    share: float | None = field(default=None, kw_only=True)
    share_tolerance: float = field(default=0.1, kw_only=True)
    steps: int = field(default=1, kw_only=True)
    earlier: t.Sequence[float] = field(default=(), kw_only=True)
    alpha: float = field(default=0.008, kw_only=True)

    @property
    def log_threshold(self) -> float:
        """Half of alpha is for failed starts, half for missing builds."""
        return math.log(2 / self.alpha)


@dataclass(frozen=True)
class Names:
    kata: str
    legacy: str


class Judgement(t.NamedTuple):
    """The verdict with what it rests on.

    Attributes:
        reasons: Sentences.
        pause: Inconclusive, and more watching will not settle it.
        doubt: The gravest of what stands against passing, one of ``DOUBTS``, or an empty string.
        log_e: The log e-value of this step.
        log_m: That of the rollout.
        log_threshold: What log_m has to reach for a failure.
        worst: The image and the node that were left out, each with name, builds and failed in the rollout so far, or None.
    """

    verdict: str
    reasons: list[str]
    pause: bool
    doubt: str
    log_e: float
    log_m: float
    log_threshold: float
    worst: dict[str, dict[str, t.Any] | None]


class Starts(t.NamedTuple):
    """Builds that failed to start, of all that have an outcome."""

    failed: int
    builds: int

    def plus(self, other: Starts) -> Starts:
        return Starts(self.failed + other.failed, self.builds + other.builds)

    def minus(self, other: Starts) -> Starts:
        failed = max(0, self.failed - other.failed)
        return Starts(failed, max(failed, self.builds - other.builds))

    def less(self, failed: int) -> Starts:
        """With fewer failures."""
        return Starts(max(0, self.failed - failed), self.builds)

    @property
    def ratio(self) -> float:
        return self.failed / self.builds if self.builds else 0.0

    def __str__(self) -> str:
        return f"{self.failed} of {_builds(self.builds)} ({_percent(self.failed, self.builds)})"


@dataclass
class Findings:
    """Sentences of what fails the gate, of what holds it back, and of what it saw, the first two with their doubt."""

    failures: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pause: bool = False

    def doubt(self, doubt: str, sentence: str, pause: bool = False) -> None:
        self.doubts.append((doubt, sentence))
        self.pause |= pause


class Case:
    """One observation with what is compared in it.

    Attributes:
        sees_pulls: Whether the legacy executor's pods show the pull of their image. Else it is left out on both sides.
        kata: Kata's starts.
        legacy: Those of the legacy executor at the same time.
        before: Kata's starts at earlier steps of the rollout, with their images and nodes.
        worst: What is left out of Kata's.
        rest: Kata's starts without it.
    """

    def __init__(self, observation: Observation, limits: Limits, names: Names) -> None:
        self.observation = observation
        self.limits = limits
        self.names = names
        launchers = observation.tallies[LEGACY].launchers + observation.baseline.get("legacy", {}).get("launchers", 0)
        self.sees_pulls = not launchers and names.legacy != VM_EXECUTOR
        self.kata = self._starts(observation.tallies[KATA])
        self.legacy = self._starts(observation.tallies[LEGACY])
        self.before: dict[str, t.Any] = {**NOTHING_BEFORE, **observation.baseline.get("kata", {})}
        self.worst, self.rest = self._leave_out()

    @property
    def has_legacy(self) -> bool:
        """Whether builds of the legacy executor are draws of the same router at the same time."""
        return self.legacy.builds > 0 and (self.limits.share is None or self.limits.share < 100)

    @property
    def comparable(self) -> bool:
        """Whether they are enough beside Kata's to be typical."""
        return self.has_legacy and self.legacy.builds >= COMPARABLE_PART * self.kata.builds

    @property
    def is_over(self) -> bool:
        """Whether the window is over."""
        return round(self.observation.observed_seconds) >= self.limits.window

    def starts_of(self, counts: dict[str, list[int]], executor: str) -> Starts:
        """The starts of one image or node."""
        started, failed, not_pulled = counts.get(executor, [0, 0, 0])
        failed += not_pulled if self.sees_pulls else 0
        return Starts(failed, started + failed)

    def log_e(self) -> float:
        """Of this step. Where there is nothing to compare with, nothing can be proven."""
        other = self.legacy if self.has_legacy else Starts(0, 0)
        return evalue.log_worse(self.rest, other, self.limits.max_failure_ratio, self.limits.max_failure_increase)

    def log_m(self, log_e: float) -> float:
        return evalue.log_mean([*self.limits.earlier, log_e], max(self.limits.steps, len(self.limits.earlier) + 1))

    def proven(self, starts: Starts, limit: float) -> bool:
        return self.log_m(evalue.log_above(starts.failed, starts.builds, limit)) >= self.limits.log_threshold

    def is_above(self, starts: Starts, allowed: float) -> bool:
        """Whether the step's figures, taken as they stand, are above the allowed ratio.

        One failure more than the limit allows is chance where the builds of all steps together are within it. At the pilot, which moves no
        build, half a failure is.
        """
        together = self.together(starts)
        within = together.failed <= allowed * together.builds
        slack = 0.5 if self.observation.pilot else 1.0 if within else 0.0
        return starts.failed > allowed * starts.builds + slack

    def together(self, starts: Starts) -> Starts:
        """With those of earlier steps."""
        return starts.plus(Starts(self.before["failed"], self.before["builds"]))

    def judged(self) -> tuple[Starts, Starts]:
        """Kata's starts that count against passing, and those that do not: of images that fail on the legacy executor about as often."""
        own = Starts(0, 0)
        for counts in self.observation.images.values():
            if not any(counts[KATA][FAILED:]):
                continue
            kata, legacy = self.starts_of(counts, KATA), self.starts_of(counts, LEGACY)
            if kata.failed >= MIN_FAILURES and legacy.builds >= MIN_IMAGE_BUILDS and 2 * legacy.ratio >= kata.ratio:
                own = own.plus(kata)
        return self.kata.minus(own), own

    def all_of(self, kind: str) -> dict[str, Starts]:
        """Kata's starts of the rollout so far, by image or node, of those with failures."""
        step: Counts = getattr(self.observation, kind)
        # Most have no failure.
        names = {name for name, counts in step.items() if any(counts[KATA][FAILED:])} | set(self.before[kind])
        return {name: self._of(kind, name).plus(Starts(*self.before[kind].get(name, (0, 0)))) for name in names}

    def _of(self, kind: str, name: str) -> Starts:
        """Of this step."""
        return self.starts_of(getattr(self.observation, kind).get(name, {}), KATA)

    def _starts(self, tally: Tally) -> Starts:
        failed = tally.failed - (0 if self.sees_pulls else tally.failures.get(IMAGE_PULL, 0))
        return Starts(failed, tally.started + failed)

    def _leave_out(self) -> tuple[dict[str, dict[str, t.Any] | None], Starts]:
        """The image and the node that fail most beyond what the others do, over the whole rollout, and this step's starts without them.

        Where both share failures, those are the one's that explains more.
        """
        whole = self.kata.plus(Starts(*self.before["all"]))
        worst: dict[str, dict[str, t.Any] | None] = {"image": None, "node": None}
        found = {kind: self.all_of(kind) for kind in ("images", "nodes")}
        first, second = sorted(found, key=lambda kind: -_most_in_excess(found[kind], whole)[1])
        name, _excess = _most_in_excess(found[first], whole)
        if not name:
            return worst, self.kata
        worst[first[:-1]] = {"name": name, "builds": found[first][name].builds, "failed": found[first][name].failed}
        here = self._of(first, name)
        rest = self.kata.minus(here)
        # What failed for the one is not held against the other as well.
        shared = _shared(_sum(self.before["both"], self.observation.both), name, second)
        others = {one: starts.less(shared.get(one, 0)) for one, starts in found[second].items()}
        other, _excess = _most_in_excess(others, whole.minus(found[first][name]))
        if not other:
            return worst, rest
        worst[second[:-1]] = {"name": other, "builds": others[other].builds, "failed": others[other].failed}
        there = self._of(second, other)
        # Builds of both are off already: the failures are known, the starts follow from the sizes.
        both = _shared(self.observation.both, name, second).get(other, 0)
        started = self.kata.builds - self.kata.failed
        overlap = round((here.builds - here.failed) * (there.builds - there.failed) / started) if started else 0
        return worst, rest.minus(Starts(there.failed - both, there.builds - both - overlap))


def _most_in_excess(found: dict[str, Starts], whole: Starts) -> tuple[str, float]:
    """Which fails most beyond what the others do, and by how much; an empty name where none does, or there is no other."""
    excess = {
        name: starts.failed - starts.builds * (whole.failed - starts.failed) / (whole.builds - starts.builds)
        for name, starts in found.items()
        if starts.failed and starts.builds < whole.builds
    }
    name = min(excess, key=lambda one: (-excess[one], found[one].builds, one), default="")
    return (name, excess[name]) if name and excess[name] >= 0 else ("", -1.0)


def _shared(pairs: dict[str, int], name: str, other: str) -> dict[str, int]:
    """How many failures each image or node has in common with the node or image of this name. other: images or nodes."""
    found: dict[str, int] = {}
    for pair, count in pairs.items():
        node, image = node_and_image_of(pair)
        one, two = (node, image) if other == "images" else (image, node)
        if one == name:
            found[two] = count
    return found


def judge(observation: Observation, limits: Limits, names: Names, now: int) -> Judgement:
    """The verdict and its reasons. now: epoch seconds of the clock that the observation was fed with."""
    case, found = Case(observation, limits, names), Findings()
    if observation.excluded_on_kata:
        images = join_names(sorted(observation.excluded_on_kata))
        count = sum(observation.excluded_on_kata.values())
        found.failures.append((EXCLUDED, f"{_builds(count)} of excluded images reached {names.kata}: {images}."))
    if not case.is_over:
        found.doubt(EVIDENCE, f"Observed {observation.observed_seconds:.0f} of {limits.window} s.")
    if case.kata.builds < limits.min_builds:
        found.doubt(EVIDENCE, f"{case.kata.builds} of {limits.min_builds} builds on {names.kata}.")
    log_e = case.log_e()
    _judge_failures(case, found, log_e)
    _judge_waiting(case, found, now)
    _judge_share(case, found)
    _judge_setup(case, found)
    if observation.gaps:
        found.notes.append(
            f"The watch had {observation.gaps} gap{'s' if observation.gaps > 1 else ''}: builds that were under way are left out."
        )
    verdict, reasons = (FAIL, found.failures) if found.failures else (INCONCLUSIVE, found.doubts) if found.doubts else (PASS, [])
    return Judgement(
        verdict=verdict,
        reasons=[sentence for _doubt, sentence in reasons] if reasons else found.notes,
        pause=verdict == INCONCLUSIVE and found.pause,
        doubt=min((doubt for doubt, _sentence in reasons), key=DOUBTS.index, default=""),
        log_e=round(log_e, 4),
        log_m=round(case.log_m(log_e), 4),
        log_threshold=round(limits.log_threshold, 4),
        worst=case.worst,
    )


def _judge_failures(case: Case, found: Findings, log_e: float) -> None:
    limits, names, kata, legacy = case.limits, case.names, case.kata, case.legacy
    failures = case.observation.tallies[KATA].failures
    _judge_pulls(case, found)
    if not kata.builds:
        return
    judged_causes = sorted((cause for cause in failures if case.sees_pulls or cause != IMAGE_PULL), key=lambda cause: -failures[cause])
    causes = join_names([f"{failures[cause]} {cause}" for cause in judged_causes], len(failures))
    saw = f"{kata} failed to start on {names.kata}" + (f" ({causes})" if causes else "")
    beside = f"on {names.legacy} {legacy}" if case.has_legacy else f"with no build on {names.legacy} to compare with"
    left_out = [f"{kind} {item['name']} ({item['failed']} of {item['builds']})" for kind, item in case.worst.items() if item]
    apart = f" Left out as the worst{' of the rollout' if case.before['all'][1] else ''}: {join_names(left_out)}." if left_out else ""
    if case.log_m(log_e) >= limits.log_threshold:
        beyond = f"above the limit of {limits.max_failure_ratio:.4g} and more than {limits.max_failure_increase:.4g} worse beyond chance"
        found.failures.append((FAILURES, f"{saw}, {beside}: {beyond}.{apart}"))
        return
    judged, own = case.judged()
    # Steps of few builds each prove more together.
    together = case.together(judged)
    tolerated = limits.max_failure_ratio + limits.max_failure_increase
    enough = case.has_legacy and legacy.builds >= limits.min_builds
    above = f"above the limit of {limits.max_failure_ratio:.4g}"
    if case.is_above(judged, limits.max_failure_ratio):
        if not case.proven(judged, limits.max_failure_ratio):
            found.doubt(FAILURES, f"{saw}, {above} but not proven yet.{apart}")
            return
        # While the rest fails as well, there may soon be enough builds to blame Kata.
        worse = case.rest.ratio - legacy.ratio > limits.max_failure_increase
        settles = case.comparable and worse and (not case.is_over or case.rest.ratio >= SURE_RATIO)
        found.doubt(FAILURES, f"{saw}, {above} beyond chance, {beside}.{apart}", pause=not settles)
    elif together.failed > limits.max_failure_ratio * together.builds + 0.5:
        found.doubt(FAILURES, f"{saw}, and {together} at all steps: together {above} but not proven yet.{apart}")
    elif (limits.share or 0) >= CAREFUL_SHARE and together.failed and not evalue.is_below(*together, tolerated, CAREFUL_LEVEL):
        found.doubt(FAILURES, f"{saw}, and {together} at all steps: too few builds to rule out a ratio of {tolerated:.4g}.{apart}")
    elif enough and case.is_above(judged, legacy.ratio + limits.max_failure_increase):
        found.doubt(FAILURES, f"{saw}, {beside}: more than {limits.max_failure_increase:.4g} worse but not proven yet.{apart}")
    else:
        found.notes.append(f"{saw}.{apart}")
        if own.failed:
            found.notes.append(f"{own} are of images that fail on {names.legacy} as well.")
        if not enough:
            found.notes.append(
                f"{names.legacy} had {_builds(legacy.builds)}, too few to compare with: only the absolute limits were judged."
            )


def _judge_pulls(case: Case, found: Findings) -> None:
    """Pulls that cannot be compared: some users always mistype an image, but not one build in ten."""
    tally = case.observation.tallies[KATA]
    not_pulled = tally.failures.get(IMAGE_PULL, 0)
    if case.sees_pulls or not not_pulled:
        return
    worst = max((counts[KATA][NOT_PULLED] for counts in case.observation.images.values() if KATA in counts), default=0)
    saw = f"{_builds(not_pulled)} on {case.names.kata} could not pull their image, which pods of {case.names.legacy} do not show"
    if not_pulled - worst >= max(MIN_FAILURES, MAX_PULL_FAILURES * tally.outcomes):
        found.doubt(FAILURES, f"{saw}: more than {_percent(MAX_PULL_FAILURES, 1)} of all builds.")
    else:
        found.notes.append(f"{saw}: they are left out.")


def _judge_waiting(case: Case, found: Findings, now: int) -> None:
    """Builds that hang would else count only once their time to start has run out."""
    tally = case.observation.tallies[KATA]
    if not tally.setup:
        return
    seconds, timed = _counts(tally.setup), sum(tally.setup.values())
    waited = [(now - since, 1) for since in case.observation.waiting_since(KATA)] + list(_counts(tally.withdrawn_after).items())
    p50, p95 = (percentiles(tally)[key] for key in ("p50", "p95"))
    worst, sentence = 0.0, ""
    for bound in (LATE_MEDIANS * p50 + RESOLUTION_SECONDS, LATE_MEDIANS * p95 + RESOLUTION_SECONDS, max(seconds) + RESOLUTION_SECONDS):
        late = sum(count for after, count in waited if after > bound)
        usual = sum(count for after, count in seconds.items() if after > bound) / timed
        excess = late - usual * (case.kata.builds + late)
        if excess > worst and case.kata.failed + excess > case.limits.max_failure_ratio * (case.kata.builds + late):
            worst = excess
            sentence = (
                f"{_builds(late)} on {case.names.kata} waited for more than {bound} s without a start, "
                f"{_percent(usual, 1)} of the others did."
            )
    if sentence:
        found.doubt(FAILURES, sentence)
    lost, legacy = tally.ended.get("lost", 0), case.observation.tallies[LEGACY]
    usual = legacy.ended.get("lost", 0) / legacy.started if legacy.started else 0
    if lost >= MIN_FAILURES and lost > (case.limits.max_failure_ratio + usual) * tally.started:
        found.doubt(FAILURES, f"{lost} of {_builds(tally.started)} that started on {case.names.kata} were lost with their node.")


def _judge_share(case: Case, found: Findings) -> None:
    limits, names, observation = case.limits, case.names, case.observation
    if not limits.share or observation.pilot:
        return
    observed = share_observed(observation)
    kata, builds = observation.tallies[KATA].seen, observed["builds"]
    if not builds:
        found.doubt(EVIDENCE, f"No build on {names.kata} or {names.legacy} was created.", pause=case.is_over)
        return
    asked = limits.share / 100
    saw = f"{observed['percent']} % of {_builds(builds)} came to {names.kata}, {limits.share:g} % were asked for"
    pins = observation.baseline.get("pins")
    # Jobs that ask for Kata come on top. The pilot has counted them.
    pinned = evalue.upper_bound(pins["kata"], pins["builds"], limits.alpha / 2) if pins and pins["builds"] else 0.0
    least, most = asked * (1 - limits.share_tolerance), asked * (1 + limits.share_tolerance) + pinned
    # Each step may fail for it, so that each has its part of the promise.
    if evalue.log_below(kata, builds, least) >= limits.log_threshold + math.log(limits.steps):
        found.failures.append(
            (
                SHARE,
                f"{saw}: builds are missing. Check whether the API server refuses pods of {names.kata} (RuntimeClass, quota, permissions),"
                " whether the worker has read its config, and whether its environment overrides it.",
            )
        )
    elif evalue.is_below(kata, builds, least, CAREFUL_LEVEL):
        found.doubt(SHARE, f"{saw}: builds may be missing, not proven yet.")
    elif most < 1 and evalue.log_above(kata, builds, most, evalue.FLAT_PRIOR) >= limits.log_threshold:
        found.doubt(
            SHARE,
            f"{saw}: too many. Check whether the worker has read its config, whether its environment overrides it, and which jobs ask for"
            f" {names.kata} by annotation.",
            pause=True,
        )


def _judge_setup(case: Case, found: Findings) -> None:
    limits, names, kata = case.limits, case.names, case.observation.tallies[KATA]
    if not kata.setup:
        return
    seconds, timed = _counts(kata.setup), sum(kata.setup.values())
    p95 = percentiles(kata)["p95"]
    bounds = []
    if limits.max_setup_seconds is not None:
        bounds.append((limits.max_setup_seconds, "the limit"))
    legacy = compared_legacy(case)
    if limits.max_setup_ratio is not None and not case.sees_pulls:
        found.notes.append(f"Setup times are not compared: pods of {names.legacy} do not show the pull of their image.")
    elif limits.max_setup_ratio is not None and min(kata.started, legacy.started) >= limits.min_builds and legacy.setup:
        legacy_p95 = percentiles(legacy)["p95"]
        bounds.append(
            (
                limits.max_setup_ratio * legacy_p95 + RESOLUTION_SECONDS,
                f"{limits.max_setup_ratio:.4g} times the {legacy_p95} s of {names.legacy} and {RESOLUTION_SECONDS} s of resolution",
            )
        )
    saw = f"Setup p95 on {names.kata} is {p95} s over {_builds(timed)}"
    for bound, origin in bounds:
        slow = sum(count for value, count in seconds.items() if value > bound)
        if evalue.log_above(slow, timed, 1 - QUANTILE) >= limits.log_threshold:
            found.doubt(SETUP, f"{saw}, above {bound:.4g} s ({origin}) beyond chance.", pause=True)
        elif p95 > bound:
            found.doubt(SETUP, f"{saw}, above {bound:.4g} s ({origin}) but not proven yet.")
    found.notes.append(f"{saw}.")


def compared_legacy(case: Case) -> Tally:
    """The legacy executor's figures that setup times are compared with: its own, and those of earlier steps where its own are too few."""
    own, before = case.observation.tallies[LEGACY], case.observation.baseline.get("legacy")
    if not before or (case.comparable and own.outcomes >= case.limits.min_builds):
        return own
    return own.plus(Tally(**before))


def next_baseline(observation: Observation, limits: Limits, names: Names) -> dict[str, t.Any]:
    """What a later step needs to know.

    Of the legacy executor once it has few builds or none, of jobs that ask for Kata, of Kata's starts.
    """
    case = Case(observation, limits, names)
    tally = compared_legacy(case)
    images = {name: counts[LEGACY] for name, counts in _images(observation).items() if sum(counts[LEGACY])}
    images = dict(sorted(images.items(), key=lambda item: -sum(item[1]))[:MAX_IMAGES])
    pins = observation.baseline.get("pins", {"kata": 0, "builds": 0})
    if observation.pilot:
        pins = {"kata": observation.tallies[KATA].seen, "builds": share_observed(observation)["builds"]}
    judged, _own = case.judged()
    kata = {
        "failed": case.before["failed"] + judged.failed,
        "builds": case.before["builds"] + judged.builds,
        "all": list(case.kata.plus(Starts(*case.before["all"]))),
        **{kind: _most_failed(case.all_of(kind)) for kind in ("images", "nodes")},
        "both": dict(sorted(_sum(case.before["both"], observation.both).items(), key=lambda item: -item[1])[:MAX_EARLIER]),
    }
    return {
        "legacy": {**vars(tally), "details": {}, "withdrawn_after": {}},
        "images": images,
        "pins": pins,
        "jobs": list(observation.pinned_jobs) or observation.baseline.get("jobs", []),
        "kata": kata,
    }


def _most_failed(found: dict[str, Starts]) -> dict[str, list[int]]:
    kept = sorted(found.items(), key=lambda item: (-item[1].failed, item[1].builds))[:MAX_EARLIER]
    return {name: list(starts) for name, starts in kept if starts.failed}


def _sum(one: dict[str, int], two: dict[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}


def percentiles(tally: Tally) -> dict[str, t.Any]:
    """p50 and p95 of the setup seconds, as values that really occurred; None where no start was timed."""
    seconds = sorted(_counts(tally.setup).items())
    sums = list(itertools.accumulate(count for _value, count in seconds))

    def percentile(part: float) -> int | None:
        return seconds[bisect.bisect_left(sums, part * sums[-1])][0] if sums else None

    return {"p50": percentile(0.5), "p95": percentile(QUANTILE)}


def suspects(observation: Observation, limits: Limits, names: Names) -> list[dict[str, t.Any]]:
    """Images that fail on Kata significantly more often than on the legacy executor and than Kata's other images, the worst first."""
    case = Case(observation, limits, names)
    found: list[dict[str, t.Any]] = []
    images = {name: (case.starts_of(counts, KATA), case.starts_of(counts, LEGACY)) for name, counts in _images(observation).items()}
    everything = Starts(*(sum(kata[at] for kata, _legacy in images.values()) for at in (0, 1)))
    for image, (kata, legacy) in images.items():
        if kata.failed < MIN_IMAGE_BUILDS or legacy.builds < MIN_IMAGE_BUILDS:
            continue
        # Where all of Kata's images fail, Kata does, and an exclusion would not help.
        others = [legacy, Starts(everything.failed - kata.failed, everything.builds - kata.builds)]
        if all(_more_often(kata, other) for other in others if other.builds):
            found.append(
                {
                    "image": image,
                    "exclusion": suggested_exclusion(image),
                    "kata": {"builds": kata.builds, "failed": kata.failed},
                    "legacy": {"builds": legacy.builds, "failed": legacy.failed},
                }
            )
    return sorted(found, key=lambda item: -item["kata"]["failed"])[:MAX_SUSPECTS]


def share_observed(observation: Observation) -> dict[str, t.Any]:
    """Kata's part of the builds that no exclusion names and that did not ask for an executor."""
    kata, builds = observation.tallies[KATA].seen, sum(tally.seen for tally in observation.tallies.values())
    return {"percent": round(100 * kata / builds, 2) if builds else None, "builds": builds}


def _images(observation: Observation) -> Counts:
    """The counts of each image, the baseline's among them."""
    images = {name: {key: list(own) for key, own in counts.items()} for name, counts in observation.images.items()}
    for name, before in observation.baseline.get("images", {}).items():
        own = images.setdefault(name, {KATA: [0, 0, 0], LEGACY: [0, 0, 0]})
        own[LEGACY] = [one + two for one, two in zip(own[LEGACY], before, strict=True)]
    return images


def _more_often(kata: Starts, other: Starts) -> bool:
    """Whether Kata's part of failures is proven to be the greater one."""
    return more_by_chance((kata.failed, kata.builds), (other.failed, other.builds)) <= SUSPECT_LEVEL


def _counts(by_seconds: dict[str, int]) -> dict[int, int]:
    return {int(key): count for key, count in by_seconds.items()}


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _builds(count: int) -> str:
    return "1 build" if count == 1 else f"{count} builds"
