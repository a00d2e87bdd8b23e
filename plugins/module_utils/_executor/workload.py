# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The worker's Deployment or StatefulSet: which variables its container has, and whether the config reaches it."""

from __future__ import annotations

import posixpath
import re
import typing as t
from copy import deepcopy
from dataclasses import dataclass, replace

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Unknown
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

IMAGE = "buildcluster-queue-worker"
# Those of node-config's files, in its order, and those that are read here.
EXTENSIONS = ("js", "cjs", "ts", "json", "json5", "hjson", "toml", "coffee", "iced", "yaml", "yml", "cson", "properties", "xml")
READABLE = (".yaml", ".yml", ".json", ".json5")
CONFIG_DIRECTORY = "/usr/src/app/node_modules/screwdriver-buildcluster-queue-worker/config"
# The suffix that kustomize and kubernetes.core give a name.
_HASH = re.compile(r"-[2456789bcdfghkmt]{10}$")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
# Variables that the kubelet adds for each Service, before those of the container.
_SERVICE_VARIABLE = re.compile(r"[A-Z0-9_]+_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)")
Object = dict[str, t.Any]


@dataclass
class Config:
    """The object that holds the file. kind: ConfigMap or Secret."""

    kind: str
    namespace: str
    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass
class Mount:
    """Where a container has the file. sub_path: a running pod keeps the content that it started with."""

    path: str
    sub_path: bool


def pod_spec(workload: Object) -> Object:
    return workload["spec"]["template"]["spec"]


def title(workload: Object) -> str:
    return f"{workload['kind']} {workload['metadata']['namespace']}/{workload['metadata']['name']}"


def container_of(workload: Object, config: Config, wanted: str | None) -> Object:
    """The worker's container: the one that is named, the only one, the one with the worker's image, or the one that has the file.

    Raises:
        UserError: none or several could be it.
    """
    containers = pod_spec(workload).get("containers") or []
    if wanted:
        found = [container for container in containers if container["name"] == wanted]
    else:
        found = containers if len(containers) == 1 else [item for item in containers if IMAGE in item.get("image", "")]
        if len(found) != 1:
            found = [item for item in containers if mounts_of(workload, item, config)]
    if len(found) == 1:
        return found[0]
    names = join_names([container["name"] for container in containers])
    asked = f"has no container {wanted}" if wanted else "has several containers that could be the worker"
    raise UserError(f"{title(workload)} {asked}: set config_map.container to one of {names}.")


def mounts_of(workload: Object, container: Object, config: Config) -> list[Mount]:
    """Every place where a container has the key of the config as a file."""
    result = []
    files = {volume["name"]: file for volume in pod_spec(workload).get("volumes") or [] if (file := _file_in(volume, config)) is not None}
    for mount in container.get("volumeMounts") or []:
        file = files.get(mount["name"])
        if file is None:
            continue
        if path := path_in(mount, file):
            result.append(Mount(path, bool(mount.get("subPath") or mount.get("subPathExpr"))))
    return result


def path_in(mount: Object, file: str) -> str | None:
    """Where a mount has a file of its volume, None where it does not have it."""
    sub_path = mount.get("subPath") or mount.get("subPathExpr")
    if not sub_path:
        return posixpath.join(mount["mountPath"], file)
    if posixpath.normpath(sub_path) == file:
        return mount["mountPath"]
    if file.startswith(f"{posixpath.normpath(sub_path)}/"):
        return posixpath.join(mount["mountPath"], posixpath.relpath(file, sub_path))
    return None


def _file_in(volume: Object, config: Config) -> str | None:
    """The path of the config's key in a volume, None where the volume does not hold it."""
    candidates = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for candidate in candidates:
        source = candidate.get("configMap" if config.kind == "ConfigMap" else "secret")
        if not source or (source.get("name") or source.get("secretName")) != config.name:
            continue
        items = source.get("items")
        if not items:
            return config.key
        for item in items:
            if item["key"] == config.key:
                return posixpath.normpath(item["path"])
    return None


def config_directories(container: Object, environment: Environment) -> list[str] | None:
    """The directories that the worker reads config files from, None where they cannot be known.

    One that is relative to the working directory of an image that is not Screwdriver's stays relative.
    """
    value = environment.get("NODE_CONFIG_DIR")
    if isinstance(value, Unknown):
        return None
    own = posixpath.dirname(CONFIG_DIRECTORY) if IMAGE in container.get("image", "") else ""
    working = container.get("workingDir") or own
    return [posixpath.normpath(posixpath.join(working, path)) for path in (value or "config").split(":") if path]


def file_names(environment: Environment) -> dict[str, int]:
    """The names of the files that node-config reads; of two files, the one with the higher number wins."""
    deployment = environment.get("NODE_CONFIG_ENV") or environment.get("NODE_ENV") or "development"
    parts = deployment.split(",") if isinstance(deployment, str) else []
    host = environment.get("HOST") or environment.get("HOSTNAME")
    hosts = dict.fromkeys((host.split(".")[0], host)) if isinstance(host, str) else {}
    instance = environment.get("NODE_APP_INSTANCE")
    stems = ["default", *parts, *(stem for part in parts for name in hosts for stem in (name, f"{name}-{part}"))]
    stems += [stem for part in parts for stem in ("local", f"local-{part}")] or ["local"]
    names = [
        f"{stem}{more}.{extension}"
        for stem in stems
        for extension in EXTENSIONS
        for more in ("", *([f"-{instance}"] if isinstance(instance, str) else []))
    ]
    return {name: number for number, name in enumerate(names)}


def place_of(directory: str, directories: list[str] | None) -> int | None:
    """The number of a directory among the config directories, None where it is none of them."""
    if directories is None:
        return 0
    for number, path in reversed(list(enumerate(directories))):
        if directory == path or (not path.startswith("/") and directory.endswith(f"/{path}")):
            return number
    return None


def is_read(mount: Mount, container: Object, environment: Environment) -> bool:
    """Whether node-config reads a file at this place, and this module can."""
    directory, file = posixpath.split(posixpath.normpath(mount.path))
    if file not in file_names(environment) or posixpath.splitext(file)[1] not in READABLE:
        return False
    return place_of(directory, config_directories(container, environment)) is not None


def read_instead(workload: Object, container: Object, config: Config, environment: Environment) -> list[str]:
    """What the worker reads in place of a config that it does not mount: other objects with the same key."""
    kind = "configMap" if config.kind == "ConfigMap" else "secret"
    found = []
    for volume in pod_spec(workload).get("volumes") or []:
        for candidate in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            source = candidate.get(kind) or {}
            other = replace(config, name=source.get("name") or source.get("secretName") or "")
            if any(is_read(mount, container, environment) for mount in mounts_of(workload, container, other)) and str(other) not in found:
                found.append(str(other))
    return found


def is_worker(container: Object, named: Object | None) -> bool:
    """Whether a container runs the queue worker: its image, or the one of the container that is known to."""
    image = container.get("image", "")
    return IMAGE in image or (named is not None and _repository(image) == _repository(named.get("image", "")))


def _repository(image: str) -> str:
    """An image without its tag and digest."""
    name = image.partition("@")[0]
    return name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]


def is_settled(workload: Object) -> bool:
    """Whether no pod of a workload is about to be replaced already."""
    status = workload.get("status") or {}
    replicas = status.get("replicas", 0)
    return status.get("observedGeneration") == workload["metadata"].get("generation") and status.get("updatedReplicas", 0) == replicas


def stale_pods(pods: t.Iterable[Object], container: Object, config: Object) -> list[str]:
    """The pods whose container started before the content of a config was written last."""
    times = [entry.get("time", "") for entry in config["metadata"].get("managedFields") or [] if "f:data" in (entry.get("fieldsV1") or {})]
    changed = max(times, default="")
    found = []
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            started = ((status.get("state") or {}).get("running") or {}).get("startedAt", "")
            if status["name"] == container["name"] and "" < started < changed:
                found.append(f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return found


def shipped_directories(container: Object) -> set[str]:
    """Where the worker's own config directory is, or can be in an image that is not Screwdriver's."""
    if IMAGE in container.get("image", ""):
        return {CONFIG_DIRECTORY}
    return {CONFIG_DIRECTORY, posixpath.join(container.get("workingDir") or "", "config")}


def hides_shipped(container: Object, environment: Environment) -> bool:
    """Whether the worker's own config directory, with its default.yaml and its map of variables, is out of its sight."""
    shipped = shipped_directories(container)
    directories = config_directories(container, environment)
    if directories is not None and shipped.isdisjoint(directories):
        return True
    return any(
        posixpath.normpath(mount["mountPath"]) in shipped and not mount.get("subPath") for mount in container.get("volumeMounts") or []
    )


def is_node_config(container: Object, config: Config) -> bool:
    """Whether the key of the config is the container's NODE_CONFIG instead of a file."""
    kind = "configMapKeyRef" if config.kind == "ConfigMap" else "secretKeyRef"
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get(kind) or {}
        if variable["name"] == worker.NODE_CONFIG and (reference.get("name"), reference.get("key")) == (config.name, config.key):
            return True
    return False


def owners(body: Object) -> list[str]:
    """Who writes an object again at the next sync: releases and applications of Helm, Argo CD and Flux."""
    labels, notes = (body["metadata"].get(key) or {} for key in ("labels", "annotations"))
    found = []
    if labels.get("app.kubernetes.io/managed-by") == "Helm" or "meta.helm.sh/release-name" in notes:
        found.append(f"Helm release {notes.get('meta.helm.sh/release-name', labels.get('app.kubernetes.io/instance', '?'))}")
    application = notes.get("argocd.argoproj.io/tracking-id", "").split(":")[0] or labels.get("argocd.argoproj.io/instance")
    if application:
        found.append(f"Argo CD application {application}")
    for label, kind in (("kustomize.toolkit.fluxcd.io/name", "Kustomization"), ("helm.toolkit.fluxcd.io/name", "HelmRelease")):
        if label in labels:
            found.append(f"Flux {kind} {labels[label]}")
    return found


def is_replaced(body: Object) -> bool:
    """Whether a new content needs a new object: an immutable one, or one with the hash of its content in its name."""
    return bool(body.get("immutable")) or bool(_HASH.search(body["metadata"]["name"]))


def base_name(name: str) -> str:
    """A name without the hash of a content."""
    return _HASH.sub("", name)


# Variables


class EnvironmentReader:
    """Reads the variables of a container, and what they are taken from."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._objects: dict[tuple[str, str], Object | None | Unknown] = {}

    def read(self, container: Object) -> Environment:
        environment = Environment()
        for entry in container.get("envFrom") or []:
            self._take_all(environment, entry)
        for variable in container.get("env") or []:
            name = variable["name"]
            environment.sources.pop(name, None)
            if "valueFrom" not in variable:
                environment.values[name] = _expanded(variable.get("value") or "", environment)
                continue
            value, source = self._value(variable["valueFrom"], name)
            environment.sources[name] = source
            if value is None:
                environment.values.pop(name, None)
            else:
                environment.values[name] = value
        return environment

    def _take_all(self, environment: Environment, entry: Object) -> None:
        kind = "Secret" if "secretRef" in entry else "ConfigMap"
        reference = entry.get("secretRef") or entry.get("configMapRef") or {}
        source = f"{kind} {self._namespace}/{reference.get('name')}"
        body = self.get(kind, reference.get("name", ""))
        if isinstance(body, Unknown):
            environment.unread.append(source)
            return
        for key, value in ((body or {}).get("data") or {}).items():
            name = f"{entry.get('prefix', '')}{key}"
            environment.values[name] = Unknown(f"{source}, key {key}") if kind == "Secret" else value
            environment.sources[name] = source

    def _value(self, source: Object, name: str) -> tuple[str | Unknown | None, str]:
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if reference := source.get(field):
                return self._key_value(kind, reference)
        path = (source.get("fieldRef") or {}).get("fieldPath", "")
        if path == "metadata.namespace":
            return self._namespace, "the pod's namespace"
        what = f"the pod's {path}" if path else "the pod's resources"
        return Unknown(what), what

    def _key_value(self, kind: str, reference: Object) -> tuple[str | Unknown | None, str]:
        name, key = reference.get("name", ""), reference["key"]
        source = f"{kind} {self._namespace}/{name}"
        body = self.get(kind, name)
        if isinstance(body, Unknown):
            return body, source
        data = (body or {}).get("data") or {}
        if key not in data:
            return (None if reference.get("optional") else Unknown(f"{source}, which has no key {key}")), source
        return (Unknown(f"{source}, key {key}") if kind == "Secret" else data[key]), source

    def get(self, kind: str, name: str) -> Object | None | Unknown:
        """An object, None where it does not exist, Unknown where it may not be read."""
        if (kind, name) not in self._objects:
            try:
                self._objects[kind, name] = self._cluster.get(kind, name, self._namespace)
            except ClusterError as exc:
                if exc.status != 403:
                    raise
                self._objects[kind, name] = Unknown(f"{kind} {self._namespace}/{name}, which may not be read")
        return self._objects[kind, name]


def _expanded(text: str, environment: Environment) -> str | Unknown:
    """A value with the variables that it names, as the kubelet expands it."""
    unknown: list[Unknown] = []

    def expand(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        value: str | Unknown = environment.values.get(found[1], found[0])
        if found[1] not in environment.values and _SERVICE_VARIABLE.fullmatch(found[1]):
            value = Unknown(f"the pod's variable {found[1]} of a Service")
        if isinstance(value, Unknown):
            unknown.append(value)
            return ""
        return value

    result = _REFERENCE.sub(expand, text)
    return unknown[0] if unknown else result


# Changes of the pod template


def without_variables(workload: Object, container: Object, remove: worker.Removal, environment: Environment) -> Object:
    """A copy of the workload in which these variables no longer override the file.

    A variable that comes with a whole ConfigMap or Secret is set to nothing, which counts as not set. Of NODE_CONFIG only the keys
    are removed.

    Raises:
        UserError: NODE_CONFIG is taken from elsewhere.
    """
    copy = deepcopy(workload)
    target = next(item for item in pod_spec(copy)["containers"] if item["name"] == container["name"])
    for name, keys in remove.items():
        written = [variable for variable in target.get("env") or [] if variable["name"] == name]
        if name == worker.NODE_CONFIG:
            if not written or "value" not in written[-1]:
                raise UserError(
                    f"NODE_CONFIG of {title(workload)} is taken from {environment.sources.get(name)}: remove its executor keys there. "
                    "Nothing was changed."
                )
            try:
                config = worker.parse_node_config(written[-1]["value"])
            except ValueError as exc:
                raise UserError(
                    f"NODE_CONFIG of {title(workload)} is JSON only with its variables expanded: remove its executor keys there. "
                    "Nothing was changed."
                ) from exc
            written[-1]["value"] = worker.without_keys(config, keys)
            continue
        target["env"] = [variable for variable in target.get("env") or [] if variable["name"] != name]
        if name in environment.values and not written:
            target["env"].append({"name": name, "value": ""})
    return copy


def repointed(workload: Object, config: Config, name: str) -> None:
    """Makes the volumes and variables of a workload that name a config name another one. In place."""
    kinds = ("configMap", "configMapKeyRef", "configMapRef") if config.kind == "ConfigMap" else ("secret", "secretKeyRef", "secretRef")

    def visit(value: t.Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in kinds and isinstance(item, dict):
                    for field in ("name", "secretName"):
                        if item.get(field) == config.name:
                            item[field] = name
                visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(pod_spec(workload))


def mounted(workload: Object, container: Object, config: Config) -> None:
    """Mounts a config over the worker's local file. In place."""
    spec = pod_spec(workload)
    target = next(item for item in spec["containers"] if item["name"] == container["name"])
    volume = "kata-executor-config"
    source = {"configMap": {"name": config.name}} if config.kind == "ConfigMap" else {"secret": {"secretName": config.name}}
    spec["volumes"] = [item for item in spec.get("volumes") or [] if item["name"] != volume] + [{"name": volume, **source}]
    extension = posixpath.splitext(config.key)[1]
    extension = extension if extension in READABLE else ".yaml"
    mount = {"name": volume, "mountPath": f"{CONFIG_DIRECTORY}/local{extension}", "subPath": config.key}
    target["volumeMounts"] = [item for item in target.get("volumeMounts") or [] if item["name"] != volume] + [mount]
