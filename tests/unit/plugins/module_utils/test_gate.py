# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From evidence to a verdict: what each rule says, in words, and the statistics against sums that are written out here."""

from __future__ import annotations

import math
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate as _gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.gate import FAIL, INCONCLUSIVE, PASS, Limits, Names
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import MAX_IMAGES, Observation, Tally
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY

LIMITS = Limits(
    window=600,
    min_builds=20,
    max_failure_ratio=0.02,
    max_failure_increase=0.02,
    max_setup_ratio=None,
    max_setup_seconds=None,
    confidence=0.95,
)
NAMES = Names("k8s-kata", "k8s-vm")
NOW = 1795467600


def tally(
    started: int,
    failed: int = 0,
    seconds: int | dict[int, int] = 5,
    cause: str = "SandboxFailed",
    excluded: int = 0,
    ended: dict[str, int] | None = None,
) -> Tally:
    setup = seconds if isinstance(seconds, dict) else {seconds: started} if started else {}
    return Tally(
        seen=started + failed,
        started=started,
        failures={cause: failed} if failed else {},
        setup={str(key): count for key, count in setup.items()},
        excluded=excluded,
        ended=ended or {},
    )


def observation(
    kata: Tally,
    legacy: Tally | None = None,
    *,
    observed: float = 600,
    waiting: t.Iterable[int] = (),
    baseline: Tally | None = None,
    excluded: t.Iterable[str] = (),
) -> Observation:
    """waiting: for how many seconds each waiting build on Kata has waited."""
    seen = Observation({}, 300, lambda image: False, lambda uid: "")
    seen.observed_seconds = observed
    seen.tallies = {KATA: kata, LEGACY: legacy or Tally()}
    seen.waiting = {str(number): {"since": NOW - seconds, "executor": KATA} for number, seconds in enumerate(waiting)}
    seen.excluded_on_kata = dict.fromkeys(excluded, 1)
    seen.baseline = {"legacy": vars(baseline), "images": {}} if baseline else {}
    return seen


def judge(seen: Observation, **limits: t.Any) -> tuple[str, list[str]]:
    return _gate.judge(seen, replace(LIMITS, **limits), NAMES, NOW)[:2]


NO_LEGACY = "k8s-vm had 0 builds, too few to compare with: only the absolute limits were judged."

VERDICTS: dict[str, tuple[Observation, dict[str, t.Any], str, list[str]]] = {
    "nothing runs": (observation(Tally(), Tally()), {}, INCONCLUSIVE, ["0 of 20 builds on k8s-kata."]),
    "nothing runs yet": (observation(Tally(), observed=30), {}, INCONCLUSIVE, ["Observed 30 of 600 s.", "0 of 20 builds on k8s-kata."]),
    "nothing runs on kata": (observation(Tally(), tally(500)), {}, INCONCLUSIVE, ["0 of 20 builds on k8s-kata."]),
    "too few": (observation(tally(19), tally(500)), {}, INCONCLUSIVE, ["19 of 20 builds on k8s-kata."]),
    "all is well": (
        observation(tally(40), tally(400)),
        {},
        PASS,
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", "Setup p95 on k8s-kata is 5 s over 40 builds."],
    ),
    "some fail, within the limit": (
        observation(tally(98, 2), tally(400)),
        {},
        PASS,
        ["2 of 100 builds (2.0 %) failed to start on k8s-kata (2 SandboxFailed).", "Setup p95 on k8s-kata is 5 s over 98 builds."],
    ),
    "kata fails all at once": (
        observation(tally(0, 3), tally(30), observed=12),
        {},
        FAIL,
        [
            "3 of 3 builds (100.0 %) failed to start on k8s-kata (3 SandboxFailed), above the limit of 0.02 with 0.95 confidence.",
            "3 of 3 builds (100.0 %) failed to start on k8s-kata (3 SandboxFailed), on k8s-vm 0 of 30 (0.0 %): more than 0.02 worse with 0.95 confidence.",
        ],
    ),
    "two failures are no proof": (
        observation(tally(0, 2), observed=600),
        {},
        INCONCLUSIVE,
        [
            "2 of 20 builds on k8s-kata.",
            "2 of 2 builds (100.0 %) failed to start on k8s-kata (2 SandboxFailed), above the limit of 0.02 but not proven yet.",
        ],
    ),
    "above the limit but by chance": (
        observation(tally(97, 3), tally(388, 12)),
        {},
        INCONCLUSIVE,
        ["3 of 100 builds (3.0 %) failed to start on k8s-kata (3 SandboxFailed), above the limit of 0.02 but not proven yet."],
    ),
    "the registry is down for everybody": (
        observation(tally(30, 10, cause="ImagePull"), tally(300, 100, cause="ImagePull")),
        {},
        FAIL,
        ["10 of 40 builds (25.0 %) failed to start on k8s-kata (10 ImagePull), above the limit of 0.02 with 0.95 confidence."],
    ),
    "the registry is down for everybody and no absolute limit": (
        observation(tally(30, 10, cause="ImagePull"), tally(300, 100, cause="ImagePull")),
        {"max_failure_ratio": 1.0},
        PASS,
        ["10 of 40 builds (25.0 %) failed to start on k8s-kata (10 ImagePull).", "Setup p95 on k8s-kata is 5 s over 30 builds."],
    ),
    "worse than the legacy executor": (
        observation(tally(32, 8), tally(398, 2)),
        {"max_failure_ratio": 1.0},
        FAIL,
        [
            "8 of 40 builds (20.0 %) failed to start on k8s-kata (8 SandboxFailed), on k8s-vm 2 of 400 (0.5 %): more than 0.02 worse with 0.95 confidence."
        ],
    ),
    "worse than the legacy executor but by chance": (
        observation(tally(37, 3), tally(19, 1)),
        {"max_failure_ratio": 1.0},
        INCONCLUSIVE,
        [
            "3 of 40 builds (7.5 %) failed to start on k8s-kata (3 SandboxFailed), on k8s-vm 1 of 20 (5.0 %): more than 0.02 worse but not proven yet."
        ],
    ),
    "legacy has only excluded builds left": (
        observation(tally(40), tally(0, excluded=50)),
        {},
        PASS,
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", NO_LEGACY, "Setup p95 on k8s-kata is 5 s over 40 builds."],
    ),
    "legacy has only excluded builds left but a baseline": (
        observation(tally(32, 8), tally(0, excluded=50), baseline=tally(398, 2)),
        {"max_failure_ratio": 1.0},
        FAIL,
        [
            "8 of 40 builds (20.0 %) failed to start on k8s-kata (8 SandboxFailed), on k8s-vm 2 of 400 (0.5 %): more than 0.02 worse with 0.95 confidence."
        ],
    ),
    "legacy's own figures count where they suffice": (
        observation(tally(30, 10), tally(15, 5), baseline=tally(5000)),
        {"max_failure_ratio": 1.0},
        PASS,
        ["10 of 40 builds (25.0 %) failed to start on k8s-kata (10 SandboxFailed).", "Setup p95 on k8s-kata is 5 s over 30 builds."],
    ),
    "an excluded image on kata": (
        observation(tally(40, excluded=2), tally(400), excluded=["reg/rhel6:2", "reg/rhel6:1"]),
        {},
        FAIL,
        ["2 builds of excluded images reached k8s-kata: reg/rhel6:1, reg/rhel6:2."],
    ),
    "one excluded build on kata before anything else": (
        observation(Tally(excluded=1), observed=5, excluded=["rhel6"]),
        {},
        FAIL,
        ["1 build of excluded images reached k8s-kata: rhel6."],
    ),
    "a build waits longer than any": (
        observation(tally(40), tally(400), waiting=[3, 6, 7]),
        {},
        INCONCLUSIVE,
        ["1 build on k8s-kata waited longer for the start than any that started (5 s)."],
    ),
    "a build waits longer than any of very many": (
        observation(tally(400), tally(400), waiting=[7]),
        {},
        PASS,
        ["0 of 400 builds (0.0 %) failed to start on k8s-kata.", "Setup p95 on k8s-kata is 5 s over 400 builds."],
    ),
    "users' builds fail on kata": (
        observation(tally(40, ended={"ok": 20, "failed": 18, "oom_killed": 2}), tally(400, ended={"ok": 380, "failed": 20})),
        {},
        FAIL,
        [
            "20 of 40 builds (50.0 %) ended with a non-zero exit code on k8s-kata, on k8s-vm 20 of 400 (5.0 %): more than 0.02 worse with 0.95 confidence."
        ],
    ),
    "users' builds fail on both": (
        observation(tally(40, ended={"ok": 20, "failed": 20}), tally(400, ended={"ok": 200, "failed": 200})),
        {},
        PASS,
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", "Setup p95 on k8s-kata is 5 s over 40 builds."],
    ),
    "users' builds fail and there is nothing to compare with": (
        observation(tally(40, ended={"failed": 40})),
        {},
        PASS,
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", NO_LEGACY, "Setup p95 on k8s-kata is 5 s over 40 builds."],
    ),
    "slow": (
        observation(tally(40, seconds={5: 30, 60: 10}), tally(400)),
        {"max_setup_seconds": 30.0},
        FAIL,
        ["Setup p95 on k8s-kata is 60 s over 40 builds, above 30 s (the limit) with 0.95 confidence."],
    ),
    "slow but by chance": (
        observation(tally(40, seconds={5: 37, 60: 3}), tally(400)),
        {"max_setup_seconds": 30.0},
        INCONCLUSIVE,
        ["Setup p95 on k8s-kata is 60 s over 40 builds, above 30 s (the limit) but not proven yet."],
    ),
    "two slow builds are no proof": (
        observation(tally(2, seconds=60)),
        {"max_setup_seconds": 30.0, "min_builds": 2},
        INCONCLUSIVE,
        ["Setup p95 on k8s-kata is 60 s over 2 builds, above 30 s (the limit) but not proven yet."],
    ),
    "three slow builds are": (
        observation(tally(3, seconds=60), observed=10),
        {"max_setup_seconds": 30.0},
        FAIL,
        ["Setup p95 on k8s-kata is 60 s over 3 builds, above 30 s (the limit) with 0.95 confidence."],
    ),
    "slower than the legacy executor": (
        observation(tally(40, seconds=12), tally(400)),
        {"max_setup_ratio": 2.0},
        FAIL,
        [
            "Setup p95 on k8s-kata is 12 s over 40 builds, above 11 s (2 times the 5 s of k8s-vm and 1 s of resolution) with 0.95 confidence."
        ],
    ),
    "as slow as may be": (
        observation(tally(40, seconds=11), tally(400)),
        {"max_setup_ratio": 2.0, "max_setup_seconds": 11.0},
        PASS,
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", "Setup p95 on k8s-kata is 11 s over 40 builds."],
    ),
    "slow and too few to compare with": (
        observation(tally(40, seconds=60), tally(19)),
        {"max_setup_ratio": 2.0},
        PASS,
        [
            "0 of 40 builds (0.0 %) failed to start on k8s-kata.",
            "k8s-vm had 19 builds, too few to compare with: only the absolute limits were judged.",
            "Setup p95 on k8s-kata is 60 s over 40 builds.",
        ],
    ),
}


@pytest.mark.parametrize("case", VERDICTS, ids=[name.replace(" ", "-") for name in VERDICTS])
def test_verdicts_and_their_reasons(case: str) -> None:
    seen, limits, verdict, reasons = VERDICTS[case]
    assert judge(seen, **limits) == (verdict, reasons)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("limit", [0.01, 0.02, 0.1])
@pytest.mark.parametrize("builds", [20, 100, 1000])
def test_the_absolute_limit_is_the_binomial_test(builds: int, limit: float, confidence: float) -> None:
    def tail(failed: int) -> float:
        """How likely so many failures or more are where the true ratio is the limit."""
        return 1 - sum(math.comb(builds, k) * limit**k * (1 - limit) ** (builds - k) for k in range(failed))

    least = next(failed for failed in range(3, builds) if tail(failed) <= 1 - confidence)
    limits = {"max_failure_ratio": limit, "max_failure_increase": 1.0, "confidence": confidence}
    assert judge(observation(tally(builds - least, least)), **limits)[0] == FAIL
    assert judge(observation(tally(builds - least + 1, least - 1)), **limits)[0] != FAIL


@pytest.mark.parametrize("legacy", [(400, 2), (100, 5), (30, 0)])
def test_the_relative_limit_is_fishers_exact_test(legacy: tuple[int, int]) -> None:
    others, others_failed = legacy

    def tail(failed: int) -> float:
        """How likely so many failures or more fall to Kata where the executor does not matter."""
        everything = 40 + others
        all_failed = failed + others_failed
        ways = [math.comb(all_failed, k) * math.comb(everything - all_failed, 40 - k) for k in range(failed, min(all_failed, 40) + 1)]
        return sum(ways) / math.comb(everything, 40)

    least = next(failed for failed in range(3, 41) if tail(failed) <= 0.05 and failed / 40 - others_failed / others > 0.02)
    limits = {"max_failure_ratio": 1.0}
    assert judge(observation(tally(40 - least, least), tally(others - others_failed, others_failed)), **limits)[0] == FAIL
    assert judge(observation(tally(41 - least, least - 1), tally(others - others_failed, others_failed)), **limits)[0] != FAIL


@pytest.mark.parametrize("builds", [20, 60, 200])
def test_the_setup_limit_is_the_binomial_test_of_the_quantile(builds: int) -> None:
    def tail(slow: int) -> float:
        """How likely so many builds or more are above the 95th percentile."""
        return 1 - sum(math.comb(builds, k) * 0.05**k * 0.95 ** (builds - k) for k in range(slow))

    least = next(slow for slow in range(3, builds) if tail(slow) <= 0.05)
    limits = {"max_setup_seconds": 30.0}
    assert judge(observation(tally(builds, seconds={30: builds - least, 31: least})), **limits)[0] == FAIL
    assert judge(observation(tally(builds, seconds={30: builds - least + 1, 31: least - 1})), **limits)[0] != FAIL


@pytest.mark.parametrize(
    "setup, p50, p95",
    [({}, None, None), ({7: 1}, 7, 7), ({value: 1 for value in range(1, 101)}, 50, 95), ({4: 18, 90: 2}, 4, 90), ({4: 19, 90: 1}, 4, 4)],
)
def test_percentiles_are_values_that_occurred(setup: dict[int, int], p50: int | None, p95: int | None) -> None:
    assert _gate.percentiles(tally(sum(setup.values()), seconds=setup)) == {"p50": p50, "p95": p95}


@pytest.mark.parametrize(
    "kata, legacy, share",
    [(0, 0, {"percent": None, "builds": 0}), (41, 359, {"percent": 10.25, "builds": 400}), (3, 0, {"percent": 100.0, "builds": 3})],
)
def test_share_observed(kata: int, legacy: int, share: dict[str, t.Any]) -> None:
    assert _gate.share_observed(observation(tally(kata), tally(legacy, excluded=100))) == share


def test_suspects_fail_on_kata_alone() -> None:
    seen = observation(Tally())
    seen.images = {
        "centos:6": {KATA: [0, 9], LEGACY: [79, 1]},
        "worse:1": {KATA: [2, 12], LEGACY: [50, 0]},
        "bad:everywhere": {KATA: [0, 9], LEGACY: [1, 79]},
        "good:1": {KATA: [50, 1], LEGACY: [50, 0]},
        "too:few": {KATA: [0, 2], LEGACY: [50, 0]},
        "kata:alone": {KATA: [0, 9]},
    }
    assert _gate.suspects(seen, 0.95) == [
        {"image": "worse:1", "exclusion": "^worse:1(@|$)", "kata": {"builds": 14, "failed": 12}, "legacy": {"builds": 50, "failed": 0}},
        {"image": "centos:6", "exclusion": "^centos:6(@|$)", "kata": {"builds": 9, "failed": 9}, "legacy": {"builds": 80, "failed": 1}},
    ]
    seen.baseline = {"legacy": vars(Tally()), "images": {"kata:alone": [40, 0], "worse:1": [0, 200]}}
    assert [item["image"] for item in _gate.suspects(seen, 0.95)] == ["centos:6", "kata:alone"]


def test_no_image_is_suspected_where_all_fail_on_kata() -> None:
    seen = observation(Tally())
    seen.images = {"node:22": {KATA: [0, 3], LEGACY: [78, 0]}, "golang:1.26": {KATA: [1, 8], LEGACY: [53, 0]}}
    assert _gate.suspects(seen, 0.95) == []
    # One image alone cannot be told from Kata: it is named.
    del seen.images["golang:1.26"]
    assert [item["image"] for item in _gate.suspects(seen, 0.95)] == ["node:22"]


def test_a_baseline_grows_only_while_legacy_has_too_few_builds() -> None:
    few = observation(Tally(), tally(5, 1), baseline=tally(100, 2))
    assert _gate.next_baseline(few, 20)["legacy"] == {**vars(tally(105, 3)), "details": {}}
    assert _gate.next_baseline(few, 6)["legacy"] == {**vars(tally(5, 1)), "details": {}}
    # The next slice is handed what the last one returned: its evidence, not this, decides what it started from.
    again = Observation({}, 300, lambda image: False, lambda uid: "")
    again.load(few.dump())
    assert _gate.next_baseline(again, 20) == _gate.next_baseline(few, 20)


def test_a_baseline_knows_the_images_of_legacy_and_is_bounded() -> None:
    seen = observation(Tally(), tally(50))
    seen.images = {f"image-{number}": {LEGACY: [number, 1]} for number in range(MAX_IMAGES)} | {"kata-only": {KATA: [9, 9]}}
    seen.baseline = {"legacy": vars(Tally()), "images": {"image-7": [1, 1], **{f"old-{number}": [1, 0] for number in range(MAX_IMAGES)}}}
    images = _gate.next_baseline(seen, 20)["images"]
    assert len(images) == MAX_IMAGES
    assert (images["image-499"], images["image-7"], "kata-only" in images) == ([499, 1], [8, 2], False)
