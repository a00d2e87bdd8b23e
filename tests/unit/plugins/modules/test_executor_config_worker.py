# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""executor_config on a worker that reads its config in another way than the file alone shows."""

from __future__ import annotations

import copy
import json
import types
import typing as t

import pytest

yaml = pytest.importorskip("yaml")

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import source
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.workload import CONFIG_DIRECTORY
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

    def get(self, kind: str, name: str, *unused: str) -> Object | None:
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
    own.update({"container": None, "mount": False})
    params: Object = {"path": None, "config_map": own, "kata_executor": "k8s-kata", "legacy_executor": "k8s", "kata_share": share}
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
    assert run()["msg"] == (f"kata_share 25 has no effect: the worker would send 0 % of the builds to k8s-kata, because it {why}")
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


# Files


def refuse(*unused: t.Any, **also_unused: t.Any) -> t.NoReturn:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_may_not_be_read_has_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(TEXT)
    monkeypatch.setattr(source, "open", refuse, raising=False)
    assert run(path=str(path), config_map=None)["msg"] == f"path {path} cannot be read: Permission denied. Nothing was changed."


def test_a_directory_that_may_not_be_written_has_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(TEXT)
    monkeypatch.setattr(source.tempfile, "mkstemp", refuse)
    assert run(path=str(path), config_map=None)["msg"] == (
        f"path {path} cannot be written, in directory {tmp_path}: Permission denied. Nothing was changed."
    )


RECURSIVE = {"a list": "a: &a [*a]\nexecutor: {}\n", "a map": "executor: &e\n  plugin: k8s\n  more:\n    again: *e\n"}


@pytest.mark.parametrize("name", RECURSIVE)
def test_an_alias_inside_its_own_value_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(RECURSIVE[name])
    anchor, line = ("a", 1) if name == "a list" else ("e", 4)
    assert run(path=str(path), config_map=None)["msg"] == (
        f"path {path} uses the alias *{anchor} inside its own value (line {line}). Nothing was changed."
    )
