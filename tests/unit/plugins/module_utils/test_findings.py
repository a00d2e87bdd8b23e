from __future__ import annotations

import json
import typing as t

import pytest

pytest.importorskip("regress")

from ansible_collections.screwdriver.kata.plugins.module_utils._executor import entry, findings, worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Unknown

VM: dict[str, t.Any] = {"weightage": 90, "options": {"kubernetes": {"baseImage": "hyperctl"}}}
KATA = entry.complete("k8s-kata", {"weightage": 10, "exclusions": ["rhel6"], "options": {"kubernetes": {"runtimeClass": "kata"}}}, VM)


def config(
    plugin: t.Any = "k8s-vm", vm: dict[str, t.Any] | None = None, kata: dict[str, t.Any] | None = None, **more: t.Any
) -> dict[str, t.Any]:
    return {"executor": {"plugin": plugin, "k8s-vm": worker.merged(VM, vm or {}), "k8s-kata": worker.merged(KATA, kata or {}), **more}}


def variables(values: dict[str, str | None]) -> Environment:
    """None stands for a value that cannot be read."""
    return Environment({name: Unknown("Secret sd/worker") if value is None else value for name, value in values.items()})


def test_a_good_config_has_none() -> None:
    assert findings.find(config()) == []
    assert findings.find(config(), variables({"RABBITMQ_HOST": "x", "WEIGHT_K8S_VM": "", "DOCKER_FEATURE_ENABLED": "true"})) == []


FOUND: dict[str, tuple[dict[str, t.Any], dict[str, str | None], list[tuple[str, str]]]] = {
    "no executor section": ({"rabbitmq": {}}, {}, [("executor_missing", "executor")]),
    "an entry that is a word": (config(**{"jenkins": "on"}), {}, [("entry_not_a_map", "executor.jenkins")]),
    "no plugin": ({"executor": {"k8s-vm": VM}}, {}, [("plugin_missing", "executor.plugin")]),
    "a plugin that names nothing": (config(plugin="nomad"), {}, [("plugin_unknown", "executor.plugin")]),
    "a plugin that is excluded": (config(plugin="k8s-kata"), {}, [("plugin_excluded", "executor.plugin")]),
    "a method's name": (config(**{"start": KATA}), {}, [("name_is_method", "executor.start")]),
    "no pluginName": (config(kata={"pluginName": None}), {}, [("plugin_name_missing", "executor.k8s-kata.pluginName")]),
    "an unknown pluginName": (config(kata={"pluginName": "nomad"}), {}, [("plugin_name_unknown", "executor.k8s-kata.pluginName")]),
    "the dead key": (config(kata={"exclusion": ["el5"]}), {}, [("exclusion_ignored", "executor.k8s-kata.exclusion")]),
    "a string for a list": (config(kata={"exclusions": "rhel6"}), {}, [("exclusions_not_a_list", "executor.k8s-kata.exclusions")]),
    "no pattern": (config(kata={"exclusions": ["ok", "(rhel6"]}), {}, [("exclusion_invalid", "executor.k8s-kata.exclusions[1]")]),
    "an empty pattern": (config(kata={"exclusions": [""]}), {}, [("exclusion_matches_all", "executor.k8s-kata.exclusions[0]")]),
    "all but one": (config(kata={"exclusions": [".+"]}), {}, [("exclusion_matches_all", "executor.k8s-kata.exclusions[0]")]),
    "no number": (config(vm={"weightage": "90%"}), {}, [("weightage_not_a_number", "executor.k8s-vm.weightage")]),
    "a fraction": (config(vm={"weightage": 89.5}), {}, [("weightage_fraction", "executor.k8s-vm.weightage")]),
    "negative": (config(vm={"weightage": -1}), {}, [("weightage_negative", "executor.k8s-vm.weightage")]),
    "nothing weighted": (config(vm={"weightage": 0}, kata={"weightage": 0}), {}, [("weightage_all_zero", "executor.*.weightage")]),
    "a string switch": (
        config(kata={"options": {"kubernetes": {"dockerFeatureEnabled": "false"}}}),
        {},
        [("switch_is_a_string", "executor.k8s-kata.options.kubernetes.dockerFeatureEnabled")],
    ),
    "a switch that must be a string": (
        config(kata={"options": {"kubernetes": {"automountServiceAccountToken": True}}}),
        {},
        [("automount_ignored", "executor.k8s-kata.options.kubernetes.automountServiceAccountToken")],
    ),
    "no base image": (
        config(vm={"options": {"kubernetes": {"baseImage": ""}}}),
        {},
        [("base_image_missing", "executor.k8s-vm.options.kubernetes.baseImage")],
    ),
    "two namespaces": (
        config(kata={"options": {"kubernetes": {"jobsNamespace": "other"}}}),
        {},
        [("entries_apart", "executor.*.options.kubernetes.jobsNamespace")],
    ),
    "two prefixes": (config(kata={"options": {"prefix": "a-"}}), {}, [("entries_apart", "executor.*.options.prefix")]),
    "a weight from the environment": (config(), {"WEIGHT_K8S_VM": "5"}, [("environment_wins", "WEIGHT_K8S_VM")]),
    "a weight from who knows where": (config(), {"WEIGHT_K8S_VM": None}, [("environment_unknown", "WEIGHT_K8S_VM")]),
    "a default from the environment": (config(), {"EXECUTOR_PLUGIN": "k8s"}, [("environment_wins", "EXECUTOR_PLUGIN")]),
    "dead exclusions from the environment": (config(), {"K8S_EXECUTOR_EXCLUSION": "[]"}, [("exclusion_ignored", "K8S_EXECUTOR_EXCLUSION")]),
    "a class for two entries": (config(), {"K8S_RUNTIME_CLASS": "kata"}, [("runtime_class_on_both", "K8S_RUNTIME_CLASS")]),
    "a switch from the environment": (config(), {"DOCKER_FEATURE_ENABLED": "false"}, [("switch_is_a_string", "DOCKER_FEATURE_ENABLED")]),
    "the retry queue": (
        config(),
        {"RABBITMQ_RETRYQUEUE_ENABLED": "true"},
        [("retry_queue_fails_slow_starts", "RABBITMQ_RETRYQUEUE_ENABLED")],
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_each_finding(case: str) -> None:
    document, environment, expected = FOUND[case]
    found = findings.find(document, variables(environment))
    assert [(finding["code"], finding["path"]) for finding in found] == expected
    for finding in found:
        assert finding["severity"] in ("error", "warning")
        assert finding["message"].endswith(".")


def test_a_custom_entry_gets_nothing_from_the_worker() -> None:
    found = findings.find(
        config(**{"k8s-bare": {"pluginName": "k8s", "options": {"kubernetes": {"rootlessBuildkitFeatureEnabled": False}}}})
    )
    assert found == [
        {
            "code": "custom_entry_incomplete",
            "severity": "warning",
            "path": "executor.k8s-bare",
            "message": "k8s-bare is not a shipped name, so neither default.yaml nor a variable fills it, and it lacks "
            "options.kubernetes.host, "
            "options.kubernetes.jobsNamespace, options.prefix, options.kubernetes.terminationGracePeriodSeconds: write them out.",
        }
    ]


# Builds that ask for disk space

VM_DISK = {"options": {"kubernetes": {"resources": {"disk": {"space": "screwdriver.cd/disk"}}}}}
LEGACY_VM: dict[str, tuple[dict[str, t.Any], dict[str, str | None], str, bool]] = {
    "in the file": (config(vm=VM_DISK), {}, "k8s-vm", True),
    "in a variable": (config(), {"K8S_DISK_LABEL": "screwdriver.cd/disk"}, "k8s-vm", True),
    "in NODE_CONFIG": (config(), {"NODE_CONFIG": json.dumps({"executor": {"k8s-vm": VM_DISK}})}, "k8s-vm", True),
    "in an entry of another name": (config(hyper={**worker.merged(VM, VM_DISK), "pluginName": "k8s-vm"}), {}, "hyper", True),
    "nowhere": (config(), {}, "k8s-vm", False),
    "for the speed alone": (config(), {"K8S_DISK_SPEED_LABEL": "screwdriver.cd/diskSpeed"}, "k8s-vm", False),
}


@pytest.mark.parametrize("case", LEGACY_VM)
def test_builds_that_ask_for_disk_space_are_named(case: str) -> None:
    document, environment, legacy, expected = LEGACY_VM[case]
    found = findings.find(document, variables(environment), kata="k8s-kata", legacy=legacy)
    messages = [finding["message"] for finding in found if finding["code"] == "disk_space_ignored"]
    assert (
        messages
        == [
            f"k8s-kata lacks resources.disk.space of {legacy}: executor k8s does not read it: builds with the annotation "
            "screwdriver.cd/disk lose their nodes."
        ]
        * expected
    )


# Entries that no build reaches

ELSEWHERE = {"options": {"prefix": "x-", "kubernetes": {"jobsNamespace": "elsewhere"}}}
APART: dict[str, tuple[dict[str, t.Any], dict[str, str | None], bool]] = {
    "a shipped entry without a weightage": (config(k8s=ELSEWHERE), {}, False),
    "one of weightage 0": (config(**{"k8s-sandbox": {"weightage": 0, **ELSEWHERE}}), {}, False),
    "one of weightage '0'": (config(k8s={"weightage": "0", **ELSEWHERE}), {}, False),
    "one that the router drops": (config(nomad={"weightage": 5, **ELSEWHERE}), {}, False),
    "one that a variable gives a weightage": (config(k8s=ELSEWHERE), {"WEIGHT_K8S": "1"}, True),
    "one that a variable makes the default": (config(k8s=ELSEWHERE), {"EXECUTOR_PLUGIN": "k8s"}, True),
    "one that was made for pins": (config(pinned={"pluginName": "k8s", **ELSEWHERE}), {}, True),
    "one whose weightage is unknown": (config(k8s=ELSEWHERE), {"WEIGHT_K8S": None}, True),
    "equal by a variable": (config(kata={"options": {"prefix": "p-"}}), {"EXECUTOR_PREFIX": "p-"}, False),
}


@pytest.mark.parametrize("case", APART)
def test_only_entries_that_a_build_can_reach_must_agree(case: str) -> None:
    document, environment, expected = APART[case]
    found = findings.find(document, variables(environment))
    assert ("entries_apart" in [finding["code"] for finding in found]) is expected


# The words of the retry queue

QUEUE: list[tuple[t.Any, bool]] = [(word, True) for word in ("on", "yes", "y", "true", "ON", "Yes", True)]
QUEUE += [(word, False) for word in ("off", "no", "n", "false", "", "1", 1, False, None, "enabled")]


@pytest.mark.parametrize(("word", "expected"), QUEUE)
def test_the_retry_queue_is_on_where_the_worker_takes_it_for_on(word: t.Any, expected: bool) -> None:
    for document, environment in (
        ({**config(), "rabbitmq": {"retryQueueEnabled": word}}, {}),
        (config(), {"NODE_CONFIG": json.dumps({"rabbitmq": {"retryQueueEnabled": word}})}),
        (config(), {"RABBITMQ_RETRYQUEUE_ENABLED": str(word)} if isinstance(word, str) else None),
    ):
        if environment is not None:
            found = findings.find(document, variables(t.cast("dict[str, str | None]", environment)))
            assert ("retry_queue_fails_slow_starts" in [finding["code"] for finding in found]) is expected


# Variables that agree with the file

AGREE: dict[str, tuple[dict[str, str | None], str]] = {
    "a default": ({"EXECUTOR_PLUGIN": "k8s-vm"}, "warning"),
    "another default": ({"EXECUTOR_PLUGIN": "k8s-kata"}, "error"),
    "a default in NODE_CONFIG": ({"NODE_CONFIG": '{"executor": {"plugin": "k8s-vm"}}'}, "warning"),
    "a weightage": ({"WEIGHT_K8S_VM": "90"}, "error"),
}


@pytest.mark.parametrize("case", AGREE)
def test_a_variable_that_agrees_with_the_file(case: str) -> None:
    environment, severity = AGREE[case]
    found = findings.find(config(), variables(environment))
    assert [finding["severity"] for finding in found if finding["code"] == "environment_wins"] == [severity]


# Which of the two executors runs in Kata

CLASS = {"options": {"kubernetes": {"runtimeClass": "kata"}}}
NO_CLASS = {"options": {"kubernetes": {"runtimeClass": ""}}}
SHELL = worker.merged(KATA, {"exclusions": [], **NO_CLASS})
LEGACY_RUNS_KATA = (
    "legacy_runs_kata",
    "executor.{0}.options.kubernetes.runtimeClass",
    "{0} has runtimeClass kata as k8s-kata has, so its builds run in Kata at every share, and a rollback has no effect: {1}.",
)
WITHOUT_CLASS = (
    "kata_without_runtime_class",
    "executor.k8s-kata.options.kubernetes.runtimeClass",
    "k8s-kata has no runtimeClass, so its builds do not run in Kata: write the name of the RuntimeClass.",
)
IN_ENTRY = "remove runtimeClass from {0}"
IN_VARIABLE = "remove K8S_RUNTIME_CLASS from the worker"
CLASSES: dict[str, tuple[dict[str, t.Any], dict[str, str | None], str, list[tuple[str, str, str]]]] = {
    "legacy in the file": (config(bare=worker.merged(SHELL, CLASS)), {}, "bare", [(*LEGACY_RUNS_KATA, IN_ENTRY)]),
    "legacy in a variable": (config(k8s=SHELL), {"K8S_RUNTIME_CLASS": "kata"}, "k8s", [(*LEGACY_RUNS_KATA, IN_VARIABLE)]),
    "legacy in NODE_CONFIG": (
        config(k8s=SHELL),
        {"NODE_CONFIG": json.dumps({"executor": {"k8s": CLASS}})},
        "k8s",
        [(*LEGACY_RUNS_KATA, IN_ENTRY)],
    ),
    "legacy in an executor that reads no class": (config(vm=CLASS), {}, "k8s-vm", []),
    "legacy in another class": (config(k8s=SHELL), {"K8S_RUNTIME_CLASS": "gvisor"}, "k8s", []),
    "legacy, unknown": (config(k8s=SHELL), {"K8S_RUNTIME_CLASS": None}, "k8s", []),
    "neither": (config(kata=NO_CLASS), {}, "k8s-vm", [(*WITHOUT_CLASS, "")]),
    "Kata by NODE_CONFIG": (config(), {"NODE_CONFIG": json.dumps({"executor": {"k8s-kata": NO_CLASS}})}, "k8s-vm", [(*WITHOUT_CLASS, "")]),
    "one and the same": (config(), {}, "k8s-kata", []),
}


@pytest.mark.parametrize("case", CLASSES)
def test_the_kata_executor_alone_runs_in_kata(case: str) -> None:
    document, environment, legacy, expected = CLASSES[case]
    found = findings.find(document, variables(environment), kata="k8s-kata", legacy=legacy)
    codes = ("legacy_runs_kata", "kata_without_runtime_class")
    assert [finding for finding in found if finding["code"] in codes] == [
        {"code": code, "severity": "error", "path": path.format(legacy), "message": message.format(legacy, what.format(legacy))}
        for code, path, message, what in expected
    ]
