"""Module rollout: the record and its lock, read back with kubectl, its writes counted by the API server's audit log."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.cluster.lab import Lab

from ..api_proxy import Request, disturbed
from ..helpers import ModuleCall, Writes

STEPS = ["pilot", 5, 100]


class Rollout:
    """A rollout record of one test: changed by the module, read with kubectl."""

    def __init__(self, lab: Lab, module: t.Any, name: str) -> None:
        self.lab, self.module, self.name = lab, module, name
        self.title = f"sd/{name}"

    def __call__(self, action: str, holder: str | None = "ada", **parameters: t.Any) -> dict[str, t.Any]:
        return self.module("rollout", namespace="sd", name=self.name, action=action, holder=holder, **parameters)

    def refused(self, action: str, **parameters: t.Any) -> str:
        answer = self(action, **parameters)
        assert answer.get("failed"), answer
        return answer["msg"]

    def data(self) -> dict[str, str]:
        return json.loads(self.lab.kubectl("get", "configmap", self.name, "-n", "sd", "-o", "json"))["data"]

    def record(self) -> dict[str, t.Any]:
        return self.lab.record(self.name)

    def lease(self) -> dict[str, t.Any]:
        return json.loads(self.lab.kubectl("get", "lease", self.name, "-n", "sd", "-o", "json"))["spec"]

    def expire(self) -> None:
        """Lets the time of the lock run out."""
        self.lab.kubectl("patch", "lease", self.name, "-n", "sd", "--type=merge", "-p", '{"spec": {"leaseDurationSeconds": 1}}')
        time.sleep(3)

    def written(self) -> datetime:
        """When the lease was written, by the API server's clock."""
        lease = json.loads(self.lab.kubectl("get", "lease", self.name, "-n", "sd", "-o", "json", "--show-managed-fields"))
        return max(datetime.fromisoformat(entry["time"]) for entry in lease["metadata"]["managedFields"])

    def exists(self) -> list[str]:
        found = self.lab.kubectl("get", f"configmap/{self.name}", f"lease/{self.name}", "-n", "sd", "--ignore-not-found", "-o", "name")
        return found.split()


@pytest.fixture
def rollout(lab: Lab, module: t.Any, request: pytest.FixtureRequest) -> Rollout:
    name = "rollout-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    lab.kubectl("delete", "configmap,lease", name, "-n", "sd", "--ignore-not-found")
    return Rollout(lab, module, name)


def written(events: list[dict[str, t.Any]]) -> list[str]:
    return [f"{event['verb']} {event['objectRef']['resource']}" for event in events]


def stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_rollout_from_begin_to_release(rollout: Rollout, writes: Writes) -> None:
    began = rollout("begin", steps=STEPS)
    assert began["changed"]
    assert not began["resumed"]
    assert began["lock"]["holder"] == "ada"
    assert written(writes()) == ["create leases", "create configmaps"]
    assert rollout.data().keys() == {"version", "phase", "step", "share", "reason", "record"}
    assert {key: rollout.data()[key] for key in ("phase", "step", "share")} == {"phase": "running", "step": "1 of 3", "share": "0"}
    assert rollout.lease()["holderIdentity"] == "ada"

    observed = rollout("observe", step=1, evidence={"seen": [1.5, 2]}, baseline={"legacy": {"5": 3}})
    assert observed["changed"]
    assert observed["evidence"] == {"seen": [1.5, 2]}
    assert observed["baseline"] == {"legacy": {"5": 3}}
    assert observed["diff"]["before"] == observed["diff"]["after"]

    gate = {"verdict": "pass", "reasons": ["All well."]}
    advanced = rollout("advance", step=1, gate=gate)
    assert advanced["rollout"]["step"] == 2
    assert advanced["rollout"]["share"] == 5
    assert not advanced["rollout"]["pilot"]
    assert advanced["evidence"] == {}
    assert advanced["baseline"] == {"legacy": {"5": 3}}
    assert advanced["diff"]["before"]["step"] == 1
    assert advanced["diff"]["after"]["step"] == 2
    assert rollout.data()["share"] == "5"

    assert rollout("pause", holder=None, reason="lunch")["rollout"]["phase"] == "paused"
    assert rollout.data()["phase"] == "paused"
    assert rollout.record()["reason"] == "lunch"
    assert rollout("begin")["rollout"]["phase"] == "paused"
    assert rollout("resume")["rollout"]["phase"] == "running"
    rollout("advance", step=2, gate=gate)
    assert rollout("finish", gate=gate)["rollout"]["phase"] == "finished"
    assert rollout.data()["share"] == "100"
    assert [step["outcome"] for step in rollout.record()["history"]] == ["passed", "passed", "passed"]
    assert rollout.record()["history"][0]["gate"] == gate

    back = rollout("roll_back", holder=None, reason="builds hang", gate={"verdict": "fail"})
    assert back["changed"]
    assert back["rollout"]["phase"] == "rolled_back"
    assert back["rollout"]["share"] == 0
    assert rollout.data()["share"] == "0"
    assert rollout.record()["reason"] == "builds hang"

    released = rollout("release")
    assert released["changed"]
    assert released["lock"] is None
    assert "holderIdentity" not in rollout.lease()

    again = rollout("begin", holder="bob", steps=[50])
    assert not again["resumed"]
    assert again["rollout"]["share"] == 50
    assert again["rollout"]["holder"] == "bob"
    assert [past["reason"] for past in again["rollout"]["past"]] == ["builds hang"]


def test_a_second_run_writes_nothing_but_the_lock(rollout: Rollout, writes: Writes) -> None:
    renewal = ["patch leases"]
    actions: list[tuple[str, dict[str, t.Any], list[str]]] = [
        ("begin", {"steps": STEPS}, renewal),
        ("observe", {"step": 1, "evidence": {"observed_seconds": 60.1}, "baseline": {"legacy": {}}}, renewal),
        ("advance", {"step": 1, "gate": {"verdict": "pass"}}, renewal),
        ("pause", {"reason": "lunch"}, []),
        ("resume", {}, renewal),
        ("advance", {"step": 2}, renewal),
        ("finish", {"gate": {"verdict": "pass"}}, renewal),
        ("roll_back", {"reason": "builds hang"}, []),
        ("release", {}, []),
    ]
    for action, parameters, expected in actions:
        assert rollout(action, **parameters)["changed"], action
        writes()
        before = rollout.data()
        repeated = rollout(action, **parameters)
        assert not repeated["changed"], action
        assert written(writes()) == expected, action
        assert repeated["diff"]["before"] == repeated["diff"]["after"]
        assert rollout.data() == before


def test_check_mode_predicts_and_writes_nothing(rollout: Rollout, writes: Writes) -> None:
    began = rollout("begin", steps=STEPS, check=True)
    assert began["changed"]
    assert began["rollout"]["phase"] == "running"
    assert began["lock"]["holder"] == "ada"
    assert rollout.exists() == []
    assert writes() == []

    rollout("begin", steps=STEPS)
    writes()
    for action, parameters in (
        ("begin", {}),
        ("observe", {"evidence": {"seen": 1}}),
        ("advance", {"step": 1}),
        ("pause", {"reason": "lunch"}),
        ("roll_back", {"reason": "builds hang"}),
        ("release", {}),
    ):
        tried = rollout(action, check=True, **parameters)
        assert tried["changed"] == (action != "begin"), action
    assert writes() == []
    assert rollout.data()["phase"] == "running"
    assert rollout.lease()["holderIdentity"] == "ada"
    tried = rollout("advance", step=1, check=True)
    done = rollout("advance", step=1)
    assert tried["rollout"]["step"] == done["rollout"]["step"]
    assert tried["diff"]["after"].keys() == done["diff"]["after"].keys()


def test_another_holder_is_refused_until_the_lock_has_expired(rollout: Rollout, writes: Writes) -> None:
    rollout("begin", steps=STEPS)
    until = rollout.written() + timedelta(seconds=60)
    writes()
    locked = (
        f"Rollout {rollout.title} is locked by ada until {stamp(until)} unless renewed:"
        " wait until ada releases it, or set take_over. A rollback needs no lock."
    )
    assert rollout.refused("begin", holder="bob", steps=STEPS) == locked
    assert rollout.refused("advance", holder="bob") == locked
    assert rollout.refused("release", holder="bob") == locked
    assert writes() == []

    rollout.expire()
    taken = rollout("begin", holder="bob")
    assert taken["changed"]
    assert taken["resumed"]
    assert taken["lock"]["holder"] == "bob"
    assert taken["rollout"]["holder"] == "bob"
    assert rollout.lease()["holderIdentity"] == "bob"
    assert rollout.lease()["leaseTransitions"] == 1
    assert rollout.refused("observe", evidence={}).startswith(f"Rollout {rollout.title} is locked by bob until ")


@pytest.mark.parametrize("minutes", [-5, 5])
def test_clocks_of_two_operators_may_differ(rollout: Rollout, minutes: int) -> None:
    rollout("begin", steps=STEPS)
    renewed = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    rollout.lab.kubectl("patch", "lease", rollout.name, "-n", "sd", "--type=merge", "-p", json.dumps({"spec": {"renewTime": renewed}}))
    assert rollout.refused("begin", holder="bob").startswith(f"Rollout {rollout.title} is locked by ada until ")
    rollout.expire()
    assert rollout("begin", holder="bob")["lock"]["holder"] == "bob"


def test_two_runs_of_one_account_exclude_each_other_until_one_takes_over(rollout: Rollout) -> None:
    first = rollout("begin", steps=STEPS, unique=True)["lock"]["holder"]
    name, _space, identifier = first.partition(" ")
    assert name == "ada"
    assert len(identifier) == 8
    assert rollout.refused("begin", unique=True).startswith(f"Rollout {rollout.title} is locked by {first} until ")
    assert rollout("renew", holder=first)["lock"]["holder"] == first
    second = rollout("begin", unique=True, take_over=True)["lock"]["holder"]
    assert second not in (first, "ada")
    assert rollout.refused("renew", holder=first).startswith(f"Rollout {rollout.title} is locked by {second} until ")
    assert rollout("advance", holder=second, step=1)["rollout"]["step"] == 2


def test_a_step_is_approved_by_a_call_or_by_an_annotation(rollout: Rollout) -> None:
    rollout("begin", steps=STEPS)
    approved = rollout("approve", holder="bob")
    assert approved["changed"]
    assert [(item["step"], item["by"]) for item in approved["rollout"]["approvals"]] == [(1, "bob")]
    assert not rollout("approve", holder="cyd")["changed"]
    rollout.lab.kubectl("annotate", "configmap", rollout.name, "-n", "sd", "kata.screwdriver.cd/approve-step-2=dan")
    read = rollout("read", holder=None)
    assert not read["changed"]
    assert [(item["step"], item["by"]) for item in read["rollout"]["approvals"]] == [(1, "bob"), (2, "dan")]
    rollout("observe", step=1)
    assert [(item["step"], item["by"]) for item in rollout.record()["approvals"]] == [(1, "bob"), (2, "dan")]
    rollout("note", holder="eve", reason="The registry is slow.")
    assert [(item["by"], item["text"]) for item in rollout.record()["notes"]] == [("eve", "The registry is slow.")]


def test_the_annotation_that_holds_all_steps_is_returned(rollout: Rollout) -> None:
    assert rollout("begin", steps=STEPS)["freeze"] == ""
    rollout.lab.kubectl("annotate", "configmap", rollout.name, "-n", "sd", "kata.screwdriver.cd/freeze=Release day")
    assert rollout("observe", step=1)["freeze"] == "Release day"
    assert rollout("advance", step=1)["freeze"] == "Release day"


def test_reading_what_does_not_exist_writes_nothing(rollout: Rollout, writes: Writes) -> None:
    read = rollout("read", holder=None)
    assert not read["changed"]
    assert read["rollout"]["phase"] == "none"
    assert read["rollout"]["history"] == []
    assert read["lock"] is None
    assert writes() == []


def test_a_rollback_and_a_pause_need_no_lock(rollout: Rollout) -> None:
    rollout("begin", steps=STEPS)
    assert rollout("pause", holder="bob", reason="lunch")["rollout"]["phase"] == "paused"
    assert rollout.refused("advance") == f"Cannot advance rollout {rollout.title}: it is paused (lunch), resume it first."
    assert rollout("roll_back", holder=None, reason="builds hang")["rollout"]["phase"] == "rolled_back"
    assert rollout.refused("observe") == f"Cannot observe rollout {rollout.title}: it is rolled_back (builds hang), begin a new one."
    assert rollout.lease()["holderIdentity"] == "ada"


def test_a_step_needs_the_lock(rollout: Rollout, writes: Writes) -> None:
    rollout("begin", steps=STEPS)
    rollout("release")
    writes()
    for action in ("observe", "advance", "resume"):
        assert rollout.refused(action) == f"ada does not hold the lock of rollout {rollout.title}: begin to take it."
    assert not rollout("release")["changed"]
    assert writes() == []
    taken = rollout("begin")
    assert taken["changed"]
    assert taken["diff"]["before"]["lock"] is None
    assert taken["diff"]["after"]["lock"] == "ada"


def test_one_of_many_concurrent_begins_wins(rollout: Rollout) -> None:
    holders = ["ada", "bob", "cyd", "dan"]
    parameters = {"namespace": "sd", "name": rollout.name, "action": "begin", "steps": STEPS}
    running = {holder: rollout.module.start("rollout", holder=holder, **parameters) for holder in holders}
    answers = {holder: rollout.module.result(process) for holder, process in running.items()}
    winners = [holder for holder, answer in answers.items() if not answer.get("failed")]
    assert len(winners) == 1, answers
    (winner,) = winners
    assert rollout.lease()["holderIdentity"] == winner
    assert rollout.record()["holder"] == winner
    refusals = [answer["msg"] for holder, answer in answers.items() if holder != winner]
    assert all(refusal.startswith(f"Rollout {rollout.title} is locked by {winner} until ") for refusal in refusals), refusals


def test_concurrent_advances_take_a_step_once(rollout: Rollout) -> None:
    rollout("begin", steps=[1, 2, 3, 4, 5])
    parameters = {"namespace": "sd", "name": rollout.name, "action": "advance", "step": 1, "holder": "ada"}
    answers = [rollout.module.result(process) for process in [rollout.module.start("rollout", **parameters) for _unused in range(4)]]
    assert sorted(answer["changed"] for answer in answers) == [False, False, False, True]
    assert rollout.record()["step"] == 2
    assert len(rollout.record()["history"]) == 1


# A rollout's life: each action, its parameters, and the phase, the step and the number of steps left after it.
LIFE: list[tuple[str, dict[str, t.Any], tuple[str, int, int]]] = [
    ("begin", {"steps": STEPS}, ("running", 1, 0)),
    ("observe", {"step": 1, "evidence": {"builds": 3}}, ("running", 1, 0)),
    ("pause", {"reason": "lunch"}, ("paused", 1, 0)),
    ("resume", {}, ("running", 1, 0)),
    ("advance", {"step": 1}, ("running", 2, 1)),
    ("advance", {"step": 2}, ("running", 3, 2)),
    ("finish", {"step": 3}, ("finished", 3, 3)),
    ("release", {}, ("finished", 3, 3)),
]


@pytest.mark.faults
def test_killed_at_any_request_of_its_life_it_resumes(rollout: Rollout, module_as: t.Any, tmp_path: Path) -> None:
    """Each action is killed (SIGKILL) before each of its requests and before each answer, and then run again."""
    killed = 0
    for action, parameters, expected in LIFE:
        before = [rollout.lab.kubectl("get", name, "-n", "sd", "-o", "json") for name in rollout.exists()]
        for point in itertools.count():
            ended = _killed_at(point, rollout, module_as, tmp_path, action, **parameters)
            found = rollout.record()
            assert not found or found["step"] in (expected[1] - 1, expected[1]), (action, point)
            again = rollout(action, **parameters)
            assert not again.get("failed"), (action, point, again)
            found = rollout.record()
            assert (found["phase"], found["step"], len(found["history"])) == expected, (action, point)
            if ended:
                break
            killed += 1
            rollout.lab.kubectl("delete", "configmap,lease", rollout.name, "-n", "sd", "--ignore-not-found")
            for text in before:
                rollout.lab.kubectl("create", "-f", "-", stdin=_without_identity(text))
        if action == "begin":
            assert rollout.lease()["holderIdentity"] == "ada"
    assert "holderIdentity" not in rollout.lease()
    assert killed >= 20


def _killed_at(point: int, rollout: Rollout, module_as: t.Any, directory: Path, action: str, **parameters: t.Any) -> bool:
    """Runs an action and kills it where it has made ``point`` requests or got their answers. Returns whether it ended before."""
    started, points = threading.Event(), itertools.count()
    calls: list[ModuleCall] = []

    def disturb(_request: Request) -> int | None:
        if next(points) != point:
            return None
        started.wait(60)
        calls[0].kill()
        return 500

    with disturbed(rollout.lab, directory, disturb) as kubeconfig:
        calls.append(module_as(kubeconfig).start("rollout", namespace="sd", name=rollout.name, action=action, holder="ada", **parameters))
        started.set()
        out, _err = calls[0].communicate()
    return bool(out)


def _without_identity(text: str) -> str:
    body = json.loads(text)
    for key in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        body["metadata"].pop(key, None)
    return json.dumps(body)


def test_a_run_interrupted_after_its_lock_resumes(rollout: Rollout) -> None:
    spec = {"holderIdentity": "ada", "leaseDurationSeconds": 300, "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": rollout.name, "namespace": "sd"}, "spec": spec}
    rollout.lab.kubectl("create", "-f", "-", stdin=json.dumps(lease))
    assert rollout.refused("begin", holder="bob", steps=STEPS).startswith(f"Rollout {rollout.title} is locked by ada until ")
    began = rollout("begin", steps=STEPS)
    assert began["changed"]
    assert not began["resumed"]
    assert rollout.record()["step"] == 1


def test_a_rollback_without_a_record_changes_nothing(rollout: Rollout, writes: Writes) -> None:
    back = rollout("roll_back", holder=None, reason="builds hang")
    assert not back["changed"]
    assert back["rollout"]["phase"] == "none"
    assert back["lock"] is None
    assert writes() == []


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"action": "begin"}, "action is begin but all of the following are missing: holder"),
        ({"action": "release"}, "action is release but all of the following are missing: holder"),
        ({"action": "pause", "holder": "ada"}, "action is pause but all of the following are missing: reason"),
        ({"action": "roll_back"}, "action is roll_back but all of the following are missing: reason"),
        ({"action": "begin", "holder": " "}, "holder is empty: begin needs the name of who works on the rollout, such as user@host."),
        ({"action": "pause", "reason": ""}, "reason is empty: pause needs one for the record."),
        (
            {"action": "begin", "holder": "ada", "ttl": 9},
            "ttl is 9: give 10 to 3600 seconds, so that the lock outlives the time between two renewals.",
        ),
        ({"action": "begin", "holder": "ada"}, "There is no rollout {title} to resume: give the steps to begin one."),
        (
            {"action": "begin", "holder": "ada", "steps": [5, 101]},
            "steps: step 2 (101) is not a step: give a percent above 0 up to 100 with at most two decimals, or pilot.",
        ),
        (
            {"action": "begin", "holder": "ada", "steps": [10, 5]},
            "steps: step 2 (5 %) is not above the step before it (10 %), give the shares in ascending order.",
        ),
        ({"action": "advance", "holder": "ada"}, "Cannot advance rollout {title}: there is no such record, begin one first."),
        ({"action": "finish", "holder": "ada"}, "Cannot finish rollout {title}: there is no such record, begin one first."),
        ({"action": "pause", "reason": "lunch"}, "Cannot pause rollout {title}: there is no such record, begin one first."),
        (
            {"action": "stop", "holder": "ada"},
            "value of action must be one of: begin, observe, advance, pause, resume, roll_back, finish, renew, release, approve, note, "
            "read, got: stop",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(
    rollout: Rollout, writes: Writes, parameters: dict[str, t.Any], message: str
) -> None:
    answer = rollout.module("rollout", namespace="sd", name=rollout.name, **parameters)
    assert answer.get("failed")
    assert answer["msg"] == message.format(title=rollout.title)
    assert writes() == []
    assert rollout.exists() == []


def test_other_steps_are_refused_and_leave_no_lock(rollout: Rollout, writes: Writes) -> None:
    rollout("begin", steps=STEPS)
    rollout("release")
    writes()
    assert rollout.refused("begin", steps=[50]) == (
        f"Rollout {rollout.title} is running at step 1 of 3 (pilot) of [pilot, 5, 100]:"
        " resume it with the same steps, or roll it back before it begins with [50]."
    )
    assert rollout.refused("begin", holder="bob", steps=[50]).startswith(f"Rollout {rollout.title} is running at step 1")
    assert writes() == []


@pytest.mark.parametrize("action", ["begin", "roll_back"])
def test_a_foreign_config_map_is_left_alone(rollout: Rollout, writes: Writes, action: str) -> None:
    rollout.lab.kubectl("create", "configmap", rollout.name, "-n", "sd", "--from-literal=local.yaml=executor")
    writes()
    assert rollout.refused(action, steps=STEPS, reason="x") == (
        f"ConfigMap {rollout.title} is not a rollout record: its key record is not what this module writes."
        " Use another name, or delete it if nothing needs it."
    )
    assert writes() == []
    assert rollout.data() == {"local.yaml": "executor"}


def test_a_record_of_a_newer_version_is_refused(rollout: Rollout, writes: Writes) -> None:
    rollout("begin", steps=STEPS)
    rollout.lab.kubectl("patch", "configmap", rollout.name, "-n", "sd", "--type=merge", "-p", json.dumps({"data": {"version": "3"}}))
    writes()
    refusal = (
        f"The rollout record {rollout.title} has version '3', this module reads version '2': "
        "use the release of the collection that wrote it."
    )
    assert [rollout.refused(action, reason="x") for action in ("begin", "advance", "roll_back", "read")] == [refusal] * 4
    assert writes() == []


def test_a_namespace_that_does_not_exist(rollout: Rollout) -> None:
    answer = rollout.module("rollout", namespace="nowhere", name=rollout.name, action="begin", holder="ada", steps=STEPS)
    assert answer["msg"] == f'Cannot create Lease nowhere/{rollout.name}: namespaces "nowhere" not found.'


def test_a_user_without_permissions(rollout: Rollout, lab: Lab, module_as: t.Any) -> None:
    limited = module_as(lab.directory / "limited.kubeconfig")
    answer = limited("rollout", namespace="sd", name=rollout.name, action="begin", holder="ada", steps=STEPS)
    assert answer["msg"] == (
        f"Cannot read ConfigMap {rollout.title}: not allowed (403). Grant the permission or use other credentials:"
        f' configmaps "{rollout.name}" is forbidden: User "limited" cannot get resource "configmaps" in API group "" in the namespace "sd".'
    )
