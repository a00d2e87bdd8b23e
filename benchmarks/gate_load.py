"""Measures the gate on a window of very many builds: CPU time of each build as the window fills, and the memory of the process.

Each build is three events of its pod, read and judged as the module does it. Figures are CPU seconds of this process, not of a clock, and
the least of several rounds, since other work on the machine adds to them.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import resource
import time
import typing as t
from datetime import UTC, datetime
from functools import lru_cache

from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import Observation
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import read_build
from ansible_collections.screwdriver.kata.plugins.modules.build_gate import MAX_CACHED_IMAGES

EPOCH = 1_800_000_000
PART = 5000
ROUNDS = 5
# Builds between two verdicts, as with 80 builds a second and a verdict every 5 seconds.
BUILDS_PER_LOOK = 40
LIMITS = gate.Limits(600, 20, 0.02, 0.02, 2.0, 300.0, share=50.0, steps=7)
NAMES = gate.Names("k8s-kata", "k8s")
EXCLUSIONS = ["rhel6", "^centos:6", "(windows|win)-?server", "/legacy-.*:20(1[0-9]|2[0-3])"]


def pod(number: int, image: str) -> dict[str, t.Any]:
    """A pod of executor-k8s that waits for its start."""
    return {
        "metadata": {
            "uid": f"{number:08x}-0000-4000-8000-000000000000",
            "name": f"screwdriver-{number}",
            "creationTimestamp": stamp(EPOCH + number // 80),
            "labels": {"sdbuild": "1", "tier": "builds"},
            "managedFields": [{"manager": "kubelet", "subresource": "status", "time": stamp(EPOCH + number // 80)}],
        },
        "spec": {
            **({"runtimeClassName": "kata"} if number % 2 else {}),
            "nodeName": f"node-{number % 40}",
            "containers": [{"name": "1", "image": image}],
        },
        "status": {"phase": "Pending", "containerStatuses": [{"name": "1", "state": {"waiting": {"reason": "ContainerCreating"}}}]},
    }


def stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lives(number: int, image: str) -> list[tuple[str, dict[str, t.Any]]]:
    """What the watch shows of one build: one of 200 cannot be created, the others start, and end well."""
    waits = pod(number, image)
    runs, ends = copy.deepcopy(waits), copy.deepcopy(waits)
    start, end = stamp(EPOCH + number // 80 + 8), stamp(EPOCH + number // 80 + 200)
    for later, state in (
        (runs, {"running": {"startedAt": start}}),
        (ends, {"terminated": {"startedAt": start, "finishedAt": end, "exitCode": 0}}),
    ):
        later["status"]["containerStatuses"][0]["state"] = state
        later["metadata"]["managedFields"][0]["time"] = start if "running" in state else end
    if number % 200 == 0:
        runs["status"] = {"phase": "Failed", "containerStatuses": [{"name": "1", "state": {"waiting": {"reason": "CreateContainerError"}}}]}
        return [("ADDED", waits), ("MODIFIED", runs)]
    return [("ADDED", waits), ("MODIFIED", runs), ("MODIFIED", ends)]


def image(number: int, images: int) -> str:
    """That of a build, of so many."""
    return f"registry.example.com/team/image-{number % images}"


def observation() -> Observation:
    """One that has begun, as of the module."""
    is_excluded = lru_cache(MAX_CACHED_IMAGES)(lambda name: _javascript.matches_any(EXCLUSIONS, name))
    seen = Observation({}, 300, is_excluded, lambda uid: "")
    seen.begin([], "1", {})
    return seen


def take(seen: Observation, number: int, life: list[tuple[str, dict[str, t.Any]]]) -> None:
    """What the module does with the events of one build."""
    now = EPOCH + number // 80
    for kind, state in life:
        seen.event(kind, read_build(state, "kata"), now)
    if number % BUILDS_PER_LOOK == 0:
        seen.tick(now)
        gate.judge(seen, LIMITS, NAMES, now)


def run(builds: int, images: int) -> tuple[list[float], float, float]:
    """Microseconds a build of each part, MiB of the process at its greatest, KiB of the evidence."""
    seen = observation()
    spent: list[float] = []
    for number in range(builds):
        # Created one at a time, as in the events of a watch.
        life = lives(number, image(number, images))
        began = time.process_time()
        take(seen, number, life)
        if number % PART == 0:
            spent.append(0.0)
        spent[-1] += time.process_time() - began
    parts = [1e6 * seconds / PART for seconds in spent]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return parts, memory, len(json.dumps(seen.dump())) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=50_000)
    builds = parser.parse_args().builds
    print(f"{'builds':>7} {'images':>7}  {'first 5,000':>12} {'last 5,000':>12}  {'memory':>9}  {'evidence':>9}")
    for images in (30, builds):
        first = last = math.inf
        for _round in range(ROUNDS):
            # In a process of its own, so that the memory is that of this run alone.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                parts, memory, evidence = pool.apply(run, (builds, images))
            first, last = min(first, parts[0]), min(last, parts[-1])
        print(f"{builds:7} {images:7}  {first:9.0f} us {last:9.0f} us  {memory:5.0f} MiB  {evidence:5.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
