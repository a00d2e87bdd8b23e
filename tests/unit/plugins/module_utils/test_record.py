# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record as a state machine, what it refuses and in which words, and the rules of its lock."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import record as _record

NAME = "sd/kata-rollout"
T1, T2, T3 = "2026-11-23T20:00:00Z", "2026-11-23T20:10:00Z", "2026-11-23T20:20:00Z"
GATE = {"verdict": "pass"}
STEPS = [{"share": 0, "pilot": True}, {"share": 5, "pilot": False}, {"share": 100, "pilot": False}]


def at_step(number: int) -> _record.Record:
    """A rollout that is running at the step."""
    record = _record.begin(None, NAME, STEPS, "ada", T1)
    for step in range(1, number):
        record = _record.advance(record, NAME, step, GATE, None, T2)
    return record


def finished() -> _record.Record:
    return _record.finish(at_step(3), NAME, GATE, T3)


def paused() -> _record.Record:
    return _record.pause(at_step(2), NAME, "lunch", "", None, "ada", T3)


def rolled_back() -> _record.Record:
    return _record.roll_back(at_step(2), "builds hang", {}, T3)


@pytest.mark.parametrize(
    "steps, parsed",
    [
        ([], []),
        ([5, "10", 100], [(5, False), (10, False), (100, False)]),
        (["pilot", 0.01, "2.5", 99.99], [(0, True), (0.01, False), (2.5, False), (99.99, False)]),
        ([{"pilot": True}, {"share": 5}, {"share": "7.50", "pilot": False}], [(0, True), (5, False), (7.5, False)]),
        ([{"share": 0, "pilot": True}, 1.0], [(0, True), (1, False)]),
        (["pilot"], [(0, True)]),
    ],
)
def test_steps_as_a_user_may_write_them(steps: list[t.Any], parsed: list[tuple[float, bool]]) -> None:
    assert _record.parse_steps(steps) == [{"share": share, "pilot": pilot} for share, pilot in parsed]


def no_step(number: int, step: str) -> str:
    return f"steps: step {number} ({step}) is not a step: give a percent above 0 up to 100 with at most two decimals, or pilot."


@pytest.mark.parametrize(
    "steps, message",
    [
        ([0], no_step(1, "0")),
        ([5, -1], no_step(2, "-1")),
        ([100.01], no_step(1, "100.01")),
        ([0.001], no_step(1, "0.001")),
        ([True], no_step(1, "True")),
        (["5 %"], no_step(1, "'5 %'")),
        (["nan"], no_step(1, "'nan'")),
        ([None], no_step(1, "None")),
        ([[5]], no_step(1, "[5]")),
        ([{"shares": 5}], no_step(1, "{'shares': 5}")),
        ([{"pilot": "yes"}], no_step(1, "{'pilot': 'yes'}")),
        (
            [{"share": 5, "pilot": True}],
            "steps: step 1 is a pilot with the share 5: a pilot takes pinned builds alone, leave its share out.",
        ),
        ([5, "pilot"], "steps: the pilot is step 2, it must be the first."),
        (["pilot", "pilot"], "steps: the pilot is step 2, it must be the first."),
        ([5, 5], "steps: step 2 (5 %) is not above the step before it (5 %), give the shares in ascending order."),
        (["pilot", 10, 2.5], "steps: step 3 (2.5 %) is not above the step before it (10 %), give the shares in ascending order."),
    ],
)
def test_steps_that_make_no_sense(steps: list[t.Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        _record.parse_steps(steps)
    assert str(refused.value) == message


def test_a_rollout_from_its_begin_to_its_end() -> None:
    record = _record.begin(None, NAME, STEPS, "ada", T1)
    assert _record.view(record) == {
        "phase": "running",
        "step": 1,
        "share": 0,
        "pilot": True,
        "steps": STEPS,
        "holder": "ada",
        "began": T1,
        "step_began": T1,
        "reason": "",
        "doubt": "",
        "history": [],
        "past": [],
        "approvals": [],
        "notes": [],
        "earlier": [],
        "ended": "",
        "step_share": 0,
        "passed_share": 0,
    }
    record = _record.observe(record, NAME, 1, {"seen": 1}, None)
    assert record["evidence"] == {"seen": 1}
    assert record["baseline"] == {}
    record = _record.advance(record, NAME, 1, GATE, {"legacy": 1}, T2)
    assert record["step"] == 2
    assert record["step_began"] == T2
    assert record["evidence"] == {}
    assert record["baseline"] == {"legacy": 1}
    assert _record.share_of(record) == 5
    record = _record.advance(record, NAME, 2, GATE, None, T3)
    assert _record.share_of(record) == 100
    assert record["baseline"] == {"legacy": 1}
    record = _record.finish(record, NAME, {"verdict": "pass", "reasons": ["All well."]}, T3)
    assert record["phase"] == "finished"
    assert record["ended"] == T3
    assert _record.share_of(record) == 100
    assert record["history"] == [
        {"step": 1, "share": 0, "pilot": True, "began": T1, "ended": T2, "outcome": "passed", "gate": GATE},
        {"step": 2, "share": 5, "pilot": False, "began": T2, "ended": T3, "outcome": "passed", "gate": GATE},
        {
            "step": 3,
            "share": 100,
            "pilot": False,
            "began": T3,
            "ended": T3,
            "outcome": "passed",
            "gate": {"verdict": "pass", "reasons": ["All well."]},
        },
    ]


def test_a_way_back_from_everywhere() -> None:
    for record in (at_step(1), at_step(3), paused()):
        back = _record.roll_back({**record, "evidence": {"seen": 1}}, "builds hang", {"verdict": "fail"}, T3)
        assert back["phase"] == "rolled_back"
        assert back["reason"] == "builds hang"
        assert back["ended"] == T3
        assert back["evidence"] == {}
        assert _record.share_of(back) == 0
        assert back["history"][-1]["outcome"] == "rolled back"
        assert back["history"][-1]["gate"] == {"verdict": "fail"}
        assert len(back["history"]) == record["step"]
    back = _record.roll_back(finished(), "builds hang", {}, T3)
    assert _record.share_of(back) == 0
    assert back["history"] == finished()["history"]


def test_a_pause_keeps_the_share_and_everything_else() -> None:
    assert {**paused(), "phase": "running", "reason": "", "notes": []} == at_step(2)
    assert _record.share_of(paused()) == 5
    assert {**_record.resume(paused(), NAME, "ada", T3), "notes": []} == at_step(2)
    lowered = _record.pause(at_step(3), NAME, "slow", "setup", 5, "ada", T3)
    assert _record.share_of(lowered) == 5
    assert _record.view(lowered)["step_share"] == 100
    assert _record.share_of(_record.resume(lowered, NAME, "ada", T3)) == 100


def test_notes_tell_who_paused_and_resumed_and_are_bounded() -> None:
    record = _record.resume(paused(), NAME, "bob", T3)
    assert record["notes"] == [
        {"at": T3, "by": "ada", "text": "Paused at step 2 of 3 (5 %): lunch"},
        {"at": T3, "by": "bob", "text": "Resumed at step 2 of 3 (5 %)."},
    ]
    for number in range(_record.MAX_NOTES + 5):
        record = _record.note(record, f"{number} " + "x" * 2 * _record.MAX_TEXT, "eve", T3)
    assert len(record["notes"]) == _record.MAX_NOTES
    assert record["notes"][-1]["text"][:3] == f"{_record.MAX_NOTES + 4} "
    assert len(record["notes"][-1]["text"]) == _record.MAX_TEXT


EVIDENCE = {"observed_seconds": 3590.0, "resource_version": "17", "images": {"node:22": {}}}


@pytest.mark.parametrize(
    "doubt, share, kept",
    [
        ("evidence", None, True),
        ("approval", None, True),
        ("operator", None, True),
        ("error", None, True),
        ("error", 5, False),
        ("", None, True),
        ("failures", None, False),
        ("setup", None, False),
        ("evidence", 0, False),
    ],
)
def test_a_resumed_step_has_a_full_window(doubt: str, share: float | None, kept: bool) -> None:
    record = _record.pause({**at_step(2), "evidence": EVIDENCE}, NAME, "why", doubt, share, "ada", T3)
    resumed = _record.resume(record, NAME, "ada", T3)["evidence"]
    assert resumed == ({"observed_seconds": 0.0, "resource_version": "", "images": {"node:22": {}}} if kept else {})


def test_a_second_pause_keeps_the_share_and_the_graver_doubt_of_the_first() -> None:
    record = _record.pause({**at_step(3), "evidence": EVIDENCE}, NAME, "starts fail", "failures", 5, "ada", T2)
    record = _record.pause(record, NAME, "Upgrade tonight.", "operator", None, "bob", T3)
    assert (_record.share_of(record), record["doubt"], record["reason"]) == (5, "failures", "Upgrade tonight.")
    assert _record.resume(record, NAME, "ada", T3)["evidence"] == {}
    record = _record.pause(record, NAME, "slow", "setup", 0, "ada", T3)
    assert (_record.share_of(record), record["doubt"]) == (0, "setup")
    assert _record.pause(paused(), NAME, "Upgrade tonight.", "operator", None, "bob", T3)["doubt"] == "operator"


def test_a_step_is_approved_once_by_a_name_or_an_annotation() -> None:
    record = _record.approve(at_step(2), NAME, None, "ada", T2)
    assert _record.approve(record, NAME, 2, "bob", T3) == record
    annotations = {"kata.screwdriver.cd/approve-step-3": "cyd", "kata.screwdriver.cd/approve-step-9": "dan", "other": "x"}
    record = _record.approve_by_annotation(record, NAME, annotations, T3)
    assert record["approvals"] == [{"step": 2, "by": "ada", "at": T2}, {"step": 3, "by": "cyd", "at": T3}]
    assert _record.approve_by_annotation(rolled_back(), NAME, annotations, T3) == rolled_back()


@pytest.mark.parametrize("gate", [{}, {"verdict": "fail"}, {"executors": {"k8s-kata": {"builds": 1}}}])
def test_a_view_has_all_its_keys_in_every_phase(gate: dict[str, t.Any]) -> None:
    back = _record.roll_back(at_step(2), "builds hang", gate, T3)
    views = [
        _record.view(record)
        for record in (None, at_step(1), at_step(3), paused(), back, finished(), _record.begin(back, NAME, STEPS, "bob", T3))
    ]
    assert {tuple(sorted(view)) for view in views} == {tuple(sorted(views[0]))}
    for view in views:
        json.dumps(view)
        for entry in view["history"]:
            assert set(_record.EMPTY_GATE) <= set(entry["gate"])
            assert all(set(_record.EMPTY_FIGURES) <= set(figures) for figures in entry["gate"]["executors"].values())
    assert views[0]["phase"] == "none"
    assert views[0]["step"] == 0
    assert views[0]["share"] == 0
    assert views[0]["steps"] == []


def test_a_view_has_what_the_gate_needs_of_earlier_steps() -> None:
    record = _record.advance(at_step(1), NAME, 1, {"log_e": -0.5}, None, T2)
    record = _record.advance(record, NAME, 2, {"log_e": 1.25}, None, T3)
    assert _record.view(record)["earlier"] == [-0.5, 1.25]
    assert _record.view(record)["passed_share"] == 5
    again = _record.begin(finished(), NAME, _record.parse_steps([100]), "ada", T3)
    assert _record.view(again)["earlier"] == []
    assert _record.view(again)["passed_share"] == 100
    assert _record.view(at_step(1))["passed_share"] == 0


def test_a_second_begin_goes_on() -> None:
    for record in (at_step(2), paused()):
        assert _record.begin(record, NAME, [], "ada", T3) == record
        assert _record.begin(record, NAME, STEPS, "ada", T3) == record
        assert _record.begin(record, NAME, STEPS, "bob", T3) == {**record, "holder": "bob"}


def test_a_new_rollout_remembers_those_before_it() -> None:
    again = _record.begin({**rolled_back(), "baseline": {"legacy": 1, "kata": 2}}, NAME, STEPS, "bob", T3)
    assert again["phase"] == "running"
    assert again["step"] == 1
    assert again["history"] == []
    assert again["baseline"] == {"legacy": 1}
    assert again["past"] == [{"phase": "rolled_back", "reason": "builds hang", "reached": 5, "holder": "ada", "began": T1, "ended": T3}]
    record = again
    for number in range(_record.MAX_PAST + 3):
        record = _record.begin(_record.roll_back(record, str(number), {}, T3), NAME, STEPS, "bob", T3)
    assert [past["reason"] for past in record["past"]] == [str(number) for number in range(_record.MAX_PAST + 2, 2, -1)]


@pytest.mark.parametrize(
    "record, repeat",
    [
        (at_step(2), lambda record: _record.advance(record, NAME, 1, GATE, {"other": 1}, T3)),
        (paused(), lambda record: _record.pause(record, NAME, "lunch", "", None, "ada", T3)),
        (at_step(2), lambda record: _record.resume(record, NAME, "ada", T3)),
        (rolled_back(), lambda record: _record.roll_back(record, "another reason", GATE, T2)),
        (finished(), lambda record: _record.finish(record, NAME, {}, T2)),
        (at_step(2), lambda record: _record.observe(record, NAME, 2, {}, {})),
        (at_step(2), lambda record: _record.observe(record, NAME, None, None, None)),
    ],
)
def test_a_repeated_action_changes_nothing(record: _record.Record, repeat: t.Callable[[_record.Record], _record.Record]) -> None:
    assert repeat(record) == record


REFUSALS: list[tuple[t.Callable[[], t.Any], str]] = [
    (lambda: _record.begin(None, NAME, [], "ada", T1), "There is no rollout sd/kata-rollout to resume: give the steps to begin one."),
    (lambda: _record.begin(finished(), NAME, [], "ada", T1), "There is no rollout sd/kata-rollout to resume: give the steps to begin one."),
    (
        lambda: _record.begin(at_step(1), NAME, STEPS[1:], "ada", T1),
        "Rollout sd/kata-rollout is running at step 1 of 3 (pilot) of [pilot, 5, 100]:"
        " resume it with the same steps, or roll it back before it begins with [5, 100].",
    ),
    (
        lambda: _record.begin(paused(), NAME, STEPS[2:], "ada", T1),
        "Rollout sd/kata-rollout is paused at step 2 of 3 (5 %) of [pilot, 5, 100]:"
        " resume it with the same steps, or roll it back before it begins with [100].",
    ),
    (lambda: _record.observe(paused(), NAME, 2, {}, {}), "Cannot observe rollout sd/kata-rollout: it is paused (lunch), resume it first."),
    (lambda: _record.observe(finished(), NAME, 3, {}, {}), "Cannot observe rollout sd/kata-rollout: it is finished, begin a new one."),
    (
        lambda: _record.observe(rolled_back(), NAME, 2, {}, {}),
        "Cannot observe rollout sd/kata-rollout: it is rolled_back (builds hang), begin a new one.",
    ),
    (
        lambda: _record.observe(at_step(2), NAME, 1, {}, {}),
        "Rollout sd/kata-rollout is at step 2 of 3 (5 %), not at step 1: begin again to resume it from there.",
    ),
    (
        lambda: _record.advance(paused(), NAME, 2, {}, None, T3),
        "Cannot advance rollout sd/kata-rollout: it is paused (lunch), resume it first.",
    ),
    (
        lambda: _record.advance(at_step(1), NAME, 2, {}, None, T3),
        "Rollout sd/kata-rollout is at step 1 of 3 (pilot), not at step 2: begin again to resume it from there.",
    ),
    (
        lambda: _record.advance(at_step(3), NAME, 3, {}, None, T3),
        "Rollout sd/kata-rollout is at its last step, step 3 of 3 (100 %): finish it.",
    ),
    (lambda: _record.finish(paused(), NAME, {}, T3), "Cannot finish rollout sd/kata-rollout: it is paused (lunch), resume it first."),
    (
        lambda: _record.finish(at_step(2), NAME, {}, T3),
        "Rollout sd/kata-rollout is at step 2 of 3 (5 %): advance to the last step before it finishes.",
    ),
    (
        lambda: _record.pause(finished(), NAME, "x", "", None, "ada", T3),
        "Cannot pause rollout sd/kata-rollout: it is finished, begin a new one.",
    ),
    (lambda: _record.resume(rolled_back(), NAME, "ada", T3), "Cannot resume rollout sd/kata-rollout: it is rolled_back, begin a new one."),
]


@pytest.mark.parametrize("act, message", REFUSALS, ids=[str(number) for number in range(len(REFUSALS))])
def test_what_the_record_refuses(act: t.Callable[[], t.Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        act()
    assert str(refused.value) == message


@pytest.mark.parametrize("record", [at_step(1), at_step(2), paused(), rolled_back(), finished()])
def test_a_config_map_keeps_the_whole_record(record: _record.Record) -> None:
    record = {**record, "evidence": {"observed_seconds": 60.1}, "baseline": {"legacy": {"setup": {"5": 3}}}}
    assert _record.from_data(_record.to_data(record, NAME), NAME) == record


def crowded(suspects: int) -> _record.Record:
    """Six steps that were left with as many suspects each, of names that do not compress."""
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(suspects)]
    gate = {"suspects": [{"image": name, "exclusion": name, "kata": {"builds": 9, "failed": 9}} for name in names]}
    record = _record.begin(None, NAME, _record.parse_steps([1, 2, 3, 4, 5, 6, 7]), "ada", T1)
    for step in range(1, 7):
        record = _record.advance(record, NAME, step, gate, None, T2)
    return record


def test_the_history_is_bounded() -> None:
    record = crowded(500)
    assert [len(entry["gate"]["suspects"]) for entry in record["history"]] == [_record.MAX_ITEMS] * 6
    assert sum(map(len, _record.to_data(record, NAME).values())) < 64 * 1024


def test_a_record_that_does_not_fit_is_refused_in_one_sentence() -> None:
    noise = {str(number): hashlib.sha512(str(number).encode()).hexdigest() for number in range(20000)}
    with pytest.raises(UserError) as refused:
        _record.to_data(_record.observe(at_step(2), NAME, 2, noise, None), NAME)
    size = str(refused.value).partition("would have ")[2].partition(",")[0]
    assert str(refused.value) == (
        f"The rollout record sd/kata-rollout would have {size}, more than the 976.56 KiB that fit into a ConfigMap:"
        " roll back, and begin again with fewer steps."
    )
    assert size.endswith(" MiB")


def test_a_config_map_can_be_read_with_kubectl() -> None:
    data = _record.to_data({**at_step(2), "evidence": {"seen": 1}}, NAME)
    readable = {"version": "2", "phase": "running", "step": "2 of 3", "share": "5", "reason": ""}
    assert {key: value for key, value in data.items() if key != "record"} == readable
    assert json.loads(gzip.decompress(base64.b64decode(data["record"])))["history"][0]["outcome"] == "passed"
    data = _record.to_data(rolled_back(), NAME)
    assert data["share"] == "0"
    assert data["reason"] == "builds hang"
    assert data == _record.to_data(rolled_back(), NAME)


NOT_A_RECORD = (
    "ConfigMap sd/kata-rollout is not a rollout record: its key record is not what this module writes."
    " Use another name, or delete it if nothing needs it."
)


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"record": None}, NOT_A_RECORD),
        ({"record": None, "version": None}, NOT_A_RECORD),
        ({"record": "hello"}, NOT_A_RECORD),
        ({"record": "aGVsbG8="}, NOT_A_RECORD),
        ({"record": '{"version": 1}', "version": None}, NOT_A_RECORD),
        ({"record": packed("hello")}, NOT_A_RECORD),
        ({"record": packed("[]")}, NOT_A_RECORD),
        ({"record": packed("{}")}, NOT_A_RECORD),
        ({"record": packed('{"version": 2}')[:-9]}, NOT_A_RECORD),
        (
            {"version": "3", "record": "in a new way"},
            "The rollout record sd/kata-rollout has version '3', this module reads version '2': "
            "use the release of the collection that wrote it.",
        ),
    ],
)
def test_a_config_map_that_is_not_a_record(change: dict[str, t.Any], message: str) -> None:
    data = {key: value for key, value in {**_record.to_data(at_step(1), NAME), **change}.items() if value is not None}
    with pytest.raises(UserError) as refused:
        _record.from_data(data, NAME)
    assert str(refused.value) == message


NOW = datetime(2026, 11, 23, 21, 0, 0, 500000, tzinfo=UTC)


def lease(age: float, holder: str | None = "ada", ttl: int | None = 300) -> dict[str, t.Any]:
    renewed = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": ttl}}


@pytest.mark.parametrize(
    "found, lock",
    [
        (None, None),
        ({}, None),
        ({"spec": {"holderIdentity": "ada"}}, None),
        (lease(0, holder=None), None),
        (lease(0, holder=""), None),
        (lease(10), ("ada", NOW + timedelta(seconds=290))),
        (lease(10, ttl=None), ("ada", NOW - timedelta(seconds=10))),
    ],
)
def test_the_lock_that_a_lease_says(found: dict[str, t.Any] | None, lock: tuple[str, datetime] | None) -> None:
    assert _record.lock_of(found) == lock


def test_a_renewal_is_timed_by_the_api_server() -> None:
    """The holder's clock is 5 minutes ahead of the API server's."""
    fields = [{"time": "2026-11-23T20:55:00Z"}, {"time": "2026-11-23T20:54:00Z"}, {"manager": "no time"}]
    found = {**lease(0, ttl=60), "metadata": {"managedFields": fields}}
    assert _record.lock_of(found) == ("ada", datetime(2026, 11, 23, 20, 56, tzinfo=UTC))


@pytest.mark.parametrize("found", [None, lease(0, holder="bob"), lease(301), lease(9999)])
def test_a_lock_that_may_be_taken(found: dict[str, t.Any] | None) -> None:
    _record.require_free(_record.lock_of(found), NAME, "bob", NOW)


@pytest.mark.parametrize("age, until", [(0, "21:05:00"), (300, "21:00:00")])
def test_a_lock_of_another_holder(age: float, until: str) -> None:
    with pytest.raises(UserError) as refused:
        _record.require_free(_record.lock_of(lease(age)), NAME, "bob", NOW)
    assert (
        str(refused.value) == f"Rollout sd/kata-rollout is locked by ada until 2026-11-23T{until}Z unless renewed:"
        " wait until ada releases it, or set take_over. A rollback needs no lock."
    )


TAKEN = "2026-11-23T21:00:00.500000Z"


@pytest.mark.parametrize(
    "found, spec",
    [
        (None, {"acquireTime": TAKEN, "leaseTransitions": 0}),
        (lease(10), {}),
        ({"spec": {"holderIdentity": "bob", "leaseTransitions": 4}}, {"acquireTime": TAKEN, "leaseTransitions": 5}),
        ({"spec": {}}, {"acquireTime": TAKEN, "leaseTransitions": 1}),
    ],
)
def test_a_lease_as_it_is_taken_or_renewed(found: dict[str, t.Any] | None, spec: dict[str, t.Any]) -> None:
    renewed = {"holderIdentity": "ada", "leaseDurationSeconds": 60, "renewTime": TAKEN}
    assert _record.lease_spec(found, "ada", 60, NOW) == {**renewed, **spec}


def test_a_stamp_is_in_utc() -> None:
    assert _record.stamp(datetime.fromisoformat("2026-11-23T22:30:00.9+02:00")) == "2026-11-23T20:30:00Z"


def test_a_finished_rollout_is_not_begun_anew_by_accident() -> None:
    record = finished()
    assert _record.begin(record, NAME, record["steps"], "eve", T3) is record
    with pytest.raises(UserError) as refused:
        _record.begin(record, NAME, _record.parse_steps(["pilot", 50]), "eve", T3)
    assert str(refused.value) == (
        "Rollout sd/kata-rollout has finished at 100 %, and the first of [pilot, 50] would lower the share:"
        " leave out the steps below, or roll it back before it begins again."
    )
    half = _record.finish(_record.begin(None, NAME, _record.parse_steps([50]), "ada", T1), NAME, GATE, T2)
    assert _record.begin(half, NAME, _record.parse_steps([75, 100]), "eve", T3)["phase"] == "running"
