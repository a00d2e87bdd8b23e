"""Whole default rollouts through the gate's own Observation and judge, on seeded streams of builds.

For each cell it counts how many rollouts were rolled back, paused, or came to their end, how many were stopped before the step of 25 %, how
often the bad image or node was named, and how many builds Kata failed until then. Nothing is measured in seconds, so that the figures do
not depend on the machine. Percentages have their 95 % interval (Clopper and Pearson, Biometrika 26, 1934).
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import json
import math
import random
import statistics
import typing as t
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import Observation
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import Build
from scipy.stats import beta

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
# How often the gate is judged where nothing that decides has happened since: before the end of the window a failure does, then any outcome.
QUIET = 60
EPOCH = 1_800_000_000
# Start times are lognormal, half of the failures show at once and half hang until the time to start has run out.
MEDIAN_START, SPREAD = 10.0, 0.4
QUICK_FAILURE = 3
# Jobs that ask for Kata, of all builds, but at least one a minute; their pods do not show it.
PINNED, PINS_PER_SECOND = 0.02, 1 / 60
IMAGES = [f"image-{number}" for number in range(30)]
# A few images are most of the builds.
WEIGHTS = list(itertools.accumulate(1 / (number + 1) for number in range(30)))
WEIGHTS = [weight / WEIGHTS[-1] for weight in WEIGHTS]
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
        bad_node: One of Kata's nodes fails all of its builds.
        bad_image: The image that fails on Kata alone, by its place; -1 for none.
        burst: How likely three of Kata's starts in a row fail, once in each step.
        outage: How often an hour all starts of both executors fail for a minute.
        dropped: The part of Kata's builds that the API server refuses.
        slower: How many times as long as on the legacy executor a start takes on Kata.
        day: From half of the rollout on, both executors fail and take that many times as much.
        vm: The legacy executor is k8s-vm.
        weight: How many rollouts it gets for each of the others'.
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
    weight: int = 1

    @property
    def bad(self) -> tuple[str, str]:
        """The kind and the name of the one that is bad, where there is one."""
        if self.bad_node:
            return "node", "kata-0"
        return ("image", "broken" if self.broken else IMAGES[self.bad_image]) if self.broken or self.bad_image >= 0 else ("", "")


class Outcome(t.NamedTuple):
    """How one rollout went.

    Attributes:
        end: rolled back, paused or finished.
        step: The number of the step at which it ended, from 0.
        doubt: What stood against passing.
        failed: Builds that failed to start on Kata.
        hits: Failed starts of the bad image or node on Kata that the gate observed.
        named: Whether the gate named it at the end as the worst.
    """

    end: str
    step: int
    doubt: str
    failed: int
    hits: int
    named: bool


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
        """Simulates the next few seconds, and feeds them to the observation."""
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
        image = image or (f"typo-{number}" if mistyped else IMAGES[bisect.bisect(WEIGHTS, chance())])
        node = f"{'kata' if kata else 'vm'}-{int(chance() * NODES)}"
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
            self.failed += kata
            self._push(at, "ADDED", build_of(number, at, kata, image, node))
            if pulls or chance() < 0.5:
                trouble = "ImagePull" if pulls else "CreateContainerError"
                self._push(at + QUICK_FAILURE, "MODIFIED", build_of(number, at, kata, image, node, trouble=trouble))
            return
        took = max(1, round(MEDIAN_START * math.exp(SPREAD * self.random.gauss()) * (cell.slower if kata else 1.0) * day))
        if kata:
            self._push(at, "ADDED", build_of(number, at, kata, image, node))
            self._push(at + took, "MODIFIED", build_of(number, at, kata, image, node, at + took))
        else:
            # The number of waiting builds on the legacy executor decides nothing.
            self._push(at, "ADDED", build_of(number, at, kata, image, node, at + took))

    def _push(self, at: int, kind: str, build: Build) -> None:
        heapq.heappush(self.due, (at, next(self.serial), kind, build))


# A build that has just been created.
CREATED = vars(
    Build(
        uid="",
        name="",
        created=0,
        kata=False,
        image="",
        node="",
        pinned=False,
        job="",
        launcher=False,
        started=False,
        reported=None,
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
)


def build_of(number: int, created: int, kata: bool, image: str, node: str, reported: int | None = None, trouble: str = "") -> Build:
    """A build that has just been created, whose start was reported, or that has failed."""
    uid = str(number)
    build = object.__new__(Build)
    # A hundred thousand builds a cell: what the class does for a frozen instance takes longer than all of the gate.
    vars(build).update(
        CREATED,
        uid=uid,
        name=uid,
        created=created,
        kata=kata,
        image=image,
        node=node,
        started=reported is not None,
        reported=reported,
        trouble=trouble,
        final=trouble != "",
    )
    return build


def run(cell: Cell, seed: int) -> Outcome:
    """One rollout."""
    stream = Stream(cell, seed)
    names = gate.Names("k8s-kata", "k8s-vm" if cell.vm else "k8s")
    baseline: dict[str, t.Any] = {}
    earlier: list[float] = []
    hits = 0
    pins = max(PINNED * cell.rate, PINS_PER_SECOND)
    kind, bad = cell.bad
    for number, share in enumerate(STEPS):
        limits = replace(LIMITS, share=share, earlier=tuple(earlier))
        seen = Observation({}, START_TIMEOUT, lambda image: False, lambda uid: "", pilot=share == 0)
        seen.begin([], "1", baseline)
        seen.newest = stream.now
        stream.begin_step()
        kata, last = seen.tallies["kata"], 0
        while True:
            stream.advance(seen, share, pins)
            seen.observed_seconds += TICK
            over = seen.observed_seconds >= limits.window
            decisive = kata.outcomes if over else kata.failed
            if decisive == last and seen.observed_seconds % QUIET and seen.observed_seconds != limits.window:
                continue
            last = decisive
            found = gate.judge(seen, limits, names, stream.now)
            if found.verdict != gate.INCONCLUSIVE or found.pause or seen.observed_seconds >= TIMEOUT:
                break
        counts = {"node": seen.nodes, "image": seen.images}.get(kind, {})
        hits += sum(counts[bad]["kata"][1:]) if bad in counts else 0
        worst = found.worst.get(kind) or {"name": ""}
        if found.verdict != gate.PASS:
            end = "rolled back" if found.verdict == gate.FAIL else "paused"
            return Outcome(end, number, found.doubt, stream.failed, hits, worst["name"] == bad != "")
        earlier.append(found.log_e)
        baseline = gate.next_baseline(seen, limits, names)
    return Outcome("finished", len(STEPS), "", stream.failed, hits, worst["name"] == bad != "")


RATES = (1.0, 0.2, 5.0)
# What is promised is promised at 1 build a second.
USUAL = {1.0: 3, 0.2: 1, 5.0: 1}
CELLS = [
    *(Cell(f"healthy {100 * p:g} %", rate, p, p, weight=USUAL[rate]) for rate in RATES for p in (0.01, 0.005, 0.002, 0.0, 0.015, 0.02)),
    *(Cell("Kata +5 points", rate, 0.052, weight=USUAL[rate]) for rate in RATES),
    *(Cell(f"Kata +{100 * p:g} points", rate, 0.002 + p) for rate in RATES for p in (0.1, 0.2, 0.02, 0.01)),
    *(Cell("Kata fails all", rate, 1.0) for rate in RATES),
    *(Cell("both fail 10 %", rate, 0.1, 0.1, weight=USUAL[rate]) for rate in RATES),
    *(Cell("three failures in a row, 15 % a step", rate, burst=0.15, weight=USUAL[rate]) for rate in RATES),
    *(Cell("one bad node of 20", rate, bad_node=True, weight=USUAL[rate]) for rate in RATES),
    *(Cell("one image fails on Kata alone", rate, bad_image=4, weight=USUAL[rate]) for rate in RATES),
    *(Cell("outages of a minute, 2 in the first hour", rate, outage=2.0, weight=USUAL[rate]) for rate in RATES),
    *(Cell("night to day: 3 times slower and more failures", rate, 0.003, 0.003, day=3.0) for rate in RATES),
    Cell("Kata 1.5 %, legacy 0.2 %", 1.0, 0.015, 0.002),
    Cell("one broken pipeline, once a minute", 1.0, broken=60.0),
    Cell("1.5 % mistyped images, legacy k8s-vm", 1.0, mistyped=0.015, vm=True),
    Cell("half of Kata's builds are dropped", 1.0, dropped=0.5),
    Cell("all of Kata's builds are dropped", 1.0, dropped=1.0),
    Cell("Kata 3 times slower", 1.0, slower=3.0),
]


def seed_of(cell: Cell, number: int) -> int:
    """The seed of a cell's rollout, the same whichever cells are run."""
    return zlib.crc32(f"{cell.name} {cell.rate} {number}".encode())


HEAD = ["cell", "builds/s", "rollouts", "rolled back %", "paused %", "before 25 % %", "named %", "failed builds"]
# A failure of a bad node or image may be anything's; one that failed as often must be named.
HITS = 2


def row(cell: Cell, found: list[Outcome]) -> list[str]:
    """The line of one cell."""
    hit = [one.named for one in found if one.hits >= HITS]
    return [
        cell.name,
        f"{cell.rate:g}",
        str(len(found)),
        percent([one.end == "rolled back" for one in found]),
        percent([one.end == "paused" for one in found]),
        percent([one.end != "finished" and one.step < STEPS.index(25.0) for one in found]),
        f"{percent(hit)} of {len(hit)}" if hit else "-",
        f"{statistics.median(one.failed for one in found):g}",
    ]


def percent(found: list[bool]) -> str:
    """The part that is true, with its 95 % interval."""
    hits, count = sum(found), len(found)
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return f"{100 * hits / count:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def show(results: dict[Cell, dict[int, Outcome]]) -> None:
    """Prints the table."""
    rows = [HEAD, *(row(cell, list(found.values())) for cell, found in results.items() if found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *texts in rows:
        print(name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(texts, widths[1:], strict=True)), sep="  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="", help="only cells whose name has this text")
    parser.add_argument("--rate", type=float, help="only cells with this many builds a second")
    parser.add_argument("--rollouts", type=int, default=100, help="of each cell; those of more weight get more")
    parser.add_argument("--results", type=Path, help="a file to which each rollout is appended, and whose rollouts are not run again")
    options = parser.parse_args()
    chosen = [cell for cell in CELLS if options.cells in cell.name and options.rate in (None, cell.rate)]
    results: dict[Cell, dict[int, Outcome]] = {cell: {} for cell in chosen}
    by_name = {(cell.name, cell.rate): cell for cell in chosen}
    if options.results and options.results.exists():
        for line in options.results.read_text().splitlines():
            name, rate, number, *outcome = json.loads(line)
            if cell := by_name.get((name, rate)):
                results[cell][number] = Outcome(*outcome)
    # All cells advance together, so that a run that is interrupted has something of each.
    for part, cell in itertools.product(range(options.rollouts), chosen):
        for number in range(part * cell.weight, (part + 1) * cell.weight):
            if number not in results[cell]:
                results[cell][number] = run(cell, seed_of(cell, number))
                if options.results:
                    with options.results.open("a") as file:
                        file.write(json.dumps([cell.name, cell.rate, number, *results[cell][number]]) + "\n")
    show(results)


if __name__ == "__main__":
    main()
