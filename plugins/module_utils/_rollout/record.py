# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The rollout record as a state machine, and the rules of its lock. Pure: every function takes the time and returns a new record."""

from __future__ import annotations

import base64
import gzip
import json
import typing as t
from datetime import UTC, datetime, timedelta

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._values import format_bytes, parse_share

NONE, RUNNING, PAUSED, ROLLED_BACK, FINISHED = "none", "running", "paused", "rolled_back", "finished"
RECORD_VERSION = 2
# Bounds that keep the record far below the 1 MiB of a ConfigMap.
MAX_PAST = 10
MAX_NOTES = 50
MAX_ITEMS = 20
MAX_TEXT = 1000
MAX_BYTES = 1_000_000
# On the ConfigMap, with the number of the step: who approves it.
APPROVAL_ANNOTATION = "kata.screwdriver.cd/approve-step-"
# What stands against a step that was paused, although nothing that was observed counts against it.
HARMLESS_DOUBTS = frozenset({"", "evidence", "approval", "operator", "error"})

Record = dict[str, t.Any]

# What the history has of a gate, for readers that must not stumble over a step that was left without one.
EMPTY_GATE: dict[str, t.Any] = {
    "verdict": "",
    "reasons": [],
    "doubt": "",
    "observed_seconds": 0.0,
    "executors": {},
    "share_observed": {"percent": None, "builds": 0},
    "excluded_on_kata": 0,
    "suspects": [],
    "worst": {"image": None, "node": None},
    "log_e": 0.0,
    "log_m": 0.0,
    "log_threshold": 0.0,
    "gaps": 0,
}
EMPTY_FIGURES: dict[str, t.Any] = {
    "builds": 0,
    "started": 0,
    "failures": {},
    "details": {},
    "waiting": 0,
    "withdrawn": 0,
    "ended": {},
    "excluded": 0,
    "pinned": 0,
    "setup_seconds": {"p50": None, "p95": None},
}


class Lock(t.NamedTuple):
    """Who holds the lock, and until when by the API server's clock."""

    holder: str
    expires: datetime


def parse_steps(steps: list[t.Any]) -> list[dict[str, t.Any]]:
    """Steps as the user may write them (5, "2.5", "pilot", {share: 5}) to [{share, pilot}]. Raises UserError."""
    parsed = [_parse_step(number, step) for number, step in enumerate(steps, 1)]
    for number, (previous, step) in enumerate(zip(parsed, parsed[1:], strict=False), 2):
        if step["pilot"]:
            raise UserError(f"steps: the pilot is step {number}, it must be the first.")
        if step["share"] <= previous["share"]:
            raise UserError(
                f"steps: step {number} ({_percent(step['share'])}) is not above the step before it ({_percent(previous['share'])}),"
                " give the shares in ascending order."
            )
    return parsed


def _parse_step(number: int, step: t.Any) -> dict[str, t.Any]:
    wrong = UserError(
        f"steps: step {number} ({step!r}) is not a step: give a percent above 0 up to 100 with at most two decimals, or pilot."
    )
    share, pilot = (step.get("share", 0), step.get("pilot", False)) if isinstance(step, dict) else (step, False)
    if share == "pilot" or pilot is True:
        if share not in ("pilot", 0):
            raise UserError(
                f"steps: step {number} is a pilot with the share {share}: a pilot takes pinned builds alone, leave its share out."
            )
        return {"share": 0, "pilot": True}
    try:
        exact = parse_share(share, "share")
    except UserError as exc:
        raise wrong from exc
    if not exact:
        raise wrong
    return {"share": int(exact) if exact == int(exact) else float(exact), "pilot": False}


def begin(record: Record | None, name: str, steps: list[dict[str, t.Any]], holder: str, now: str) -> Record:
    """A new rollout at its first step; or the present one, where it is running, paused, or has finished with the same steps."""
    if record and record["phase"] in (RUNNING, PAUSED):
        if steps and steps != record["steps"]:
            raise UserError(
                f"Rollout {name} is {record['phase']} at {_place(record)} of {_steps(record['steps'])}:"
                f" resume it with the same steps, or roll it back before it begins with {_steps(steps)}."
            )
        return {**record, "holder": holder}
    if not steps:
        raise UserError(f"There is no rollout {name} to resume: give the steps to begin one.")
    if record and record["phase"] == FINISHED:
        if steps == record["steps"]:
            return record
        if steps[0]["share"] < share_of(record):
            raise UserError(
                f"Rollout {name} has finished at {_percent(share_of(record))}, and the first of {_steps(steps)} would lower the share:"
                " leave out the steps below, or roll it back before it begins again."
            )
    past = [_summary(record), *record["past"]][:MAX_PAST] if record else []
    return {
        "version": RECORD_VERSION,
        "phase": RUNNING,
        "step": 1,
        "steps": steps,
        "holder": holder,
        "began": now,
        "step_began": now,
        "reason": "",
        "doubt": "",
        "standing_share": None,
        "approvals": [],
        "notes": [],
        "history": [],
        "past": past,
        "evidence": {},
        # Kata may have changed since the rollout before.
        "baseline": {key: value for key, value in (record or {}).get("baseline", {}).items() if key != "kata"},
    }


def observe(record: Record, name: str, step: int | None, evidence: dict[str, t.Any] | None, baseline: dict[str, t.Any] | None) -> Record:
    """Stores what the current step has observed so far."""
    _require_running(record, name, "observe")
    _require_step(record, name, step)
    return {**record, **{key: value for key, value in (("evidence", evidence), ("baseline", baseline)) if value is not None}}


def advance(record: Record, name: str, step: int | None, gate: dict[str, t.Any], baseline: dict[str, t.Any] | None, now: str) -> Record:
    """Closes the current step and moves to the next. With step, a repeated call is recognised."""
    _require_running(record, name, "advance")
    if step is not None and record["step"] == step + 1:
        return record
    _require_step(record, name, step)
    if record["step"] == len(record["steps"]):
        raise UserError(f"Rollout {name} is at its last step, {_place(record)}: finish it.")
    closed = _close(record, "passed", gate, now)
    return {
        **closed,
        "step": record["step"] + 1,
        "step_began": now,
        "evidence": {},
        "baseline": record["baseline"] if baseline is None else baseline,
    }


def pause(record: Record, name: str, reason: str, doubt: str, share: float | None, by: str, now: str) -> Record:
    """Stops where it is.

    Args:
        record: The record.
        name: What the rollout is called in messages.
        reason: Why, as sentences.
        doubt: What stands against passing, in the word of the gate.
        share: The share that stands meanwhile, where it was lowered.
        by: Who pauses it.
        now: The time.
    """
    _require_open(record, name, "pause")
    if record["phase"] == PAUSED:
        # What was lowered still is, and what was observed still counts against passing.
        share = record["standing_share"] if share is None else share
        doubt = record["doubt"] if doubt in HARMLESS_DOUBTS and record["doubt"] not in HARMLESS_DOUBTS else doubt
    paused = {**record, "phase": PAUSED, "reason": reason[:MAX_TEXT], "doubt": doubt, "standing_share": share}
    return record if paused == record else _noted(paused, f"Paused at {_place(record)}: {reason}", by, now)


def resume(record: Record, name: str, by: str, now: str) -> Record:
    """Continues the step with a full window.

    What was observed is kept where only evidence was missing. If it prevented a pass, or the share was lowered meanwhile, the step
    is observed from the beginning.
    """
    _require_open(record, name, "resume")
    if record["phase"] == RUNNING:
        return record
    keep = record["doubt"] in HARMLESS_DOUBTS and record["standing_share"] is None and record["evidence"]
    # Without a resourceVersion the gate begins to watch again, and builds that came meanwhile are not counted.
    evidence = {**record["evidence"], "observed_seconds": 0.0, "resource_version": ""} if keep else {}
    resumed = {**record, "phase": RUNNING, "reason": "", "doubt": "", "standing_share": None, "evidence": evidence}
    return _noted(resumed, f"Resumed at {_place(record)}.", by, now)


def approve(record: Record, name: str, step: int | None, by: str, now: str) -> Record:
    """Notes who approved a step, the current one by default. A step that is approved stays as it is."""
    _require_open(record, name, "approve")
    number = record["step"] if step is None else step
    if not 1 <= number <= len(record["steps"]):
        raise UserError(f"Cannot approve step {number} of rollout {name}: its steps are 1 to {len(record['steps'])}.")
    if any(approval["step"] == number for approval in record["approvals"]):
        return record
    return {**record, "approvals": [*record["approvals"], {"step": number, "by": by, "at": now}]}


def approve_by_annotation(record: Record, name: str, annotations: dict[str, str], now: str) -> Record:
    """Notes the approvals that people left on the ConfigMap."""
    if record["phase"] not in (RUNNING, PAUSED):
        return record
    for key, by in sorted(annotations.items()):
        number = _approved_by(key)
        if number is not None and 1 <= number <= len(record["steps"]):
            record = approve(record, name, number, by, now)
    return record


def spent_annotations(before: Record | None, after: Record, annotations: dict[str, str]) -> list[str]:
    """The annotations to remove with the write of a record: of approvals that it has, and all that are older than the rollout."""
    is_new = before is None or before["phase"] not in (RUNNING, PAUSED)
    approved = {approval["step"] for approval in after["approvals"]}
    return [key for key in annotations if (number := _approved_by(key)) is not None and (is_new or number in approved)]


def _approved_by(annotation: str) -> int | None:
    """The number of the step that an annotation approves, or None where it is another annotation."""
    number = annotation.removeprefix(APPROVAL_ANNOTATION)
    return int(number) if annotation.startswith(APPROVAL_ANNOTATION) and number.isdecimal() else None


def note(record: Record, text: str, by: str, now: str) -> Record:
    """Adds a remark to the record, whatever its phase."""
    return _noted(record, text, by, now)


def roll_back(record: Record, reason: str, gate: dict[str, t.Any], now: str) -> Record:
    """Possible from everywhere, also after the end."""
    if record["phase"] == ROLLED_BACK:
        return record
    closed = record if record["phase"] == FINISHED else _close(record, "rolled back", gate, now)
    reason = reason[:MAX_TEXT]
    return {**closed, "phase": ROLLED_BACK, "reason": reason, "doubt": gate.get("doubt", ""), "standing_share": None} | _ended(now)


def finish(record: Record, name: str, gate: dict[str, t.Any], now: str) -> Record:
    """Closes the last step."""
    if record["phase"] == FINISHED:
        return record
    _require_running(record, name, "finish")
    if record["step"] < len(record["steps"]):
        raise UserError(f"Rollout {name} is at {_place(record)}: advance to the last step before it finishes.")
    return {**_close(record, "passed", gate, now), "phase": FINISHED, "reason": "", "doubt": ""} | _ended(now)


def share_of(record: Record) -> float:
    """The share that the executor should have, in percent."""
    if record["phase"] == ROLLED_BACK:
        return 0
    return _step(record)["share"] if record["standing_share"] is None else record["standing_share"]


def passed_share(record: Record) -> float:
    """The share that evidence stands for: that of the last step that passed, or that a finished rollout reached before this one."""
    passed = [entry["share"] for entry in record["history"] if entry["outcome"] == "passed"]
    before: Record = record["past"][0] if record["past"] else {"phase": ROLLED_BACK}
    if passed:
        return passed[-1]
    return before["reached"] if before["phase"] == FINISHED else 0


def view(record: Record | None) -> dict[str, t.Any]:
    """The record as users see it, without the bulk of the evidence. It has all its keys in every phase, also where there is no record."""
    if record is None:
        record = {**begin(None, "", [{"share": 0, "pilot": False}], "", ""), "phase": NONE, "step": 0, "steps": []}
        return _view(record) | {"share": 0, "step_share": 0, "pilot": False}
    return _view(record) | {"share": share_of(record), "step_share": _step(record)["share"], "pilot": _step(record)["pilot"]}


def _view(record: Record) -> dict[str, t.Any]:
    kept = {key: value for key, value in record.items() if key not in ("version", "evidence", "baseline", "standing_share")}
    names = {name: None for entry in record["history"] for name in entry["gate"].get("executors", {})}
    history = [{**entry, "gate": _whole_gate(entry["gate"], list(names))} for entry in record["history"]]
    earlier = [entry["gate"]["log_e"] for entry in history if entry["outcome"] == "passed"]
    return {"ended": "", **kept, "history": history, "earlier": earlier, "passed_share": passed_share(record)}


def _whole_gate(gate: dict[str, t.Any], executors: list[str]) -> dict[str, t.Any]:
    figures = {name: {**EMPTY_FIGURES, **gate.get("executors", {}).get(name, {})} for name in executors}
    return {**EMPTY_GATE, **gate, "executors": figures}


def to_data(record: Record, name: str) -> dict[str, str]:
    """The record as a ConfigMap's data, with a few flat keys for whoever reads it with kubectl.

    Raises:
        UserError: It does not fit into a ConfigMap.
    """
    packed = base64.b64encode(gzip.compress(json.dumps(record, separators=(",", ":")).encode(), mtime=0)).decode()
    if len(packed) > MAX_BYTES:
        raise UserError(
            f"The rollout record {name} would have {format_bytes(len(packed))}, more than the {format_bytes(MAX_BYTES)} that fit into a"
            " ConfigMap: roll back, and begin again with fewer steps."
        )
    return {
        "version": str(RECORD_VERSION),
        "phase": record["phase"],
        "step": f"{record['step']} of {len(record['steps'])}",
        "share": f"{share_of(record):g}",
        "reason": record["reason"],
        "record": packed,
    }


def from_data(data: dict[str, str], name: str) -> Record:
    """The record of a ConfigMap's data. Raises UserError where it is none, or of another version."""
    if data.get("version", str(RECORD_VERSION)) != str(RECORD_VERSION):
        raise UserError(
            f"The rollout record {name} has version {data['version']!r}, this module reads version '{RECORD_VERSION}':"
            " use the release of the collection that wrote it."
        )
    try:
        record = json.loads(gzip.decompress(base64.b64decode(data["record"], validate=True)))
        if record["version"] == RECORD_VERSION:
            return record
    except (KeyError, TypeError, ValueError, OSError, EOFError):
        pass
    raise UserError(
        f"ConfigMap {name} is not a rollout record: its key record is not what this module writes."
        " Use another name, or delete it if nothing needs it."
    )


def stamp(when: datetime) -> str:
    """Such as 2026-11-23T20:00:00Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lock_of(lease: dict[str, t.Any] | None) -> Lock | None:
    """The lock as the Lease has it, also one that has expired; None where nobody holds it.

    When it was renewed is taken from the API server's note of the write, so that the clocks of two operators may differ.
    """
    spec = (lease or {}).get("spec") or {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return None
    renewed = written_at(lease or {}) or datetime.fromisoformat(spec["renewTime"])
    return Lock(spec["holderIdentity"], renewed + timedelta(seconds=spec.get("leaseDurationSeconds") or 0))


def written_at(found: dict[str, t.Any]) -> datetime | None:
    """When an object was last written, by the API server's clock."""
    times = [entry["time"] for entry in (found.get("metadata") or {}).get("managedFields") or [] if entry.get("time")]
    return max(map(datetime.fromisoformat, times)) if times else None


def require_free(lock: Lock | None, name: str, holder: str, now: datetime) -> None:
    """Refuses a holder while the lock is another one's and has not expired."""
    # The API server's times are whole seconds.
    if lock and lock.holder != holder and now < lock.expires + timedelta(seconds=1):
        raise UserError(
            f"Rollout {name} is locked by {lock.holder} until {stamp(lock.expires)} unless renewed:"
            f" wait until {lock.holder} releases it, or set take_over. A rollback needs no lock."
        )


def lease_spec(lease: dict[str, t.Any] | None, holder: str, ttl: int, now: datetime) -> dict[str, t.Any]:
    """The spec of the Lease as it is taken or renewed."""
    old = (lease or {}).get("spec") or {}
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": ttl, "renewTime": time}
    if old.get("holderIdentity") != holder:
        spec["acquireTime"] = time
        spec["leaseTransitions"] = (old.get("leaseTransitions") or 0) + bool(lease)
    return spec


def _require_open(record: Record, name: str, action: str) -> None:
    if record["phase"] not in (RUNNING, PAUSED):
        raise UserError(f"Cannot {action} rollout {name}: it is {record['phase']}, begin a new one.")


def _require_running(record: Record, name: str, action: str) -> None:
    if record["phase"] != RUNNING:
        reason = f" ({record['reason']})" if record["reason"] else ""
        advice = "resume it first" if record["phase"] == PAUSED else "begin a new one"
        raise UserError(f"Cannot {action} rollout {name}: it is {record['phase']}{reason}, {advice}.")


def _require_step(record: Record, name: str, step: int | None) -> None:
    if step is not None and step != record["step"]:
        raise UserError(f"Rollout {name} is at {_place(record)}, not at step {step}: begin again to resume it from there.")


def _close(record: Record, outcome: str, gate: dict[str, t.Any], now: str) -> Record:
    bounded = {key: value[:MAX_ITEMS] if isinstance(value, list) else value for key, value in gate.items()}
    entry = {"step": record["step"], **_step(record), "began": record["step_began"], "ended": now, "outcome": outcome, "gate": bounded}
    return {**record, "history": [*record["history"], entry]}


def _ended(now: str) -> dict[str, t.Any]:
    return {"ended": now, "evidence": {}}


def _noted(record: Record, text: str, by: str, now: str) -> Record:
    entry = {"at": now, "by": by, "text": text[:MAX_TEXT]}
    return {**record, "notes": [*record["notes"], entry][-MAX_NOTES:]}


def _step(record: Record) -> dict[str, t.Any]:
    return record["steps"][record["step"] - 1]


def _summary(record: Record) -> dict[str, t.Any]:
    """What stays known of a rollout after the next one has begun."""
    return {
        "phase": record["phase"],
        "reason": record["reason"],
        "reached": _step(record)["share"],
        "holder": record["holder"],
        "began": record["began"],
        "ended": record["ended"],
    }


def _place(record: Record) -> str:
    step = _step(record)
    return f"step {record['step']} of {len(record['steps'])} ({'pilot' if step['pilot'] else _percent(step['share'])})"


def _steps(steps: list[dict[str, t.Any]]) -> str:
    return "[" + ", ".join("pilot" if step["pilot"] else f"{step['share']:g}" for step in steps) + "]"


def _percent(share: float) -> str:
    return f"{share:g} %"
