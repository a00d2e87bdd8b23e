# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From the events of a watch to figures of each executor. Pure: events and the time are passed in."""

from __future__ import annotations

import re
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import IMAGE_PULL, KATA, LEGACY, Build

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Where the builds of one image or node are counted: those that started, that failed to start, and that failed to pull their image.
STARTED, FAILED, NOT_PULLED = 0, 1, 2
EVIDENCE_VERSION = 2

# Bounds that keep the evidence far below the 1 MiB of a ConfigMap.
MAX_WAITING = 5000
MAX_RUNNING = 5000
MAX_IMAGES = 500
MAX_NODES = 500
MAX_PAIRS = 2000
MAX_EXCLUDED_IMAGES = 50
MAX_JOBS = 500
MAX_DETAIL = 240
# What the excluded images are called that are too many to be listed.
OTHER_IMAGES = "other images"

# After how long the worker deletes a build that has not started, by default.
WORKER_SECONDS = 300
# A deletion before the start counts as the worker's own from this part of the time to start: its timer began before the pod was seen.
HUNG_PART = 0.95

# A full pool or a lost node is no evidence about the image.
_NODE_CAUSES = frozenset({"Unschedulable", "Evicted", "NodeLost"})

Counts = dict[str, dict[str, list[int]]]


@dataclass
class Tally:
    """The builds of one executor whose image no exclusion names, and that did not ask for it.

    Attributes:
        seen: Builds created during the observation.
        started: Builds whose container started and did not crash at once.
        failures: Builds that failed to start, by cause.
        withdrawn_after: Builds that were deleted before they had the time to start, by how many seconds they had waited.
        unobserved: Builds whose outcome fell into a gap of the watch.
        ended: ok, failed (a non-zero exit code), oom_killed, stopped (deleted while running) or lost (to its node); a part of started.
        setup: Builds by setup seconds.
        details: One message for each cause.
        launchers: Builds whose pod is a launcher of executor-k8s-vm; a part of seen.
        excluded: Builds whose image an exclusion names; no other figure counts them.
        pinned: Builds whose job asked for the executor; no other figure counts them.
    """

    seen: int = 0
    started: int = 0
    unobserved: int = 0
    launchers: int = 0
    excluded: int = 0
    pinned: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    withdrawn_after: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    setup: dict[str, int] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def withdrawn(self) -> int:
        return sum(self.withdrawn_after.values())

    @property
    def outcomes(self) -> int:
        """Builds that either started or failed: what a verdict rests on."""
        return self.started + self.failed

    def plus(self, other: Tally) -> Tally:
        """The sum of both, with the other's details where this one has none."""
        sums: dict[str, t.Any] = {}
        for key, value in vars(self).items():
            more = getattr(other, key)
            if isinstance(value, int):
                sums[key] = value + more
            elif key == "details":
                sums[key] = {**more, **value}
            else:
                sums[key] = {name: value.get(name, 0) + more.get(name, 0) for name in {**value, **more}}
        return Tally(**sums)


class Observation:
    """Everything known about the builds of one observation. ``dump`` and ``load`` carry it from one call to the next.

    Attributes:
        waiting: By pod uid, the builds that wait for their start: since when, and what each would be judged as.
        running: The pod uids of the builds that have started and not ended. The oldest is forgotten when they are too many.
        newest: When the youngest build was created that belongs to the time before.
        images: By image and executor, builds that started, that failed to start, and that failed to pull.
        nodes: The same by node.
        both: By pair of node and image, builds that failed to start on Kata.
        excluded_on_kata: By image, builds of excluded images that reached Kata although no job asked for it.
        pinned_jobs: Jobs that brought excluded images to Kata at the pilot.
        baseline: The legacy executor's figures of an earlier observation, fixed at the beginning so that none of its own are added to it.
    """

    def __init__(
        self,
        scope: dict[str, str],
        start_timeout: int,
        is_excluded: Callable[[str], bool],
        explain: Callable[[str], str],
        pilot: bool = False,
    ) -> None:
        """Begins without any figures.

        Args:
            scope: What evidence must agree in.
            start_timeout: After how many seconds a build that has not started has failed.
            is_excluded: Whether an exclusion names the image.
            explain: The message of a pod's FailedCreatePodSandBox event by the pod's uid, or an empty string.
            pilot: Kata's share is 0, so that all its builds are pinned: they are the ones to judge.
        """
        self.scope = scope
        self.resource_version = ""
        self.observed_seconds = 0.0
        self.gaps = 0
        self.newest = 0
        self.tallies = {KATA: Tally(), LEGACY: Tally()}
        self.images: Counts = {}
        self.nodes: Counts = {}
        self.both: dict[str, int] = {}
        self.excluded_on_kata: dict[str, int] = {}
        self.pinned_jobs: dict[str, None] = {}
        self.waiting: dict[str, dict[str, t.Any]] = {}
        self.running: dict[str, None] = {}
        self.baseline: dict[str, t.Any] = {}
        self.pilot = pilot
        self._start_timeout = start_timeout
        self._is_excluded = is_excluded
        self._explain = explain

    def load(self, evidence: dict[str, t.Any]) -> None:
        """Continues from what ``dump`` returned. Raises UserError where it is of another observation."""
        if evidence.get("version") != EVIDENCE_VERSION:
            raise UserError(
                f"evidence has version {evidence.get('version')!r}, this module reads version {EVIDENCE_VERSION}:"
                " leave evidence out to begin the observation again."
            )
        for key, value in self.scope.items():
            if evidence["scope"].get(key) != value:
                taken = evidence["scope"].get(key)
                raise UserError(
                    f"evidence was taken with {key} {taken!r}, not {value!r}: leave evidence out to begin the observation again."
                )
        self.resource_version = evidence["resource_version"]
        self.observed_seconds = evidence["observed_seconds"]
        self.gaps = evidence["gaps"]
        self.newest = evidence["newest"]
        self.tallies = {key: Tally(**value) for key, value in evidence["executors"].items()}
        self.images = evidence["images"]
        self.nodes = evidence["nodes"]
        self.both = evidence["both"]
        self.excluded_on_kata = evidence["excluded_on_kata"]
        self.pinned_jobs = dict.fromkeys(evidence["pinned_jobs"])
        self.waiting = evidence["waiting"]
        self.running = dict.fromkeys(evidence["running"])
        self.baseline = evidence["baseline"]

    def dump(self) -> dict[str, t.Any]:
        """What ``load`` needs, as JSON can have it."""
        return {
            "version": EVIDENCE_VERSION,
            "scope": self.scope,
            "resource_version": self.resource_version,
            "observed_seconds": round(self.observed_seconds, 1),
            "gaps": self.gaps,
            "newest": self.newest,
            "executors": {key: asdict(tally) for key, tally in self.tallies.items()},
            "images": self.images,
            "nodes": self.nodes,
            "both": self.both,
            "excluded_on_kata": self.excluded_on_kata,
            "pinned_jobs": list(self.pinned_jobs),
            "waiting": self.waiting,
            "running": list(self.running),
            "baseline": self.baseline,
        }

    def begin(self, builds: Iterable[Build], resource_version: str, baseline: dict[str, t.Any]) -> None:
        """The builds that exist already belong to the time before the observation."""
        self.newest = max((build.created for build in builds), default=0)
        self.resource_version = resource_version
        self.baseline = baseline

    def skip(self, builds: Iterable[Build], resource_version: str) -> None:
        """Continues after a time that was not observed.

        Of the builds that came meanwhile those that failed are still there and many that did well are gone, so that no build that exists
        is evidence, whether it was known before or not.
        """
        for state in self.waiting.values():
            self.tallies[state["executor"]].unobserved += 1
        self.waiting.clear()
        self.running.clear()
        self.newest = max((build.created for build in builds), default=self.newest)
        self.resource_version = resource_version

    def relist(self, builds: Iterable[Build], resource_version: str, now: int) -> None:
        """Continues after a watch that came too late (410). now: the time, which a caller of ``event`` has at hand as well."""
        self.gaps += 1
        self.skip(builds, resource_version)

    def waiting_since(self, executor: str) -> list[int]:
        """Epoch seconds since when each build of the executor waits for its start."""
        return [state["since"] for state in self.waiting.values() if state["executor"] == executor]

    def overdue_in(self, now: int) -> int:
        """In how many seconds the next build fails for not having started, as far as it is known yet."""
        # The first one has waited longest.
        oldest = next(iter(self.waiting.values()), None)
        return self._start_timeout - (now - oldest["since"] if oldest else 0)

    def event(self, kind: str, build: Build, now: int) -> None:
        """Takes one event of the watch: ADDED, MODIFIED or DELETED."""
        # A pod that is older than the observation may be added to what the selector matches.
        if kind == "ADDED" and build.created >= self.newest and build.uid not in self.waiting and build.uid not in self.running:
            self._arrive(build, now)
        if build.uid in self.waiting:
            self._wait(kind, build, now)
        if build.uid in self.running:
            self._run(kind, build)

    def tick(self, now: int) -> None:
        """Fails the builds whose time to start has run out. The time counts from when they were first observed, by the clock of ``now``."""
        for uid in [uid for uid, state in self.waiting.items() if now - state["since"] >= self._start_timeout]:
            state = self.waiting.pop(uid)
            self._fail(uid, state, state["trouble"] or state["overdue"])

    def _arrive(self, build: Build, now: int) -> None:
        tally = self.tallies[build.executor]
        if self._is_excluded(build.image):
            tally.excluded += 1
            # Exclusions do not hold back a job that asks for Kata, and at the pilot only such jobs come there.
            if build.kata and self.pilot and build.job and len(self.pinned_jobs) < MAX_JOBS:
                self.pinned_jobs[build.job] = None
            if build.kata and not (build.pinned or self.pilot or build.job in self.baseline.get("jobs", ())):
                known = build.image in self.excluded_on_kata or len(self.excluded_on_kata) < MAX_EXCLUDED_IMAGES
                _count(self.excluded_on_kata, build.image if known else OTHER_IMAGES)
        elif build.pinned and not (build.kata and self.pilot):
            tally.pinned += 1
        elif len(self.waiting) < MAX_WAITING:
            tally.seen += 1
            tally.launchers += build.launcher
            self.waiting[build.uid] = {"since": now, **_identity(build), "trouble": "", "overdue": build.overdue}

    def _wait(self, kind: str, build: Build, now: int) -> None:
        tally, state = self.tallies[build.executor], self.waiting[build.uid]
        state["node"] = build.node or state["node"]
        if build.started:
            tally.started += 1
            self._place(state, STARTED, 1)
            # Where the end is the first event, the start was not timed.
            if build.exit_code is None:
                took = now - state["since"] if build.reported is None else build.reported - build.created
                _count(tally.setup, str(max(0, took)))
            del self.waiting[build.uid]
            if len(self.running) >= MAX_RUNNING:
                del self.running[next(iter(self.running))]
            self.running[build.uid] = None
            return
        # A pod that is being deleted may no longer name the trouble that it was in.
        if build.trouble or not build.stopping:
            state |= {"trouble": build.trouble, "overdue": build.overdue}
        if kind != "DELETED" and not build.final:
            return
        del self.waiting[build.uid]
        # Where its deletion is read late, the API server knows how long it waited.
        waited = max(0, now - state["since"] if build.stopped is None else build.stopped - build.created)
        hung = waited >= HUNG_PART * min(self._start_timeout, WORKER_SECONDS)
        detail = self._explain(build.uid) if state["overdue"] == "SandboxFailed" and not state["trouble"] else ""
        if state["trouble"] or detail or hung:
            self._fail(build.uid, state, state["trouble"] or state["overdue"], detail)
        elif build.final and not build.stopping:
            self._fail(build.uid, state, "StartFailed")
        else:
            _count(tally.withdrawn_after, str(waited))

    def _run(self, kind: str, build: Build) -> None:
        tally = self.tallies[build.executor]
        if build.lost:
            _count(tally.ended, "lost")
        elif build.crashed and not build.stopping:
            state = _identity(build)
            tally.started -= 1
            self._place(state, STARTED, -1)
            self._fail(build.uid, state, build.crashed)
        elif build.exit_code is not None:
            end = "ok" if build.exit_code == 0 else "stopped" if build.stopping else "oom_killed" if build.oom_killed else "failed"
            _count(tally.ended, end)
        elif kind == "DELETED":
            _count(tally.ended, "stopped")
        else:
            return
        del self.running[build.uid]

    def _fail(self, uid: str, state: dict[str, t.Any], cause: str, detail: str = "") -> None:
        tally = self.tallies[state["executor"]]
        _count(tally.failures, cause)
        if cause not in tally.details:
            if cause == "SandboxFailed" and not detail:
                detail = self._explain(uid)
            tally.details[cause] = f"{state['name']}: {detail}"[:MAX_DETAIL] if detail else state["name"]
        says_of_image = cause not in _NODE_CAUSES
        self._place(state, NOT_PULLED if cause == IMAGE_PULL else FAILED, 1, says_of_image)
        pair = pair_of(state["node"], _plain(state["image"]))
        known = pair in self.both or len(self.both) < MAX_PAIRS
        if state["executor"] == KATA and says_of_image and cause != IMAGE_PULL and known:
            _count(self.both, pair)

    def _place(self, state: dict[str, t.Any], outcome: int, change: int, says_of_image: bool = True) -> None:
        """Counts an outcome for the build's image and node."""
        places = [_bounded(self.images, _plain(state["image"]), MAX_IMAGES)] if says_of_image else []
        places += [_bounded(self.nodes, state["node"], MAX_NODES)] if state["node"] else []
        for counts in places:
            counts[state["executor"]][outcome] = max(0, counts[state["executor"]][outcome] + change)


def suggested_exclusion(image: str) -> str:
    """A JavaScript pattern that names this image and no other; the tag belongs to it, since centos:6 and centos:7 are two systems."""
    return "^" + re.sub(r"[\\^$.*+?()\[\]{}|]", r"\\\g<0>", image) + "(@|$)"


def _identity(build: Build) -> dict[str, t.Any]:
    return {"executor": build.executor, "image": build.image, "node": build.node, "name": build.name}


def _plain(image: str) -> str:
    return image.partition("@")[0]


def pair_of(node: str, image: str) -> str:
    """The key of ``Observation.both``."""
    return f"{node} {image}"


def node_and_image_of(pair: str) -> list[str]:
    """What ``pair_of`` was given. The name of a node has no space."""
    return pair.split(" ", 1)


def _bounded(counts: Counts, name: str, limit: int) -> dict[str, list[int]]:
    """The counts of an image or node. Where there are too many, those with failures on Kata stay, then those with the most builds."""
    if name not in counts and len(counts) >= limit:
        kept = sorted(counts.items(), key=lambda item: (-sum(item[1][KATA][FAILED:]), -sum(map(sum, item[1].values()))))[: limit // 2]
        counts.clear()
        counts.update(kept)
    return counts.setdefault(name, {KATA: [0, 0, 0], LEGACY: [0, 0, 0]})


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
