# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""executor_config on a worker that reads its config in another way than the file alone shows."""

from __future__ import annotations

import base64
import copy
import json
import types
import typing as t

import pytest

yaml = pytest.importorskip("yaml")

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import source
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.workload import CONFIG_DIRECTORY
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import ClusterError
from ansible_collections.screwdriver.kata.plugins.modules import executor_config

if t.TYPE_CHECKING:
    from pathlib import Path

Object = dict[str, t.Any]

OPTIONS = "options: {kubernetes: {host: h, jobsNamespace: ns, terminationGracePeriodSeconds: 30}, prefix: p}"
TEXT = f"""executor:
  plugin: k8s
  k8s: {{pluginName: k8s, weightage: 90, {OPTIONS}}}
  k8s-kata: {{pluginName: k8s, weightage: 10, {OPTIONS}}}
"""


class Api:
    """Objects in memory, as Cluster gives them."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.denied: set[str] = set()

    def get(self, kind: str, name: str, *unused: str) -> Object | None:
        if name in self.denied:
            raise ClusterError("Forbidden.", 403)
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(self, kind: str, *unused: str, **more: str) -> tuple[list[Object], str]:
        return [copy.deepcopy(body) for (found, unused), body in self.objects.items() if found == kind], ""

    def patch(self, kind: str, name: str, patch: Object, *unused: str) -> Object:
        body = self.objects[kind, name]
        body.get("data", {}).update(patch.get("data", {}))
        return copy.deepcopy(body)

    def update(self, act: t.Callable[[], t.Any]) -> t.Any:
        return act()

    def add(self, kind: str, name: str, **body: t.Any) -> None:
        metadata = {"name": name, "namespace": "sd", "resourceVersion": "1"}
        self.objects[kind, name] = {"kind": kind, "metadata": metadata, **body}

    def worker(self, volumes: list[Object], mounts: list[Object], env: dict[str, t.Any] | None = None, **more: t.Any) -> None:
        container = {"name": "w", "image": "x/buildcluster-queue-worker:1", "volumeMounts": mounts, **more}
        container["env"] = [
            {"name": name, **(value if isinstance(value, dict) else {"value": value})} for name, value in (env or {}).items()
        ]
        template = {"metadata": {}, "spec": {"containers": [container], "volumes": volumes}}
        self.add("Deployment", "w", spec={"selector": {"matchLabels": {"app": "w"}}, "template": template}, status={})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    monkeypatch.setattr(source, "Cluster", lambda module, dry_run=False: found)
    found.add("ConfigMap", "cfg", data={"local.yaml": TEXT})
    return found


def run(share: str | None = "25", **more: t.Any) -> Object:
    """What the module returns with a share, or {"msg": why it failed}."""
    own: Object = {
        "namespace": "sd",
        "name": "cfg",
        "key": "local.yaml",
        "kind": "ConfigMap",
        "deployment": "w",
        "workload_kind": "Deployment",
    }
    own.update({"container": None, "mount": False, **(more.pop("config_map", {}) or {})})
    config_map = None if "path" in more else own
    params: Object = {"path": None, "config_map": config_map, "kata_executor": "k8s-kata", "legacy_executor": "k8s", "kata_share": share}
    params.update(exclusions=None, executors=None, remove_legacy=False, override_environment="fail", print_patch=False, backup=False)
    module = types.SimpleNamespace(params={**params, **more}, check_mode=False, _module=types.SimpleNamespace(no_log_values=set()))
    try:
        return executor_config.ExecutorConfig(module).run()
    except UserError as exc:
        return {"msg": str(exc)}


def volume(name: str, **more: t.Any) -> Object:
    return {"name": name, "configMap": {"name": name, **more}}


def mount(path: str, name: str = "cfg", key: str | None = None) -> Object:
    return {"name": name, "mountPath": path, **({"subPath": key} if key else {})}


# Where the worker reads

PLACES: dict[str, tuple[str, dict[str, t.Any], bool]] = {
    "its own directory": (CONFIG_DIRECTORY, {}, True),
    "another directory of the name config": ("/etc/config", {}, False),
    "config in the container's workingDir": ("/srv/config", {"workingDir": "/srv"}, True),
    "its own directory, with another workingDir": (CONFIG_DIRECTORY, {"workingDir": "/srv"}, False),
    "config of another image": ("/app/config", {"image": "worker"}, True),
    "a relative NODE_CONFIG_DIR": (f"{CONFIG_DIRECTORY}/more", {"env": {"NODE_CONFIG_DIR": "config:config/more"}}, True),
    "the end of a relative NODE_CONFIG_DIR": ("/etc/config/more", {"env": {"NODE_CONFIG_DIR": "config:config/more"}}, False),
    "a relative NODE_CONFIG_DIR in workingDir": ("/srv/etc", {"workingDir": "/srv", "env": {"NODE_CONFIG_DIR": "./etc"}}, True),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_share_is_set_only_where_the_worker_reads_it(api: Api, name: str) -> None:
    directory, more, is_read = PLACES[name]
    api.worker([volume("cfg")], [mount(f"{directory}/local.yaml", key="local.yaml")], **more)
    done = run()
    assert ("does not read key local.yaml of ConfigMap sd/cfg" in done.get("msg", "")) is not is_read
    assert done.get("shares") == ({"k8s": 75.0, "k8s-kata": 25.0} if is_read else None)


def test_a_config_that_the_worker_does_not_read_has_one_sentence(api: Api) -> None:
    api.add("ConfigMap", "other", data={"local.yaml": TEXT})
    api.worker([volume("other")], [mount("/etc/sd", "other")], {"NODE_CONFIG_DIR": "/etc/sd"})
    why = "does not read key local.yaml of ConfigMap sd/cfg. Nothing was changed."
    assert run()["msg"] == (f"kata_share 25 has no effect: the worker would send 10 % of the builds to k8s-kata, because it {why}")
    assert run(None, remove_legacy=True)["msg"] == f"k8s cannot be removed: the worker {why}"


# NODE_CONFIG, which is JSON and not JSON5

NODE_CONFIG = json.dumps({"executor": yaml.safe_load(TEXT)["executor"]})
MALFORMED = {
    "a comma at the end": f"{NODE_CONFIG[:-1]},}}",
    "a comment": f"{NODE_CONFIG} // own",
    "an endless number": NODE_CONFIG.replace("90", "Infinity"),
    "a list": f"[{NODE_CONFIG}]",
}


def from_key(key: str = "local.yaml") -> dict[str, t.Any]:
    return {"NODE_CONFIG": {"valueFrom": {"configMapKeyRef": {"name": "cfg", "key": key}}}}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_node_config_that_the_worker_ignores_is_refused(api: Api, name: str) -> None:
    api.add("ConfigMap", "cfg", data={"local.yaml": MALFORMED[name]})
    api.worker([], [], from_key())
    why = "key local.yaml of ConfigMap sd/cfg is the NODE_CONFIG of the worker and not valid JSON, so the worker ignores it: "
    assert run()["msg"].startswith(why)


def test_a_node_config_stays_json(api: Api) -> None:
    api.add("ConfigMap", "cfg", data={"local.yaml": NODE_CONFIG})
    api.worker([], [], from_key())
    assert run(executors={"new": {"pluginName": "k8s"}}, exclusions=["rhel6"])["changed"]
    written = json.loads(api.objects["ConfigMap", "cfg"]["data"]["local.yaml"])["executor"]
    assert written["k8s-kata"]["exclusions"] == ["rhel6"]
    assert written["new"]["weightage"] == 0


def test_a_node_config_that_is_json_only_once_it_is_expanded_is_not_edited(api: Api) -> None:
    api.worker(
        [volume("cfg")],
        [mount(f"{CONFIG_DIRECTORY}/local.yaml", key="local.yaml")],
        {"N": "0", "NODE_CONFIG": '{"executor": {"k8s-kata": {"weightage": $(N)}}}'},
    )
    assert run(override_environment="remove")["msg"] == (
        "NODE_CONFIG of Deployment sd/w is JSON only with its variables expanded: remove its executor keys there. Nothing was changed."
    )
    assert api.objects["ConfigMap", "cfg"]["data"]["local.yaml"] == TEXT


# Other files of the worker

SD = {"NODE_CONFIG_DIR": f"{CONFIG_DIRECTORY}:/etc/sd"}
NONE = "executor: {k8s-kata: {weightage: 0}}\n"
THIRD = "executor: {third: {pluginName: k8s, weightage: 100}}\n"
MORE = "executor: {third: {pluginName: k8s, weightage: 100}, k8s-kata: {exclusions: ['.*']}}\n"


def other(key: str, text: str, **env: t.Any) -> dict[str, t.Any]:
    """A worker whose config directory has a key besides the managed one."""
    return {"data": {"local.yaml": TEXT, key: text}, "env": {**SD, **env}}


OVERRIDING: dict[str, tuple[dict[str, t.Any], str]] = {
    "local of the environment": (other("local-production.yaml", NONE, NODE_ENV="production"), "local-production.yaml of ConfigMap sd/cfg"),
    "a later ending": (other("local.yml", NONE), "local.yml of ConfigMap sd/cfg"),
    "local over default": (
        {"data": {"default.yaml": TEXT, "local.yaml": NONE}, "env": SD, "key": "default.yaml"},
        "local.yaml of ConfigMap sd/cfg",
    ),
    "a later directory": (
        {"more": NONE, "env": {"NODE_CONFIG_DIR": f"{CONFIG_DIRECTORY}:/etc/sd:/etc/more"}},
        "local.yaml of ConfigMap sd/more",
    ),
    "the host": (
        {"data": {"default.yaml": TEXT, "a.yaml": NONE}, "env": {**SD, "HOST": "a.example"}, "key": "default.yaml"},
        "a.yaml of ConfigMap sd/cfg",
    ),
    "an instance": (other("local-2.yaml", NONE, NODE_APP_INSTANCE="2"), "local-2.yaml of ConfigMap sd/cfg"),
    "a map of variables": (
        other("custom-environment-variables.yaml", "executor: {k8s-kata: {weightage: WEIGHT_KATA}}", WEIGHT_KATA="0"),
        "custom-environment-variables.yaml of ConfigMap sd/cfg",
    ),
    "a map of variables with a format": (
        other(
            "custom-environment-variables.json",
            json.dumps({"executor": {"k8s-kata": {"weightage": {"__name": "WEIGHT_KATA", "__format": "json"}}}}),
            WEIGHT_KATA="0",
        ),
        "custom-environment-variables.json of ConfigMap sd/cfg",
    ),
    "runtime.json": (
        {
            "data": {"local.yaml": TEXT, "runtime.json": '{"executor": {"k8s-kata": {"weightage": 0}}}'},
            "env": {"NODE_CONFIG_DIR": "/etc/sd"},
        },
        "runtime.json of ConfigMap sd/cfg",
    ),
}


def place(api: Api, data: Object | None = None, env: Object | None = None, more: str = "", **unused: str) -> None:
    api.add("ConfigMap", "cfg", data=data or {"local.yaml": TEXT})
    api.add("ConfigMap", "more", data={"local.yaml": more})
    api.worker([volume("cfg"), volume("more")], [mount("/etc/sd"), *([mount("/etc/more", "more")] if more else [])], env)


@pytest.mark.parametrize("name", OVERRIDING)
def test_a_share_that_another_file_overrides_is_refused(api: Api, name: str) -> None:
    given, file = OVERRIDING[name]
    place(api, **given)
    key = {"key": given.get("key", "local.yaml")}
    assert run(config_map=key)["msg"] == (
        "kata_share 25 has no effect: the worker would send 0 % of the builds to k8s-kata, because it also reads "
        f"key {file}, which overrides executor.k8s-kata.weightage: remove its executor section. Nothing was changed."
    )
    found = [finding for finding in run(None, config_map=key)["findings"] if finding["code"] == "file_wins"]
    assert [(finding["severity"], finding["message"]) for finding in found] == [
        (
            "error",
            f"the worker also reads key {file}, which overrides executor.k8s-kata.weightage: remove its executor section.",
        )
    ]


ALLOWED: dict[str, tuple[dict[str, t.Any], Object]] = {
    "the file of another environment": (other("local-production.yaml", NONE), {"k8s": 75.0, "k8s-kata": 25.0}),
    "an earlier ending": (other("local.json", '{"executor": {"k8s-kata": {"weightage": 0}}}'), {"k8s": 75.0, "k8s-kata": 25.0}),
    "a map of a variable that is not set": (
        other("custom-environment-variables.yaml", "executor: {k8s-kata: {weightage: WEIGHT_KATA}}"),
        {"k8s": 75.0, "k8s-kata": 25.0},
    ),
    "an executor in a file below": (other("default.yaml", THIRD), {"third": 50.0, "k8s": 25.0, "k8s-kata": 25.0}),
    "an executor in a file above": (other("local.yml", THIRD), {"third": 50.0, "k8s": 25.0, "k8s-kata": 25.0}),
    "no executor section": (other("local.yml", "rabbitmq: {}\n"), {"k8s": 75.0, "k8s-kata": 25.0}),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_share_counts_what_other_files_have(api: Api, name: str) -> None:
    given, shares = ALLOWED[name]
    place(api, **given)
    assert run()["shares"] == shares


def test_files_below_node_config_count(api: Api) -> None:
    api.add("ConfigMap", "cfg", data={"conf": NODE_CONFIG, "local.yaml": MORE})
    api.worker([volume("cfg")], [mount("/etc/sd")], {**SD, **from_key("conf")})
    done = run(config_map={"key": "conf"})
    assert done["weightages"]["third"] == 100
    assert "exclusion_matches_all" in [finding["code"] for finding in done["findings"]]


def test_legacy_is_not_removed_beside_a_file_that_keeps_it(api: Api) -> None:
    place(api, **other("local.yml", "executor: {k8s: {weightage: 1}}"))
    done = run(remove_legacy=True, share="100")
    assert done["msg"] == (
        "kata_share 100 has no effect: the worker would send 99.0099 % of the builds to k8s-kata, because it also reads "
        "key local.yml of ConfigMap sd/cfg, which overrides executor.k8s.weightage: remove its executor section. Nothing was changed."
    )
    assert run(None, remove_legacy=True)["msg"].startswith(
        "k8s cannot be removed: the worker sends k8s 9.09091 % of the builds, because it also reads "
        "key local.yml of ConfigMap sd/cfg, which overrides executor.k8s.weightage. "
    )


def test_exclusions_of_a_file_below_stay(api: Api) -> None:
    place(api, **other("default.yaml", "executor: {k8s-kata: {exclusions: [rhel6]}}"))
    assert run()["effective"]["k8s-kata"]["exclusions"] == ["rhel6"]


def test_exclusions_that_a_file_overrides_are_refused(api: Api) -> None:
    place(api, **other("local.yml", "executor: {k8s-kata: {exclusions: []}}"))
    assert run(exclusions=["rhel6"])["msg"] == (
        "kata_share 25 has no effect: the worker would exclude [] and not ['rhel6'] from k8s-kata, because it also reads "
        "key local.yml of ConfigMap sd/cfg, which overrides executor.k8s-kata.exclusions: remove its executor section. "
        "Nothing was changed."
    )


HIDDEN: dict[str, tuple[list[Object], list[Object]]] = {
    "a later source of a projected volume": (
        [{"name": "cfg", "projected": {"sources": [{"configMap": {"name": "cfg"}}, {"configMap": {"name": "more"}}]}}],
        [mount("/etc/sd")],
    ),
    "a file mounted over it": ([volume("cfg"), volume("more")], [mount("/etc/sd/local.yaml", "more", "local.yaml"), mount("/etc/sd")]),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_config_that_another_one_is_mounted_over_is_not_read(api: Api, name: str) -> None:
    api.add("ConfigMap", "more", data={"local.yaml": TEXT})
    api.worker(*HIDDEN[name], SD)
    assert run()["msg"] == (
        "kata_share 25 has no effect: the worker would send 10 % of the builds to k8s-kata, because it does not read "
        "key local.yaml of ConfigMap sd/cfg. Nothing was changed."
    )


SECRET = {"local.yml": base64.b64encode(NONE.encode()).decode(), "plain": ""}
UNKNOWN: dict[str, tuple[Object, Object, str]] = {
    "a Secret": (
        {"name": "s", "secret": {"secretName": "s"}},
        mount("/etc/sd/local.yml", "s", "local.yml"),
        "key local.yml of Secret sd/s, and its executor section cannot be known here: remove its executor section",
    ),
    "an object that may not be read": (
        volume("denied"),
        mount("/etc/more", "denied"),
        "ConfigMap denied at /etc/more, and its executor section cannot be known here: grant get on it",
    ),
    "another volume": (
        {"name": "claim", "persistentVolumeClaim": {"claimName": "x"}},
        mount("/etc/more", "claim"),
        "volume claim at /etc/more, and its executor section cannot be known here: mount config files from a ConfigMap",
    ),
    "a program": (
        volume("cfg2"),
        mount("/etc/more/local.js", "cfg2", "local.js"),
        "key local.js of ConfigMap sd/cfg2, and its executor section cannot be known here: write it as YAML or JSON, in data",
    ),
    "what cannot be parsed": (
        volume("cfg2"),
        mount("/etc/more/local.yml", "cfg2", "bad"),
        "key bad of ConfigMap sd/cfg2, and its executor section cannot be known here: it cannot be parsed, so fix it",
    ),
    "the file of one pod": (
        volume("cfg2"),
        mount("/etc/more/w-0.yaml", "cfg2", "pod"),
        "key pod of ConfigMap sd/cfg2, and its executor section cannot be known here: remove its executor section",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_share_beside_a_file_that_cannot_be_read_is_refused(api: Api, name: str) -> None:
    own, where, why = UNKNOWN[name]
    api.add("Secret", "s", data=SECRET)
    api.add("ConfigMap", "cfg2", data={"local.js": "", "bad": "a: [", "pod": NONE})
    api.denied = {"denied"}
    api.worker([volume("cfg"), own], [mount("/etc/sd"), where], {"NODE_CONFIG_DIR": f"{CONFIG_DIRECTORY}:/etc/sd:/etc/more"})
    assert run()["msg"] == f"kata_share cannot be kept: the worker also reads {why}. Nothing was changed."
    done = run(None)
    assert done["shares"] == {}
    assert ("file_unknown", f"the worker also reads {why}.") in [(finding["code"], finding["message"]) for finding in done["findings"]]


def test_what_is_mounted_elsewhere_is_not_read(api: Api) -> None:
    api.denied = {"denied"}
    api.worker([volume("cfg"), volume("denied")], [mount("/etc/sd"), mount("/etc/tls", "denied")], SD)
    assert run()["shares"] == {"k8s": 75.0, "k8s-kata": 25.0}


# Files


def refuse(*unused: t.Any, **also_unused: t.Any) -> t.NoReturn:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_may_not_be_read_has_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(TEXT)
    monkeypatch.setattr(source, "open", refuse, raising=False)
    assert run(path=str(path))["msg"] == f"path {path} cannot be read: Permission denied. Nothing was changed."


def test_a_directory_that_may_not_be_written_has_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(TEXT)
    monkeypatch.setattr(source.tempfile, "mkstemp", refuse)
    assert run(path=str(path))["msg"] == (
        f"path {path} cannot be written, in directory {tmp_path}: Permission denied. Nothing was changed."
    )


RECURSIVE = {"a list": "a: &a [*a]\nexecutor: {}\n", "a map": "executor: &e\n  plugin: k8s\n  more:\n    again: *e\n"}


@pytest.mark.parametrize("name", RECURSIVE)
def test_an_alias_inside_its_own_value_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(RECURSIVE[name])
    anchor, line = ("a", 1) if name == "a list" else ("e", 4)
    assert run(path=str(path))["msg"] == (f"path {path} uses the alias *{anchor} inside its own value (line {line}). Nothing was changed.")


UNMOUNTABLE: dict[str, Object] = {"NODE_CONFIG_DIR": {"env": {"NODE_CONFIG_DIR": "/etc/sd"}}, "workingDir": {"workingDir": "/srv"}}


@pytest.mark.parametrize("name", UNMOUNTABLE)
def test_a_config_is_not_mounted_where_the_worker_does_not_read_it(api: Api, name: str) -> None:
    api.worker([], [], **UNMOUNTABLE[name])
    assert run(config_map={"mount": True})["msg"] == (
        f"config_map.mount: Deployment sd/w does not read {CONFIG_DIRECTORY}, where the config would be mounted: "
        "add it to NODE_CONFIG_DIR, or mount the config where the worker reads it. Nothing was changed."
    )


def test_a_config_is_mounted_below_a_file_that_overrides_it(api: Api) -> None:
    api.add("ConfigMap", "more", data={"local.yml": NONE})
    api.worker([volume("more")], [mount(f"{CONFIG_DIRECTORY}/local.yml", "more", "local.yml")])
    assert "because it also reads key local.yml of ConfigMap sd/more" in run(config_map={"mount": True})["msg"]
