# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The rollout record as a state machine, and the rules of its lock. Pure: every function takes the time and gives a new record."""

from __future__ import annotations

import base64
import json
import typing as t
import zlib
from datetime import UTC, datetime, timedelta

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._values import parse_share

RUNNING, PAUSED, ROLLED_BACK, FINISHED = "running", "paused", "rolled_back", "finished"
RECORD_VERSION = 1
# Rollouts that came before the present one and are still told of.
MAX_PAST = 10
# The clocks of two operators' machines may differ by this much: a lock that has run out is left alone for so long.
CLOCK_SKEW = timedelta(seconds=15)

Record = dict[str, t.Any]


class Lock(t.NamedTuple):
    """Who holds the lock, and until when it does by the clock of its holder."""

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
                f" go on with the same steps, or roll it back before it begins with {_steps(steps)}."
            )
        return {**record, "holder": holder}
    if not steps:
        raise UserError(f"There is no rollout {name} to resume: give the steps to begin one.")
    if record and record["phase"] == FINISHED:
        if steps == record["steps"]:
            return record
        if steps[0]["share"] < share_of(record):
            raise UserError(
                f"Rollout {name} has finished at {_percent(share_of(record))}, and the first of {_steps(steps)} would take builds back:"
                " leave out the steps below, or roll it back before it begins anew."
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
        "history": [],
        "past": past,
        "evidence": {},
        "baseline": (record or {}).get("baseline", {}),
    }


def observe(record: Record, name: str, step: int | None, evidence: dict[str, t.Any] | None, baseline: dict[str, t.Any] | None) -> Record:
    """Stores what the current step has seen so far."""
    _require_running(record, name, "observe")
    _require_step(record, name, step)
    return {**record, **{key: value for key, value in (("evidence", evidence), ("baseline", baseline)) if value is not None}}


def advance(record: Record, name: str, step: int | None, gate: dict[str, t.Any], baseline: dict[str, t.Any] | None, now: str) -> Record:
    """Closes the current step and goes to the next. With step, a repeated call is recognised."""
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


def pause(record: Record, name: str, reason: str) -> Record:
    _require_open(record, name, "pause")
    return {**record, "phase": PAUSED, "reason": reason}


def resume(record: Record, name: str) -> Record:
    _require_open(record, name, "resume")
    return {**record, "phase": RUNNING, "reason": ""}


def roll_back(record: Record, reason: str, gate: dict[str, t.Any], now: str) -> Record:
    """Possible from everywhere, also after the end."""
    if record["phase"] == ROLLED_BACK:
        return record
    closed = record if record["phase"] == FINISHED else _close(record, "rolled back", gate, now)
    return {**closed, "phase": ROLLED_BACK, "reason": reason, "ended": now, "evidence": {}}


def finish(record: Record, name: str, gate: dict[str, t.Any], now: str) -> Record:
    if record["phase"] == FINISHED:
        return record
    _require_running(record, name, "finish")
    if record["step"] < len(record["steps"]):
        raise UserError(f"Rollout {name} is at {_place(record)}: advance to the last step before it finishes.")
    return {**_close(record, "passed", gate, now), "phase": FINISHED, "reason": "", "ended": now, "evidence": {}}


def share_of(record: Record) -> float:
    """The share that the record asks the executor for, in percent."""
    return 0 if record["phase"] == ROLLED_BACK else record["steps"][record["step"] - 1]["share"]


def view(record: Record | None) -> dict[str, t.Any] | None:
    """The record as users see it: with the share, without the bulk of the evidence."""
    if record is None:
        return None
    shown = {key: value for key, value in record.items() if key not in ("version", "evidence", "baseline")}
    return {**shown, "share": share_of(record), "pilot": record["steps"][record["step"] - 1]["pilot"]}


def to_data(record: Record) -> dict[str, str]:
    """The record as a ConfigMap's data, with a few flat keys for whoever reads it with kubectl."""
    bulk = {key: record[key] for key in ("evidence", "baseline")}
    return {
        "phase": record["phase"],
        "step": f"{record['step']} of {len(record['steps'])}",
        "share": f"{share_of(record):g}",
        "record": json.dumps({key: value for key, value in record.items() if key not in bulk}, indent=2),
        # Thousands of builds would not fit into the 1 MiB of a ConfigMap as they are.
        "evidence": base64.b64encode(zlib.compress(json.dumps(bulk).encode())).decode(),
    }


def from_data(data: dict[str, str], name: str) -> Record:
    try:
        record = json.loads(data["record"])
        if record["version"] == RECORD_VERSION:
            return {**record, **json.loads(zlib.decompress(base64.b64decode(data["evidence"])))}
    except (KeyError, TypeError, ValueError, zlib.error) as exc:
        raise UserError(
            f"ConfigMap {name} is not a rollout record: its keys record and evidence are not what this module writes."
            " Use another name, or delete it if nothing needs it."
        ) from exc
    raise UserError(
        f"The rollout record {name} has version {record['version']!r}, this module reads version {RECORD_VERSION}:"
        " use the release of the collection that wrote it."
    )


def stamp(when: datetime) -> str:
    """Such as 2026-11-23T20:00:00Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lock_of(lease: dict[str, t.Any] | None) -> Lock | None:
    """The lock as the Lease has it, also one that has run out; None where nobody holds it."""
    spec = (lease or {}).get("spec") or {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return None
    duration = timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
    return Lock(spec["holderIdentity"], datetime.fromisoformat(spec["renewTime"]) + duration)


def require_free(lock: Lock | None, name: str, holder: str, now: datetime) -> None:
    """Refuses a holder while the lock is another one's and has not run out."""
    if lock and lock.holder != holder and now < lock.expires + CLOCK_SKEW:
        raise UserError(
            f"Rollout {name} is locked by {lock.holder} until {stamp(lock.expires)} unless renewed:"
            f" wait, or let {lock.holder} release it. A way back needs no lock."
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
        raise UserError(f"Rollout {name} is at {_place(record)}, not at step {step}: begin again to go on from where it is.")


def _close(record: Record, outcome: str, gate: dict[str, t.Any], now: str) -> Record:
    step = record["steps"][record["step"] - 1]
    entry = {"step": record["step"], **step, "began": record["step_began"], "ended": now, "outcome": outcome, "gate": gate}
    return {**record, "history": [*record["history"], entry]}


def _summary(record: Record) -> dict[str, t.Any]:
    """What stays known of a rollout after the next one has begun."""
    return {
        "phase": record["phase"],
        "reason": record["reason"],
        "reached": record["steps"][record["step"] - 1]["share"],
        "holder": record["holder"],
        "began": record["began"],
        "ended": record["ended"],
    }


def _place(record: Record) -> str:
    step = record["steps"][record["step"] - 1]
    return f"step {record['step']} of {len(record['steps'])} ({'pilot' if step['pilot'] else _percent(step['share'])})"


def _steps(steps: list[dict[str, t.Any]]) -> str:
    return "[" + ", ".join("pilot" if step["pilot"] else f"{step['share']:g}" for step in steps) + "]"


def _percent(share: float) -> str:
    return f"{share:g} %"
