# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The worker's config as a document that keeps its comments and order, and where it is kept: a file or a ConfigMap."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import tempfile
import traceback
import typing as t
from contextlib import contextmanager

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing as _routing
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import worker as _worker
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster

try:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.error import CommentMark, MarkedYAMLError
    from ruamel.yaml.tokens import CommentToken

    RUAMEL_TRACEBACK = None
except ImportError:
    RUAMEL_TRACEBACK = traceback.format_exc()

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.core import AnsibleK8SModule

DIGEST_ANNOTATION = "kata.screwdriver.cd/config-digest"


class Document:
    """A YAML document that is edited in place. ``where`` names it in messages."""

    def __init__(self, text: str, where: str) -> None:
        self._yaml = YAML()
        self._yaml.preserve_quotes = True
        self._yaml.width = 4096
        self._yaml.explicit_start = text.startswith("---")
        mapping, sequence, offset = _indentation(text)
        self._yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
        try:
            self.root = self._yaml.load(text)
        except MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
            raise UserError(f"{where} is not valid YAML: {exc.problem} ({place}). Nothing was changed.") from exc
        # A text of comments alone has nothing that they could be tied to.
        self._head = text if self.root is None else ""
        if self.root is None:
            self.root = CommentedMap()
        if not isinstance(self.root, dict):
            raise UserError(f"{where} holds a {type(_plain(self.root)).__name__} and not a map with the key executor. Nothing was changed.")

    def text(self) -> str:
        stream = io.StringIO()
        self._yaml.dump(self.root, stream)
        return self._head + stream.getvalue()

    def plain(self) -> dict[str, t.Any]:
        """The document as ordinary Python values."""
        return _plain(self.root)

    def merge(self, changes: t.Mapping[str, t.Any]) -> None:
        """Lays changes over the document: maps merge; what is equal already is not touched."""
        _merge(self.root, changes)


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def _merge(target: t.Any, changes: t.Mapping[str, t.Any]) -> None:
    for key, value in changes.items():
        known = target.get(key)
        if isinstance(known, dict) and isinstance(value, t.Mapping):
            _merge(known, value)
        elif key not in target:
            _append(target, key, value)
        elif type(_plain(known)) is not type(value) or _plain(known) != value:
            target[key] = value


def _append(target: t.Any, key: str, value: t.Any) -> None:
    """Adds a key at the end of a map. The comment lines below the map, which the library ties to its last value, stay below it."""
    below = ""
    for container, last in reversed(_last_places(target)):
        comment = container.ca.items.get(last)
        slot = 0 if isinstance(container, list) else 2
        if comment and comment[slot]:
            own, unused, below = comment[slot].value.partition("\n")
            comment[slot].value = own + "\n"
            if not own:
                del container.ca.items[last]
            break
    target[key] = _commented(value)
    if below.strip():
        container, last = _last_places(target)[-1]
        token = CommentToken("\n" + below, CommentMark(0), None)
        container.ca.items[last] = [token, None, None, None] if isinstance(container, list) else [None, None, token, None]


def _last_places(target: t.Any) -> list[tuple[t.Any, t.Any]]:
    """(container, key) of the last value of a block, of that value's last value, and so on."""
    places: list[tuple[t.Any, t.Any]] = []
    while isinstance(target, (CommentedMap, CommentedSeq)) and target and not target.fa.flow_style():
        last = len(target) - 1 if isinstance(target, list) else next(reversed(target))
        places.append((target, last))
        target = target[last]
    return places


def _commented(value: t.Any) -> t.Any:
    """Ordinary values as those of the library, which can carry comments."""
    if isinstance(value, t.Mapping):
        return CommentedMap({key: _commented(item) for key, item in value.items()})
    if isinstance(value, list):
        return CommentedSeq([_commented(item) for item in value])
    return value


def _indentation(text: str) -> tuple[int, int, int]:
    """(mapping, sequence, offset) as the text itself indents, so that writing it again changes no other line."""
    mapping, sequence, offset = 2, 2, 0
    parent = None
    for line in text.splitlines():
        body = line.strip()
        if not body or body.startswith("#"):
            continue
        depth = len(line) - len(line.lstrip())
        if parent is not None and depth >= parent:
            if body.startswith("- "):
                offset = depth - parent
                sequence = offset + 2
            elif depth > parent:
                mapping = depth - parent
        parent = depth if re.search(r":\s*(#.*)?$", line) and not body.startswith("- ") else None
    return mapping, sequence, offset


class FileSource:
    """A config in a file. A directory lock makes two writers take turns and leaves nothing behind."""

    environment: dict[str, str | None] = {}

    def __init__(self, module: AnsibleK8SModule, path: str, backup: bool = False) -> None:
        self._module, self._path, self._backup = module._module, os.path.realpath(path), backup
        self.where = f"path {path}"
        self.backup_file: str | None = None
        if not os.path.isfile(self._path):
            raise UserError(f"path {path} is not a file: name the worker's YAML file, for example its local.yaml.")

    def read(self) -> str:
        with open(self._path, encoding="utf-8") as stream:
            return stream.read()

    def update(self, edit: Callable[[str], str], write: bool) -> tuple[str, str, bool]:
        """(before, after, rolled): reads, edits and replaces the file as one step."""
        with self._locked():
            before = self.read()
            after = edit(before)
            if write and after != before:
                self._write(after)
            return before, after, False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        directory = os.open(os.path.dirname(self._path), os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _write(self, text: str) -> None:
        if self._backup:
            self.backup_file = self._module.backup_local(self._path)
        number, draft = tempfile.mkstemp(dir=os.path.dirname(self._path), prefix=f".{os.path.basename(self._path)}.")
        self._module.add_cleanup_file(draft)
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        self._module.atomic_move(draft, self._path)


class ConfigMapSource:
    """A config in a key of a ConfigMap; with ``deployment``, the worker's pods are replaced when the content changed."""

    def __init__(self, module: AnsibleK8SModule, namespace: str, name: str, key: str, deployment: str | None = None) -> None:
        self._cluster = Cluster(module)
        self._namespace, self._name, self._key, self._deployment = namespace, name, key, deployment
        self.where = f"key {key} of ConfigMap {namespace}/{name}"
        self.backup_file = None
        self.environment = _environment(self._worker()) if deployment else {}

    def read(self) -> str:
        return self._data(self._map())

    def update(self, edit: Callable[[str], str], write: bool) -> tuple[str, str, bool]:
        """(before, after, rolled): a write that lost a race is read and edited again; in check mode it is a server-side dry run."""
        return self._cluster.update(lambda: self._edit_map(edit, write))

    def _edit_map(self, edit: Callable[[str], str], write: bool) -> tuple[str, str, bool]:
        current = self._map()
        before = self._data(current)
        after = edit(before)
        if after == before:
            return before, after, self._roll(before, current, write)
        patch = {
            "metadata": {"resourceVersion": current["metadata"]["resourceVersion"], "annotations": {DIGEST_ANNOTATION: _digest(after)}},
            "data": {self._key: after},
        }
        # Sent in check mode too, as a dry run: a refusal shows before it matters.
        changed = self._cluster.patch("ConfigMap", self._name, patch, self._namespace)
        return before, after, self._roll(after, changed, write)

    def _map(self) -> dict[str, t.Any]:
        found = self._cluster.get("ConfigMap", self._name, self._namespace)
        if found is None:
            raise UserError(f"ConfigMap {self._namespace}/{self._name} does not exist: name the one that the worker mounts.")
        return found

    def _data(self, config_map: dict[str, t.Any]) -> str:
        data = config_map.get("data") or {}
        if self._key not in data:
            raise UserError(f"ConfigMap {self._namespace}/{self._name} has no key {self._key}: it has {', '.join(sorted(data)) or 'none'}.")
        return data[self._key]

    def _worker(self) -> dict[str, t.Any]:
        found = self._cluster.get("Deployment", self._deployment or "", self._namespace, "apps/v1")
        if found is None:
            raise UserError(f"Deployment {self._namespace}/{self._deployment} does not exist: name the worker's, or leave deployment out.")
        return found

    def _roll(self, content: str, config_map: dict[str, t.Any], write: bool) -> bool:
        """Writes the content's digest into the pod template, where a write of this module has not arrived there yet."""
        if not self._deployment:
            return False
        lost_race = False

        def roll() -> bool:
            nonlocal content, config_map, lost_race
            if lost_race and write:
                # What counts is the content that the other writer left.
                config_map = self._map()
                content = self._data(config_map)
            lost_race = True
            return self._roll_once(_digest(content), config_map)

        return self._cluster.update(roll)

    def _roll_once(self, digest: str, config_map: dict[str, t.Any]) -> bool:
        if (config_map["metadata"].get("annotations") or {}).get(DIGEST_ANNOTATION) != digest:
            return False
        worker = self._worker()
        template = worker["spec"]["template"]["metadata"].get("annotations") or {}
        if template.get(DIGEST_ANNOTATION) == digest:
            return False
        patch = {
            "metadata": {"resourceVersion": worker["metadata"]["resourceVersion"]},
            "spec": {"template": {"metadata": {"annotations": {DIGEST_ANNOTATION: digest}}}},
        }
        self._cluster.patch("Deployment", self._deployment or "", patch, self._namespace, "apps/v1")
        return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _environment(deployment: dict[str, t.Any]) -> dict[str, str | None]:
    """Variables of the worker's containers; None where the value comes from elsewhere."""
    return {
        variable["name"]: None if "valueFrom" in variable else variable.get("value", "")
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for variable in container.get("env") or []
    }


SOURCE_OPTIONS: dict[str, dict[str, t.Any]] = {
    "path": {"type": "path"},
    "config_map": {
        "type": "dict",
        "options": {
            "namespace": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "key": {"type": "str", "default": "local.yaml", "no_log": False},
            "deployment": {"type": "str"},
        },
    },
}


def check_requirements(module: AnsibleK8SModule) -> None:
    """Fails the module where a library is missing."""
    for library, trace in (("ruamel.yaml", RUAMEL_TRACEBACK), ("mini-racer", _javascript.MINI_RACER_TRACEBACK)):
        if trace:
            module.fail_json(msg=missing_required_lib(library), exception=trace)


def hide_tokens(module: AnsibleK8SModule, section: t.Mapping[str, t.Any]) -> None:
    """An API token in the config must not show in what the module returns."""
    for entry in _routing.entries(section).values():
        if token := _worker.lookup(entry, "options.kubernetes.token"):
            module._module.no_log_values.add(str(token))


def source_of(module: AnsibleK8SModule) -> FileSource | ConfigMapSource:
    """The one source that the module was given.

    Raises:
        UserError: both or neither, or it is not there.
    """
    path, config_map = module.params["path"], module.params["config_map"]
    if bool(path) == bool(config_map):
        raise UserError(f"Give exactly one of path and config_map: {'both are' if path else 'neither is'} given.")
    if path:
        return FileSource(module, path, module.params.get("backup") or False)
    return ConfigMapSource(module, config_map["namespace"], config_map["name"], config_map["key"], config_map["deployment"])
