#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: build_gate
short_description: Watch builds and judge whether Kata Containers may get a greater share
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Watches the pods of Screwdriver builds for a while and compares those that run in Kata Containers with those of the legacy executor.
  - Only reads. Needs the verbs C(list) and C(watch) on pods and C(list) on events in the namespace of the builds, and C(get) on that
    namespace if it is empty.
  - A build counts once it either started or failed to start, and only if its pod was created after the observation began.
  - A build has started when its build container runs, whatever happens to it later. The setup time is the time from the pod's creation to
    the report of that start, both by the API server's clock, in whole seconds.
  - A build has failed to start when its pod fails, or is deleted with a visible cause, or has not started O(start_timeout) seconds after
    it was first observed, or was deleted at that time, as the worker does. A build that ends by a signal such as SIGSEGV (exit code 139) or
    by OOM in its first 10 seconds has failed too. A build that is deleted earlier than that with no visible cause was withdrawn.
  - Builds whose job asks for an executor (annotation C(screwdriver.cd/executor) or C(beta.screwdriver.cd/executor) of the pod) follow no
    share. They are kept out of all figures, except at the pilot, which judges those on Kata.
  - Pods of C(executor-k8s-vm) start a launcher, which pulls the build's image out of sight. Beside such a legacy executor failed pulls
    are left out on both sides, and setup times are not compared. It is recognised by its pods, or by the name C(k8s-vm).
  - Exit codes are figures alone, since the launcher of a build ends with 0 after a failure of its user's as well.
  - A long observation may be a series of short calls that each hand RV(evidence) to the next. Nothing is missed between calls, for as
    long as the API server keeps its history (5 minutes by default). After a gap the builds that exist are no evidence, since of those that
    came meanwhile the failed ones are over-represented. A gap is counted in RV(gaps).
notes:
  - The verdict is V(fail) on three things alone. Starts fail on Kata more often than O(max_failure_ratio) and by more than
    O(max_failure_increase) more often than on the legacy executor at the same time. Or a build of an excluded image reached Kata although
    its job did not ask for it. Or builds on Kata are missing, measured by O(share).
  - The image and the node that fail most beyond what the others do, over all steps of the rollout, are left out of the first and named in
    RV(worst), unless there is no other.
  - The tests are anytime-valid, see R(the guide,ansible_collections.screwdriver.kata.docsite.guide_gate). They hold however often they are
    evaluated, so that the verdict is formed every few seconds.
  - What cannot be compared, such as failed starts without builds of the legacy executor at the same time, or setup times, never fails
    the gate. It makes the verdict V(inconclusive), and sets RV(pause) where more watching does not help.
  - The verdict is V(pass) when O(window) seconds were observed, O(min_builds) builds on Kata have an outcome, no figure, taken as it
    stands, is above its threshold, and no build waits much longer than those that started. No evidence is not success.
  - Everything else is V(inconclusive).
  - Setup times are compared with those in O(baseline) where the legacy executor has few builds of its own.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
  - screwdriver.kata._attributes.info_module
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full
  action_group:
    support: full
options:
  namespace:
    description:
      - The namespace of the build pods.
    type: str
    required: true
  build_selector:
    description:
      - The label selector of build pods.
    type: str
    default: tier=builds
  kata_runtime_class:
    description:
      - A build runs on Kata Containers if this is the C(runtimeClassName) of its pod. All other builds are the legacy executor's.
    type: str
    default: kata
  kata_executor:
    description:
      - What the Kata executor is called in the results.
    type: str
    default: k8s-kata
  legacy_executor:
    description:
      - What the legacy executor is called in the results.
    type: str
    default: k8s-vm
  window:
    description:
      - How long to observe in total before the verdict can be V(pass), in seconds.
    type: int
    default: 600
  interval:
    description:
      - How long this call watches at most, in seconds. It ends with the event that makes the verdict V(pass) or V(fail) or sets
        RV(pause).
      - Defaults to the value of O(window).
    type: int
  min_builds:
    description:
      - How many builds on Kata need an outcome before the verdict can be V(pass).
    type: int
    default: 20
  max_failure_ratio:
    description:
      - The maximum ratio of Kata's builds that fail to start, from 0 to 1.
    type: float
    default: 0.02
  max_failure_increase:
    description:
      - How much greater than the legacy executor's that part may be, as a difference of two ratios, from 0 to 1.
    type: float
    default: 0.02
  max_setup_ratio:
    description:
      - How many times as long as on the legacy executor the 95th percentile of the setup time may be on Kata.
      - One second is added to the limit, since the times have a resolution of one second.
      - Above it the gate pauses; it never fails for that.
    type: float
  max_setup_seconds:
    description:
      - The greatest 95th percentile of the setup time on Kata, in seconds. Above it the gate pauses; it never fails for that.
    type: float
  start_timeout:
    description:
      - How long a build may take to start before it counts as failed, in seconds.
      - It counts from when the module first observes the pod, by the API server's clock, so that the machine of the next interval may have
        another clock.
      - Screwdriver itself fails builds after 5 minutes when its retry queue is enabled.
    type: int
    default: 300
  share:
    description:
      - The share in percent that the executor was asked for. The share observed is judged against it.
      - Too few builds on Kata make the verdict V(fail), since they are lost, or the share is not what the operator believes. Too many
        make it V(inconclusive) with RV(pause).
      - At V(100) the builds of the legacy executor are exceptions, such as pinned ones, and nothing is compared with them.
      - Leave it out where the share is not to be judged.
    type: float
  share_tolerance:
    description:
      - Which part of O(share) may be missing or too much, from 0 to below 1. Builds that are pinned to the legacy executor are missing.
    type: float
    default: 0.1
  pilot:
    description:
      - Whether this is the pilot, at which the share is 0 and builds on Kata are those whose job asks for the executor. A O(share) of 0
        means the same.
    type: bool
    default: false
  steps:
    description:
      - How many steps the rollout has. O(alpha) holds for all of them together.
    type: int
    default: 1
  earlier:
    description:
      - The RV(log_e) of the earlier steps of the rollout.
    type: list
    elements: float
    default: []
  alpha:
    description:
      - The maximum probability that a Kata within its limits fails, above 0 and below 1.
    type: float
    default: 0.008
  exclusions:
    description:
      - The exclusions of the Kata executor, as in its configuration. They are JavaScript regular expressions, matched anywhere in the
        image, in any case.
      - One build of such an image on Kata makes the verdict V(fail), unless its job asked for the executor by annotation, or brought such
        an image there at the pilot. On the legacy executor such builds are not compared with Kata's.
    type: list
    elements: str
    default: []
  evidence:
    description:
      - The RV(evidence) of the previous call of the same observation. Leave it out to begin a new one.
    type: dict
  baseline:
    description:
      - The RV(baseline) of an earlier observation. It is added to the legacy executor's own figures when those are too few to compare with.
      - Read when an observation begins. From then on O(evidence) has it.
    type: dict
requirements:
  - regress >= 2026.9.1
seealso:
  - module: screwdriver.kata.rollout
  - module: screwdriver.kata.executor_config
"""

EXAMPLES = r"""
- name: Judge ten minutes of builds
  screwdriver.kata.build_gate:
    namespace: sd-builds
    window: 600
    min_builds: 50
    max_setup_ratio: 2
    exclusions:
      - rhel6
  register: gate

- name: Continue the same observation for a minute
  screwdriver.kata.build_gate:
    namespace: sd-builds
    window: 600
    interval: 60
    min_builds: 50
    max_setup_ratio: 2
    exclusions:
      - rhel6
    evidence: "{{ gate.evidence }}"
  register: gate
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(inconclusive).
  returned: success
  type: str
  sample: inconclusive
reasons:
  description: What the verdict rests on, as sentences with figures.
  returned: success
  type: list
  elements: str
  sample:
    - Observed 120 of 600 s.
    - 3 of 20 builds on k8s-kata.
pause:
  description: Whether more watching will not settle an inconclusive verdict.
  returned: success
  type: bool
  sample: false
doubt:
  description: What stands against V(pass). V(failures), V(share), V(setup), V(excluded), V(evidence), or an empty string.
  returned: success
  type: str
  sample: evidence
log_e:
  description: The natural logarithm of this step's e-value, for O(earlier) of the later steps.
  returned: success
  type: float
  sample: 0.41
log_m:
  description: The natural logarithm of the mean e-value over the rollout.
  returned: success
  type: float
  sample: 0.1
log_threshold:
  description: What RV(log_m) has to reach for V(fail).
  returned: success
  type: float
  sample: 5.52
worst:
  description:
    - The C(image) and the C(node) that were left out, each V(null) or a dictionary with C(name), C(builds) and C(failed) of the rollout so
      far. A failure of both counts for the one that explains more.
  returned: success
  type: dict
  sample:
    image:
    node:
      name: node-7
      builds: 5
      failed: 5
observed_seconds:
  description: How long builds were observed in all calls together.
  returned: success
  type: float
  sample: 120.2
executors:
  description: The figures of each executor by name, of builds whose image no exclusion names.
  returned: success
  type: dict
  contains:
    builds:
      description: Builds that were created during the observation.
      type: int
    started:
      description: Builds that started.
      type: int
    failures:
      description: Builds that failed to start, by cause.
      type: dict
    details:
      description: One pod for each cause, with the message of its event where there is one.
      type: dict
    waiting:
      description: Builds that wait for their start.
      type: int
    withdrawn:
      description: Builds that were deleted before they had the time to start.
      type: int
    unobserved:
      description: Builds whose outcome fell into a gap of the watch.
      type: int
    ended:
      description:
        - Builds that started and have ended, by how. V(ok), V(failed) with a non-zero exit code, V(oom_killed), V(stopped) when deleted
          while they ran, V(lost) with their node.
      type: dict
    excluded:
      description: Builds whose image an exclusion names. No other figure counts them.
      type: int
    pinned:
      description: Builds whose job asked for the executor by annotation. No other figure counts them.
      type: int
    setup_seconds:
      description: The percentiles V(p50) and V(p95) of the setup time, or V(null) where no start was timed.
      type: dict
  sample:
    k8s-kata:
      builds: 41
      started: 39
      failures:
        SandboxFailed: 1
      details:
        SandboxFailed: 'build-7: Failed to create pod sandbox: no runtime for "kata" is configured'
      waiting: 1
      withdrawn: 0
      unobserved: 0
      ended:
        ok: 20
        failed: 2
      excluded: 0
      pinned: 0
      setup_seconds:
        p50: 4
        p95: 9
share_observed:
  description: Kata's C(percent) of all C(builds) that were created during the observation and whose image no exclusion names.
  returned: success
  type: dict
  sample:
    percent: 10.25
    builds: 400
excluded_on_kata:
  description: How many builds of excluded images reached Kata although their job did not ask for it.
  returned: success
  type: int
  sample: 0
suspects:
  description:
    - Images that fail on Kata significantly more often than on the legacy executor and than the other images on Kata, with a pattern for
      the exclusions that names this image alone. At most 20.
  returned: success
  type: list
  elements: dict
  sample:
    - image: registry.example.com/centos:6
      exclusion: ^registry\.example\.com/centos:6(@|$)
      kata:
        builds: 9
        failed: 9
      legacy:
        builds: 80
        failed: 1
decided:
  description: When the last event was received that the verdict rests on, by this machine's clock.
  returned: success
  type: str
  sample: "2026-11-23T20:12:31.204Z"
gaps:
  description: How many times the API server had forgotten its history, so that builds may have been missed.
  returned: success
  type: int
  sample: 0
evidence:
  description: What was observed so far, for the next call.
  returned: success
  type: dict
baseline:
  description:
    - The legacy executor's figures, the count of pinned builds, and Kata's starts with their images and nodes, for the observations of
      later steps.
  returned: success
  type: dict
"""

import time
import typing as t
from datetime import UTC, datetime
from functools import lru_cache

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import PatternError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import LIST, Cluster, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import Observation
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY, Build, read_build

# How often waiting builds are checked and the verdict is formed while nothing happens.
TICK_SECONDS = 5
# Events that only add to the evidence are judged together, so that a busy cluster does not cost a judgement each.
EVENTS_SECONDS = 0.5
# The images of a day; one that is forgotten is matched again.
MAX_CACHED_IMAGES = 10_000


class BuildGate:
    """One call: takes up the observation, watches, judges."""

    def __init__(self, params: dict[str, t.Any], cluster: Cluster) -> None:
        self.params = params
        self.cluster = cluster
        self._before = self._began = 0.0
        self._received = time.time()
        self.limits = gate.Limits(**{key: params[key] for key in gate.Limits.__dataclass_fields__})
        self.names = gate.Names(params["kata_executor"], params["legacy_executor"])
        self.pods = {"namespace": params["namespace"], "label_selector": params["build_selector"]}
        self.observation = Observation(
            scope={key: params[key] for key in ("namespace", "build_selector", "kata_runtime_class")},
            start_timeout=params["start_timeout"],
            is_excluded=lru_cache(MAX_CACHED_IMAGES)(lambda image: _javascript.matches_any(params["exclusions"], image)),
            explain=self._explain,
            pilot=params["pilot"] or params["share"] == 0,
        )

    def run(self) -> dict[str, t.Any]:
        if self.params["evidence"]:
            self.observation.load(self.params["evidence"])
        else:
            self.observation.begin(*self._list(), self.params["baseline"] or {})
        if not self.observation.resource_version:
            # The rollout was paused: what came meanwhile is not known.
            self.observation.skip(*self._list())
        self._before, self._began = self.observation.observed_seconds, time.monotonic()
        while True:
            judgement = self._judge()
            left = (self.params["interval"] or self.params["window"]) - (time.monotonic() - self._began)
            if _is_final(judgement) or left <= 0:
                return self._result(judgement)
            self._watch(max(1, round(min(TICK_SECONDS, left, self.observation.overdue_in(self._now())))))

    def _judge(self) -> gate.Judgement:
        self.observation.observed_seconds = self._before + time.monotonic() - self._began
        return gate.judge(self.observation, self.limits, self.names, self._now())

    def _now(self) -> int:
        """Epoch seconds. The next interval may be watched on another machine, so the clock is the API server's."""
        return int(self.cluster.now().timestamp())

    def _watch(self, seconds: int) -> None:
        """Takes events for this many seconds, or until one is final."""
        judged, decisive = time.monotonic(), self._decisive()
        for change in self.cluster.follow("Pod", self.observation.resource_version, seconds, **self.pods):
            self._received = time.time()
            builds, now = [self._read(pod) for pod in change.objects], self._now()
            if change.kind == LIST:
                self.observation.relist(builds, change.resource_version, now)
            elif builds:
                self.observation.event(change.kind, builds[0], now)
            self.observation.resource_version = change.resource_version
            if self._decisive() != decisive or time.monotonic() - judged >= EVENTS_SECONDS:
                if _is_final(self._judge()):
                    return
                judged, decisive = time.monotonic(), self._decisive()
        self.observation.tick(self._now())

    def _decisive(self) -> tuple[int, int]:
        """What each event that may fail the gate changes; missing builds are many events."""
        seen = self.observation
        return seen.tallies[KATA].failed, sum(seen.excluded_on_kata.values())

    def _list(self) -> tuple[list[Build], str]:
        pods, resource_version = self.cluster.list("Pod", **self.pods)
        namespace = self.params["namespace"]
        if not pods and self.cluster.get("Namespace", namespace) is None:
            raise UserError(f"Namespace {namespace} does not exist: namespace must be the one that builds run in.")
        return [self._read(pod) for pod in pods], resource_version

    def _read(self, pod: dict[str, t.Any]) -> Build:
        return read_build(pod, self.params["kata_runtime_class"])

    def _explain(self, uid: str) -> str:
        selector = f"involvedObject.uid={uid},reason=FailedCreatePodSandBox"
        events, _version = self.cluster.list("Event", namespace=self.params["namespace"], field_selector=selector)
        return events[-1].get("message", "") if events else ""

    def _result(self, judgement: gate.Judgement) -> dict[str, t.Any]:
        seen = self.observation
        return {
            **judgement._asdict(),
            "observed_seconds": round(seen.observed_seconds, 1),
            "executors": {self.names.kata: self._figures(KATA), self.names.legacy: self._figures(LEGACY)},
            "share_observed": gate.share_observed(seen),
            "excluded_on_kata": sum(seen.excluded_on_kata.values()),
            "suspects": gate.suspects(seen, self.limits, self.names),
            "decided": datetime.fromtimestamp(self._received, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "gaps": seen.gaps,
            "evidence": seen.dump(),
            "baseline": gate.next_baseline(seen, self.limits, self.names),
        }

    def _figures(self, executor: str) -> dict[str, t.Any]:
        tally = self.observation.tallies[executor]
        return {
            "builds": tally.seen,
            "started": tally.started,
            "failures": tally.failures,
            "details": tally.details,
            "waiting": len(self.observation.waiting_since(executor)),
            "withdrawn": tally.withdrawn,
            "ended": tally.ended,
            "unobserved": tally.unobserved,
            "excluded": tally.excluded,
            "pinned": tally.pinned,
            "setup_seconds": gate.percentiles(tally),
        }


def _is_final(judgement: gate.Judgement) -> bool:
    """Whether more watching changes nothing."""
    return judgement.verdict != gate.INCONCLUSIVE or judgement.pause


def problem_of(params: dict[str, t.Any]) -> str | None:
    """One sentence about the first parameter that makes no sense."""
    if params["share"] is not None and not 0 <= params["share"] <= 100:
        return f"share is {params['share']}: give a percent from 0 to 100."
    if not 0 <= params["share_tolerance"] < 1:
        return f"share_tolerance is {params['share_tolerance']}: give a ratio from 0 to below 1, such as 0.1 for 10 %."
    if not 0 < params["alpha"] < 1:
        return f"alpha is {params['alpha']}: give a number above 0 and below 1, such as 0.008."
    if params["steps"] < 1:
        return f"steps is {params['steps']}: give at least 1."
    for name in ("window", "interval", "start_timeout"):
        if params[name] is not None and params[name] < 1:
            return f"{name} is {params[name]}: give at least 1 second."
    if params["min_builds"] < 1:
        return f"min_builds is {params['min_builds']}: give at least 1, since no evidence is not success."
    for name in ("max_failure_ratio", "max_failure_increase"):
        if not 0 <= params[name] <= 1:
            return f"{name} is {params[name]}: give a ratio from 0 to 1, such as 0.02 for 2 %."
    for name in ("max_setup_ratio", "max_setup_seconds"):
        if params[name] is not None and params[name] <= 0:
            return f"{name} is {params[name]}: give a number above 0, or leave it out."
    if params["kata_executor"] == params["legacy_executor"]:
        return f"kata_executor and legacy_executor are both {params['kata_executor']}: give two names."
    try:
        _javascript.matches_any(params["exclusions"], "")
    except PatternError as exc:
        return str(exc)
    return None


def main() -> None:
    module = create_module(
        {
            "namespace": {"type": "str", "required": True},
            "build_selector": {"type": "str", "default": "tier=builds"},
            "kata_runtime_class": {"type": "str", "default": "kata"},
            "kata_executor": {"type": "str", "default": "k8s-kata"},
            "legacy_executor": {"type": "str", "default": "k8s-vm"},
            "window": {"type": "int", "default": 600},
            "interval": {"type": "int"},
            "min_builds": {"type": "int", "default": 20},
            "max_failure_ratio": {"type": "float", "default": 0.02},
            "max_failure_increase": {"type": "float", "default": 0.02},
            "max_setup_ratio": {"type": "float"},
            "max_setup_seconds": {"type": "float"},
            "start_timeout": {"type": "int", "default": 300},
            "share": {"type": "float"},
            "share_tolerance": {"type": "float", "default": 0.1},
            "pilot": {"type": "bool", "default": False},
            "steps": {"type": "int", "default": 1},
            "earlier": {"type": "list", "elements": "float", "default": []},
            "alpha": {"type": "float", "default": 0.008},
            "exclusions": {"type": "list", "elements": "str", "default": []},
            "evidence": {"type": "dict"},
            "baseline": {"type": "dict"},
        }
    )
    if _javascript.REGRESS_TRACEBACK:
        module.fail_json(msg=missing_required_lib("regress"), exception=_javascript.REGRESS_TRACEBACK)
    if problem := problem_of(module.params):
        module.fail_json(msg=problem)
    try:
        module.exit_json(changed=False, **BuildGate(module.params, Cluster(module)).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
