# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The config files that the worker reads from its volumes, in the order in which its node-config (3.3) merges them."""

from __future__ import annotations

import base64
import posixpath
import typing as t
from copy import deepcopy
from dataclasses import dataclass, field, replace

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import tree, worker, workload
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Unknown
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.workload import Config, EnvironmentReader, Object

VARIABLES = "custom-environment-variables"


class Layer(t.NamedTuple):
    """One file. section: its executor section, None for the managed config."""

    title: str
    section: dict[str, t.Any] | None


@dataclass
class Layers:
    """What the worker merges.

    Attributes:
        files: Below NODE_CONFIG; of two files, the later one wins.
        over: Above the variables.
        variables: Whether the worker has its own map of variables.
        unknown: (file, what to do) of each one whose executor section cannot be known.
    """

    files: list[Layer] = field(default_factory=list)
    over: list[Layer] = field(default_factory=list)
    variables: bool = True
    unknown: list[tuple[str, str]] = field(default_factory=list)

    def section(self, managed: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """The executor section of all files, with this one of the managed config."""
        result: dict[str, t.Any] = {}
        for layer in self.files:
            result = worker.merged(result, managed if layer.section is None else layer.section)
        return result

    def below(self, managed: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """The executor section of the managed config over the files that it overrides."""
        return replace(self, files=self.files[: self._place() + 1]).section(managed)

    def effective(self, managed: t.Mapping[str, t.Any], environment: Environment) -> dict[str, t.Any]:
        """The executor section that the worker acts on."""
        result = worker.with_environment(self.section(managed), environment, self.variables)
        for layer in self.over:
            result = worker.merged(result, layer.section or {})
        if self.unknown:
            result["plugin"] = Unknown(self.unknown[0][0])
        return result

    def overriding(self) -> list[Layer]:
        """The files that win over the managed config."""
        return [*self.files[self._place() + 1 :], *self.over]

    def _place(self) -> int:
        """The number of the managed config; where the worker reads it twice, the last one."""
        return max(number for number, layer in enumerate(self.files) if layer.section is None)


SHIPPED = Layer("its default.yaml", worker.SHIPPED)


def managed_alone() -> Layers:
    """The managed config over the worker's own default.yaml."""
    return Layers([SHIPPED, Layer("", None)])


def _is_in(path: str, directory: str) -> bool:
    """Whether a path is a directory or below it."""
    return path == directory or path.startswith(f"{directory}/")


class _File(t.NamedTuple):
    """What a path in the container is. kind: ConfigMap, Secret or volume; key: None where anything can be at and below the path."""

    kind: str
    name: str
    key: str | None


class LayerReader:
    """Finds the config files of a container."""

    def __init__(self, body: Object, container: Object, environment: Environment, managed: Config, objects: EnvironmentReader) -> None:
        self._body, self._container, self._environment = body, container, environment
        self._managed, self._objects = managed, objects
        self._directories = workload.config_directories(container, environment)
        self._order = workload.file_names(environment)
        self._unknown: list[tuple[str, str]] = []

    def read(self) -> Layers:
        found = self._mounted()
        hidden = workload.hides_shipped(self._container, self._environment)
        ranked: list[tuple[int, int, Layer]] = []
        mapped: list[tuple[int, int, Layer]] = []
        if not hidden and not self._is_replaced("default.yaml", found):
            ranked.append((self._order["default.yaml"], self._shipped_place(), SHIPPED))
        for path, file in found.items():
            directory, name = posixpath.split(path)
            stem, extension = posixpath.splitext(name)
            place = workload.place_of(directory, self._directories)
            if file.key is None and self._may_hold(path, place, name):
                self._unknown.append((f"{file.kind} {file.name} at {path}", _ADVICE.get(file.kind, _ADVICE["Secret"])))
            elif file.key is None or place is None:
                continue
            elif name in self._order:
                ranked.append((self._order[name], place, self._layer(file, path)))
            elif stem == VARIABLES and extension[1:] in workload.EXTENSIONS:
                mapped.append((workload.EXTENSIONS.index(extension[1:]), place, self._mapping(file, path)))
            elif extension[1:] in workload.EXTENSIONS and self._may_be_read(stem) and (layer := self._layer(file, path)).section:
                self._unknown.append((layer.title, "remove its executor section"))
        layers = Layers(unknown=self._unknown, variables=not hidden and not self._is_replaced(f"{VARIABLES}.yaml", found))
        layers.files = [layer for unused, unused, layer in sorted(ranked, key=lambda item: item[:2])]
        if all(layer.section is not None for layer in layers.files):
            # It is NODE_CONFIG, or read by no one.
            layers.files.append(Layer("", None))
        layers.over = [layer for unused, unused, layer in sorted(mapped, key=lambda item: item[:2])]
        if (runtime := self._runtime()) and (last := found.get(runtime)) and last.key is not None:
            layers.over.append(self._layer(last, runtime))
        return layers

    def is_managed(self, path: str) -> bool:
        """Whether a path is the managed config, and nothing is mounted over it."""
        return self._mounted().get(posixpath.normpath(path)) == _File(self._managed.kind, self._managed.name, self._managed.key)

    # What is where

    def _is_replaced(self, name: str, found: t.Mapping[str, _File]) -> bool:
        return any(posixpath.join(directory, name) in found for directory in workload.shipped_directories(self._container))

    def _shipped_place(self) -> int:
        shipped = workload.shipped_directories(self._container)
        return next((number for number, directory in enumerate(self._directories or []) if directory in shipped), 0)

    def _may_hold(self, path: str, place: int | None, name: str) -> bool:
        """Whether a volume of unknown content at a path can have a config file: it is one, or a config directory is in it."""
        if place is not None and (name in self._order or name.startswith(f"{VARIABLES}.")):
            return True
        tops = [posixpath.normpath(mount["mountPath"]) for mount in self._container.get("volumeMounts") or []]
        owners = (max((top for top in tops if _is_in(directory, top)), key=len, default="") for directory in self._directories or [])
        return path in owners or workload.place_of(path, self._directories) is not None

    def _matters(self, top: str) -> bool:
        """Whether a mount can have a config file. Others are not looked into: a Secret may be none of our business."""
        if self._directories is None or workload.place_of(top, self._directories) is not None:
            return True
        runtime = self._runtime()
        if workload.place_of(posixpath.dirname(top), self._directories) is not None or (runtime and _is_in(runtime, top)):
            return True
        return any(_is_in(directory, top) for directory in self._directories)

    def _may_be_read(self, stem: str) -> bool:
        """Whether node-config can read a file whose name depends on what is unknown: the environment, or the pod's name."""
        if any(isinstance(self._environment.get(name), Unknown) for name in ("NODE_CONFIG_ENV", "NODE_ENV", "HOST", "HOSTNAME")):
            return True
        named = self._environment.get("HOST") or self._environment.get("HOSTNAME")
        return not named and stem.startswith(f"{self._body['metadata']['name']}-")

    def _runtime(self) -> str | None:
        """The file that wins over all others, which only a single directory can have."""
        path = self._environment.get("NODE_CONFIG_RUNTIME_JSON")
        if isinstance(path, str):
            return posixpath.normpath(path)
        if path or self._directories is None or len(self._directories) != 1:
            return None
        return posixpath.join(self._directories[0], "runtime.json")

    def _mounted(self) -> dict[str, _File]:
        """Every file that the container has from its volumes; what is mounted deeper hides what it is mounted over."""
        volumes = {volume["name"]: volume for volume in workload.pod_spec(self._body).get("volumes") or []}
        found: dict[str, _File] = {}
        mounts = {posixpath.normpath(mount["mountPath"]): mount for mount in self._container.get("volumeMounts") or []}
        for top in sorted(filter(self._matters, mounts), key=lambda path: path.count("/")):
            mount = mounts[top]
            found = {path: file for path, file in found.items() if not _is_in(path, top)}
            for name, file in self._files_of(volumes.get(mount["name"], {"name": mount["name"]})).items():
                path = top if name == "" else workload.path_in(mount, name)
                if path is not None:
                    found[posixpath.normpath(path)] = file
        return found

    def _files_of(self, volume: Object) -> dict[str, _File]:
        """What a volume has, by path; an empty path where that cannot be known."""
        sources = [volume] if "projected" not in volume else (volume["projected"] or {}).get("sources") or []
        found: dict[str, _File] = {}
        for source in sources:
            kind = "ConfigMap" if "configMap" in source else "Secret" if "secret" in source else ""
            own = source.get("configMap") or source.get("secret") or {}
            name = own.get("name") or own.get("secretName") or ""
            if kind and own.get("items"):
                found.update({posixpath.normpath(item["path"]): _File(kind, name, item["key"]) for item in own["items"]})
            elif kind:
                keys = self._keys(kind, name)
                found.update({"": _File(kind, name, None)} if keys is None else {key: _File(kind, name, key) for key in keys})
            elif not {"downwardAPI", "serviceAccountToken", "clusterTrustBundle"} & source.keys():
                found[""] = _File("volume", volume["name"], None)
        return found

    def _keys(self, kind: str, name: str) -> list[str] | None:
        body = self._objects.get(kind, name)
        own = [self._managed.key] if (kind, name) == (self._managed.kind, self._managed.name) else []
        if isinstance(body, Unknown):
            return own or None
        return [*own, *((body or {}).get("data") or {}), *((body or {}).get("binaryData") or {})]

    # What is in it

    def _layer(self, file: _File, path: str) -> Layer:
        title = f"key {file.key} of {Config(file.kind, self._managed.namespace, file.name, '')}"
        if file == _File(self._managed.kind, self._managed.name, self._managed.key):
            return Layer(title, None)
        section = self._document(file, path, title).get("executor")
        if file.kind == "Secret" and section:
            self._unknown.append((title, _ADVICE["Secret"]))
        return Layer(title, section if isinstance(section, dict) and file.kind != "Secret" else {})

    def _mapping(self, file: _File, path: str) -> Layer:
        """What a map of variables sets."""
        layer = self._layer(file, path)
        return Layer(layer.title, _substituted(layer.section or {}, self._environment))

    def _document(self, file: _File, path: str, title: str) -> t.Mapping[str, t.Any]:
        """The content of a file, empty where it does not exist or is unknown."""
        extension = posixpath.splitext(path)[1]
        body = self._objects.get(file.kind, file.name)
        if isinstance(body, Unknown):
            self._unknown.append((title, f"grant get on {Config(file.kind, self._managed.namespace, file.name, '')}"))
            return {}
        data = (body or {}).get("data") or {}
        if file.key not in data and file.key not in ((body or {}).get("binaryData") or {}):
            return {}
        if extension not in workload.READABLE or file.key not in data:
            self._unknown.append((title, "write it as YAML or JSON, in data"))
            return {}
        try:
            text = base64.b64decode(data[file.key]).decode() if file.kind == "Secret" else data[file.key]
            return Document(text, title, extension in (".json", ".json5")).plain()
        except (UserError, UnicodeDecodeError):
            self._unknown.append((title, "it cannot be parsed, so fix it"))
            return {}


_ADVICE = {"Secret": "remove its executor section", "ConfigMap": "grant get on it", "volume": "mount config files from a ConfigMap"}


def _substituted(mapping: t.Mapping[str, t.Any], environment: Environment) -> dict[str, t.Any]:
    """A map of variables with their values; one that is not set leaves its key out."""
    result: dict[str, t.Any] = {}
    for key, name in mapping.items():
        own = name.get("__name") if isinstance(name, dict) and "__format" in name else name
        value: t.Any = environment.get(own) if isinstance(own, str) and own in environment.values else None
        if isinstance(value, str) and isinstance(name, dict) and name["__format"] in ("json", "json5"):
            try:
                value = tree.construct(tree.parse_json(value))
            except tree.TreeError:
                value = Unknown(f"{own}, which is not JSON")
        elif value is None and isinstance(name, dict):
            value = _substituted(name, environment) or None
        if value is not None:
            result[key] = value
    return result


def with_mount(body: Object, container: Object, config: Config) -> tuple[Object, Object]:
    """A workload and its container once they mount the config."""
    copy = deepcopy(body)
    target = next(item for item in workload.pod_spec(copy)["containers"] if item["name"] == container["name"])
    workload.mounted(copy, target, config)
    return copy, target
