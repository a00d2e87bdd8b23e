"""executor_config on workers as they are in the field: where their variables and their file come from, and what is not shown of them."""

from __future__ import annotations

import base64
import json
import time
import typing as t

import pytest
import yaml

from lab.cluster.lab import Lab

from ..helpers import granted, wait_until

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

NAMESPACE = "field"
IMAGE = "screwdrivercd/buildcluster-queue-worker:stable"
DIRECTORY = "/usr/src/app/node_modules/screwdriver-buildcluster-queue-worker/config"
TEXT = """# kept
executor:
  plugin: k8s-vm
  k8s:
    weightage: 0
    options: {kubernetes: {jobsNamespace: builds, runtimeClass: kata, rootlessBuildkitFeatureEnabled: false}}
  k8s-vm:
    weightage: 100
    options: {kubernetes: {jobsNamespace: builds, baseImage: hyperctl}}
"""
SHARE: dict[str, t.Any] = {"kata_executor": "k8s", "legacy_executor": "k8s-vm"}
KATA = {"k8s-kata": {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata"}}}}

pytestmark = pytest.mark.usefixtures("namespace")


def config_map(name: str, text: str = TEXT, **more: t.Any) -> dict[str, t.Any]:
    metadata = {"name": name, "namespace": NAMESPACE, **more.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"local.yaml": text, "other": "kept"}, **more}


def worker(
    name: str, mounts: str | None = None, kind: str = "Deployment", source: str = "configMap", **container: t.Any
) -> dict[str, t.Any]:
    """A worker that has the config ``mounts`` as its local.yaml."""
    own = {"name": "worker", "image": IMAGE, **container}
    spec: dict[str, t.Any] = {"containers": [own]}
    if mounts:
        own["volumeMounts"] = [{"name": "config", "mountPath": f"{DIRECTORY}/local.yaml", "subPath": "local.yaml"}]
        spec["volumes"] = [{"name": "config", source: {"name" if source == "configMap" else "secretName": mounts}}]
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    body: dict[str, t.Any] = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        body["serviceName"] = "x"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": body}


@pytest.fixture
def apply(lab: Lab) -> t.Iterator[t.Callable[..., None]]:
    """Creates objects, and removes them after the test."""
    created: list[dict[str, t.Any]] = []

    def create(*objects: dict[str, t.Any]) -> None:
        lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        created.extend(objects)

    yield create
    left = json.dumps({"apiVersion": "v1", "kind": "List", "items": created})
    lab.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=left)


def read(lab: Lab, kind: str, name: str) -> dict[str, t.Any]:
    return json.loads(lab.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json"))


def source(name: str = "w", **more: t.Any) -> dict[str, t.Any]:
    return {"namespace": NAMESPACE, "name": name, "deployment": name, **more}


def codes(result: dict[str, t.Any]) -> list[tuple[str, str]]:
    return [(finding["code"], finding["path"]) for finding in result["findings"]]


# A share of 0 means 0, or the module fails

FROM_MAP = {"configMapKeyRef": {"name": "env", "key": "WEIGHT"}}
FROM_SECRET = {"secretKeyRef": {"name": "env", "key": "WEIGHT"}}
NODE_CONFIG = json.dumps({"executor": {"k8s": {"weightage": 30}}, "rabbitmq": {"host": "x"}})
ENVIRONMENTS: dict[str, tuple[dict[str, t.Any], str | None]] = {
    "none": ({}, None),
    "a variable that is empty": ({"env": [{"name": "WEIGHT_K8S", "value": ""}]}, None),
    "a variable of the value that the file gets": ({"env": [{"name": "WEIGHT_K8S", "value": "0"}]}, None),
    "a variable": ({"env": [{"name": "WEIGHT_K8S", "value": "50"}]}, "WEIGHT_K8S overrides executor.k8s.weightage"),
    "a variable of a ConfigMap": ({"env": [{"name": "WEIGHT_K8S", "valueFrom": FROM_MAP}]}, "WEIGHT_K8S overrides executor.k8s.weightage"),
    "a variable of a Secret": ({"env": [{"name": "WEIGHT_K8S", "valueFrom": FROM_SECRET}]}, "WEIGHT_K8S overrides executor.k8s.weightage"),
    "a variable of the other executor": ({"env": [{"name": "WEIGHT_K8S_VM", "value": "0"}]}, None),
    "a variable that moves the default": (
        {"env": [{"name": "EXECUTOR_PLUGIN", "value": "k8s"}]},
        "EXECUTOR_PLUGIN overrides executor.plugin",
    ),
    "all of a ConfigMap": ({"envFrom": [{"configMapRef": {"name": "all"}}]}, "WEIGHT_K8S overrides executor.k8s.weightage"),
    "all of a Secret": ({"envFrom": [{"secretRef": {"name": "all"}}]}, "WEIGHT_K8S overrides executor.k8s.weightage"),
    "all of a ConfigMap with a prefix": ({"envFrom": [{"configMapRef": {"name": "all"}, "prefix": "X_"}]}, None),
    "a variable over all of a ConfigMap": (
        {"envFrom": [{"configMapRef": {"name": "all"}}], "env": [{"name": "WEIGHT_K8S", "value": ""}]},
        None,
    ),
    "an optional ConfigMap that does not exist": ({"envFrom": [{"configMapRef": {"name": "nobody", "optional": True}}]}, None),
    "a reference to another variable": (
        {"env": [{"name": "W", "value": "40"}, {"name": "WEIGHT_K8S", "value": "$(W)"}]},
        "WEIGHT_K8S overrides executor.k8s.weightage",
    ),
    "a reference to a variable that comes later": (
        {"env": [{"name": "WEIGHT_K8S", "value": "$(W)"}, {"name": "W", "value": "40"}]},
        None,
    ),
    "a variable twice, the last one empty": ({"env": [{"name": "WEIGHT_K8S", "value": "50"}, {"name": "WEIGHT_K8S", "value": ""}]}, None),
    "a variable twice, the last one a weightage": (
        {"env": [{"name": "WEIGHT_K8S", "value": ""}, {"name": "WEIGHT_K8S", "value": "50"}]},
        "WEIGHT_K8S overrides executor.k8s.weightage",
    ),
    "a prefix that makes the name": (
        {
            "envFrom": [
                {"configMapRef": {"name": "env"}, "prefix": "WEIGHT_K8S_VM_X"},
                {"configMapRef": {"name": "short"}, "prefix": "WEIGHT_"},
            ]
        },
        "WEIGHT_K8S overrides executor.k8s.weightage",
    ),
    "a key that does not exist, optional": (
        {"env": [{"name": "WEIGHT_K8S", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "no", "optional": True}}}]},
        None,
    ),
    "a key that does not exist": (
        {"env": [{"name": "WEIGHT_K8S", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "no"}}}]},
        "what the worker would do is not known, because WEIGHT_K8S overrides executor.k8s.weightage",
    ),
    "NODE_CONFIG": ({"env": [{"name": "NODE_CONFIG", "value": NODE_CONFIG}]}, "NODE_CONFIG overrides executor.k8s.weightage"),
    "NODE_CONFIG of a ConfigMap": (
        {"env": [{"name": "NODE_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "NODE_CONFIG"}}}]},
        "NODE_CONFIG overrides executor.k8s.weightage",
    ),
    "NODE_CONFIG that is not JSON": ({"env": [{"name": "NODE_CONFIG", "value": "{executor: 1}"}]}, None),
    "NODE_CONFIG of a Secret": (
        {"env": [{"name": "NODE_CONFIG", "valueFrom": FROM_SECRET}]},
        "NODE_CONFIG of the worker comes from Secret field/env",
    ),
}


@pytest.mark.parametrize("mounted", [True, False])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_share_of_0_is_0_or_fails(lab: Lab, module: ModuleRunner, apply: t.Any, name: str, mounted: bool) -> None:
    container, problem = ENVIRONMENTS[name]
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}
    apply(
        config_map("w"),
        {**config_map("env"), "data": {"WEIGHT": "50", "NODE_CONFIG": NODE_CONFIG}},
        {**config_map("short"), "data": {"K8S": "50"}},
        {**config_map("all"), "data": {"WEIGHT_K8S": "50"}},
        {**secret, "metadata": {"name": "env", "namespace": NAMESPACE}, "stringData": {"WEIGHT": "50"}},
        {**secret, "metadata": {"name": "all", "namespace": NAMESPACE}, "stringData": {"WEIGHT_K8S": "50"}},
        worker("w", "w" if mounted else None, **container),
    )
    result = module("executor_config", config_map=source(), kata_share="0", **SHARE)
    if problem:
        assert problem in result["msg"]
        assert read(lab, "configmap", "w")["data"]["local.yaml"] == TEXT
        return
    assert not result.get("failed"), result
    assert result["shares"]["k8s"] == 0
    assert result["changed"] is False
    assert (("file_not_mounted", f"Deployment {NAMESPACE}/w") in codes(result)) is not mounted


def test_a_share_beside_a_weightage_that_a_variable_sets(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    more = [{"name": "WEIGHT_K8S", "value": "0"}, {"name": "WEIGHT_K8S_VM", "value": "100"}, {"name": "EXECUTOR_PLUGIN", "value": "k8s-vm"}]
    apply(config_map("w", "executor: {plugin: k8s, k8s: {weightage: 100}}\n"), worker("w", "w", env=more))
    asked: dict[str, t.Any] = {"config_map": source(), "legacy_executor": "k8s", "executors": KATA, "kata_share": "10"}
    assert module("executor_config", **asked)["msg"] == (
        "kata_share 10 cannot be set beside variables of the worker: EXECUTOR_PLUGIN overrides executor.plugin, WEIGHT_K8S overrides "
        "executor.k8s.weightage, WEIGHT_K8S_VM overrides executor.k8s-vm.weightage. Remove the variables from the worker, or set "
        "override_environment to remove. Nothing was changed."
    )
    done = module("executor_config", override_environment="remove", **asked)
    assert done["shares"] == {"k8s": 90.0, "k8s-kata": 10.0}
    assert done["removed_variables"] == ["EXECUTOR_PLUGIN", "WEIGHT_K8S", "WEIGHT_K8S_VM"]


@pytest.mark.parametrize("name", ["a variable", "all of a ConfigMap", "all of a Secret", "NODE_CONFIG", "a variable of a Secret"])
def test_variables_are_removed_when_asked(lab: Lab, module: ModuleRunner, apply: t.Any, name: str) -> None:
    container, unused = ENVIRONMENTS[name]
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}
    apply(
        config_map("w"),
        {**config_map("all"), "data": {"WEIGHT_K8S": "50"}},
        {**secret, "metadata": {"name": "env", "namespace": NAMESPACE}, "stringData": {"WEIGHT": "50"}},
        {**secret, "metadata": {"name": "all", "namespace": NAMESPACE}, "stringData": {"WEIGHT_K8S": "50"}},
        worker("w", "w", **container),
    )
    asked = {"config_map": source(), "kata_share": "0", "override_environment": "remove", **SHARE}
    tried = module("executor_config", check=True, **asked)
    done = module("executor_config", **asked)
    assert done["changed"]
    assert done["rolled"]
    assert done["removed_variables"] == tried["removed_variables"]
    assert done["removed_variables"] == ["NODE_CONFIG" if name == "NODE_CONFIG" else "WEIGHT_K8S"]
    again = module("executor_config", **asked)
    assert not again["changed"]
    assert again["shares"]["k8s"] == 0
    environment = {
        item["name"]: item.get("value", "")
        for item in read(lab, "deployment", "w")["spec"]["template"]["spec"]["containers"][0].get("env", [])
    }
    if name == "NODE_CONFIG":
        assert json.loads(environment["NODE_CONFIG"]) == {"executor": {}, "rabbitmq": {"host": "x"}}


# What the new entry gets


def test_an_entry_gets_what_the_variables_add(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    text = "executor:\n  plugin: k8s\n  k8s: {weightage: 100}\n"
    environment = {
        "K8S_JOBS_NAMESPACE": "builds",
        "EXECUTOR_PREFIX": "prod-",
        "DOCKER_FEATURE_ENABLED": "true",
        "K8S_POD_LABELS": "{team: 'x'}",
        "K8S_CPU_LOW": "4",
    }
    apply(config_map("w", text), worker("w", "w", env=[{"name": name, "value": value} for name, value in environment.items()]))
    done = module("executor_config", config_map=source(), legacy_executor="k8s", executors=KATA)
    entry = yaml.safe_load(read(lab, "configmap", "w")["data"]["local.yaml"])["executor"]["k8s-kata"]["options"]
    kubernetes = entry["kubernetes"]
    assert kubernetes["jobsNamespace"] == "builds"
    assert entry["prefix"] == "prod-"
    assert kubernetes["podLabels"] == {"team": "x"}
    assert kubernetes["dockerFeatureEnabled"]
    assert kubernetes["resources"]["cpu"]["low"] == "4"
    assert "entries_apart" not in [code for code, unused in codes(done)]


def test_an_entry_is_refused_where_an_option_cannot_be_read(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    text = "executor:\n  plugin: k8s\n  k8s: {weightage: 100}\n"
    environment = [
        {"name": "K8S_TOKEN", "valueFrom": {"secretKeyRef": {"name": "tok", "key": "token"}}},
        {"name": "K8S_JOBS_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "K8S_HOST", "valueFrom": {"configMapKeyRef": {"name": "nobody", "key": "host", "optional": True}}},
    ]
    apply(config_map("w", text), worker("w", "w", env=environment))
    found = module("executor_config_info", config_map=source())
    assert ("environment_unknown", "K8S_TOKEN") in codes(found)
    assert found["effective"]["k8s"]["options"]["kubernetes"]["jobsNamespace"] == NAMESPACE
    asked: dict[str, t.Any] = {"config_map": source(), "legacy_executor": "k8s"}
    refused = module("executor_config", executors=KATA, **asked)
    assert refused["msg"] == (
        "executors: k8s-kata cannot be completed from the legacy executor, because these of its options cannot be read: "
        "options.kubernetes.token (Secret field/tok, which has no key token). Write them into executors. Nothing was changed."
    )
    assert read(lab, "configmap", "w")["data"]["local.yaml"] == text
    given = {"k8s-kata": {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata", "token": ""}}}}
    assert module("executor_config", executors=given, **asked)["changed"] is True
    entry = yaml.safe_load(read(lab, "configmap", "w")["data"]["local.yaml"])["executor"]["k8s-kata"]
    assert entry["options"]["kubernetes"]["jobsNamespace"] == NAMESPACE


# Where the file is


def test_a_worker_that_does_not_read_the_config(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    elsewhere = worker("w", "w")
    elsewhere["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = "/etc/other/local.yaml"
    apply(config_map("w"), config_map("x"), elsewhere, worker("x", "another"))
    for name in ("w", "x"):
        assert ("file_not_mounted", f"Deployment {NAMESPACE}/{name}") in codes(module("executor_config_info", config_map=source(name)))
        refused = module("executor_config", config_map=source(name), kata_share="10", **SHARE)
        assert refused["msg"].endswith(f"because it does not read key local.yaml of ConfigMap {NAMESPACE}/{name}. Nothing was changed.")


UNREAD: dict[str, tuple[dict[str, t.Any], str]] = {
    "a key of a Secret": (
        {"env": [{"name": "K8S_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "K8S_JOBS_NAMESPACE"}}}]},
        "options.kubernetes.token (Secret field/s, key K8S_JOBS_NAMESPACE)",
    ),
    "all of a Secret": (
        {"envFrom": [{"secretRef": {"name": "s"}}]},
        "options.kubernetes.jobsNamespace (Secret field/s, key K8S_JOBS_NAMESPACE)",
    ),
    "a field of the pod": (
        {"env": [{"name": "K8S_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]},
        "options.kubernetes.host (the pod's status.hostIP)",
    ),
    "a limit of the container": (
        {"env": [{"name": "K8S_CPU_LOW", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]},
        "options.kubernetes.resources.cpu.low (the pod's resources)",
    ),
    "a part of a value": (
        {
            "env": [
                {"name": "ZONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "K8S_JOBS_NAMESPACE"}}},
                {"name": "EXECUTOR_PREFIX", "value": "prod-$(ZONE)-"},
            ]
        },
        "options.prefix (Secret field/s, key K8S_JOBS_NAMESPACE)",
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_an_entry_is_refused_with_each_option_that_cannot_be_read(lab: Lab, module: ModuleRunner, apply: t.Any, name: str) -> None:
    container, option = UNREAD[name]
    text = "executor:\n  plugin: k8s\n  k8s: {weightage: 100}\n"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": NAMESPACE}}
    apply(config_map("w", text), {**secret, "stringData": {"K8S_JOBS_NAMESPACE": "x"}}, worker("w", "w", **container))
    refused = module("executor_config", config_map=source(), legacy_executor="k8s", executors=KATA)
    assert refused["msg"] == (
        "executors: k8s-kata cannot be completed from the legacy executor, because these of its options cannot be read: "
        f"{option}. Write them into executors. Nothing was changed."
    )
    assert read(lab, "configmap", "w")["data"]["local.yaml"] == text
    assert [code for code, unused in codes(module("executor_config_info", config_map=source()))][-1] == "environment_unknown"


def test_a_host_that_a_service_names_is_unknown(module: ModuleRunner, apply: t.Any) -> None:
    text = "executor:\n  plugin: k8s\n  k8s: {weightage: 100}\n"
    apply(config_map("w", text), worker("w", "w", env=[{"name": "K8S_HOST", "value": "$(KUBERNETES_SERVICE_HOST):6443"}]))
    assert module("executor_config", config_map=source(), legacy_executor="k8s", executors=KATA)["msg"] == (
        "executors: k8s-kata cannot be completed from the legacy executor, because these of its options cannot be read: "
        "options.kubernetes.host (the pod's variable KUBERNETES_SERVICE_HOST of a Service). Write them into executors. Nothing was changed."
    )


PLACES: dict[str, dict[str, t.Any]] = {
    "a projected volume": {"volume": {"projected": {"sources": [{"configMap": {"name": "w"}}]}}},
    "another file name in a projected volume": {
        "volume": {"projected": {"sources": [{"configMap": {"name": "w", "items": [{"key": "conf", "path": "local.yaml"}]}}]}},
        "key": "conf",
    },
    "a directory of its own": {"directory": "/etc/sd", "env": {"NODE_CONFIG_DIR": f"{DIRECTORY}:/etc/sd"}},
    "the file of an environment": {
        "directory": "/etc/sd",
        "env": {"NODE_CONFIG_DIR": f"{DIRECTORY}:/etc/sd", "NODE_ENV": "production"},
        "key": "production.yaml",
    },
    "JSON under another name": {
        "volume": {"configMap": {"name": "w", "items": [{"key": "conf", "path": "local.json"}]}},
        "directory": "/etc/sd",
        "env": {"NODE_CONFIG_DIR": f"{DIRECTORY}:/etc/sd"},
        "key": "conf",
        "text": json.dumps(yaml.safe_load(TEXT)),
    },
    "NODE_CONFIG": {"key": "NODE_CONFIG", "text": json.dumps(yaml.safe_load(TEXT)), "variable": True},
}


@pytest.mark.parametrize("name", PLACES)
def test_a_config_is_written_where_the_worker_reads_it(lab: Lab, module: ModuleRunner, apply: t.Any, name: str) -> None:
    place = PLACES[name]
    key, text = place.get("key", "local.yaml"), place.get("text", TEXT)
    body = worker("w", "w")
    spec = body["spec"]["template"]["spec"]
    own = spec["containers"][0]
    own["env"] = [{"name": variable, "value": value} for variable, value in place.get("env", {}).items()]
    spec["volumes"] = [{"name": "config", **place.get("volume", {"configMap": {"name": "w"}})}]
    if "directory" in place:
        own["volumeMounts"] = [{"name": "config", "mountPath": place["directory"]}]
    if "variable" in place:
        own["volumeMounts"] = []
        own["env"] = [{"name": "NODE_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "w", "key": "NODE_CONFIG"}}}]
    apply({**config_map("w"), "data": {key: text}}, body)
    asked: dict[str, t.Any] = {"config_map": source(key=key), "legacy_executor": "k8s-vm", "kata_share": "10", "executors": KATA}
    done = module("executor_config", **asked)
    assert done["rolled"]
    assert done["shares"]["k8s-kata"] == 10
    written = read(lab, "configmap", "w")["data"][key]
    section = (json.loads if text.startswith("{") else yaml.safe_load)(written)["executor"]
    assert section["k8s-kata"]["weightage"] == 10
    assert module("executor_config", **asked)["changed"] is False


def test_yaml_that_is_mounted_as_json_is_refused(module: ModuleRunner, apply: t.Any) -> None:
    body = worker("w", "w")
    spec = body["spec"]["template"]["spec"]
    spec["volumes"][0]["configMap"]["items"] = [{"key": "local.yaml", "path": "local.json"}]
    spec["containers"][0]["volumeMounts"][0].update(mountPath=f"{DIRECTORY}/local.json", subPath="local.json")
    apply(config_map("w"), body)
    refused = module("executor_config", config_map=source(), kata_share="10", **SHARE)
    assert refused["msg"].startswith(f"key local.yaml of ConfigMap {NAMESPACE}/w is not valid JSON: unexpected ")


def test_a_worker_that_reads_another_config_is_told_which(module: ModuleRunner, apply: t.Any) -> None:
    apply(config_map("w"), config_map("w-9g2k5d8f7t"), worker("w", "w-9g2k5d8f7t"))
    (notice,) = [found for found in module("executor_config_info", config_map=source())["findings"] if found["code"] == "file_not_mounted"]
    assert f"nowhere, so the worker acts on ConfigMap {NAMESPACE}/w-9g2k5d8f7t: name the config that it mounts" in notice["message"]


# Several workers of one config

WEIGHT = [{"name": "WEIGHT_K8S", "value": "50"}]
SECOND: dict[str, dict[str, t.Any]] = {
    "a StatefulSet": {"kind": "StatefulSet"},
    "a Deployment": {},
    "the same image from a mirror": {"image": "mirror.example/worker:2"},
}


@pytest.mark.parametrize("name", SECOND)
def test_each_worker_of_a_config_gets_the_share(lab: Lab, module: ModuleRunner, apply: t.Any, name: str) -> None:
    more = SECOND[name]
    image = {"image": more["image"].replace(":2", ":1")} if "image" in more else {}
    apply(config_map("w"), worker("w", "w", **image), worker("second", "w", **more))
    kind = more.get("kind", "Deployment")
    asked = {"config_map": source(), "kata_share": "10", **SHARE}
    assert module("executor_config", check=True, **asked)["rolled"] is True
    done = module("executor_config", **asked)
    assert done["changed"]
    assert done["rolled"]
    assert done["shares"]["k8s"] == 10
    (notice,) = [finding for finding in done["findings"] if finding["code"] == "config_shared"]
    assert notice["message"] == (
        f"ConfigMap {NAMESPACE}/w is also read by {kind} {NAMESPACE}/second: its share changes there too, and its pods are replaced as "
        "well."
    )
    assert [read(lab, *each)["metadata"]["generation"] for each in (("deployment", "w"), (kind, "second"))] == [2, 2]
    assert module("executor_config", **asked)["changed"] is False


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("share", ["0", "10"])
def test_a_share_that_another_worker_overrides_fails(lab: Lab, module: ModuleRunner, apply: t.Any, share: str, named: bool) -> None:
    apply(config_map("w"), worker("w", "w"), worker("second", "w", kind="StatefulSet", env=WEIGHT))
    where = source() if named else {"namespace": NAMESPACE, "name": "w"}
    found = module("executor_config_info", config_map=where)
    assert ("workers_apart", f"StatefulSet {NAMESPACE}/second") in codes(found)
    refused = module("executor_config", config_map=where, kata_share=share, **SHARE)
    assert f"kata_share {share} has no effect: StatefulSet {NAMESPACE}/second would send " in refused["msg"]
    assert "because WEIGHT_K8S overrides executor.k8s.weightage" in refused["msg"]
    assert read(lab, "configmap", "w")["data"]["local.yaml"] == TEXT


def test_variables_of_each_worker_are_removed_when_asked(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    apply(config_map("w"), worker("w", "w"), worker("second", "w", env=WEIGHT))
    asked = {"config_map": source(), "kata_share": "10", "override_environment": "remove", **SHARE}
    done = module("executor_config", **asked)
    assert done["removed_variables"] == ["WEIGHT_K8S"]
    assert [code for code, unused in codes(done)] == ["config_shared"]
    assert "env" not in read(lab, "deployment", "second")["spec"]["template"]["spec"]["containers"][0]
    assert module("executor_config", **asked)["changed"] is False


def test_an_immutable_config_is_replaced_for_each_worker(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    apply(config_map("frozen", immutable=True), worker("w", "frozen"), worker("second", "frozen"))
    asked = {"config_map": source("frozen", deployment="w"), "kata_share": "10", **SHARE}
    assert module("executor_config", **asked)["rolled"] is True
    names = {read(lab, "deployment", name)["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] for name in ("w", "second")}
    assert len(names) == 1
    assert "frozen" not in names
    assert module("executor_config", **asked)["changed"] is False
    lab.kubectl("delete", "configmap", *names, "-n", NAMESPACE)


def test_another_program_that_mounts_the_config_is_left_alone(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    apply(config_map("w"), worker("w", "w"), worker("other", "w", image="screwdrivercd/screwdriver:stable", env=WEIGHT))
    done = module("executor_config", config_map=source(), kata_share="10", **SHARE)
    assert done["rolled"]
    assert codes(done) == [("config_shared", f"ConfigMap {NAMESPACE}/w, other workloads")]
    assert read(lab, "deployment", "other")["metadata"]["generation"] == 1


def test_pods_that_keep_an_old_file_are_replaced(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    body = worker("w", "w")
    body["spec"]["replicas"] = 1
    simulated = {"nodeSelector": {"screwdriver.cd/lab": "simulated"}, "tolerations": [{"operator": "Exists"}]}
    body["spec"]["template"]["spec"].update(simulated)
    apply(config_map("w"), body)

    def settled() -> bool:
        found = read(lab, "deployment", "w")
        status = found.get("status", {})
        counts = [status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [1, 1, 1]

    asked = {"config_map": source(), "kata_share": "0", **SHARE}
    wait_until(settled)
    for weight in ("50", "0"):
        # Times in the cluster are whole seconds.
        time.sleep(1.1)
        patch = {"data": {"local.yaml": TEXT.replace("weightage: 0", f"weightage: {weight}")}}
        lab.kubectl("patch", "configmap", "w", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(patch))
    # The file says 0, and the pod still has the text that it started with.
    assert codes(module("executor_config_info", config_map=source())) == [("pods_outdated", f"Deployment {NAMESPACE}/w")]
    with granted(lab, READ) as limited:
        (finding,) = limited("executor_config_info", config_map=source())["findings"]
    assert finding["message"] == (
        f"Deployment {NAMESPACE}/w mounts ConfigMap {NAMESPACE}/w by subPath, and whether its pods still have an older file is unknown, "
        f"since they may not be listed: grant list on pods in namespace {NAMESPACE}."
    )
    done = module("executor_config", **asked)
    assert done["changed"]
    assert done["rolled"]
    assert done["findings"] == []
    wait_until(settled)
    assert module("executor_config_info", config_map=source())["findings"] == []
    assert module("executor_config", **asked)["changed"] is False


def test_a_stateful_set_is_rolled(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    apply(config_map("w"), worker("w", "w", kind="StatefulSet"))
    done = module("executor_config", config_map=source(workload_kind="StatefulSet"), kata_share="10", **SHARE)
    assert done["changed"]
    assert done["rolled"]
    assert read(lab, "statefulset", "w")["metadata"]["generation"] == 2


def test_only_the_workers_container_counts(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    body = worker("w", "w")
    sidecar = {"name": "sidecar", "image": "proxy", "env": [{"name": "WEIGHT_K8S", "value": "50"}]}
    body["spec"]["template"]["spec"]["containers"].insert(0, sidecar)
    apply(config_map("w"), body)
    assert module("executor_config", config_map=source(), kata_share="0", **SHARE)["shares"]["k8s"] == 0
    refused = module("executor_config", config_map=source(container="nobody"), kata_share="0", **SHARE)
    assert refused["msg"] == f"Deployment {NAMESPACE}/w has no container nobody: set config_map.container to one of sidecar and worker."


@pytest.mark.parametrize(("name", "more"), [("frozen", {"immutable": True}), ("cm-7k4294mhbt", {"immutable": True}), ("cm-9g2k5d8f7t", {})])
def test_a_config_that_cannot_change_is_replaced(lab: Lab, module: ModuleRunner, apply: t.Any, name: str, more: dict[str, t.Any]) -> None:
    apply(config_map(name, **more), worker("w", name))
    where = {"namespace": NAMESPACE, "name": name}
    refused = module("executor_config", config_map=where, kata_share="10", **SHARE)
    assert refused["msg"].endswith("so a new one has to be mounted: set config_map.deployment. Nothing was changed.")
    asked = {"config_map": {**where, "deployment": "w"}, **SHARE}
    assert module("executor_config", check=True, kata_share="10", **asked)["changed"] is True
    done = module("executor_config", kata_share="10", **asked)
    assert done["rolled"]
    assert done["shares"]["k8s"] == 10
    assert read(lab, "configmap", name)["data"]["local.yaml"] == TEXT
    mounted = read(lab, "deployment", "w")["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    assert mounted != name
    assert read(lab, "configmap", mounted)["data"]["other"] == "kept"
    assert module("executor_config", kata_share="10", **asked)["changed"] is False
    assert module("executor_config", kata_share="0", **asked)["shares"]["k8s"] == 0
    for made in lab.kubectl("get", "configmap", "-n", NAMESPACE, "-o", "name").split():
        if made.startswith(("configmap/cm-", "configmap/frozen")):
            lab.kubectl("delete", made, "-n", NAMESPACE)


def test_a_config_in_a_secret(lab: Lab, module: ModuleRunner, apply: t.Any) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "w", "namespace": NAMESPACE}, "stringData": {"local.yaml": TEXT}}
    apply(secret, worker("w", "w", source="secret"))
    done = module("executor_config", config_map=source(kind="Secret"), kata_share="10", **SHARE)
    assert done["changed"]
    assert done["rolled"]
    assert done["shares"]["k8s"] == 10
    text = base64.b64decode(read(lab, "secret", "w")["data"]["local.yaml"]).decode()
    assert yaml.safe_load(text)["executor"]["k8s"]["weightage"] == 10
    assert text.startswith("# kept\n")


MOUNTED: dict[str, dict[str, t.Any]] = {
    "a ConfigMap": {},
    "a Secret": {"kind": "Secret"},
    "a ConfigMap with JSON": {"key": "local.json"},
    "a StatefulSet's ConfigMap": {"workload_kind": "StatefulSet"},
}


@pytest.mark.parametrize("name", MOUNTED)
def test_a_worker_with_variables_alone_gets_a_config(lab: Lab, module: ModuleRunner, apply: t.Any, name: str) -> None:
    more = MOUNTED[name]
    variables = [{"name": "EXECUTOR_PLUGIN", "value": "k8s-vm"}, {"name": "K8S_BASE_IMAGE", "value": "hyperctl"}]
    apply(worker("w", kind=more.get("workload_kind", "Deployment"), env=variables))
    asked: dict[str, t.Any] = {"legacy_executor": "k8s-vm", "executors": KATA, "kata_share": "10"}
    assert "does not exist" in module("executor_config", config_map=source(**more), **asked)["msg"]
    where = source(mount=True, **more)
    tried = module("executor_config", check=True, config_map=where, **asked)
    done = module("executor_config", config_map=where, **asked)
    assert done["changed"]
    assert done["rolled"]
    assert done["shares"] == {"k8s-vm": 90.0, "k8s-kata": 10.0}
    assert [tried[key] for key in ("changed", "rolled", "shares")] == [done[key] for key in ("changed", "rolled", "shares")]
    assert module("executor_config", config_map=where, **asked)["changed"] is False
    found = module("executor_config_info", config_map=source(**more))
    assert [finding["severity"] for finding in found["findings"]] == ["warning"]
    assert module("executor_config", config_map=source(**more), legacy_executor="k8s-vm", kata_share="5")["shares"]["k8s-kata"] == 5
    lab.kubectl("delete", more.get("kind", "configmap"), "w", "-n", NAMESPACE)


def test_a_second_config_is_not_mounted_over_the_first(module: ModuleRunner, apply: t.Any) -> None:
    apply(config_map("first"), worker("w", "first"))
    refused = module("executor_config", config_map=source(mount=True), legacy_executor="k8s-vm", executors=KATA)
    assert refused["msg"] == (
        f"config_map.mount: Deployment {NAMESPACE}/w reads ConfigMap {NAMESPACE}/first already: name that one, or remove its mount. "
        "Nothing was changed."
    )


OWNED: dict[str, dict[str, t.Any]] = {
    "Helm release sd": {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"meta.helm.sh/release-name": "sd"}},
    "Argo CD application sd": {"annotations": {"argocd.argoproj.io/tracking-id": "sd:/ConfigMap:field/w"}},
    "Flux Kustomization sd": {"labels": {"kustomize.toolkit.fluxcd.io/name": "sd"}},
}


@pytest.mark.parametrize("owner", OWNED)
def test_a_config_that_is_managed_elsewhere(lab: Lab, module: ModuleRunner, apply: t.Any, owner: str) -> None:
    apply(config_map("w", metadata=OWNED[owner]), worker("w", "w"))
    done = module("executor_config", config_map=source(), kata_share="10", print_patch=True, **SHARE)
    assert done["changed"] is False
    assert read(lab, "configmap", "w")["data"]["local.yaml"] == TEXT
    assert "-    weightage: 0\n+    weightage: 10\n" in done["patch"]
    (notice,) = [finding for finding in done["findings"] if finding["code"] == "managed_elsewhere"]
    assert owner in notice["message"]


def test_a_config_that_is_not_text(module: ModuleRunner, apply: t.Any) -> None:
    apply({**config_map("w"), "data": {}, "binaryData": {"local.yaml": base64.b64encode(TEXT.encode()).decode()}})
    refused = module("executor_config", config_map={"namespace": NAMESPACE, "name": "w"}, kata_share="10", **SHARE)
    assert (
        refused["msg"]
        == f"ConfigMap {NAMESPACE}/w has local.yaml under binaryData, which is not text: move it to data. Nothing was changed."
    )


# Permissions

READ = [
    *(("list", f"{kind}.apps", NAMESPACE) for kind in ("deployments", "statefulsets")),
    ("get", "deployments.apps", NAMESPACE),
    ("get", "configmaps", NAMESPACE),
]
MISSING: dict[str, tuple[list[tuple[str, str, str]], str]] = {
    "to read the worker": ([("get", "configmaps", NAMESPACE)], f"Cannot read Deployment {NAMESPACE}/w: "),
    "to read the config": ([("get", "deployments.apps", NAMESPACE)], f"Cannot read ConfigMap {NAMESPACE}/w: "),
    "to write the config": ([*READ, ("patch", "deployments.apps", NAMESPACE)], f"Cannot patch ConfigMap {NAMESPACE}/w: "),
    "to replace the pods": ([*READ, ("patch", "configmaps", NAMESPACE)], f"Cannot patch Deployment {NAMESPACE}/w: "),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_permission_changes_nothing(lab: Lab, apply: t.Any, name: str) -> None:
    rules, message = MISSING[name]
    apply(config_map("w"), worker("w", "w"))
    with granted(lab, rules) as limited:
        refused = limited("executor_config", config_map=source(), kata_share="10", **SHARE)
    assert refused["msg"].startswith(f"{message}not allowed (403). Grant the permission or use other credentials: ")
    assert read(lab, "configmap", "w")["data"]["local.yaml"] == TEXT
    assert read(lab, "deployment", "w")["metadata"]["generation"] == 1


def test_the_permissions_that_it_needs(lab: Lab, apply: t.Any) -> None:
    apply(config_map("w"), worker("w", "w"))
    with granted(lab, [*READ[2:], ("patch", "configmaps", NAMESPACE), ("patch", "deployments.apps", NAMESPACE)]) as limited:
        done = limited("executor_config", config_map=source(), kata_share="10", **SHARE)
    assert done["changed"]
    assert done["rolled"]


@pytest.mark.parametrize(("share", "written"), [("10", False), ("0", True)])
def test_a_worker_whose_pods_may_not_be_replaced(lab: Lab, apply: t.Any, share: str, written: bool) -> None:
    text = TEXT.replace("weightage: 0", "weightage: 50")
    apply(config_map("w", text), worker("w", "w"), worker("second", "w"))
    with granted(lab, [*READ, ("patch", "configmaps", NAMESPACE)]) as limited:
        limit = {"resourceNames": ["w"], "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}
        meta = {"name": "only-w", "namespace": NAMESPACE}
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "only-w"}
        subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "limited"}
        apply({**rbac, "kind": "Role", "rules": [limit]}, {**rbac, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]})
        can = ("auth", "can-i", "patch", "deployments.apps/w", "-n", NAMESPACE, "--as=limited")
        wait_until(lambda: lab.kubectl(*can).strip() == "yes")
        refused = limited("executor_config", config_map=source(), kata_share=share, **SHARE)
    assert refused["msg"].startswith(f"Cannot patch Deployment {NAMESPACE}/second: not allowed (403).")
    assert (read(lab, "configmap", "w")["data"]["local.yaml"] != text) is written
    assert [read(lab, "deployment", name)["metadata"]["generation"] for name in ("w", "second")] == [2 if written else 1, 1]
