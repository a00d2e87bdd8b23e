# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From evidence to a verdict: the sentences of each rule, and the verdicts that it must never reach."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import gate
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.gate import FAIL, INCONCLUSIVE, PASS, Limits, Names
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.observation import MAX_IMAGES, Observation, Tally, pair_of
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout.pods import KATA, LEGACY

LIMITS = Limits(window=600, min_builds=20, max_failure_ratio=0.02, max_failure_increase=0.02, max_setup_ratio=None, max_setup_seconds=None)
# A legacy executor whose pods show the pull of their image.
NAMES = Names("k8s-kata", "k8s")
VM = Names("k8s-kata", "k8s-vm")
NOW = 1795467600


def tally(started: int, failed: int = 0, seconds: int | dict[int, int] = 5, cause: str = "SandboxFailed", **figures: t.Any) -> Tally:
    setup = seconds if isinstance(seconds, dict) else {seconds: started} if started else {}
    return Tally(
        seen=started + failed,
        started=started,
        failures={cause: failed} if failed else {},
        setup={str(key): count for key, count in setup.items()},
        **figures,
    )


def observation(
    kata: Tally,
    legacy: Tally | None = None,
    *,
    observed: float = 600,
    waiting: t.Iterable[int] = (),
    baseline: dict[str, t.Any] | None = None,
    excluded: t.Iterable[str] = (),
    pilot: bool = False,
    **figures: t.Any,
) -> Observation:
    """waiting: for how many seconds each waiting build on Kata has waited."""
    seen = Observation({}, 300, lambda image: False, lambda uid: "", pilot)
    seen.observed_seconds = observed
    seen.tallies = {KATA: kata, LEGACY: legacy or Tally()}
    seen.waiting = {str(number): {"since": NOW - seconds, "executor": KATA} for number, seconds in enumerate(waiting)}
    seen.excluded_on_kata = dict.fromkeys(excluded, 1)
    seen.baseline = baseline or {}
    for key, value in figures.items():
        setattr(seen, key, value)
    return seen


def judge(seen: Observation, names: Names = NAMES, **limits: t.Any) -> gate.Judgement:
    return gate.judge(seen, replace(LIMITS, **limits), names, NOW)


def on_kata(*counts: int) -> dict[str, list[int]]:
    """counts: started, failed, not pulled."""
    return {KATA: [*counts, 0, 0][:3], LEGACY: [0, 0, 0]}


def on_both(kata: tuple[int, int], legacy: tuple[int, int]) -> dict[str, list[int]]:
    return {KATA: [*kata, 0], LEGACY: [*legacy, 0]}


NO_LEGACY = "k8s had 0 builds, too few to compare with: only the absolute limits were judged."
SETUP = "Setup p95 on k8s-kata is 5 s over {} builds."

VERDICTS: dict[str, tuple[Observation, dict[str, t.Any], tuple[str, str, bool], list[str]]] = {
    "nothing runs": (observation(Tally(), Tally()), {}, (INCONCLUSIVE, "evidence", False), ["0 of 20 builds on k8s-kata."]),
    "nothing runs yet": (
        observation(Tally(), observed=30),
        {},
        (INCONCLUSIVE, "evidence", False),
        ["Observed 30 of 600 s.", "0 of 20 builds on k8s-kata."],
    ),
    "too few": (observation(tally(19), tally(500)), {}, (INCONCLUSIVE, "evidence", False), ["19 of 20 builds on k8s-kata."]),
    "all is well": (
        observation(tally(40), tally(400)),
        {},
        (PASS, "", False),
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", SETUP.format(40)],
    ),
    "some fail, within the limit": (
        observation(tally(98, 2), tally(400)),
        {},
        (PASS, "", False),
        ["2 of 100 builds (2.0 %) failed to start on k8s-kata (2 SandboxFailed).", SETUP.format(98)],
    ),
    "kata fails all at once": (
        observation(tally(0, 5), tally(300), observed=12),
        {},
        (FAIL, "failures", False),
        [
            "5 of 5 builds (100.0 %) failed to start on k8s-kata (5 SandboxFailed), on k8s 0 of 300 builds (0.0 %):"
            " above the limit of 0.02 and more than 0.02 worse beyond chance."
        ],
    ),
    "kata fails at once while legacy has few builds": (
        observation(tally(0, 4), tally(8), observed=12),
        {},
        (INCONCLUSIVE, "failures", False),
        [
            "Observed 12 of 600 s.",
            "4 of 20 builds on k8s-kata.",
            "4 of 4 builds (100.0 %) failed to start on k8s-kata (4 SandboxFailed), above the limit of 0.02 beyond chance,"
            " on k8s 0 of 8 builds (0.0 %).",
        ],
    ),
    "kata fails and there is nothing to compare with": (
        observation(tally(0, 30), observed=60),
        {},
        (INCONCLUSIVE, "failures", True),
        [
            "Observed 60 of 600 s.",
            "30 of 30 builds (100.0 %) failed to start on k8s-kata (30 SandboxFailed), above the limit of 0.02 beyond chance,"
            " with no build on k8s to compare with.",
        ],
    ),
    "at 100 % the builds of legacy are exceptions": (
        observation(tally(0, 60), tally(2)),
        {"share": 100},
        (INCONCLUSIVE, "failures", True),
        [
            "60 of 60 builds (100.0 %) failed to start on k8s-kata (60 SandboxFailed), above the limit of 0.02 beyond chance,"
            " with no build on k8s to compare with."
        ],
    ),
    "one failure is no proof": (
        observation(tally(0, 1), tally(100)),
        {},
        (INCONCLUSIVE, "failures", False),
        [
            "1 of 20 builds on k8s-kata.",
            "1 of 1 build (100.0 %) failed to start on k8s-kata (1 SandboxFailed), above the limit of 0.02 but not proven yet.",
        ],
    ),
    "the registry is down for everybody": (
        observation(tally(30, 10, cause="ImagePull"), tally(300, 100, cause="ImagePull")),
        {},
        (INCONCLUSIVE, "failures", True),
        [
            "10 of 40 builds (25.0 %) failed to start on k8s-kata (10 ImagePull), above the limit of 0.02 beyond chance,"
            " on k8s 100 of 400 builds (25.0 %)."
        ],
    ),
    "worse than the legacy executor": (
        observation(tally(80, 20), tally(995, 5)),
        {"max_failure_ratio": 0.03},
        (FAIL, "failures", False),
        [
            "20 of 100 builds (20.0 %) failed to start on k8s-kata (20 SandboxFailed), on k8s 5 of 1000 builds (0.5 %):"
            " above the limit of 0.03 and more than 0.02 worse beyond chance."
        ],
    ),
    "worse than the legacy executor but by chance": (
        observation(tally(37, 3), tally(100)),
        {"max_failure_ratio": 0.1},
        (INCONCLUSIVE, "failures", False),
        [
            "3 of 40 builds (7.5 %) failed to start on k8s-kata (3 SandboxFailed), on k8s 0 of 100 builds (0.0 %):"
            " more than 0.02 worse but not proven yet."
        ],
    ),
    "legacy has only excluded builds left": (
        observation(tally(40), Tally(excluded=50)),
        {},
        (PASS, "", False),
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", NO_LEGACY, SETUP.format(40)],
    ),
    "an excluded image on kata": (
        observation(tally(40, excluded=2), tally(400), excluded=["reg/rhel6:2", "reg/rhel6:1"]),
        {},
        (FAIL, "excluded", False),
        ["2 builds of excluded images reached k8s-kata: reg/rhel6:1 and reg/rhel6:2."],
    ),
    "a build waits longer than any": (
        observation(tally(40), tally(400), waiting=[3, 6, 7]),
        {},
        (INCONCLUSIVE, "failures", False),
        ["1 build on k8s-kata waited for more than 6 s without a start, 0.0 % of the others did."],
    ),
    "a build waits longer than any of very many": (
        observation(tally(400), tally(400), waiting=[7]),
        {},
        (PASS, "", False),
        ["0 of 400 builds (0.0 %) failed to start on k8s-kata.", SETUP.format(400)],
    ),
    "builds hang behind some slow starts": (
        observation(tally(54, seconds={8: 48, 295: 6}), tally(200), waiting=[40] * 14),
        {},
        (INCONCLUSIVE, "failures", False),
        ["14 builds on k8s-kata waited for more than 25 s without a start, 11.1 % of the others did."],
    ),
    "builds are withdrawn after a long wait": (
        observation(tally(50, seconds=8, withdrawn_after={"2": 3, "150": 9}), tally(200)),
        {},
        (INCONCLUSIVE, "failures", False),
        ["9 builds on k8s-kata waited for more than 25 s without a start, 0.0 % of the others did."],
    ),
    "builds lose their node": (
        observation(tally(60, ended={"lost": 6}), tally(400, ended={"lost": 1})),
        {},
        (INCONCLUSIVE, "failures", False),
        ["6 of 60 builds that started on k8s-kata were lost with their node."],
    ),
    "users' builds fail on kata": (
        observation(tally(40, ended={"failed": 38, "oom_killed": 2}), tally(400, ended={"ok": 400})),
        {},
        (PASS, "", False),
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", SETUP.format(40)],
    ),
    "slow": (
        observation(tally(40, seconds={5: 20, 60: 20}), tally(400)),
        {"max_setup_seconds": 30.0},
        (INCONCLUSIVE, "setup", True),
        ["Setup p95 on k8s-kata is 60 s over 40 builds, above 30 s (the limit) beyond chance."],
    ),
    "slow but by chance": (
        observation(tally(40, seconds={5: 37, 60: 3}), tally(400)),
        {"max_setup_seconds": 30.0},
        (INCONCLUSIVE, "setup", False),
        ["Setup p95 on k8s-kata is 60 s over 40 builds, above 30 s (the limit) but not proven yet."],
    ),
    "slower than the legacy executor": (
        observation(tally(40, seconds=12), tally(400)),
        {"max_setup_ratio": 2.0},
        (INCONCLUSIVE, "setup", True),
        ["Setup p95 on k8s-kata is 12 s over 40 builds, above 11 s (2 times the 5 s of k8s and 1 s of resolution) beyond chance."],
    ),
    "as slow as may be": (
        observation(tally(40, seconds=11), tally(400)),
        {"max_setup_ratio": 2.0, "max_setup_seconds": 11.0},
        (PASS, "", False),
        ["0 of 40 builds (0.0 %) failed to start on k8s-kata.", "Setup p95 on k8s-kata is 11 s over 40 builds."],
    ),
    "a gap": (
        observation(tally(40, unobserved=3), tally(400), gaps=2),
        {},
        (PASS, "", False),
        [
            "0 of 40 builds (0.0 %) failed to start on k8s-kata.",
            SETUP.format(40),
            "The watch had 2 gaps: builds that were under way are left out.",
        ],
    ),
}


@pytest.mark.parametrize("case", VERDICTS, ids=[name.replace(" ", "-") for name in VERDICTS])
def test_verdicts_and_their_reasons(case: str) -> None:
    seen, limits, expected, reasons = VERDICTS[case]
    found = judge(seen, **limits)
    assert (found.verdict, found.doubt, found.pause) == expected
    assert found.reasons == reasons


def test_more_steps_and_earlier_failures_move_the_threshold() -> None:
    seen = observation(tally(10, 4), tally(2000))
    one, seven = judge(seen), judge(seen, steps=7)
    assert one.log_e == seven.log_e
    assert one.log_m == one.log_e
    assert one.log_threshold == pytest.approx(5.5215, abs=1e-4)
    assert seven.log_m < one.log_m - 1.5
    assert judge(seen, steps=7, earlier=[8.0]).log_m > 6
    assert judge(seen, steps=7, earlier=[8.0]).verdict == FAIL
    # A record may have more steps behind it than it had when it began.
    assert judge(seen, steps=1, earlier=[0.0, 0.0]).log_m < one.log_m


def test_a_bad_node_is_named_and_not_held_against_kata() -> None:
    nodes = {f"node-{number}": on_kata(3, 0) for number in range(19)} | {"node-x": on_kata(0, 9)}
    found = judge(observation(tally(57, 9), tally(2000), nodes=nodes, images={"node:22": on_kata(57, 9)}))
    assert found.verdict == INCONCLUSIVE
    assert found.pause is True
    assert found.doubt == "failures"
    assert found.worst == {"image": None, "node": {"name": "node-x", "builds": 9, "failed": 9}}
    assert found.reasons[-1].endswith("on k8s 0 of 2000 builds (0.0 %). Left out as the worst: node node-x (9 of 9).")


def test_a_pool_of_one_node_is_not_left_out() -> None:
    found = judge(observation(tally(0, 6), tally(2000), nodes={"node-1": on_kata(0, 6)}, images={"node:22": on_kata(0, 6)}))
    assert found.verdict == FAIL
    assert found.worst == {"image": None, "node": None}


def test_a_bad_image_is_named_and_not_held_against_kata() -> None:
    images = {"node:22": on_both((50, 0), (900, 0)), "typo:1": on_both((0, 8), (0, 90))}
    seen = observation(tally(50, 8, cause="ImagePull"), tally(900, 90, cause="ImagePull"), images=images)
    found = judge(seen)
    assert found.verdict == PASS
    assert found.worst["image"] == {"name": "typo:1", "builds": 8, "failed": 8}
    assert found.reasons[:2] == [
        "8 of 58 builds (13.8 %) failed to start on k8s-kata (8 ImagePull). Left out as the worst: image typo:1 (8 of 8).",
        "8 of 8 builds (100.0 %) are of images that fail on k8s as well.",
    ]


def test_an_image_that_fails_on_kata_alone_pauses_and_is_suspected() -> None:
    images = {"node:22": on_both((50, 0), (900, 0)), "el:6": on_both((0, 8), (90, 0))}
    seen = observation(tally(50, 8, cause="Crash"), tally(990), images=images)
    found = judge(seen)
    assert found.verdict == INCONCLUSIVE
    assert found.pause is True
    assert found.doubt == "failures"
    assert found.reasons[-1].endswith("Left out as the worst: image el:6 (8 of 8).")
    assert [item["image"] for item in gate.suspects(seen, LIMITS, NAMES)] == ["el:6"]


def test_what_fails_for_the_image_is_not_held_against_the_node_as_well() -> None:
    images = {"node:22": on_kata(90, 4), "typo:1": on_kata(0, 6)}
    nodes = {"a": on_kata(30, 4), "b": on_kata(60, 6)}
    seen = observation(tally(90, 10), tally(900), images=images, nodes=nodes, both={pair_of("b", "typo:1"): 5, pair_of("a", "typo:1"): 1})
    assert judge(seen).worst == {"image": {"name": "typo:1", "builds": 6, "failed": 6}, "node": {"name": "a", "builds": 34, "failed": 3}}


PULLS = {"typo:1": on_kata(0, 0, 6), "typo:2": on_kata(0, 0, 4), "node:22": on_kata(390)}


@pytest.mark.parametrize("names, launchers", [(VM, 0), (Names("k8s-kata", "legacy"), 300)])
def test_pulls_that_launchers_do_not_show_are_left_out(names: Names, launchers: int) -> None:
    seen = observation(tally(390, 10, cause="ImagePull"), tally(400, launchers=launchers), images=PULLS)
    found = judge(seen, names)
    assert found.verdict == PASS
    assert found.worst["image"] is None
    assert found.reasons[:2] == [
        f"10 builds on k8s-kata could not pull their image, which pods of {names.legacy} do not show: they are left out.",
        "0 of 390 builds (0.0 %) failed to start on k8s-kata.",
    ]
    assert judge(seen).verdict == (PASS if launchers else INCONCLUSIVE)


def test_a_kata_that_cannot_pull_does_not_pass_beside_launchers() -> None:
    images = {f"image:{number}": on_kata(4, 0, 1) for number in range(10)}
    found = judge(observation(tally(40, 10, cause="ImagePull"), tally(400), images=images), VM)
    assert found.verdict == INCONCLUSIVE
    assert found.doubt == "failures"
    assert found.reasons == [
        "10 builds on k8s-kata could not pull their image, which pods of k8s-vm do not show: more than 10.0 % of all builds."
    ]


def test_setup_times_are_not_compared_with_launchers() -> None:
    found = judge(observation(tally(40, seconds=40), tally(400, seconds=6)), VM, max_setup_ratio=2.0)
    assert found.verdict == PASS
    assert "Setup times are not compared: pods of k8s-vm do not show the pull of their image." in found.reasons


def test_odd_builds_of_legacy_do_not_replace_a_baseline() -> None:
    baseline = {"legacy": vars(tally(3000, seconds=9)), "images": {}}
    found = judge(observation(tally(200, seconds=9), tally(25, seconds=2), baseline=baseline), max_setup_ratio=2.0)
    assert found.verdict == PASS


MISSING = (
    " builds are missing. Check whether the API server refuses pods of k8s-kata (RuntimeClass, quota, permissions),"
    " whether the worker has read its config, and whether its environment overrides it."
)


@pytest.mark.parametrize(
    "share, kata, legacy, verdict",
    [
        (25, 0, 60, FAIL),
        (25, 30, 2700, FAIL),
        (50, 147, 288, FAIL),
        (100, 60, 60, FAIL),
        (1, 0, 1200, FAIL),
        (25, 250, 750, PASS),
        (25, 225, 775, PASS),
        (50, 22, 30, PASS),
        (99.99, 1000, 0, PASS),
        (1, 20, 1500, PASS),
        (100, 300, 8, PASS),
    ],
)
def test_builds_that_do_not_arrive(share: float, kata: int, legacy: int, verdict: str) -> None:
    found = judge(observation(tally(kata), tally(legacy)), share=share, steps=7)
    assert found.verdict == verdict, found
    assert found.doubt == ("share" if verdict == FAIL else "")
    if verdict == FAIL:
        percent = round(100 * kata / (kata + legacy), 2)
        assert found.reasons == [f"{percent} % of {kata + legacy} builds came to k8s-kata, {share:g} % were asked for:{MISSING}"]


@pytest.mark.parametrize("share, kata, legacy", [(25, 92, 440), (50, 21, 43), (10, 36, 540)])
def test_builds_that_may_be_missing_hold_the_gate_back(share: float, kata: int, legacy: int) -> None:
    found = judge(observation(tally(kata), tally(legacy)), share=share, steps=7)
    assert found.verdict == INCONCLUSIVE, found
    assert found.doubt == "share", found
    assert found.pause is False, found
    assert found.reasons[-1].endswith(f"came to k8s-kata, {share} % were asked for: builds may be missing, not proven yet.")


def test_too_many_builds_pause_unless_the_pilot_has_counted_them() -> None:
    seen = observation(tally(60), tally(940))
    found = judge(seen, share=1)
    assert found.verdict == INCONCLUSIVE
    assert found.doubt == "share"
    assert found.pause is True
    assert found.reasons == [
        "6.0 % of 1000 builds came to k8s-kata, 1 % were asked for: too many. Check whether the worker has read its config,"
        " whether its environment overrides it, and which jobs ask for k8s-kata by annotation."
    ]
    seen.baseline = {"pins": {"kata": 50, "builds": 1000}}
    assert judge(seen, share=1).verdict == PASS


def test_no_build_at_all_is_not_success() -> None:
    found = judge(observation(Tally(), Tally()), share=10)
    assert found.verdict == INCONCLUSIVE
    assert found.doubt == "evidence"
    assert found.pause is True
    assert "No build on k8s-kata or k8s was created." in found.reasons
    assert not judge(observation(Tally(), Tally(), observed=30), share=10).pause


def test_the_share_is_not_judged_at_the_pilot() -> None:
    assert judge(observation(tally(25), tally(3000), pilot=True), share=0).verdict == PASS


@pytest.mark.parametrize(
    "setup, p50, p95",
    [({}, None, None), ({7: 1}, 7, 7), ({value: 1 for value in range(1, 101)}, 50, 95), ({4: 18, 90: 2}, 4, 90), ({4: 19, 90: 1}, 4, 4)],
)
def test_percentiles_are_values_that_occurred(setup: dict[int, int], p50: int | None, p95: int | None) -> None:
    assert gate.percentiles(tally(sum(setup.values()), seconds=setup)) == {"p50": p50, "p95": p95}


@pytest.mark.parametrize(
    "kata, legacy, share",
    [(0, 0, {"percent": None, "builds": 0}), (41, 359, {"percent": 10.25, "builds": 400}), (3, 0, {"percent": 100.0, "builds": 3})],
)
def test_share_observed(kata: int, legacy: int, share: dict[str, t.Any]) -> None:
    assert gate.share_observed(observation(tally(kata, pinned=9), tally(legacy, excluded=100))) == share


def suspected(seen: Observation) -> list[str]:
    return [item["image"] for item in gate.suspects(seen, LIMITS, NAMES)]


def test_suspects_fail_on_kata_alone() -> None:
    seen = observation(Tally())
    seen.images = {
        "centos:6": on_both((0, 9), (79, 1)),
        "worse:1": on_both((2, 12), (50, 0)),
        "bad:everywhere": on_both((0, 9), (1, 79)),
        "good:1": on_both((50, 1), (50, 0)),
        "too:few": on_both((0, 2), (50, 0)),
        "kata:alone": on_kata(0, 9),
    }
    assert gate.suspects(seen, LIMITS, NAMES) == [
        {"image": "worse:1", "exclusion": "^worse:1(@|$)", "kata": {"builds": 14, "failed": 12}, "legacy": {"builds": 50, "failed": 0}},
        {"image": "centos:6", "exclusion": "^centos:6(@|$)", "kata": {"builds": 9, "failed": 9}, "legacy": {"builds": 80, "failed": 1}},
    ]
    seen.baseline = {"legacy": vars(Tally()), "images": {"kata:alone": [40, 0, 0], "worse:1": [0, 200, 0]}}
    assert suspected(seen) == ["centos:6", "kata:alone"]


def test_no_image_is_suspected_where_all_fail_on_kata() -> None:
    seen = observation(Tally())
    seen.images = {"node:22": on_both((0, 3), (78, 0)), "golang:1.26": on_both((1, 8), (53, 0))}
    assert suspected(seen) == []
    # The only image of the builds cannot be distinguished from Kata: it is named.
    del seen.images["golang:1.26"]
    assert suspected(seen) == ["node:22"]


def test_suspects_are_bounded() -> None:
    seen = observation(Tally())
    seen.images = {f"bad:{number}": on_both((0, 5), (50, 0)) for number in range(90)} | {"good:1": on_both((5000, 0), (500, 0))}
    assert len(suspected(seen)) == gate.MAX_SUSPECTS


def test_a_baseline_grows_only_while_legacy_has_too_few_builds() -> None:
    few = observation(Tally(), tally(5, 1), baseline={"legacy": vars(tally(100, 2)), "images": {}})
    assert gate.next_baseline(few, LIMITS, NAMES)["legacy"] == {**vars(tally(105, 3)), "details": {}}
    assert gate.next_baseline(few, replace(LIMITS, min_builds=6), NAMES)["legacy"] == {**vars(tally(5, 1)), "details": {}}
    # The next interval is handed what the last one returned: its evidence, not this, decides what it started from.
    again = Observation({}, 300, lambda image: False, lambda uid: "")
    again.load(few.dump())
    assert gate.next_baseline(again, LIMITS, NAMES) == gate.next_baseline(few, LIMITS, NAMES)


def test_a_baseline_knows_the_images_of_legacy_and_is_bounded() -> None:
    seen = observation(Tally(), tally(50))
    seen.images = {f"image-{number}": on_both((0, 0), (number, 1)) for number in range(MAX_IMAGES)} | {"kata-only": on_kata(9, 9)}
    old = {f"old-{number}": [1, 0, 0] for number in range(MAX_IMAGES)}
    seen.baseline = {"legacy": vars(Tally()), "images": {"image-7": [1, 1, 0], **old}}
    images = gate.next_baseline(seen, LIMITS, NAMES)["images"]
    assert len(images) == MAX_IMAGES
    assert images["image-499"] == [499, 1, 0]
    assert images["image-7"] == [8, 2, 0]
    assert "kata-only" not in images


@pytest.mark.parametrize(
    "kata, before, pilot, verdict",
    [
        ((29, 1), None, False, INCONCLUSIVE),
        ((29, 1), (0, 20), False, PASS),
        ((29, 1), (1, 50), False, INCONCLUSIVE),
        ((28, 2), (0, 500), False, INCONCLUSIVE),
        ((98, 3), (0, 500), False, PASS),
        ((97, 4), (0, 500), False, INCONCLUSIVE),
        ((24, 1), None, True, PASS),
        ((23, 1), None, True, INCONCLUSIVE),
    ],
)
def test_one_failure_is_chance_where_all_steps_together_are_within_the_limit(
    kata: tuple[int, int], before: tuple[int, int] | None, pilot: bool, verdict: str
) -> None:
    baseline = {"kata": {"failed": before[0], "builds": before[1]}} if before else {}
    assert judge(observation(tally(*kata), tally(1000, 20), baseline=baseline, pilot=pilot)).verdict == verdict


def test_a_baseline_adds_up_the_starts_on_kata() -> None:
    baseline: dict[str, t.Any] = {}
    for _step in range(2):
        images = {"node:22": on_both((50, 1), (900, 0)), "typo:1": on_both((0, 8), (0, 90)), "good:1": on_kata(1)}
        nodes = {"a": on_kata(21, 8), "b": on_kata(30, 1)}
        both = {pair_of("a", "typo:1"): 8, pair_of("b", "node:22"): 1}
        seen = observation(tally(51, 9), tally(900, 90), baseline=baseline, images=images, nodes=nodes, both=both)
        baseline = gate.next_baseline(seen, LIMITS, NAMES)
    assert baseline["kata"] == {
        # Without the image that fails on the legacy executor as well.
        "failed": 2,
        "builds": 104,
        "all": [18, 120],
        "images": {"typo:1": [16, 16], "node:22": [2, 102]},
        "nodes": {"a": [16, 58], "b": [2, 62]},
        "both": {"a typo:1": 16, "b node:22": 2},
    }


def test_what_a_baseline_knows_of_images_and_nodes_is_bounded() -> None:
    counts = {f"one-{number}": on_kata(1, number) for number in range(1, 3 * gate.MAX_EARLIER)}
    both = {pair_of(name, name): number for number, name in enumerate(counts)}
    kata = gate.next_baseline(observation(tally(900, 9), images=counts, nodes=counts, both=both), LIMITS, NAMES)["kata"]
    assert [len(kata[kind]) for kind in ("images", "nodes", "both")] == [gate.MAX_EARLIER] * 3
    assert next(iter(kata["images"])) == f"one-{3 * gate.MAX_EARLIER - 1}"


def test_a_bad_node_is_known_from_earlier_steps() -> None:
    """It fails one build at each step, as do others now and then."""
    baseline: dict[str, t.Any] = {}
    for step in range(3):
        nodes = {"good": on_kata(30, 0), "bad": on_kata(0, 1), f"unlucky-{step}": on_kata(4, 1)}
        images = {"node:22": on_kata(30, 1), f"image-{step}": on_kata(4, 1)}
        both = {pair_of("bad", f"image-{step}"): 1, pair_of(f"unlucky-{step}", "node:22"): 1}
        seen = observation(tally(34, 2), tally(900), baseline=baseline, nodes=nodes, images=images, both=both)
        found = judge(seen)
        baseline = gate.next_baseline(seen, LIMITS, NAMES)
    assert found.worst["node"] == {"name": "bad", "builds": 3, "failed": 3}
    assert found.reasons[-1].endswith(" Left out as the worst of the rollout: image node:22 (3 of 93) and node bad (3 of 3).")


@pytest.mark.parametrize(
    "share, failed, builds, verdict",
    [
        (5, 1, 60, PASS),
        (10, 1, 60, INCONCLUSIVE),
        (10, 0, 60, PASS),
        (10, 1, 120, PASS),
        (25, 2, 120, INCONCLUSIVE),
        (25, 2, 160, PASS),
        (100, 5, 2000, PASS),
    ],
)
def test_a_failure_must_be_diluted_before_many_builds_move(share: float, failed: int, builds: int, verdict: str) -> None:
    """failed, builds: of all steps. Five points more than 0.2 % would often look as good."""
    kata, legacy = tally(builds - failed), tally(round(100 * builds / share) - builds)
    found = judge(observation(kata, legacy, baseline={"kata": {"failed": failed, "builds": failed}}), share=share, steps=7)
    assert found.verdict == verdict, found
    if verdict == INCONCLUSIVE:
        assert found.doubt == "failures"
        assert found.reasons[-1].endswith(" at all steps: too few builds to rule out a ratio of 0.04.")


@pytest.mark.parametrize("builds", [100, 5000])
def test_an_image_of_many_builds_is_not_the_worst_for_that(builds: int) -> None:
    images = {"node:22": on_kata(builds, builds // 100), "rare:1": on_kata(1, 4), "golang:1": on_kata(builds, builds // 100)}
    seen = observation(tally(2 * builds + 1, 2 * (builds // 100) + 4), tally(9000, 90), images=images)
    assert judge(seen).worst["image"] == {"name": "rare:1", "builds": 5, "failed": 4}


def test_few_builds_a_step_are_judged_together() -> None:
    """Each step alone has no failure more than chance allows."""
    seen = observation(tally(20), tally(900), baseline={"kata": {"failed": 3, "builds": 60}})
    found = judge(seen)
    assert found.verdict == INCONCLUSIVE
    assert found.doubt == "failures"
    assert found.reasons == [
        "0 of 20 builds (0.0 %) failed to start on k8s-kata, and 3 of 80 builds (3.8 %) at all steps:"
        " together above the limit of 0.02 but not proven yet."
    ]
    assert judge(observation(tally(20), tally(900), baseline={"kata": {"failed": 2, "builds": 60}})).verdict == PASS


def test_a_baseline_counts_the_pinned_builds_of_the_pilot() -> None:
    pilot = observation(tally(12), tally(588), pilot=True)
    pins = gate.next_baseline(pilot, LIMITS, NAMES)["pins"]
    assert pins == {"kata": 12, "builds": 600}
    later = observation(tally(50), tally(50), baseline={"pins": pins})
    assert gate.next_baseline(later, LIMITS, NAMES)["pins"] == pins
