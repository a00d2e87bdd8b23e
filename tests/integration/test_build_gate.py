"""Module build_gate on pods that kwok runs, and on builds of the npm router; figures are compared with kubectl's."""

from __future__ import annotations

import hashlib
import json
import time
import typing as t
from datetime import datetime

import pytest

from lab.cluster.lab import Lab

from ..helpers import Writes, wait_until, watches_of_pods

Result = dict[str, t.Any]
RHEL6 = "registry.example/rhel6-tools:1"


@pytest.fixture(scope="module", autouse=True)
def runtime_class(lab: Lab) -> t.Iterator[None]:
    body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata"}
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    # Pods are refused until the controller manager of a new lab has made it.
    lab.kubectl("wait", "--for=create", "serviceaccount/default", "-n", "sd-builds", "--timeout=120s")
    yield
    lab.kubectl("delete", "runtimeclass", "kata", "--ignore-not-found")


class Gate:
    """An observation of a test's own builds: pods that carry its label."""

    def __init__(self, lab: Lab, module: t.Any, mark: str) -> None:
        self.lab, self.module, self.mark = lab, module, mark
        self.selector = f"tier=builds,gate={mark}"

    def parameters(self, **parameters: t.Any) -> dict[str, t.Any]:
        return {"namespace": "sd-builds", "build_selector": self.selector, "exclusions": ["rhel6"], **parameters}

    def __call__(self, **parameters: t.Any) -> Result:
        result = self.module("build_gate", **self.parameters(**parameters))
        assert not result.get("failed"), result
        return result

    def refused(self, **parameters: t.Any) -> str:
        result = self.module("build_gate", **self.parameters(**parameters))
        assert result.get("failed"), result
        return result["msg"]

    def begin(self) -> Result:
        """The evidence of a new observation: builds from now on count."""
        return self(interval=1)["evidence"]

    def until(self, done: t.Callable[[Result], bool], evidence: Result) -> Result:
        """Calls it for short intervals until ``done``: the API server keeps its history for a minute or two."""
        result: Result = {"evidence": evidence}

        def next_interval() -> bool:
            # A window that is never over: a verdict would end the interval before it has watched.
            result.update(self(interval=1, window=100000, evidence=result["evidence"]))
            return done(result)

        wait_until(next_interval, lambda: result, interval=0)
        return result

    def create(self, *builds: str, kata: bool, image: str = "node:22", annotations: dict[str, str] | None = None) -> None:
        pods = [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{self.mark}-{name}",
                    "namespace": "sd-builds",
                    "labels": {"tier": "builds", "sdbuild": "1", "gate": self.mark},
                    "annotations": annotations or {},
                },
                "spec": {
                    **({"runtimeClassName": "kata"} if kata else {}),
                    "restartPolicy": "Never",
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "1", "image": image}],
                },
            }
            for name in builds
        ]
        self.lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))

    def pods(self) -> list[dict[str, t.Any]]:
        return json.loads(self.lab.kubectl("get", "pods", "-n", "sd-builds", "-l", self.selector, "-o", "json"))["items"]

    def setups(self, kata: bool) -> list[int]:
        """Seconds from each pod's creation to the start of its container, as kubectl shows them."""
        found = []
        for pod in self.pods():
            if ("runtimeClassName" in pod["spec"]) == kata:
                state = pod["status"]["containerStatuses"][0]["state"]
                started = (state.get("running") or state["terminated"])["startedAt"]
                found.append(
                    int((datetime.fromisoformat(started) - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds())
                )
        return sorted(found)

    def sandbox_events(self, pod: str) -> list[str]:
        """The messages of the events about a pod's sandbox."""
        selector = f"involvedObject.name={pod},reason=FailedCreatePodSandBox"
        return self.lab.kubectl(
            "get", "events", "-n", "sd-builds", "--field-selector", selector, "-o", "jsonpath={.items[*].message}"
        ).splitlines()

    def wait(self, phase: str, count: int) -> None:
        def phases() -> list[str]:
            return [pod["status"]["phase"] for pod in self.pods()]

        wait_until(lambda: phases().count(phase) >= count, phases, interval=0.2)


@pytest.fixture
def gate(lab: Lab, module: t.Any, request: pytest.FixtureRequest) -> t.Iterator[Gate]:
    mark = "g" + hashlib.sha256(request.node.name.encode()).hexdigest()[:7]
    lab.kubectl("delete", "pods", "-n", "sd-builds", "-l", f"gate={mark}", "--ignore-not-found", "--wait")
    yield Gate(lab, module, mark)
    lab.kubectl("delete", "pods", "-n", "sd-builds", "-l", f"gate={mark}", "--ignore-not-found", "--wait=false")


def wait_for_watch(lab: Lab) -> None:
    wait_until(lambda: watches_of_pods(lab), "a watch of the pods")


@pytest.fixture
def failing_sandboxes(lab: Lab) -> t.Iterator[None]:
    lab.fault("failed-starts")
    yield
    lab.fault("none")


def names(word: str, count: int) -> list[str]:
    return [f"{word}{number}" for number in range(count)]


def test_a_pass_has_the_figures_of_kubectl(gate: Gate, writes: Writes) -> None:
    parameters = {"window": 3, "min_builds": 10, "max_setup_ratio": 3, "share": 55, "legacy_executor": "k8s"}
    evidence = gate.begin()
    gate.create(*names("kata", 12), kata=True)
    gate.create(*names("vm", 10), kata=False)
    gate.create("el6", kata=False, image=RHEL6)
    observed = gate.until(lambda found: [figures["ended"].get("ok") for figures in found["executors"].values()] == [12, 10], evidence)
    gate.wait("Succeeded", 23)
    parameters["evidence"] = observed["evidence"]
    writes()
    result = gate(**parameters)
    kata, legacy = gate.setups(kata=True), gate.setups(kata=False)
    assert result["verdict"] == "pass"
    assert not result["changed"]
    p50, p95 = (result["executors"]["k8s-kata"]["setup_seconds"][key] for key in ("p50", "p95"))
    assert result["executors"]["k8s-kata"] == {
        "builds": 12,
        "started": 12,
        "failures": {},
        "details": {},
        "waiting": 0,
        "withdrawn": 0,
        "unobserved": 0,
        "ended": {"ok": 12},
        "excluded": 0,
        "pinned": 0,
        "setup_seconds": {"p50": p50, "p95": p95},
    }
    # The API server's times of a start are up to a second after the node's.
    assert kata[5] <= p50 <= kata[5] + 1
    assert kata[11] <= p95 <= kata[11] + 1
    figures = result["executors"]["k8s"]
    # The excluded build is kubectl's eleventh; the figures leave it out.
    assert figures["started"] == 10
    assert figures["ended"] == {"ok": 10}
    assert figures["excluded"] == 1
    assert legacy[0] <= figures["setup_seconds"]["p50"] <= figures["setup_seconds"]["p95"] <= legacy[-1] + 1
    assert result["share_observed"] == {"percent": 54.55, "builds": 22}
    assert result["reasons"] == [
        "0 of 12 builds (0.0 %) failed to start on k8s-kata.",
        f"Setup p95 on k8s-kata is {p95} s over 12 builds.",
    ]
    checked = gate(check=True, **parameters)
    assert {key: checked[key] for key in ("verdict", "reasons", "executors")} == {
        key: result[key] for key in ("verdict", "reasons", "executors")
    }
    assert writes() == []


def test_failed_starts_fail_the_gate_with_their_cause(gate: Gate, failing_sandboxes: None) -> None:
    # Long enough for the others to start in time.
    parameters = gate.parameters(window=600, interval=300, start_timeout=20, steps=2, earlier=[-0.5], evidence=gate.begin())
    process = gate.module.start("build_gate", **parameters)
    wait_for_watch(gate.lab)
    gate.create(*names("vm", 60), kata=False)
    gate.create(*names("kata", 20), kata=True)
    result = gate.module.result(process)
    assert result["verdict"] == "fail", result
    assert result["doubt"] == "failures", result
    assert not result["pause"], result
    assert result["observed_seconds"] < 300
    assert result["log_e"] > result["log_m"] > result["log_threshold"]
    (reason,) = result["reasons"]
    # The verdict does not wait for builds that are a second younger.
    failed = result["executors"]["k8s-kata"]["failures"]["SandboxFailed"]
    assert reason.startswith(
        f"{failed} of {failed} builds (100.0 %) failed to start on k8s-kata ({failed} SandboxFailed),"
        " on k8s-vm 0 of 60 builds (0.0 %): above"
    )
    assert f"node {result['worst']['node']['name']} (" in reason
    figures = result["executors"]["k8s-kata"]
    assert figures["failures"] == {"SandboxFailed": failed}
    assert figures["started"] == 0
    assert figures["waiting"] == 20 - failed
    pod, _colon, message = figures["details"]["SandboxFailed"].partition(": ")
    assert pod.startswith(f"{gate.mark}-kata")
    assert message == gate.sandbox_events(pod)[0][: len(message)]
    assert "Could not access KVM kernel module" in message
    assert result["executors"]["k8s-vm"]["started"] == 60


def test_failed_starts_without_a_legacy_executor_pause_at_once(gate: Gate, failing_sandboxes: None) -> None:
    evidence = gate.begin()
    gate.create(*names("kata", 8), kata=True)
    result = gate(window=600, interval=120, start_timeout=10, share=100, evidence=evidence)
    assert result["verdict"] == "inconclusive", result
    assert result["doubt"] == "failures", result
    assert result["pause"], result
    assert result["observed_seconds"] < 120
    assert "with no build on k8s-vm to compare with" in result["reasons"][-1]


def test_builds_that_do_not_arrive_fail_the_gate(gate: Gate) -> None:
    evidence = gate.begin()
    gate.create(*names("vm", 40), kata=False)
    result = gate(interval=60, share=50, evidence=evidence)
    assert result["verdict"] == "fail"
    assert result["doubt"] == "share"
    assert result["reasons"][0].startswith(
        f"0.0 % of {result['share_observed']['builds']} builds came to k8s-kata, 50 % were asked for: builds are missing."
    )


def test_pinned_builds_are_judged_at_the_pilot_alone(gate: Gate) -> None:
    evidence = gate.begin()
    gate.create(*names("pin", 3), kata=True, annotations={"screwdriver.cd/executor": "k8s-kata"})
    gate.create("el6", kata=True, image=RHEL6, annotations={"screwdriver.cd/executor": "k8s-kata"})
    gate.create("vm", kata=False)
    gate.wait("Succeeded", 5)
    later = gate(interval=1, share=10, evidence=evidence)
    assert later["excluded_on_kata"] == 0
    assert later["share_observed"]["builds"] == 1
    assert later["executors"]["k8s-kata"]["builds"] == 0
    assert later["executors"]["k8s-kata"]["pinned"] == 3
    pilot = gate(interval=1, pilot=True, share=0, evidence=evidence)
    assert pilot["excluded_on_kata"] == 0
    assert pilot["executors"]["k8s-kata"]["started"] == 3
    assert pilot["baseline"]["pins"] == {"kata": 3, "builds": 4}


def test_an_excluded_image_fails_the_gate_on_kata_alone(gate: Gate) -> None:
    evidence = gate.begin()
    gate.create("vm", kata=False, image=RHEL6)
    result = gate(interval=1, evidence=evidence)
    assert result["verdict"] == "inconclusive"
    assert result["executors"]["k8s-vm"]["excluded"] == 1
    assert result["excluded_on_kata"] == 0
    gate.create("kata", kata=True, image=RHEL6.upper())
    result = gate(interval=60, evidence=result["evidence"])
    assert result["verdict"] == "fail"
    assert result["excluded_on_kata"] == 1
    assert result["reasons"] == ["1 build of excluded images reached k8s-kata: REGISTRY.EXAMPLE/RHEL6-TOOLS:1."]
    assert result["share_observed"] == {"percent": None, "builds": 0}


def test_the_event_that_decides_ends_the_watch(gate: Gate) -> None:
    """Not the end of the interval, nor that of the watch's own request."""
    process = gate.module.start("build_gate", **gate.parameters(window=600, interval=300, evidence=gate.begin()))
    wait_for_watch(gate.lab)
    gate.create("kata", kata=True, image=RHEL6)
    result = gate.module.result(process)
    assert result["verdict"] == "fail"
    assert result["excluded_on_kata"] == 1
    assert result["observed_seconds"] < 150


def test_builds_that_exist_already_and_no_builds_are_no_evidence(gate: Gate) -> None:
    gate.create(*names("before", 3), kata=True)
    result = gate(window=1)
    assert result["verdict"] == "inconclusive"
    assert result["reasons"] == ["0 of 20 builds on k8s-kata."]
    assert result["executors"]["k8s-kata"]["builds"] == 0
    assert result["share_observed"] == {"percent": None, "builds": 0}
    assert gate(window=30, interval=1)["reasons"] == ["Observed 1 of 30 s.", "0 of 20 builds on k8s-kata."]


def test_intervals_add_up_to_one_call(gate: Gate) -> None:
    begun = gate.begin()
    gate.create(*names("kata", 8), kata=True)
    gate.create(*names("vm", 4), kata=False)
    withdrawn = f"{gate.mark}-vm0"
    gate.lab.kubectl("delete", "pod", withdrawn, "-n", "sd-builds", "--wait=false")

    def ended(found: Result) -> bool:
        return found["observed_seconds"] > 3 and [figures["ended"].get("ok") for figures in found["executors"].values()] == [8, 3]

    parts = gate.until(ended, begun)
    # Long enough for the API server to send all of it again.
    whole = gate(interval=15, evidence=begun)
    for key in ("executors", "share_observed", "excluded_on_kata", "baseline", "suspects", "gaps"):
        assert parts[key] == whole[key]
    figures = parts["executors"]["k8s-vm"]
    assert figures["builds"] == 4
    assert figures["started"] == 3
    assert figures["withdrawn"] == 1
    assert parts["evidence"]["running"] == []
    assert parts["evidence"]["waiting"] == {}


def test_a_watch_survives_a_restart_of_the_api_server(gate: Gate, lab: Lab) -> None:
    evidence = gate.begin()
    gate.create(*names("before", 6), kata=True)
    process = gate.module.start("build_gate", **gate.parameters(window=20, interval=150, min_builds=12, evidence=evidence))
    wait_for_watch(lab)
    lab.process("kube-apiserver").kill()
    time.sleep(3)
    assert process.poll() is None
    lab.restart_api_server()
    created = 6
    # A new server serves watches late; builds that end before it does are in a gap, and are not evidence.
    while process.poll() is None:
        gate.create(*names(f"after{created}-", 3), kata=True)
        created += 3
        time.sleep(2)
    result = gate.module.result(process)
    figures = result["executors"]["k8s-kata"]
    assert result["verdict"] == "pass", result
    assert 12 <= figures["started"] <= figures["builds"] <= created


def test_builds_of_a_gap_are_no_evidence(gate: Gate, lab: Lab) -> None:
    gate.create("old", kata=True)
    gate.wait("Succeeded", 1)
    begun = gate.begin()
    gate.create(*names("observed", 2), kata=True)
    gate.wait("Succeeded", 3)
    evidence = gate.until(lambda found: found["executors"]["k8s-kata"]["ended"] == {"ok": 2}, begun)["evidence"]
    gate.create(*names("missed", 3), kata=True)
    gate.wait("Succeeded", 6)
    # A restarted API server has no events older than its start: it answers 410.
    lab.restart_api_server()
    result = gate(interval=1, evidence={**evidence, "resource_version": "1"})
    assert result["gaps"] == 1
    assert result["executors"]["k8s-kata"]["builds"] == 2
    assert result["executors"]["k8s-kata"]["ended"] == {"ok": 2}
    assert gate(interval=1, evidence=result["evidence"])["gaps"] == 1


def test_a_resumed_observation_keeps_its_figures_and_excludes_builds_in_between(gate: Gate) -> None:
    begun = gate.begin()
    gate.create(*names("before", 2), kata=True)
    gate.wait("Succeeded", 2)
    evidence = gate(interval=2, evidence=begun)["evidence"]
    gate.create(*names("meanwhile", 2), kata=True)
    gate.wait("Succeeded", 4)
    resumed = gate(interval=1, evidence={**evidence, "observed_seconds": 0.0, "resource_version": ""})
    assert resumed["executors"]["k8s-kata"]["builds"] == 2
    assert resumed["gaps"] == 0
    assert resumed["observed_seconds"] < 30
    gate.create("after", kata=True)
    assert gate(interval=2, evidence=resumed["evidence"])["executors"]["k8s-kata"]["builds"] == 3


def test_builds_of_the_npm_router(gate: Gate, lab: Lab) -> None:
    saved = lab.worker_config()
    selectors = {"dedicated": "screwdriver-vm"}
    configured = gate.module(
        "executor_config",
        config_map={"namespace": "sd", "name": "buildcluster-queue-worker"},
        legacy_executor="k8s-vm",
        kata_share="40",
        exclusions=["rhel6"],
        executors={"k8s-kata": {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata", "nodeSelectors": selectors}}}},
    )
    assert configured["changed"], configured
    gate.selector = "tier=builds,sdbuild"
    try:
        evidence = gate.begin()
        lab.start_builds(4)
        result = gate(window=10, interval=180, min_builds=20, max_setup_ratio=3, evidence=evidence)
        stats = lab.stop_builds()
    finally:
        lab.process("builds").stop()
        lab.set_worker_config(saved)
    assert result["verdict"] == "pass", result
    kata, legacy = result["executors"]["k8s-kata"], result["executors"]["k8s-vm"]
    assert kata["started"] >= 20
    # The router excludes them: the legacy executor runs them, and no comparison has them.
    assert legacy["excluded"] > 0
    assert kata["excluded"] == 0
    assert result["excluded_on_kata"] == 0
    assert stats["excluded_on_kata"] == 0
    assert result["share_observed"]["builds"] == kata["builds"] + legacy["builds"]
    assert kata["builds"] <= stats["executors"]["k8s-kata"]
    # executor-k8s-vm passes the image as an argument of its launcher.
    assert set(result["evidence"]["images"]) <= {"node:22", "golang:1.26", "python:3.13", "maven:3-eclipse-temurin-21", "rust:1.95"}


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"namespace": "nowhere"}, "Namespace nowhere does not exist: namespace must be the one that builds run in."),
        ({"min_builds": 0}, "min_builds is 0: give at least 1, since no evidence is not success."),
        (
            {"exclusions": ["*rhel6"]},
            "exclusions: '*rhel6' is not a JavaScript regular expression (Invalid regular expression: /*rhel6/gi: Nothing to repeat).",
        ),
        (
            {"evidence": {"version": 9}},
            "evidence has version 9, this module reads version 2: leave evidence out to begin the observation again.",
        ),
    ],
)
def test_bad_input_is_refused(gate: Gate, parameters: dict[str, t.Any], message: str) -> None:
    assert gate.refused(**parameters) == message


def test_evidence_of_other_builds_is_refused(gate: Gate) -> None:
    evidence = gate.begin()
    assert gate.refused(evidence=evidence, build_selector="tier=other") == (
        f"evidence was taken with build_selector '{gate.selector}', not 'tier=other': leave evidence out to begin the observation again."
    )


def test_a_user_without_permissions(gate: Gate, lab: Lab, module_as: t.Any) -> None:
    gate.module = module_as(lab.directory / "limited.kubeconfig")
    assert gate.refused() == (
        "Cannot list Pod: not allowed (403). Grant the permission or use other credentials:"
        ' pods is forbidden: User "limited" cannot list resource "pods" in API group "" in the namespace "sd-builds".'
    )


def test_an_api_server_that_stays_down_is_an_error(gate: Gate, lab: Lab) -> None:
    evidence = gate.begin()
    process = gate.module.start("build_gate", **gate.parameters(window=600, evidence=evidence))
    wait_for_watch(lab)
    lab.process("kube-apiserver").kill()
    try:
        result = gate.module.result(process)
    finally:
        lab.restart_api_server()
    assert (
        result["msg"] == f"Cannot watch Pod: no answer from the API server at https://{lab.server}. Check that it runs and can be reached."
    )
