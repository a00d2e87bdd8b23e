# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Where the worker's config is kept, a file, a ConfigMap or a Secret, and how a new content gets there."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import tempfile
import typing as t
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import files, findings, worker, workload
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Removal
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.workload import Config, Object
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.core import AnsibleK8SModule

DIGEST_ANNOTATION = "kata.screwdriver.cd/config-digest"
# On a copy that replaced an immutable or hash-named object: the name that the user gives.
ORIGIN_ANNOTATION = "kata.screwdriver.cd/config-origin"
JSON_ENDINGS = (".json", ".json5")
_HASH_LETTERS = "2456789bcdfghkmt"

SOURCE_OPTIONS: dict[str, dict[str, t.Any]] = {
    "path": {"type": "path"},
    "config_map": {
        "type": "dict",
        "options": {
            "namespace": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "key": {"type": "str", "default": "local.yaml", "no_log": False},
            "kind": {"type": "str", "choices": ["ConfigMap", "Secret"], "default": "ConfigMap"},
            "deployment": {"type": "str"},
            "workload_kind": {"type": "str", "choices": ["Deployment", "StatefulSet"], "default": "Deployment"},
            "container": {"type": "str"},
            "mount": {"type": "bool", "default": False},
        },
    },
}


class Notice(t.NamedTuple):
    """A notice about a source; see the findings."""

    code: str
    severity: str
    path: str
    message: str


class Source:
    """A config and the worker that reads it.

    Attributes:
        where: Its name in messages.
        is_json: Whether node-config reads it as JSON5.
        environment: The variables of the worker's container.
        shipped: Whether the worker has its own default.yaml below the file.
        read_by_worker: False where the worker does not read the config at all.
        read_after: Whether the worker reads the config once it is written.
        worker: The worker's name in messages.
        workload: Its kind and name, where its pods are replaced.
        peers: Other workers that read the same config, each as a source of its own.
        notices: Notices about the place.
        backup_file: The copy that was kept.
    """

    where: str
    is_json = False
    shipped = True
    read_by_worker = True
    worker = "the worker"
    workload: dict[str, str] | None = None
    peers: t.Sequence[Source] = ()
    backup_file: str | None = None

    def __init__(self) -> None:
        self.environment = Environment()
        self.layers = files.managed_alone()
        self.notices: list[Notice] = []

    @property
    def read_after(self) -> bool:
        return self.read_by_worker

    def effective(
        self, document: t.Mapping[str, t.Any], environment: Environment | None = None, as_if_read: bool = False
    ) -> dict[str, t.Any]:
        """The executor section that the worker acts on, with this document in the place."""
        section = document.get("executor")
        section = section if isinstance(section, dict) and (self.read_by_worker or as_if_read) else {}
        return self.layers.effective(section, environment or self.environment)

    def with_files(self, document: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """The document with the executor sections of the worker's other files."""
        section = document.get("executor")
        if not self.read_by_worker or not (section is None or isinstance(section, dict)):
            return dict(document)
        others = replace(self.layers, files=[layer for layer in self.layers.files if layer is not files.SHIPPED])
        merged = others.section(section or {})
        return {**document, "executor": merged} if merged else dict(document)

    def overriding(self, document: t.Mapping[str, t.Any]) -> Iterator[tuple[str, list[str]]]:
        """(file, keys) of each other file of the worker that sets keys of the document's executor section."""
        section = document.get("executor")
        for layer in self.layers.overriding():
            keys = []
            for key in findings.leaves(layer.section or {}):
                same = worker.lookup(layer.section, key) == worker.lookup(section, key) and not key.endswith(".weightage")
                if findings.overrides(key, section if isinstance(section, dict) else {}) and not same:
                    keys.append(key)
            if keys:
                yield layer.title, keys

    def require_permission(self) -> None:
        """Refuses where the worker's pods may not be replaced."""

    def require_removable(self, remove: Removal) -> None:
        """Refuses variables that cannot be removed from the worker's workload."""

    def read(self) -> str:
        raise NotImplementedError

    def update(self, edit: Callable[[str], str], write: bool, remove: Removal | None = None) -> tuple[str, str, bool]:
        """Reads, edits and replaces the content as one step.

        Args:
            edit: The new content for a content.
            write: False in check mode.
            remove: Variables that are to be removed from the worker; of NODE_CONFIG, only the keys.

        Returns:
            The content before and after, and whether the worker's pods are replaced.
        """
        raise NotImplementedError


class FileSource(Source):
    """A config in a file. A directory lock makes two writers take turns and leaves nothing behind."""

    def __init__(self, module: AnsibleK8SModule, path: str, backup: bool = False) -> None:
        super().__init__()
        self._module, self._path, self._backup = module._module, os.path.realpath(path), backup
        self.where = f"path {path}"
        self.is_json = path.endswith(JSON_ENDINGS)
        if not os.path.isfile(self._path):
            raise UserError(f"path {path} is not a file: name the worker's YAML file, for example its local.yaml.")

    def read(self) -> str:
        try:
            with open(self._path, "rb") as stream:
                return _decoded(stream.read(), self.where)
        except OSError as exc:
            raise UserError(f"{self.where} cannot be read: {exc.strerror}. Nothing was changed.") from exc

    def update(self, edit: Callable[[str], str], write: bool, remove: Removal | None = None) -> tuple[str, str, bool]:
        with self._locked():
            before = self.read()
            after = edit(before)
            if write and after != before:
                self._write(after)
            return before, after, False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            directory = os.open(os.path.dirname(self._path), os.O_RDONLY)
        except OSError as exc:
            raise UserError(
                f"{self.where} cannot be locked, in directory {os.path.dirname(self._path)}: {exc.strerror}. Nothing was changed."
            ) from exc
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _write(self, text: str) -> None:
        if self._backup:
            self.backup_file = self._module.backup_local(self._path)
        directory = os.path.dirname(self._path)
        try:
            number, draft = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(self._path)}.")
            self._module.add_cleanup_file(draft)
            with os.fdopen(number, "wb") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as exc:
            raise UserError(f"{self.where} cannot be written, in directory {directory}: {exc.strerror}. Nothing was changed.") from exc
        self._module.atomic_move(draft, self._path)


class ConfigMapSource(Source):
    """A config in a key of a ConfigMap or Secret; with a workload, its pods are replaced when the content changed."""

    def __init__(self, module: AnsibleK8SModule, options: t.Mapping[str, t.Any], peer: Object | None = None) -> None:
        """peer: the workload as it was listed, where it is not the one that the user names and reads the same config."""
        super().__init__()
        self._cluster, self._trial = Cluster(module), Cluster(module, dry_run=True)
        self._named = Config(options["kind"], options["namespace"], options["name"], options["key"])
        self._workload_name, self._workload_kind = options["deployment"], options["workload_kind"]
        self._container_name, self._mount = options["container"], options["mount"]
        self._is_stale = self._is_node_config = False
        self.is_json = self._named.key.endswith(JSON_ENDINGS)
        if self._workload_name:
            self.workload = {"kind": self._workload_kind, "name": self._workload_name}
        if self._mount and not self._workload_name:
            raise UserError("config_map.mount needs config_map.deployment: name the workload that is to mount it.")
        self._config = self._named
        # Another one than the named one may often only be listed.
        body = peer or (self._worker() if self._workload_name else None)
        if body:
            self._config = self._current(body)
        self.where = f"key {self._config.key} of {self._config}"
        if body:
            self._inspect(body)
        if peer:
            self.worker = f"{self._workload_kind} {self._named.namespace}/{self._workload_name}"
        else:
            self.peers = self._find_peers(module, options, body)

    @property
    def read_after(self) -> bool:
        return self.read_by_worker or self._mount

    def _worker(self) -> Object:
        found = self._cluster.get(self._workload_kind, self._workload_name, self._named.namespace, "apps/v1")
        if found is None:
            raise UserError(
                f"{self._workload_kind} {self._named.namespace}/{self._workload_name} does not exist: "
                "name the worker's, or leave deployment out."
            )
        return found

    def _current(self, body: Object) -> Config:
        """The object that holds the config now: a copy that replaced the one that the user names, where the workload mounts one."""
        sources = [
            source
            for volume in workload.pod_spec(body).get("volumes") or []
            for candidate in [volume, *((volume.get("projected") or {}).get("sources") or [])]
            if (source := candidate.get("configMap" if self._named.kind == "ConfigMap" else "secret"))
        ]
        names = {source.get("name") or source.get("secretName") for source in sources}
        if self._named.name in names:
            return self._named
        for name in sorted(filter(None, names)):
            if workload.base_name(name) != workload.base_name(self._named.name):
                continue
            found = self._cluster.get(self._named.kind, name, self._named.namespace)
            if found and (found["metadata"].get("annotations") or {}).get(ORIGIN_ANNOTATION) == self._named.name:
                return Config(self._named.kind, self._named.namespace, name, self._named.key)
        return self._named

    def _inspect(self, body: Object) -> None:
        container = workload.container_of(body, self._config, self._container_name)
        objects = workload.EnvironmentReader(self._cluster, self._named.namespace)
        self.environment = objects.read(container)
        reader = files.LayerReader(body, container, self.environment, self._config, objects)
        self.shipped = not workload.hides_shipped(container, self.environment)
        name = workload.title(body)
        if not self.shipped:
            self._say(
                "defaults_hidden",
                "error",
                name,
                f"{name} mounts a volume over {workload.CONFIG_DIRECTORY}, or has a NODE_CONFIG_DIR or workingDir without it, so the "
                "worker has neither its default.yaml nor its variables: mount the single file by subPath.",
            )
        if workload.is_node_config(container, self._config):
            self.is_json = self._is_node_config = True
            self.environment.values.pop(worker.NODE_CONFIG, None)
        else:
            mounts = workload.mounts_of(body, container, self._config)
            read = [mount for mount in mounts if workload.is_read(mount, container, self.environment) and reader.is_managed(mount.path)]
            self.read_by_worker = bool(read)
            instead = join_names(workload.read_instead(body, container, self._config, self.environment))
            if read:
                # What counts for the worker is the name of the file, not of the key.
                self.is_json = read[0].path.endswith(JSON_ENDINGS)
            elif self._mount and instead:
                raise UserError(
                    f"config_map.mount: {name} reads {instead} already: name that one, or remove its mount. Nothing was changed."
                )
            elif not self._mount:
                where = f"at {mounts[0].path}, where the worker does not read it" if mounts else "nowhere"
                self._say(
                    "file_not_mounted",
                    "error",
                    name,
                    f"{name} mounts key {self._config.key} of {self._config} {where}, so the worker acts on "
                    f"{instead or 'its variables and shipped values alone'}: name the config that it mounts, or set config_map.mount.",
                )
            if read and all(mount.sub_path for mount in read):
                self._inspect_pods(body, container)
        if self._mount and not self.read_by_worker:
            if workload.place_of(workload.CONFIG_DIRECTORY, workload.config_directories(container, self.environment)) is None:
                raise UserError(
                    f"config_map.mount: {name} does not read {workload.CONFIG_DIRECTORY}, where the config would be mounted: "
                    "add it to NODE_CONFIG_DIR, or mount the config where the worker reads it. Nothing was changed."
                )
            target = files.with_mount(body, container, self._config)
            reader = files.LayerReader(*target, self.environment, self._config, objects)
        self.layers = reader.read()
        self._say_owners(body)

    def _inspect_pods(self, body: Object, container: Object) -> None:
        """Whether pods still have the file that they started with: a mount by subPath does not follow its object."""
        found = self._cluster.get(self._config.kind, self._config.name, self._config.namespace)
        labels = (body["spec"].get("selector") or {}).get("matchLabels") or {}
        name = workload.title(body)
        if not found or not labels or not workload.is_settled(body):
            return
        try:
            selector = ",".join(f"{key}={value}" for key, value in labels.items())
            pods, unused = self._cluster.list("Pod", namespace=self._config.namespace, label_selector=selector)
        except ClusterError as exc:
            if exc.status != 403:
                raise
            self._say(
                "pods_unknown",
                "warning",
                name,
                f"{name} mounts {self._config} by subPath, and whether its pods still have an older file is unknown, since they may not be "
                f"listed: grant list on pods in namespace {self._config.namespace}.",
            )
            return
        if names := workload.stale_pods(pods, container, found):
            self._is_stale = True
            self._say(
                "pods_outdated",
                "error",
                name,
                f"{join_names(names)} of {name} started before {self._config} was changed, and a mount by subPath keeps the old file: "
                "replace the pods, which a run that sets kata_share does.",
            )

    def _find_peers(self, module: AnsibleK8SModule, options: t.Mapping[str, t.Any], named: Object | None) -> list[Source]:
        """Other workers that read the config, which follow it too; a workload that may be another program is only named."""
        peers: list[Source] = []
        others = []
        for item, container in self._mounting(named):
            more = {"deployment": item["metadata"]["name"], "workload_kind": item["kind"], "container": container["name"], "mount": False}
            if not workload.is_worker(container, named and workload.container_of(named, self._config, self._container_name)):
                others.append(workload.title(item))
                continue
            peer = ConfigMapSource(module, {**options, **more}, peer=item)
            if peer.read_by_worker:
                peers.append(peer)
        names = join_names([peer.worker for peer in peers])
        if peers and named:
            message = f"{self._config} is also read by {names}: its share changes there too, and its pods are replaced as well."
            self._say("config_shared", "warning", str(self._config), message)
        elif peers:
            message = (
                f"{self._config} is read by {names}, which config_map.deployment does not name: its pods are not replaced, and where the "
                "mount is by subPath they keep the old file. Name it."
            )
            self._say("config_shared", "warning", str(self._config), message)
        if others:
            self._say(
                "config_shared",
                "warning",
                f"{self._config}, other workloads",
                f"{self._config} is also mounted by {join_names(others)}, which do not run the worker's image: their variables are not "
                "read and their pods are not replaced.",
            )
        for each in peers:
            self.notices += [notice for notice in each.notices if notice not in self.notices]
        return peers

    def _mounting(self, named: Object | None) -> Iterator[tuple[Object, Object]]:
        """(workload, container) of each other one in the namespace that has the config."""
        for kind in ("Deployment", "StatefulSet"):
            try:
                items, unused = self._cluster.list(kind, "apps/v1", namespace=self._named.namespace)
            except ClusterError as exc:
                if exc.status != 403:
                    raise
                continue
            for item in items:
                item["kind"] = kind
                if named and (kind, item["metadata"]["name"]) == (self._workload_kind, self._workload_name):
                    continue
                for container in workload.pod_spec(item).get("containers") or []:
                    if workload.mounts_of(item, container, self._config) or workload.is_node_config(container, self._config):
                        yield item, container
                        break

    def _say(self, code: str, severity: str, path: str, message: str) -> None:
        if code not in [notice.code for notice in self.notices if notice.path == path]:
            self.notices.append(Notice(code, severity, path, message))

    def _say_owners(self, body: Object) -> None:
        if found := workload.owners(body):
            name = f"{body['kind']} {self._named.namespace}/{body['metadata']['name']}"
            self._say(
                "managed_elsewhere",
                "warning",
                name,
                f"{name} is managed by {' and '.join(found)}, and the next sync there undoes what is written here: make the change at its "
                "source (print_patch shows it), or let the sync ignore this key.",
            )

    # Reading and writing

    def read(self) -> str:
        return self._text(self._map())

    def _map(self) -> Object | None:
        found = self._cluster.get(self._config.kind, self._config.name, self._config.namespace)
        if found is None and not self._mount:
            raise UserError(f"{self._config} does not exist: name the one that the worker mounts.")
        if found:
            self._say_owners({"kind": self._config.kind, **found})
        return found

    def _text(self, body: Object | None) -> str:
        if body is None:
            return "{}\n" if self.is_json else ""
        config, data = self._config, body.get("data") or {}
        if config.key in data:
            text = _decoded(base64.b64decode(data[config.key]), self.where) if config.kind == "Secret" else data[config.key]
            if self._is_node_config:
                self._require_json(text)
            return text
        if config.key in (body.get("binaryData") or {}):
            raise UserError(f"{config} has {config.key} under binaryData, which is not text: move it to data. Nothing was changed.")
        raise UserError(f"{config} has no key {config.key}: it has {', '.join(sorted(data)) or 'none'}.")

    def _require_json(self, text: str) -> None:
        """Refuses a NODE_CONFIG that the worker would ignore: JSON5 is for its files alone."""
        try:
            worker.parse_node_config(text)
        except ValueError as exc:
            raise UserError(
                f"{self.where} is the NODE_CONFIG of {self.worker} and not valid JSON, so the worker ignores it: {exc}. Repair it. "
                "Nothing was changed."
            ) from exc

    def update(self, edit: Callable[[str], str], write: bool, remove: Removal | None = None) -> tuple[str, str, bool]:
        """In check mode every write is a server-side dry run, so that a refusal shows before it matters."""
        return self._cluster.update(lambda: self._update(edit, write, remove))

    def _update(self, edit: Callable[[str], str], write: bool, remove: Removal | None) -> tuple[str, str, bool]:
        current = self._map()
        before = self._text(current)
        after = edit(before)
        if after != before:
            self.require_permission()
        name = self._config.name
        if current is None:
            current = self._cluster.create(self._body(name, {}, after))
        elif after != before and workload.is_replaced(current):
            current = self._replace(current, after)
            name = current["metadata"]["name"]
        elif after != before:
            patch = {
                "metadata": {"resourceVersion": current["metadata"]["resourceVersion"], "annotations": {DIGEST_ANNOTATION: _digest(after)}},
                "data": {self._config.key: self._encoded(after)},
            }
            current = self._cluster.patch(self._config.kind, name, patch, self._config.namespace)
        return before, after, self._roll(after, current, name, write, remove)

    def require_permission(self) -> None:
        # Refused before the config is written, which would leave pods with the old one.
        if self._workload_name and self.read_after:
            self._trial.patch(self._workload_kind, self._workload_name, {}, self._named.namespace, "apps/v1")

    def require_removable(self, remove: Removal) -> None:
        body = self._worker()
        workload.without_variables(body, workload.container_of(body, self._config, self._container_name), remove, self.environment)

    def _encoded(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode() if self._config.kind == "Secret" else text

    def _body(self, name: str, old: Object, text: str) -> Object:
        metadata = old.get("metadata") or {}
        annotations = {**(metadata.get("annotations") or {}), DIGEST_ANNOTATION: _digest(text)}
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        if old:
            annotations[ORIGIN_ANNOTATION] = self._named.name
        body: Object = {
            "apiVersion": "v1",
            "kind": self._config.kind,
            "metadata": {"name": name, "namespace": self._config.namespace, "annotations": annotations},
            "data": {**(old.get("data") or {}), self._config.key: self._encoded(text)},
        }
        if metadata.get("labels"):
            body["metadata"]["labels"] = metadata["labels"]
        body.update({key: old[key] for key in ("binaryData", "immutable", "type") if key in old})
        return body

    def _replace(self, old: Object, text: str) -> Object:
        """A new object with the new content; the old one is kept for a rollback."""
        if not self._workload_name:
            raise UserError(
                f"{self._config} is {'immutable' if old.get('immutable') else 'named after its content'}, so a new one has to be mounted: "
                "set config_map.deployment. Nothing was changed."
            )
        number = int(_digest(text), 16)
        suffix = "".join(_HASH_LETTERS[number >> 4 * position & 15] for position in range(10))
        body = self._body(f"{workload.base_name(self._config.name)}-{suffix}", old, text)
        found = self._cluster.get(self._config.kind, body["metadata"]["name"], self._config.namespace)
        if found:
            if found.get("data") != body["data"]:
                raise UserError(
                    f"{self._config.kind} {self._config.namespace}/{body['metadata']['name']} exists with another content: delete it."
                )
            return found
        return self._cluster.create(body)

    def _roll(self, content: str, config: Object, name: str, write: bool, remove: Removal | None) -> bool:
        """Brings a workload to the config: variables, mount and name of the object, and the content's digest, which replaces the pods."""
        if not self._workload_name or not (self.read_after or remove):
            return False
        lost_race = False

        def roll() -> bool:
            nonlocal content, config, lost_race
            if lost_race and write and name == self._config.name:
                # What counts is the content that the other writer left.
                config = t.cast("Object", self._map())
                content = self._text(config)
            lost_race = True
            return self._roll_once(content, config, name, remove)

        return self._cluster.update(roll)

    def _roll_once(self, content: str, config: Object, name: str, remove: Removal | None) -> bool:
        body = self._worker()
        container = workload.container_of(body, self._config, self._container_name)
        wanted = workload.without_variables(body, container, remove, self.environment) if remove else deepcopy(body)
        if name != self._config.name:
            workload.repointed(wanted, self._config, name)
        if self._mount and not self.read_by_worker:
            workload.mounted(wanted, container, self._config)
        template = wanted["spec"]["template"]
        annotations = (template.get("metadata") or {}).get("annotations") or {}
        digest = _digest(content)
        is_ours = (config["metadata"].get("annotations") or {}).get(DIGEST_ANNOTATION) == digest
        if self._is_stale and name == self._config.name:
            # The template may have this digest already, of an earlier time.
            digest = f"{digest}.{config['metadata']['resourceVersion']}"
            self._is_stale = False
        elif annotations.get(DIGEST_ANNOTATION, "").partition(".")[0] == digest or not is_ours or not self.read_after:
            digest = ""
        if digest:
            template.setdefault("metadata", {})["annotations"] = {**annotations, DIGEST_ANNOTATION: digest}
        before = body["spec"]["template"]
        patch: Object = {}
        if (before["metadata"].get("annotations") or {}) != (template["metadata"].get("annotations") or {}):
            patch["metadata"] = {"annotations": template["metadata"]["annotations"]}
        spec = {key: template["spec"][key] for key in ("containers", "volumes") if template["spec"].get(key) != before["spec"].get(key)}
        if spec:
            patch["spec"] = spec
        if not patch:
            return False
        versioned = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "spec": {"template": patch}}
        self._cluster.patch(self._workload_kind, self._workload_name, versioned, self._config.namespace, "apps/v1")
        return True


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise UserError(
            f"{where} is not UTF-8 (byte 0x{content[exc.start]:02x} in line {line}): save it as UTF-8. Nothing was changed."
        ) from exc


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def source_of(module: AnsibleK8SModule) -> Source:
    """The one source that the module was given.

    Raises:
        UserError: both or neither, or it is not there.
    """
    path, config_map = module.params["path"], module.params["config_map"]
    if bool(path) == bool(config_map):
        raise UserError(f"Give exactly one of path and config_map: {'both are' if path else 'neither is'} given.")
    if path:
        return FileSource(module, path, module.params.get("backup") or False)
    return ConfigMapSource(module, config_map)
