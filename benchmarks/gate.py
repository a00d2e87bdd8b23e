"""Whole default rollouts through the gate's own Observation and judge, on seeded streams of builds.

For each cell it counts how many rollouts were rolled back, paused, or came to their end, how many were stopped before the step of 25 %, how
often the bad image or node was named, and how many builds Kata failed until then. Nothing is measured in seconds, so that the figures do
not depend on the machine.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import multiprocessing
import random
import statistics
import sys
import typing as t
from collections import Counter
from dataclasses import dataclass, replace

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import Observation
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import Build

STEPS = (0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0)
LIMITS = gate.Limits(
    window=600,
    min_builds=20,
    max_failure_ratio=0.02,
    max_failure_increase=0.02,
    max_setup_ratio=2.0,
    max_setup_seconds=300.0,
    steps=len(STEPS),
)
TIMEOUT = 3600
START_TIMEOUT = 300
TICK = 5
EPOCH = 1_800_000_000
# Start times are lognormal, half of the failures show at once and half hang until the time to start has run out.
MEDIAN_START, SPREAD = 10.0, 0.4
QUICK_FAILURE = 3
# Jobs that ask for Kata, of all builds, but at least one a minute; their pods do not show it.
PINNED, PINS_PER_SECOND = 0.02, 1 / 60
IMAGES = [f"image-{number}" for number in range(30)]
# A few images are most of the builds.
WEIGHTS = list(itertools.accumulate(1 / (number + 1) for number in range(30)))
NODES = 20


@dataclass(frozen=True)
class Cell:
    """A kind of cluster.

    Attributes:
        rate: Builds a second.
        kata: The part of Kata's starts that fail.
        legacy: That of the legacy executor.
        mistyped: The part of builds whose image does not exist.
        broken: Seconds between two builds of one broken pipeline, with an image of its own that fails everywhere; 0 for none.
        bad_node: One of Kata's nodes fails all that it gets.
        bad_image: The image that fails on Kata alone, by its place; -1 for none.
        burst: How likely three of Kata's starts in a row fail, once in each step.
        outage: How often an hour all starts of both executors fail for a minute.
        dropped: The part of Kata's builds that the API server refuses.
        slower: How many times as long as on the legacy executor a start takes on Kata.
        day: From half of the rollout on, both executors fail and take that many times as much.
        vm: The legacy executor is k8s-vm.
    """

    name: str
    rate: float
    kata: float = 0.002
    legacy: float = 0.002
    mistyped: float = 0.0
    broken: float = 0.0
    bad_node: bool = False
    bad_image: int = -1
    burst: float = 0.0
    outage: float = 0.0
    dropped: float = 0.0
    slower: float = 1.0
    day: float = 1.0
    vm: bool = False
    rollouts: int = 100


class Outcome(t.NamedTuple):
    """How one rollout went.

    Attributes:
        end: rolled back, paused or finished.
        step: The number of the step at which it ended, from 0.
        doubt: What stood against passing.
        failed: Builds that failed to start on Kata.
        named: What was left out as the worst at the end, or in any step.
    """

    end: str
    step: int
    doubt: str
    failed: int
    named: frozenset[str]


class Stream:
    """The builds of one rollout, second by second."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell = cell
        self.random = random.Random(seed)
        self.now = EPOCH
        self.serial = itertools.count()
        self.due: list[tuple[int, int, str, Build]] = []
        self.failed = 0
        self.outages = [EPOCH + self.random.uniform(0, 3600) for _unused in range(math.ceil(cell.outage))]
        self.burst_at = 0
        self.burst_left = 0
        self.next_broken = EPOCH + cell.broken

    def begin_step(self) -> None:
        """Builds of the step before are not of this observation."""
        self.due.clear()
        self.burst_at = self.now + self.random.randrange(300) if self.random.random() < self.cell.burst else 0
        self.burst_left = 3

    def advance(self, seen: Observation, share: float, pins: float) -> None:
        """Lets the next few seconds happen, and feeds them to the observation."""
        end = self.now + TICK
        for _unused in range(self._poisson(self.cell.rate * TICK)):
            self._create(self.random.random() * 100 < share, "")
        for _unused in range(self._poisson(pins * TICK)):
            self._create(True, "")
        if self.cell.broken and end > self.next_broken:
            self.next_broken += self.cell.broken
            self._create(self.random.random() * 100 < share, "broken")
        while self.due and self.due[0][0] < end:
            at, _number, kind, build = heapq.heappop(self.due)
            seen.event(kind, build, at)
        self.now = end
        seen.tick(end)

    def _poisson(self, mean: float) -> int:
        count, product = 0, self.random.random()
        limit = math.exp(-mean)
        while product > limit:
            count += 1
            product *= self.random.random()
        return count

    def _create(self, kata: bool, image: str) -> None:
        cell, chance = self.cell, self.random.random
        if kata and chance() < cell.dropped:
            return
        at = self.now + int(chance() * TICK)
        number = next(self.serial)
        mistyped = chance() < cell.mistyped
        image = image or (f"typo-{number}" if mistyped else self.random.choices(IMAGES, cum_weights=WEIGHTS)[0])
        node = f"{'kata' if kata else 'vm'}-{self.random.randrange(NODES)}"
        day = cell.day if self.now - EPOCH > 7200 else 1.0
        fails = chance() < (cell.kata if kata else cell.legacy) * day
        fails |= image == "broken" or any(start <= at < start + 60 for start in self.outages)
        fails |= kata and (cell.bad_node and node == "kata-0" or cell.bad_image >= 0 and image == IMAGES[cell.bad_image])
        if kata and self.burst_at and at >= self.burst_at and self.burst_left:
            self.burst_left -= 1
            fails = True
        pulls = mistyped or image == "broken"
        # A launcher starts whatever image it is handed.
        fails = (fails or pulls) and not (pulls and cell.vm and not kata)
        if fails:
            build = build_of(number, at, kata, image, node)
            self.failed += kata
            if pulls or chance() < 0.5:
                trouble = "ImagePull" if pulls else "CreateContainerError"
                self._push(at, "ADDED", build)
                self._push(at + QUICK_FAILURE, "MODIFIED", replace(build, trouble=trouble, final=True))
            else:
                self._push(at, "ADDED", build)
            return
        took = max(1, round(self.random.lognormvariate(math.log(MEDIAN_START), SPREAD) * (cell.slower if kata else 1.0) * day))
        if kata:
            self._push(at, "ADDED", build_of(number, at, kata, image, node))
            self._push(at + took, "MODIFIED", build_of(number, at, kata, image, node, at + took))
        else:
            # Nothing is judged by how many of the legacy executor's builds wait.
            self._push(at, "ADDED", build_of(number, at, kata, image, node, at + took))

    def _push(self, at: int, kind: str, build: Build) -> None:
        heapq.heappush(self.due, (at, next(self.serial), kind, build))


def build_of(number: int, created: int, kata: bool, image: str, node: str, reported: int | None = None) -> Build:
    """A build that has just been created, or whose start was reported."""
    return Build(
        uid=str(number),
        name=f"build-{number}",
        created=created,
        kata=kata,
        image=image,
        node=node,
        pinned=False,
        launcher=False,
        started=reported is not None,
        reported=reported,
        trouble="",
        overdue="StartTimeout",
        final=False,
        exit_code=None,
        ran_seconds=0,
        oom_killed=False,
        lost="",
        stopping=False,
        stopped=None,
    )


def run(cell: Cell, seed: int) -> Outcome:
    """One rollout."""
    stream = Stream(cell, seed)
    names = gate.Names("k8s-kata", "k8s-vm" if cell.vm else "k8s")
    baseline: dict[str, t.Any] = {}
    earlier: list[float] = []
    named: set[str] = set()
    pins = max(PINNED * cell.rate, PINS_PER_SECOND)
    for number, share in enumerate(STEPS):
        limits = replace(LIMITS, share=share, earlier=tuple(earlier))
        seen = Observation({}, START_TIMEOUT, lambda image: False, lambda uid: "", pilot=share == 0)
        seen.begin([], "1", baseline)
        seen.newest = stream.now
        stream.begin_step()
        while True:
            stream.advance(seen, share, pins)
            seen.observed_seconds += TICK
            found = gate.judge(seen, limits, names, stream.now)
            if found.verdict != gate.INCONCLUSIVE or found.pause or seen.observed_seconds >= TIMEOUT:
                break
        named |= {item["name"] for item in found.worst.values() if item and item["failed"] >= gate.MIN_FAILURES}
        if found.verdict != gate.PASS:
            end = "rolled back" if found.verdict == gate.FAIL else "paused"
            return Outcome(end, number, found.doubt, stream.failed, frozenset(named))
        earlier.append(found.log_e)
        baseline = gate.next_baseline(seen, limits, names)
    return Outcome("finished", len(STEPS), "", stream.failed, frozenset(named))


CELLS = [
    *(Cell(f"healthy {100 * p:g} %", 1.0, p, p, rollouts=300) for p in (0.0, 0.002, 0.005, 0.01, 0.015, 0.02)),
    *(Cell(f"healthy {100 * p:g} %", rate, p, p) for rate in (0.2, 5.0) for p in (0.002, 0.01)),
    Cell("Kata 1.5 %, legacy 0.2 %", 1.0, 0.015, 0.002),
    *(Cell(f"Kata +{100 * p:g} points", 1.0, 0.002 + p, rollouts=200) for p in (0.01, 0.02, 0.05, 0.1, 0.2)),
    *(Cell("Kata +5 points", rate, 0.052) for rate in (0.2, 5.0)),
    Cell("Kata fails all", 1.0, 1.0),
    Cell("both fail 10 %", 1.0, 0.1, 0.1, rollouts=200),
    Cell("three failures in a row, 15 % a step", 1.0, burst=0.15, rollouts=200),
    Cell("outages of a minute, 2 in the first hour", 1.0, outage=2.0, rollouts=200),
    Cell("one bad node of 20", 1.0, bad_node=True, rollouts=200),
    Cell("one image fails on Kata alone", 1.0, bad_image=4, rollouts=200),
    Cell("one broken pipeline, once a minute", 1.0, broken=60.0, rollouts=200),
    Cell("1.5 % mistyped images, legacy k8s-vm", 1.0, mistyped=0.015, vm=True, rollouts=200),
    Cell("night to day: 3 times slower and more failures", 1.0, 0.003, 0.003, day=3.0),
    Cell("half of Kata's builds are dropped", 1.0, dropped=0.5),
    Cell("all of Kata's builds are dropped", 1.0, dropped=1.0),
    Cell("Kata 3 times slower", 1.0, slower=3.0),
]


def _run(task: tuple[int, int]) -> tuple[int, Outcome]:
    number, seed = task
    return number, run(CELLS[number], 1_000_003 * number + seed)


def row(cell: Cell, found: list[Outcome]) -> list[str]:
    """The line of one cell."""
    bad = {"kata-0"} if cell.bad_node else {IMAGES[cell.bad_image]} if cell.bad_image >= 0 else {"broken"} if cell.broken else set()
    return [
        cell.name,
        f"{cell.rate:g}",
        str(len(found)),
        _percent([one.end == "rolled back" for one in found]),
        _percent([one.end == "paused" for one in found]),
        _percent([one.end != "finished" and one.step < STEPS.index(25.0) for one in found]),
        _percent([bool(bad & one.named) for one in found]) if bad else "-",
        f"{statistics.median(one.failed for one in found):g}",
    ]


def show(texts: list[str]) -> None:
    """Prints one line of the table."""
    print(
        "  ".join(text.ljust(width) if at == 0 else text.rjust(width) for at, (text, width) in enumerate(zip(texts, WIDTHS, strict=True))),
        flush=True,
    )


def _percent(found: list[bool]) -> str:
    return f"{100 * sum(found) / len(found):.1f}"


HEAD = ["cell", "builds/s", "rollouts", "rolled back %", "paused %", "before 25 % %", "named %", "failed builds"]
WIDTHS = [max(len(cell.name) for cell in CELLS), *(len(text) for text in HEAD[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="", help="only cells whose name has this text")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times the usual number of rollouts")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [number for number, cell in enumerate(CELLS) if options.cells in cell.name]
    tasks = [(number, seed) for number in chosen for seed in range(max(1, round(CELLS[number].rollouts * options.scale)))]
    outcomes: dict[int, list[Outcome]] = {number: [] for number in chosen}
    left = Counter(number for number, _seed in tasks)
    show(HEAD)
    with multiprocessing.Pool(options.processes) as pool:
        for done, (number, outcome) in enumerate(pool.imap_unordered(_run, tasks), 1):
            outcomes[number].append(outcome)
            left[number] -= 1
            print(f"\r{done} of {len(tasks)} rollouts", end="", file=sys.stderr, flush=True)
            if not left[number]:
                print("\r", end="", file=sys.stderr, flush=True)
                show(row(CELLS[number], outcomes[number]))
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
