#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Keep the record of a rollout and its lock in the cluster
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Keeps in a ConfigMap how far a rollout has come, so that another operator sees it and a run that was interrupted goes on where it
    stopped.
  - Keeps in a Lease of the same name who may work on it, so that two operators do not at the same time.
  - Changes nothing else. It is M(screwdriver.kata.executor_config) that sets the share.
  - Needs the verbs C(get), C(create) and C(patch) on configmaps and on C(leases.coordination.k8s.io) in O(namespace).
  - Every write is a single object and refers to the version that was read. A record is therefore never half written and no change is lost.
notes:
  - Whether another holder's lock has run out is judged by the clock of the machine that runs the module. Clocks may differ by 15 seconds.
    If they differ by more and a lock is taken too early, its former holder is refused at its next call.
  - The ConfigMap has the record as JSON in the key C(record), the bulk of the evidence, compressed, in C(evidence), and for readers the
    keys C(phase), C(step) and C(share).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
attributes:
  check_mode:
    support: full
    details:
      - The writes are sent as a server-side dry run.
  diff_mode:
    support: full
    details:
      - The bulk of the evidence is left out.
  idempotent:
    support: full
    details:
      - Renewing the lock is a write, but no change. Taking it and giving it up are changes.
      - O(action=advance) needs O(step) to recognise that it is repeated.
  action_group:
    support: full
options:
  name:
    description:
      - The name of the ConfigMap and of the Lease.
    type: str
    default: kata-rollout
  namespace:
    description:
      - The namespace of the ConfigMap and of the Lease.
    type: str
    required: true
  action:
    description:
      - V(begin) takes the lock. It begins a rollout at its first step, or goes on with the one that is running or paused. A paused one
        stays paused. One that has finished with the same O(steps) is left as it is, and steps that would take builds back are refused.
      - V(observe) stores O(evidence) and O(baseline).
      - V(advance) closes the current step with O(gate) and goes to the next.
      - V(pause) keeps the share where it is. V(resume) goes on.
      - V(roll_back) ends the rollout, also one that has finished. Without a record it does nothing.
      - V(finish) ends the rollout at its last step.
      - V(release) gives the lock up.
      - V(observe), V(advance), V(resume) and V(finish) need the lock and renew it. V(pause) and V(roll_back) never wait for it. Whoever
        holds the lock then learns of it at the next call, which fails.
    type: str
    required: true
    choices:
      - begin
      - observe
      - advance
      - pause
      - resume
      - roll_back
      - finish
      - release
  steps:
    description:
      - The shares in percent, in ascending order, with at most two decimals. The first may be V(pilot), which leaves the share at 0 and
        is for builds whose job asks for the executor by annotation.
      - A step may also be a dictionary with C(share) or C(pilot).
      - Used by O(action=begin) alone, which needs it unless there is a rollout to go on with.
    type: list
    elements: raw
    default: []
  step:
    description:
      - The number of the step, from 1, that O(action=observe) or O(action=advance) is about. It is refused where that is not the current
        step.
      - An O(action=advance) from a step that was left just before changes nothing.
    type: int
  holder:
    description:
      - Who works on the rollout, such as C(user@host). The lock is for this name, so a run that goes on after a crash must use the same
        one.
      - Required by every action except O(action=pause) and O(action=roll_back).
    type: str
  ttl:
    description:
      - How long the lock is valid after it was last taken or renewed, in seconds, at least 30.
    type: int
    default: 300
  reason:
    description:
      - Why. Required by O(action=pause) and O(action=roll_back).
    type: str
  gate:
    description:
      - What led to the decision, for the history. Meant for the V(verdict), V(reasons), V(executors) and V(share_observed) of
        M(screwdriver.kata.build_gate).
      - Used by O(action=advance), O(action=finish) and O(action=roll_back).
    type: dict
    default: {}
  evidence:
    description:
      - The RV(screwdriver.kata.build_gate#module:evidence) of the current step so far. It is dropped when the step ends.
    type: dict
  baseline:
    description:
      - The RV(screwdriver.kata.build_gate#module:baseline). It stays until another one is stored.
    type: dict
seealso:
  - module: screwdriver.kata.build_gate
  - module: screwdriver.kata.executor_config
"""

EXAMPLES = r"""
- name: Begin or go on
  screwdriver.kata.rollout:
    namespace: sd
    action: begin
    steps:
      - pilot
      - 1
      - 5
      - 25
      - 100
    holder: ada@ops-1
  register: record

- name: Store what the gate has seen
  screwdriver.kata.rollout:
    namespace: sd
    action: observe
    step: "{{ record.rollout.step }}"
    evidence: "{{ gate.evidence }}"
    baseline: "{{ gate.baseline }}"
    holder: ada@ops-1

- name: Go to the next step
  screwdriver.kata.rollout:
    namespace: sd
    action: advance
    step: "{{ record.rollout.step }}"
    gate:
      verdict: "{{ gate.verdict }}"
      reasons: "{{ gate.reasons }}"
      executors: "{{ gate.executors }}"
      share_observed: "{{ gate.share_observed }}"
    holder: ada@ops-1
  register: record

- name: Record a way back, whoever holds the lock
  screwdriver.kata.rollout:
    namespace: sd
    action: roll_back
    reason: Builds of the payment team hang.
"""

RETURN = r"""
rollout:
  description: The record after the action, or V(null) where there is none.
  returned: success
  type: dict
  contains:
    phase:
      description: V(running), V(paused), V(rolled_back) or V(finished).
      type: str
    step:
      description: The number of the current step, from 1.
      type: int
    share:
      description: The share in percent that the executor should have. 0 at a pilot step and after a way back.
      type: float
    pilot:
      description: Whether the current step is the pilot.
      type: bool
    steps:
      description: All steps, each with C(share) and C(pilot).
      type: list
      elements: dict
    reason:
      description: Why it is paused or was rolled back.
      type: str
    holder:
      description: Who began or last went on with it.
      type: str
    began:
      description: When it began.
      type: str
    step_began:
      description: When the current step began.
      type: str
    ended:
      description: When it ended.
      type: str
      returned: when it was rolled back or has finished
    history:
      description: The steps that were left, each with C(step), C(share), C(pilot), C(began), C(ended), C(outcome) and C(gate).
      type: list
      elements: dict
    past:
      description: The rollouts before this one, the latest first, at most 10.
      type: list
      elements: dict
  sample:
    phase: running
    step: 2
    share: 1
    pilot: false
    steps:
      - share: 0
        pilot: true
      - share: 1
        pilot: false
      - share: 100
        pilot: false
    reason: ""
    holder: ada@ops-1
    began: '2026-11-23T20:00:00Z'
    step_began: '2026-11-23T20:12:31Z'
    history:
      - step: 1
        share: 0
        pilot: true
        began: '2026-11-23T20:00:00Z'
        ended: '2026-11-23T20:12:31Z'
        outcome: passed
        gate:
          verdict: pass
    past: []
resumed:
  description: Whether O(action=begin) found a rollout to go on with.
  returned: when O(action=begin)
  type: bool
  sample: false
lock:
  description: Who holds the lock and until when, or V(null) where nobody does.
  returned: success
  type: dict
  sample:
    holder: ada@ops-1
    expires: '2026-11-23T20:17:31Z'
evidence:
  description: The evidence stored for the current step.
  returned: success
  type: dict
baseline:
  description: The baseline stored last.
  returned: success
  type: dict
"""

import typing as t
from datetime import UTC, datetime

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import record as _record

LEASES = "coordination.k8s.io/v1"
WITH_LOCK = ("begin", "observe", "advance", "resume", "finish", "release")
WITHOUT_LOCK = ("pause", "roll_back")


class State(t.NamedTuple):
    """A rollout as it is in the cluster."""

    record: _record.Record | None
    lock: _record.Lock | None

    @property
    def holder(self) -> str | None:
        return self.lock.holder if self.lock else None

    def diff_view(self) -> dict[str, t.Any]:
        return {**(_record.view(self.record) or {}), "lock": self.holder}


class Rollout:
    """The ConfigMap and the Lease of one rollout."""

    def __init__(self, params: dict[str, t.Any], cluster: Cluster) -> None:
        self.params = params
        self.cluster = cluster
        self.action: str = params["action"]
        self.name: str = params["name"]
        self.namespace: str = params["namespace"]
        self.title = f"{self.namespace}/{self.name}"
        self.steps = _record.parse_steps(params["steps"])

    def run(self) -> dict[str, t.Any]:
        # A write that lost a race is decided again on what is in the cluster now.
        before, after = self.cluster.update(self._act)
        record, lock = after.record or {}, after.lock
        result: dict[str, t.Any] = {
            "changed": (before.record, before.holder) != (after.record, after.holder),
            "rollout": _record.view(after.record),
            "lock": {"holder": lock.holder, "expires": _record.stamp(lock.expires)} if lock else None,
            "evidence": record.get("evidence", {}),
            "baseline": record.get("baseline", {}),
            "diff": {"before": before.diff_view(), "after": after.diff_view()},
        }
        if self.action == "begin":
            result["resumed"] = before.record is not None and before.record["phase"] in (_record.RUNNING, _record.PAUSED)
        return result

    def _act(self) -> tuple[State, State]:
        stored = self.cluster.get("ConfigMap", self.name, self.namespace)
        lease = self.cluster.get("Lease", self.name, self.namespace, LEASES)
        record = _record.from_data(stored.get("data") or {}, self.title) if stored else None
        before = State(record, _record.lock_of(lease))
        # Decided before the lock is taken, so that a refused begin leaves no lock behind.
        wanted = self._decide(record)
        if self.action in WITH_LOCK:
            lease = self._lock(lease, before)
        if wanted is not None and wanted != record:
            self._write(stored, wanted)
        return before, State(wanted, _record.lock_of(lease))

    def _decide(self, record: _record.Record | None) -> _record.Record | None:
        """The record as it should be."""
        params, now = self.params, _record.stamp(datetime.now(UTC))
        if self.action == "begin":
            return _record.begin(record, self.title, self.steps, params["holder"], now)
        if self.action == "release" or (self.action == "roll_back" and record is None):
            return record
        if record is None:
            raise UserError(f"Cannot {self.action} rollout {self.title}: there is no such record, begin one first.")
        if self.action == "observe":
            return _record.observe(record, self.title, params["step"], params["evidence"], params["baseline"])
        if self.action == "advance":
            return _record.advance(record, self.title, params["step"], params["gate"], params["baseline"], now)
        if self.action == "pause":
            return _record.pause(record, self.title, params["reason"])
        if self.action == "resume":
            return _record.resume(record, self.title)
        if self.action == "roll_back":
            return _record.roll_back(record, params["reason"], params["gate"], now)
        return _record.finish(record, self.title, params["gate"], now)

    def _write(self, stored: dict[str, t.Any] | None, record: _record.Record) -> None:
        data = _record.to_data(record)
        if stored is None:
            labels = {"app.kubernetes.io/managed-by": "screwdriver.kata"}
            meta = {"name": self.name, "namespace": self.namespace, "labels": labels}
            self.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        else:
            patch = {"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]}, "data": data}
            self.cluster.patch("ConfigMap", self.name, patch, self.namespace)

    def _lock(self, lease: dict[str, t.Any] | None, state: State) -> dict[str, t.Any] | None:
        """Takes the lock at the beginning of a run, renews it from then on, and gives it up at the end."""
        holder, now = self.params["holder"], datetime.now(UTC)
        _record.require_free(state.lock, self.title, holder, now)
        spec: dict[str, t.Any]
        if self.action == "release":
            if state.holder != holder:
                return lease
            spec = {"holderIdentity": None, "renewTime": None, "acquireTime": None}
        elif self.action == "begin" or state.holder == holder:
            spec = _record.lease_spec(lease, holder, self.params["ttl"], now)
        else:
            raise UserError(f"{holder} does not hold the lock of rollout {self.title}: begin to take it.")
        if lease is None:
            meta = {"name": self.name, "namespace": self.namespace}
            return self.cluster.create({"apiVersion": LEASES, "kind": "Lease", "metadata": meta, "spec": spec})
        patch = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": spec}
        return self.cluster.patch("Lease", self.name, patch, self.namespace, LEASES)


def problem_of(params: dict[str, t.Any]) -> str | None:
    """One sentence about the first parameter that makes no sense."""
    action = params["action"]
    if action in WITH_LOCK and not params["holder"].strip():
        return f"holder is empty: {action} needs the name of who works on the rollout, such as user@host."
    if action in WITHOUT_LOCK and not params["reason"].strip():
        return f"reason is empty: {action} needs one for the record."
    if params["ttl"] < 30:
        return f"ttl is {params['ttl']}: give at least 30 seconds, so that the lock outlives the time between two renewals."
    return None


def main() -> None:
    module = create_module(
        {
            "name": {"type": "str", "default": "kata-rollout"},
            "namespace": {"type": "str", "required": True},
            "action": {
                "type": "str",
                "required": True,
                "choices": ["begin", "observe", "advance", "pause", "resume", "roll_back", "finish", "release"],
            },
            "steps": {"type": "list", "elements": "raw", "default": []},
            "step": {"type": "int"},
            "holder": {"type": "str"},
            "ttl": {"type": "int", "default": 300},
            "reason": {"type": "str"},
            "gate": {"type": "dict", "default": {}},
            "evidence": {"type": "dict"},
            "baseline": {"type": "dict"},
        },
        required_if=[
            *(("action", action, ("holder",)) for action in WITH_LOCK),
            *(("action", action, ("reason",)) for action in WITHOUT_LOCK),
        ],
    )
    if problem := problem_of(module.params):
        module.fail_json(msg=problem)
    try:
        module.exit_json(**Rollout(module.params, Cluster(module)).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
