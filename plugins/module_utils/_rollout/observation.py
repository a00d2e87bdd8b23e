# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From the events of a watch to figures of each executor. Pure: it is told what happened and what time it is."""

from __future__ import annotations

import re
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY, Build

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Where an image's [good, bad] builds are counted.
GOOD, BAD = 0, 1
EVIDENCE_VERSION = 1

# Bounds that keep the evidence far below the 1 MiB of a ConfigMap.
MAX_WAITING = 5000
MAX_RUNNING = 5000
MAX_IMAGES = 500
MAX_EXCLUDED_IMAGES = 50
MAX_DETAIL = 240


@dataclass
class Tally:
    """The builds of one executor whose image no exclusion names.

    Attributes:
        seen: Builds created during the observation.
        started: Builds whose container started, and that were not lost to the runtime or the node afterwards.
        failures: Builds that the executor failed, by cause.
        withdrawn: Builds that were deleted before they had the time to start.
        ended: ok, failed (the user's own exit code), oom_killed or stopped (deleted while running); a part of started.
        setup: Builds by setup seconds.
        details: One message for each cause.
        excluded: Builds whose image an exclusion names; no other figure counts them.
    """

    seen: int = 0
    started: int = 0
    withdrawn: int = 0
    excluded: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    setup: dict[str, int] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def outcomes(self) -> int:
        """Builds that either started or failed: what a verdict rests on."""
        return self.started + self.failed

    def plus(self, other: Tally) -> Tally:
        def add(one: dict[str, int], two: dict[str, int]) -> dict[str, int]:
            return {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}

        return Tally(
            seen=self.seen + other.seen,
            started=self.started + other.started,
            withdrawn=self.withdrawn + other.withdrawn,
            excluded=self.excluded + other.excluded,
            failures=add(self.failures, other.failures),
            ended=add(self.ended, other.ended),
            setup=add(self.setup, other.setup),
            details={**other.details, **self.details},
        )


class Observation:
    """Everything known about the builds of one observation. ``dump`` and ``load`` carry it from one call to the next.

    Attributes:
        waiting: By pod uid, the builds that wait for their start: since when, and what each would be judged as.
        running: The pod uids of the builds that have started and not ended. The oldest is forgotten when they are too many.
        newest: When the youngest pod seen was created. What a relist shows beyond it is new.
        images: By image and executor, [good, bad] builds.
        baseline: The legacy executor's figures of an earlier observation, fixed at the beginning so that none of its own are added to it.
    """

    def __init__(
        self, scope: dict[str, str], start_timeout: int, is_excluded: Callable[[str], bool], explain: Callable[[str], str]
    ) -> None:
        """scope: what evidence must agree in. explain: the message of a pod's FailedCreatePodSandBox event by the pod's uid, or ''."""
        self.scope = scope
        self.resource_version = ""
        self.observed_seconds = 0.0
        self.gaps = 0
        self.newest = 0
        self.tallies = {KATA: Tally(), LEGACY: Tally()}
        self.images: dict[str, dict[str, list[int]]] = {}
        self.excluded_on_kata: dict[str, int] = {}
        self.waiting: dict[str, dict[str, t.Any]] = {}
        self.running: dict[str, None] = {}
        self.baseline: dict[str, t.Any] = {}
        self._start_timeout = start_timeout
        self._is_excluded = is_excluded
        self._explain = explain

    def load(self, evidence: dict[str, t.Any]) -> None:
        if evidence.get("version") != EVIDENCE_VERSION:
            raise UserError(
                f"evidence has version {evidence.get('version')!r}, this module reads version {EVIDENCE_VERSION}:"
                " leave evidence out to begin the observation anew."
            )
        for key, value in self.scope.items():
            if evidence["scope"].get(key) != value:
                taken = evidence["scope"].get(key)
                raise UserError(
                    f"evidence was taken with {key} {taken!r}, not {value!r}: leave evidence out to begin the observation anew."
                )
        self.resource_version = evidence["resource_version"]
        self.observed_seconds = evidence["observed_seconds"]
        self.gaps = evidence["gaps"]
        self.newest = evidence["newest"]
        self.tallies = {key: Tally(**value) for key, value in evidence["executors"].items()}
        self.images = evidence["images"]
        self.excluded_on_kata = evidence["excluded_on_kata"]
        self.waiting = evidence["waiting"]
        self.running = dict.fromkeys(evidence["running"])
        self.baseline = evidence["baseline"]

    def dump(self) -> dict[str, t.Any]:
        return {
            "version": EVIDENCE_VERSION,
            "scope": self.scope,
            "resource_version": self.resource_version,
            "observed_seconds": round(self.observed_seconds, 1),
            "gaps": self.gaps,
            "newest": self.newest,
            "executors": {key: asdict(tally) for key, tally in self.tallies.items()},
            "images": self.images,
            "excluded_on_kata": self.excluded_on_kata,
            "waiting": self.waiting,
            "running": list(self.running),
            "baseline": self.baseline,
        }

    def begin(self, builds: Iterable[Build], resource_version: str, baseline: dict[str, t.Any]) -> None:
        """The builds that exist already belong to the time before the observation."""
        self.newest = max((build.created for build in builds), default=0)
        self.resource_version = resource_version
        self.baseline = baseline

    def relist(self, builds: Iterable[Build], resource_version: str, now: int) -> None:
        """Goes on after a watch that came too late (410): builds that came and went in the gap were not seen."""
        self.gaps += 1
        listed = {build.uid: build for build in builds}
        self.waiting = {uid: state for uid, state in self.waiting.items() if uid in listed}
        self.running = dict.fromkeys(uid for uid in self.running if uid in listed)
        newest = self.newest
        for build in listed.values():
            self.event("ADDED" if build.created > newest else "MODIFIED", build, now)
        self.resource_version = resource_version

    def waiting_since(self, executor: str) -> list[int]:
        """Epoch seconds since when each build of the executor waits for its start."""
        return [state["since"] for state in self.waiting.values() if state["executor"] == executor]

    def event(self, kind: str, build: Build, now: int) -> None:
        """Takes one event of the watch: ADDED, MODIFIED or DELETED."""
        if kind == "ADDED":
            self._arrive(build, now)
        if build.uid in self.waiting:
            self._wait(kind, build)
        if build.uid in self.running:
            self._run(kind, build)

    def tick(self, now: int) -> None:
        """Fails the builds whose time to start has run out. The time counts from when they were first seen, by this machine's clock."""
        for uid in [uid for uid, state in self.waiting.items() if now - state["since"] >= self._start_timeout]:
            state = self.waiting.pop(uid)
            self._fail(uid, state, state["trouble"] or state["overdue"])

    def _arrive(self, build: Build, now: int) -> None:
        self.newest = max(self.newest, build.created)
        tally = self.tallies[build.executor]
        if self._is_excluded(build.image):
            tally.excluded += 1
            if build.kata and (build.image in self.excluded_on_kata or len(self.excluded_on_kata) < MAX_EXCLUDED_IMAGES):
                _count(self.excluded_on_kata, build.image)
        elif len(self.waiting) < MAX_WAITING:
            tally.seen += 1
            self.waiting[build.uid] = {"since": now, **_identity(build), "trouble": "", "overdue": build.overdue}

    def _wait(self, kind: str, build: Build) -> None:
        tally, state = self.tallies[build.executor], self.waiting[build.uid]
        if build.setup_seconds is not None:
            tally.started += 1
            _count(tally.setup, str(build.setup_seconds))
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
        detail = self._explain(build.uid) if state["overdue"] == "SandboxFailed" and not state["trouble"] else ""
        if state["trouble"] or detail:
            self._fail(build.uid, state, state["trouble"] or state["overdue"], detail)
        elif build.final and not build.stopping:
            self._fail(build.uid, state, "StartFailed")
        else:
            tally.withdrawn += 1

    def _run(self, kind: str, build: Build) -> None:
        tally = self.tallies[build.executor]
        if cause := build.lost or ("" if build.stopping else build.crashed):
            tally.started -= 1
            self._fail(build.uid, _identity(build), cause)
        elif build.exit_code is not None:
            end = "ok" if build.exit_code == 0 else "stopped" if build.stopping else "oom_killed" if build.oom_killed else "failed"
            _count(tally.ended, end)
            if end != "stopped":
                self._count_image(build.image, build.executor, GOOD if end == "ok" else BAD)
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
        # A full pool or a lost node says nothing about the image.
        if cause not in ("Unschedulable", "Evicted", "NodeLost"):
            self._count_image(state["image"], state["executor"], BAD)

    def _count_image(self, image: str, executor: str, outcome: int) -> None:
        """When there are too many images, those with the fewest failures on Kata go first."""
        image = image.partition("@")[0]
        if image not in self.images and len(self.images) >= MAX_IMAGES:
            del self.images[min(self.images, key=lambda name: self.images[name].get(KATA, [0, 0])[BAD])]
        self.images.setdefault(image, {}).setdefault(executor, [0, 0])[outcome] += 1


def suggested_exclusion(image: str) -> str:
    """A JavaScript pattern that names this image and no other; the tag belongs to it, since centos:6 and centos:7 are two systems."""
    return "^" + re.sub(r"[\\^$.*+?()\[\]{}|]", r"\\\g<0>", image) + "(@|$)"


def _identity(build: Build) -> dict[str, t.Any]:
    return {"executor": build.executor, "image": build.image, "name": build.name}


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
