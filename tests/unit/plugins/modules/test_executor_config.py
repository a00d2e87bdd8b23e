# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What executor_config refuses and reports, on a config that workers with variables of their own read."""

from __future__ import annotations

import json
import types
import typing as t

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("regress")

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import report
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.source import Source
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Unknown
from ansible_collections.screwdriver.kata.plugins.modules import executor_config

Variables = dict[str, t.Any]
CONFIG = """executor:
  plugin: k8s
  k8s:
    pluginName: k8s
    weightage: 100
    options: {kubernetes: {host: h, jobsNamespace: ns, rootlessBuildkitFeatureEnabled: false}, prefix: p}
  k8s-kata:
    pluginName: k8s
    weightage: 0
    options:
      prefix: p
      kubernetes:
        {host: h, jobsNamespace: ns, runtimeClass: kata, rootlessBuildkitFeatureEnabled: false, terminationGracePeriodSeconds: 60}
"""
EXCLUDING = CONFIG.replace("    weightage: 0\n", "    weightage: 0\n    exclusions: [rhel6]\n")


class Memory(Source):
    """A config in memory."""

    where = "the config"

    def __init__(self, text: str, name: str, variables: Variables) -> None:
        super().__init__()
        self.content, self.worker = text, name
        self.removed: t.Any = None
        values = {key: value if isinstance(value, (str, Unknown)) else json.dumps({"executor": value}) for key, value in variables.items()}
        self.environment = Environment(values)

    def read(self) -> str:
        return self.content

    def update(self, edit: t.Callable[[str], str], write: bool, remove: t.Any = ()) -> tuple[str, str, bool]:
        before, after = self.content, edit(self.content)
        self.removed = remove
        if write:
            self.content = after
        return before, after, False


class Run:
    """A run of the module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str, variables: Variables, peer: Variables | None) -> None:
        self.source = Memory(text, "Deployment sd/worker", variables)
        self.source.peers = [] if peer is None else [Memory(text, "Deployment sd/second", peer)]
        monkeypatch.setattr(executor_config, "source_of", lambda module: self.source)
        self.config: executor_config.ExecutorConfig

    def __call__(self, **asked: t.Any) -> dict[str, t.Any]:
        params = {
            "config_map": {"deployment": "worker"},
            "kata_executor": "k8s-kata",
            "legacy_executor": "k8s",
            "kata_share": None,
            "exclusions": None,
            "executors": None,
            "remove_legacy": False,
            "override_environment": "fail",
            "print_patch": False,
            **asked,
        }
        inner = types.SimpleNamespace(no_log_values=set())
        self.config = executor_config.ExecutorConfig(types.SimpleNamespace(params=params, check_mode=False, _module=inner))
        return self.config.run()

    def refused(self, **asked: t.Any) -> str:
        before = self.source.content
        with pytest.raises(UserError) as caught:
            self(**asked)
        assert self.source.content == before
        return str(caught.value)


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., Run]:
    return lambda text=CONFIG, variables=None, peer=None: Run(monkeypatch, text, variables or {}, peer)


def codes(result: dict[str, t.Any]) -> set[str]:
    return {finding["code"] for finding in result["findings"] if finding["severity"] == "error"}


# Exclusions that a variable overrides

NONE = {"NODE_CONFIG": {"k8s-kata": {"exclusions": []}}}
REMOVE = "Remove the variables from the worker, or set override_environment to remove. Nothing was changed."


def test_a_share_is_refused_where_a_variable_overrides_the_exclusions(run_on: t.Callable[..., Run]) -> None:
    message = (
        "kata_share 25 has no effect: Deployment sd/{} would exclude [] and not ['rhel6'] from k8s-kata, because NODE_CONFIG overrides "
        f"executor.k8s-kata.exclusions. {REMOVE}"
    )
    assert run_on(variables=NONE).refused(kata_share="25", exclusions=["rhel6"]) == message.format("worker")
    assert run_on(EXCLUDING, peer=NONE).refused(kata_share="25") == message.format("second")


def test_no_exclusions_override_a_rollback(run_on: t.Callable[..., Run]) -> None:
    assert run_on(EXCLUDING, NONE, NONE)(kata_share="0")["shares"] == {"k8s": 100.0, "k8s-kata": 0.0}


def test_exclusions_that_agree_with_the_file_override_nothing(run_on: t.Callable[..., Run]) -> None:
    same = {"NODE_CONFIG": {"k8s-kata": {"exclusions": ["rhel6"]}, "k8s": {"exclusions": []}}}
    assert run_on(EXCLUDING, same)(kata_share="25")["shares"] == {"k8s": 75.0, "k8s-kata": 25.0}


APART: dict[str, dict[str, t.Any]] = {
    "exclusions": {"exclusions": []},
    "pluginName": {"pluginName": "k8s-vm"},
    "options.kubernetes.runtimeClass": {"options": {"kubernetes": {"runtimeClass": ""}}},
}
VALUES = {
    "exclusions": "[] and not ['rhel6']",
    "pluginName": "'k8s-vm' and not 'k8s'",
    "options.kubernetes.runtimeClass": "'' and not 'kata'",
}


@pytest.mark.parametrize("key", APART)
def test_a_worker_that_routes_or_isolates_in_another_way_is_reported(run_on: t.Callable[..., Run], key: str) -> None:
    result = run_on(EXCLUDING, peer={"NODE_CONFIG": {"k8s-kata": APART[key]}})()
    (finding,) = [finding for finding in result["findings"] if finding["code"] == "workers_apart"]
    assert finding["severity"] == "error"
    assert finding["message"] == (
        f"Deployment sd/second reads the same config, and its variables make {key.rsplit('.', 1)[-1]} of k8s-kata {VALUES[key]}: "
        "remove them there."
    )


def test_a_class_that_cannot_be_read_is_apart_from_one_that_can(run_on: t.Callable[..., Run]) -> None:
    result = run_on(peer={"K8S_RUNTIME_CLASS": Unknown("Secret sd/classes")})()
    (finding,) = [finding for finding in result["findings"] if finding["code"] == "workers_apart"]
    assert "make runtimeClass of k8s (unknown, from Secret sd/classes) and not '': remove them there." in finding["message"]


def test_an_entry_that_no_build_reaches_may_differ(run_on: t.Callable[..., Run]) -> None:
    peer = {"NODE_CONFIG": {"k8s-sandbox": {"weightage": 0, "options": {"kubernetes": {"runtimeClass": "gvisor"}}}}}
    assert "workers_apart" not in codes(run_on(peer=peer)())


# Variables that are removed

SPECIAL = {"pluginName": "k8s", "options": {"prefix": "p", "kubernetes": {"host": "h", "jobsNamespace": "ns"}}}
OVERRIDING = {"NODE_CONFIG": {"k8s-kata": {"weightage": 0, "exclusions": ["rhel6"]}, "special": SPECIAL}}


def test_exclusions_that_are_nowhere_else_are_not_removed(run_on: t.Callable[..., Run]) -> None:
    assert run_on(variables=OVERRIDING).refused(kata_share="25", override_environment="remove") == (
        "override_environment: remove would remove the exclusions ['rhel6'] of k8s-kata from NODE_CONFIG of Deployment sd/worker, and the "
        "config does not have them: add them to exclusions. Nothing was changed."
    )


def test_only_what_overrides_the_routing_is_removed(run_on: t.Callable[..., Run]) -> None:
    run = run_on(variables=OVERRIDING)
    result = run(kata_share="25", override_environment="remove", exclusions=["rhel6"])
    assert result["shares"] == {"k8s": 75.0, "k8s-kata": 25.0}
    assert result["effective"]["special"] == SPECIAL
    assert result["effective"]["k8s-kata"]["exclusions"] == ["rhel6"]
    assert result["removed_variables"] == ["NODE_CONFIG"]
    assert json.loads(t.cast("str", run.config.environment.values["NODE_CONFIG"])) == {"executor": {"special": SPECIAL}}
    assert run.source.removed == {"NODE_CONFIG": {"k8s-kata.weightage", "k8s-kata.exclusions"}}


# Values that are not what they should be

ODD = {
    "mounts as JSON text": 'volumeMounts: \'[{"name":"x"}]\'',
    "mounts that are no maps": "volumeMounts: [1, {name: x}]",
    "resources as text": "resources: text",
    "cpu as text": "resources: {cpu: text, memory: [1], disk: 1}",
    "endless cpu": "resources: {cpu: {low: .inf}, memory: {low: .nan}}",
    "lists for maps": "annotations: [1], podLabels: [x], nodeSelectors: [a], lifecycleHooks: [1]",
    "maps for lists": "volumeMounts: {a: b}, buildSecrets: {a: b}, buildSecretsFile: {a: b}",
    "text for secrets": "buildSecrets: x, buildSecretsFile: x",
    "lists for words": "privileged: [1], runtimeClass: [kata], host: {a: b}, prefix: [1]",
    "numbers": "terminationGracePeriodSeconds: text, buildTimeout: [1], imagePullPolicy: 5",
    "nulls": "resources: {cpu: , memory: {low: }}, volumeMounts: , annotations: ",
    "a large number": f"buildTimeout: {'9' * 400}, podLabels: {{a: {'9' * 5000}}}",
}
MOUNT = "volumeMounts: [{name: a, path: /a, mountPath: /a}]"
ENTRY = "    options: {{kubernetes: {{{0}}}}}\n"
NEW = {"new": {"pluginName": "k8s"}}


def odd_config(legacy: str, kata: str) -> str:
    return "executor:\n  plugin: k8s\n  k8s:\n    weightage: 100\n" + legacy + "  k8s-kata:\n    pluginName: k8s\n    weightage: 0\n" + kata


def judge(run: Run) -> None:
    run(kata_share="25")
    run(executors=NEW, kata_executor="new")
    document = Document(run.source.content, "x").plain()
    report.pod_diff(run.source.effective(document), "k8s-kata", "k8s")


@pytest.mark.parametrize("name", ODD)
def test_an_option_that_is_not_what_it_should_be_ends_no_run(run_on: t.Callable[..., Run], name: str) -> None:
    odd, usual = ENTRY.format(ODD[name]), ENTRY.format(MOUNT)
    judge(run_on(odd_config(usual, odd)))
    judge(run_on(odd_config(odd, usual)))
    judge(run_on(odd_config(odd, odd)))


@pytest.mark.parametrize("odd", ["text", "[1]", "~", "5", "{kubernetes: [1]}", "{kubernetes: text}", "{kubernetes: ~}"])
def test_options_that_are_no_map_end_no_run(run_on: t.Callable[..., Run], odd: str) -> None:
    options, usual = f"    options: {odd}\n", ENTRY.format(MOUNT)
    judge(run_on(odd_config(usual, options)))
    judge(run_on(odd_config(options, usual)))


@pytest.mark.parametrize("weight", ["9" * 400, f"'{'9' * 5000}'", "9" * 5000, "0x" + "f" * 5000, "{a: 1}", "text", "~"])
def test_a_weightage_that_is_none_is_a_finding_or_0(run_on: t.Callable[..., Run], weight: str) -> None:
    text = CONFIG.replace("weightage: 100", f"weightage: {weight}")
    assert run_on(text)()["findings"]
    assert run_on(text)(kata_share="25")["shares"] == {"k8s": 75.0, "k8s-kata": 25.0}
    third = f"{CONFIG}  third: {{pluginName: k8s, weightage: {weight}}}\n"
    run_on(third)()


@pytest.mark.parametrize("kata", ["~", "text", "[1]", "5"])
def test_a_kata_entry_that_is_no_map_ends_no_run(run_on: t.Callable[..., Run], kata: str) -> None:
    text = f"executor:\n  plugin: k8s\n  k8s: {{weightage: 100}}\n  k8s-kata: {kata}\n"
    assert run_on(text).refused(remove_legacy=True) == (
        "k8s cannot be removed: the worker sends k8s 100 % of the builds. Finish the rollout first. Nothing was changed.".replace(
            "the worker", "Deployment sd/worker"
        )
    )


def test_nothing_is_written_whose_report_fails(run_on: t.Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*unused: t.Any) -> None:
        raise TypeError("unexpected")

    monkeypatch.setattr(report, "findings", fail)
    run = run_on()
    with pytest.raises(TypeError, match="unexpected"):
        run(kata_share="25")
    assert run.source.content == CONFIG
    # A rollback comes first.
    run = run_on(CONFIG.replace("weightage: 0", "weightage: 50"))
    with pytest.raises(TypeError, match="unexpected"):
        run(kata_share="0")
    assert run.source.content == CONFIG


# The change as a patch

COMPACT = json.dumps({"rabbitmq": {"password": 's3cr"et-123', "token": 12345678}, **yaml.safe_load(CONFIG)}, separators=(",", ":"))


def test_a_patch_and_a_diff_have_no_secret(run_on: t.Callable[..., Run]) -> None:
    run = run_on(COMPACT)
    run.source.is_json = True
    entry = {"k8s-kata": {"options": {"token": "n3w-t0ken"}}}
    result = run(kata_share="25", executors=entry, print_patch=True)
    lines = result["patch"].splitlines()
    assert lines[:3] == ["--- the config", "+++ the config", "@@ -1 +1 @@"]
    start = '{"rabbitmq":{"password":********,"token":********},"executor":{'
    assert [line.startswith(sign + start) for sign, line in zip("-+", lines[3:], strict=True)] == [True, True]
    assert '"token": ********' in lines[4]
    for secret in ("s3cr", "12345678", "n3w"):
        assert secret not in json.dumps([result["patch"], result["diff"]])


def test_a_patch_shows_that_a_secret_changes(run_on: t.Callable[..., Run]) -> None:
    text = CONFIG.replace("      prefix: p\n", "      prefix: p\n      token: 0ld\n")
    result = run_on(text)(executors={"k8s-kata": {"options": {"token": "n3w"}}}, print_patch=True)
    number = text[: text.index("token:")].count("\n") + 1
    assert result["patch"] == (
        f"--- the config\n+++ the config\n@@ -{number} +{number} @@\n-      token: ********\n+      token: ********\n"
    )
