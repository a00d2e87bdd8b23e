#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Manages the record of a rollout and its lock in the cluster
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Keeps in a ConfigMap how far a rollout has come, so that another operator sees it and an interrupted run resumes where it stopped.
  - Keeps in a Lease of the same name which run may change it, so that two runs never do at the same time.
  - Changes nothing else. It is M(screwdriver.kata.executor_config) that sets the share.
  - Needs the verbs C(get), C(create) and C(patch) on configmaps and on C(leases.coordination.k8s.io) in O(namespace).
  - Every write is a single object and refers to the version that was read. A record is therefore never half written and no change is lost.
notes:
  - All times of the record and of the lock are by the API server's clock. The clocks of the machines that run the module may differ.
  - The ConfigMap has the record as compressed JSON in the key C(record), and for readers the keys C(phase), C(step), C(share) and
    C(reason). To read the record without this module, pipe that key through C(base64 -d | gunzip).
  - A step is also approved by the annotation C(kata.screwdriver.cd/approve-step-N) of the ConfigMap, with who approves it as its value.
    The annotation is removed once the record has the approval. When a new rollout begins, those of the time before are removed as well.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
attributes:
  check_mode:
    support: full
    details:
      - The writes are sent as a server-side dry run.
      - Actions that need the lock only need that nobody else holds it, since O(action=begin) has not stored it.
  diff_mode:
    support: full
    details:
      - The bulk of the evidence is left out.
  idempotent:
    support: full
    details:
      - Renewing the lock is a write, but no change. Taking and releasing it are changes.
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
      - V(begin) takes the lock. It begins a rollout at its first step, or resumes the one that is running or paused. A paused one
        stays paused. One that has finished with the same O(steps) stays as it is, and steps that would lower the share are refused.
      - V(observe) stores O(evidence) and O(baseline).
      - V(advance) closes the current step with O(gate) and moves to the next.
      - V(pause) stops at the step. V(resume) continues it with a full window. What was observed is kept where only evidence was missing.
        If it prevented a pass, or the share was lowered meanwhile, the step is observed from the beginning.
      - V(roll_back) ends the rollout, also one that has finished. Without a record it does nothing.
      - V(finish) ends the rollout at its last step.
      - V(renew) renews the lock. V(release) releases it.
      - V(approve) notes that O(holder) approves O(step), the current one by default. V(note) adds O(reason) to the notes.
      - V(read) returns the record and the lock, and writes nothing. It needs the verb C(get) alone.
      - V(observe), V(advance), V(resume), V(finish) and V(renew) need the lock and renew it. V(pause), V(roll_back), V(approve) and V(note)
        never wait for it. Whoever holds the lock then learns of it at the next call, which fails.
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
      - renew
      - release
      - approve
      - note
      - read
  steps:
    description:
      - The shares in percent, in ascending order, with at most two decimals. The first may be V(pilot), which leaves the share at 0 and
        is for builds whose job requests the executor by annotation.
      - A step may also be a dictionary with C(share) or C(pilot).
      - Used by O(action=begin) alone, which needs it unless there is a rollout to resume.
    type: list
    elements: raw
    default: []
  step:
    description:
      - The number of the step, from 1, that O(action=observe), O(action=advance) or O(action=approve) is about. Observing or advancing
        is refused where that is not the current step.
      - An O(action=advance) from a step that was left just before changes nothing.
    type: int
  holder:
    description:
      - Who works on the rollout, such as C(user@host). The lock is for this very text, so each run needs one of its own.
      - Required by every action except O(action=pause), O(action=roll_back) and O(action=read).
    type: str
  unique:
    description:
      - Whether O(action=begin) adds a random identifier to O(holder). Pass C(holder) of RV(lock) to the later calls of the same run.
    type: bool
    default: false
  take_over:
    description:
      - Whether O(action=begin) takes the lock even where another run holds it. That run is refused at its next call.
    type: bool
    default: false
  ttl:
    description:
      - How long the lock is valid after it was last taken or renewed, in seconds, from 10 to 3600. After that another run may take it.
    type: int
    default: 60
  reason:
    description:
      - Why. Required by O(action=pause) and O(action=roll_back), and the text of O(action=note).
    type: str
  doubt:
    description:
      - What prevents a pass, for O(action=pause). The RV(screwdriver.kata.build_gate#module:doubt) of the gate, V(approval) where
        the step waits for one, V(operator), or V(error).
      - Where it is paused already because of what was observed, the gate's doubt stays.
    type: str
    default: ''
  share:
    description:
      - The share in percent that stands while the rollout is paused, for O(action=pause), where it was lowered. Without it, a share
        that an earlier pause lowered still stands.
    type: float
  gate:
    description:
      - What led to the decision, for the history. Meant for the V(verdict), V(reasons), V(executors), V(share_observed) and
        V(log_e) of M(screwdriver.kata.build_gate). Lists are cut after 20 items.
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
- name: Begin or resume
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

- name: Store what the gate has observed
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

- name: Record a rollback, whoever holds the lock
  screwdriver.kata.rollout:
    namespace: sd
    action: roll_back
    reason: Builds of the payment team hang.
"""

RETURN = r"""
rollout:
  description: The record after the action. It has all its keys in every phase, also where there is no record.
  returned: success
  type: dict
  contains:
    phase:
      description: V(running), V(paused), V(rolled_back), V(finished), or V(none) where there is no record.
      type: str
    step:
      description: The number of the current step, from 1. 0 without a record.
      type: int
    share:
      description: The share in percent that the executor should have. 0 at a pilot step and after a rollback.
      type: float
    step_share:
      description: The share in percent of the current step.
      type: float
    passed_share:
      description: The share in percent of the last step that passed, of this rollout or of the finished one before it. 0 where none has.
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
    doubt:
      description: What stands against passing, where it is paused or was rolled back.
      type: str
    approvals:
      description: The approved steps, each with C(step), C(by) and C(at).
      type: list
      elements: dict
    notes:
      description: Pauses, resumptions and remarks, each with C(at), C(by) and C(text). The latest 50.
      type: list
      elements: dict
    earlier:
      description: The C(log_e) of the steps that passed, for O(screwdriver.kata.build_gate#module:earlier).
      type: list
      elements: float
    holder:
      description: Who began or last resumed it.
      type: str
    began:
      description: When it began.
      type: str
    step_began:
      description: When the current step began.
      type: str
    ended:
      description: When it ended. Empty where it has not.
      type: str
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
  description: Whether O(action=begin) found a rollout to resume.
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
freeze:
  description:
    - The annotation C(kata.screwdriver.cd/freeze) of the ConfigMap, with which people hold all steps. Empty without it, and
      V(no reason given) where its value is empty.
  returned: success
  type: str
  sample: Release day
now:
  description: The time by the API server's clock, by which all times of the record are.
  returned: success
  type: str
  sample: '2026-11-23T20:17:31Z'
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
import uuid

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import record as records

LEASES = "coordination.k8s.io/v1"
FREEZE = "kata.screwdriver.cd/freeze"
WITH_LOCK = ("begin", "observe", "advance", "resume", "finish", "renew", "release")
# They note the approvals that people left as annotations.
BY_ANNOTATION = ("begin", "observe", "advance", "resume", "read")
WITH_HOLDER = (*WITH_LOCK, "approve", "note")
WITH_REASON = ("pause", "roll_back", "note")
ACTIONS = ["begin", "observe", "advance", "pause", "resume", "roll_back", "finish", "renew", "release", "approve", "note", "read"]


class State(t.NamedTuple):
    """A rollout as it is in the cluster."""

    record: records.Record | None
    lock: records.Lock | None
    freeze: str = ""

    @property
    def holder(self) -> str | None:
        return self.lock.holder if self.lock else None

    def diff_view(self) -> dict[str, t.Any]:
        return {**(records.view(self.record) if self.record else {}), "lock": self.holder}


class Rollout:
    """The ConfigMap and the Lease of one rollout."""

    def __init__(self, params: dict[str, t.Any], cluster: Cluster, is_dry_run: bool = False) -> None:
        """is_dry_run: no earlier call of the same run has stored its lock."""
        self.params = params
        self.cluster = cluster
        self.is_dry_run = is_dry_run
        self.action: str = params["action"]
        self.name: str = params["name"]
        self.namespace: str = params["namespace"]
        self.title = f"{self.namespace}/{self.name}"
        self.steps = records.parse_steps(params["steps"])
        self.holder: str = params["holder"] or ""
        if self.action == "begin" and params["unique"]:
            self.holder += f" {uuid.uuid4().hex[:8]}"

    def run(self) -> dict[str, t.Any]:
        # A write that lost a race is decided again on what is in the cluster now.
        before, after = self.cluster.update(self._act)
        record, lock = after.record or {}, after.lock
        result: dict[str, t.Any] = {
            "changed": (before.record, before.holder) != (after.record, after.holder),
            "rollout": records.view(after.record),
            "lock": {"holder": lock.holder, "expires": records.stamp(lock.expires)} if lock else None,
            "freeze": after.freeze,
            "now": records.stamp(self.cluster.now()),
            "evidence": record.get("evidence", {}),
            "baseline": record.get("baseline", {}),
            "diff": {"before": before.diff_view(), "after": after.diff_view()},
        }
        if self.action == "begin":
            result["resumed"] = before.record is not None and before.record["phase"] in (records.RUNNING, records.PAUSED)
        return result

    def _act(self) -> tuple[State, State]:
        stored = self.cluster.get("ConfigMap", self.name, self.namespace)
        lease = self.cluster.get("Lease", self.name, self.namespace, LEASES)
        record = records.from_data(stored.get("data") or {}, self.title) if stored else None
        annotations = (stored or {}).get("metadata", {}).get("annotations") or {}
        freeze = (annotations[FREEZE].strip() or "no reason given") if FREEZE in annotations else ""
        before = State(record, records.lock_of(lease), freeze)
        # Decided before the lock is taken, so that a refused begin leaves no lock behind.
        wanted = self._decide(record, annotations)
        if self.action == "read":
            state = before._replace(record=wanted)
            return state, state
        data = records.to_data(wanted, self.title) if wanted is not None and wanted != record else None
        if self.action in WITH_LOCK:
            lease = self._lock(lease, before)
        if wanted is not None and data:
            self._write(stored, data, records.spent_annotations(record, wanted, annotations))
        return before, State(wanted, records.lock_of(lease), before.freeze)

    def _decide(self, record: records.Record | None, annotations: dict[str, str]) -> records.Record | None:
        """The record as it should be."""
        params, now = self.params, records.stamp(self.cluster.now())
        if record is not None and self.action in BY_ANNOTATION:
            record = records.approve_by_annotation(record, self.title, annotations, now)
        if self.action == "begin":
            return records.begin(record, self.title, self.steps, self.holder, now)
        if record is None:
            if self.action in ("read", "roll_back", "renew", "release"):
                return None
            raise UserError(f"Cannot {self.action} rollout {self.title}: there is no such record, begin one first.")
        if self.action in ("read", "renew", "release"):
            return record
        if self.action == "observe":
            return records.observe(record, self.title, params["step"], params["evidence"], params["baseline"])
        if self.action == "advance":
            return records.advance(record, self.title, params["step"], params["gate"], params["baseline"], now)
        if self.action == "pause":
            return records.pause(record, self.title, params["reason"], params["doubt"], params["share"], self.holder, now)
        if self.action == "resume":
            return records.resume(record, self.title, self.holder, now)
        if self.action == "approve":
            return records.approve(record, self.title, params["step"], self.holder, now)
        if self.action == "note":
            return records.note(record, params["reason"], self.holder, now)
        if self.action == "roll_back":
            return records.roll_back(record, params["reason"], params["gate"], now)
        return records.finish(record, self.title, params["gate"], now)

    def _write(self, stored: dict[str, t.Any] | None, data: dict[str, str], spent: list[str]) -> None:
        if stored is None:
            labels = {"app.kubernetes.io/managed-by": "screwdriver.kata"}
            meta: dict[str, t.Any] = {"name": self.name, "namespace": self.namespace, "labels": labels}
            self.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        else:
            meta = {"resourceVersion": stored["metadata"]["resourceVersion"]}
            if spent:
                meta["annotations"] = dict.fromkeys(spent)
            patch = {"metadata": meta, "data": data}
            self.cluster.patch("ConfigMap", self.name, patch, self.namespace)

    def _lock(self, lease: dict[str, t.Any] | None, state: State) -> dict[str, t.Any] | None:
        """Takes the lock at the beginning of a run, renews it from then on, and releases it at the end."""
        holder, now = self.holder, self.cluster.now()
        taking = self.action == "begin" and self.params["take_over"]
        if state.lock and state.holder != holder and not taking:
            records.require_free(state.lock, self.title, holder, now)
        spec: dict[str, t.Any]
        if self.action == "release":
            if state.holder != holder:
                return lease
            spec = {"holderIdentity": None, "renewTime": None, "acquireTime": None}
        elif self.action == "begin" or state.holder == holder or self.is_dry_run:
            spec = records.lease_spec(lease, holder, self.params["ttl"], now)
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
    if action in WITH_HOLDER and not params["holder"].strip():
        return f"holder is empty: {action} needs the name of who works on the rollout, such as user@host."
    if action in WITH_REASON and not params["reason"].strip():
        return f"reason is empty: {action} needs one for the record."
    if not 10 <= params["ttl"] <= 3600:
        return f"ttl is {params['ttl']}: give 10 to 3600 seconds, so that the lock outlives the time between two renewals."
    if params["share"] is not None and not 0 <= params["share"] <= 100:
        return f"share is {params['share']}: give a percent from 0 to 100."
    return None


def main() -> None:
    module = create_module(
        {
            "name": {"type": "str", "default": "kata-rollout"},
            "namespace": {"type": "str", "required": True},
            "action": {"type": "str", "required": True, "choices": ACTIONS},
            "steps": {"type": "list", "elements": "raw", "default": []},
            "step": {"type": "int"},
            "holder": {"type": "str"},
            "unique": {"type": "bool", "default": False},
            "take_over": {"type": "bool", "default": False},
            "ttl": {"type": "int", "default": 60},
            "reason": {"type": "str"},
            "doubt": {"type": "str", "default": ""},
            "share": {"type": "float"},
            "gate": {"type": "dict", "default": {}},
            "evidence": {"type": "dict"},
            "baseline": {"type": "dict"},
        },
        required_if=[
            *(("action", action, ("holder",)) for action in WITH_HOLDER),
            *(("action", action, ("reason",)) for action in WITH_REASON),
        ],
    )
    if problem := problem_of(module.params):
        module.fail_json(msg=problem)
    try:
        module.exit_json(**Rollout(module.params, Cluster(module), module.check_mode).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
