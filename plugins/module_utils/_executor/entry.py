# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""A Kata entry made of the legacy one: what is carried over, what is left out and why. Pure."""

from __future__ import annotations

import typing as t
from copy import deepcopy

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.pod import build_pod, build_vm_pod
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import text_of, truth

# They choose where and how a pod runs, which is what the Kata entry has of its own; or the executor does not read them.
_OWN = ("nodeSelectors", "preferredNodeSelectors", "runtimeClass", "baseImage", "buildSecretFile")
# A pod that mounts one of these holds its node.
_HOST_PATHS = (
    "/",
    "/proc",
    "/sys",
    "/dev",
    "/etc",
    "/root",
    "/boot",
    "/var",
    "/run",
    "/var/run",
    "/var/lib",
    "/var/lib/kubelet",
    "/var/lib/containerd",
)
_SOCKETS = (".sock",)
# containerd refuses a pod that has it together with a RuntimeClass.
_UNTRUSTED = "io.kubernetes.cri.untrusted-workload"
# Off unless asked for: each gives a build a privileged container.
SAFE = {"privileged": False, "dockerFeatureEnabled": False, "rootlessBuildkitFeatureEnabled": False}


# What the executor takes where an entry has none.
_FALLBACK = {
    "host": "kubernetes.default",
    "jobsNamespace": "default",
    "serviceAccount": "default",
    "dnsPolicy": "ClusterFirst",
    "imagePullPolicy": "Always",
    "buildTimeout": 90,
    "maxBuildTimeout": 120,
    "terminationGracePeriodSeconds": 30,
}


class LeftOut(t.NamedTuple):
    """An option of the legacy entry that the Kata entry does not have. path: below the entry. why: a clause."""

    code: str
    path: str
    why: str


def complete(name: str, entry: t.Mapping[str, t.Any], legacy: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A new entry written out in full: shipped values, over them the legacy entry's, over them its own.

    Args:
        name: The entry's name, for messages.
        entry: What the user gives.
        legacy: The legacy entry as the worker acts on it, variables and all.

    Returns:
        The entry.

    Raises:
        UserError: an option of the legacy entry comes from a place that cannot be read.
    """
    options = worker.merged({**worker.DEFAULTS, "kubernetes": {**worker.DEFAULTS["kubernetes"], **SAFE}}, _carried(legacy))
    result = worker.merged({"pluginName": "k8s", "weightage": 0, "options": options}, entry)
    if missing := list(worker.unknowns(result)):
        listed = ", ".join(f"{path} ({value.source})" for path, value in missing)
        raise UserError(
            f"executors: {name} cannot be completed from the legacy executor, because these of its options cannot be read: {listed}. "
            "Write them into executors. Nothing was changed."
        )
    return result


def _carried(legacy: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    options = deepcopy(dict(worker.merged({}, _map(legacy.get("options")))))
    kubernetes = dict(_map(options.pop("kubernetes", None)))
    for key in _OWN:
        kubernetes.pop(key, None)
    kubernetes.pop("privileged", None)
    kubernetes.pop("rootlessBuildkitFeatureEnabled", None)
    if "dockerFeatureEnabled" in kubernetes and not isinstance(kubernetes["dockerFeatureEnabled"], worker.Unknown):
        kubernetes["dockerFeatureEnabled"] = truth(kubernetes["dockerFeatureEnabled"])
    if isinstance(kubernetes.get("resources"), dict):
        disk = {key: value for key, value in _map(kubernetes["resources"].get("disk")).items() if key == "speed" and value}
        kubernetes["resources"] = {
            **{key: value for key, value in kubernetes["resources"].items() if key != "disk"},
            **({"disk": disk} if disk else {}),
        }
    if isinstance(kubernetes.get("volumeMounts"), list):
        kubernetes["volumeMounts"] = [mount for mount in kubernetes["volumeMounts"] if not _is_unsafe(mount)]
    if isinstance(kubernetes.get("annotations"), dict):
        kubernetes["annotations"] = {key: value for key, value in kubernetes["annotations"].items() if key != _UNTRUSTED}
    # What is off by default needs no line of its own.
    kubernetes = {
        key: value for key, value in kubernetes.items() if key in worker.DEFAULTS["kubernetes"] or key in SAFE or _says_something(value)
    }
    if text_of(options.get("sdHabEnabled", True)) == "true":
        options.pop("sdHabEnabled", None)
    return {**options, "kubernetes": kubernetes}


def _says_something(value: t.Any) -> bool:
    return bool(value) and value != [{}]


def _list(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else []


def _map(value: t.Any) -> t.Mapping[str, t.Any]:
    return value if isinstance(value, t.Mapping) else {}


def _is_unsafe(mount: t.Any) -> bool:
    path = str(_map(mount).get("path") or "")
    return ((path.rstrip("/") or "/") in _HOST_PATHS or path.endswith(_SOCKETS)) if path else False


def left_out(legacy: t.Mapping[str, t.Any], kata: t.Mapping[str, t.Any], legacy_plugin: str) -> t.Iterator[LeftOut]:
    """What the legacy entry's pods have and the Kata entry's have not. Selectors and RuntimeClass are not meant to be the same.

    Args:
        legacy: The legacy entry as the worker acts on it.
        kata: The Kata entry likewise.
        legacy_plugin: The executor that serves the legacy entry.
    """
    had, has = _map(worker.lookup(legacy, "options.kubernetes")), _map(worker.lookup(kata, "options.kubernetes"))
    here = "options.kubernetes"
    if legacy_plugin == "k8s":
        if text_of(had.get("privileged")) == "true" and text_of(has.get("privileged")) != "true":
            yield LeftOut("option_not_carried", f"{here}.privileged", "a privileged container is more than a build in its own VM needs")
        was_on = truth(had.get("rootlessBuildkitFeatureEnabled", True))
        if was_on and not truth(has.get("rootlessBuildkitFeatureEnabled", True)):
            yield LeftOut("option_not_carried", f"{here}.rootlessBuildkitFeatureEnabled", "it lets any build ask for a privileged sidecar")
    if legacy_plugin == "k8s-vm" and _map(_map(had.get("resources")).get("disk")).get("space"):
        yield LeftOut(
            "disk_space_ignored",
            f"{here}.resources.disk.space",
            "executor k8s does not read it: builds with the annotation screwdriver.cd/disk lose their nodes",
        )
    for index, mount in enumerate(_list(had.get("volumeMounts"))):
        if _is_unsafe(mount) and mount not in _list(has.get("volumeMounts")):
            yield LeftOut("option_not_carried", f"{here}.volumeMounts[{index}]", f"the host path {mount['path']} exposes the node")
    if _UNTRUSTED in _map(had.get("annotations")) and _UNTRUSTED not in _map(has.get("annotations")):
        yield LeftOut("option_not_carried", f"{here}.annotations", f"containerd refuses {_UNTRUSTED} beside a RuntimeClass")
    skipped = {
        "privileged",
        "rootlessBuildkitFeatureEnabled",
        "resources",
        "volumeMounts",
        "annotations",
        "podStatusQueryDelay",
        "token",
        *_OWN,
    }
    for key, value in had.items():
        missing = _says_something(value) and not _says_something(has.get(key)) and text_of(value) != text_of(_FALLBACK.get(key, ""))
        if missing and key not in skipped:
            yield LeftOut(
                "option_not_carried", f"{here}.{key}", "the entry does not have it, so its pods differ: add it, or leave it out knowingly"
            )
    for key, item in _map(had.get("annotations")).items():
        if key != _UNTRUSTED and key not in _map(has.get("annotations")):
            yield LeftOut(
                "option_not_carried",
                f"{here}.annotations.{key}",
                f"the entry does not have it ({text_of(item)}): add it, or leave it out knowingly",
            )
    for index, mount in enumerate(_list(had.get("volumeMounts"))):
        if not _is_unsafe(mount) and mount not in _list(has.get("volumeMounts")):
            yield LeftOut(
                "option_not_carried", f"{here}.volumeMounts[{index}]", "the entry does not have it: add it, or leave it out knowingly"
            )


def pod_diff(legacy: t.Mapping[str, t.Any], kata: t.Mapping[str, t.Any], legacy_plugin: str) -> list[dict[str, t.Any]]:
    """Each field in which the two executors' pods for the same build differ: path, legacy, kata (None where there is none)."""
    build = build_vm_pod if legacy_plugin == "k8s-vm" else build_pod
    return list(_differences(build(_map(legacy.get("options"))), build_pod(_map(kata.get("options"))), ""))


def _differences(one: t.Any, other: t.Any, path: str) -> t.Iterator[dict[str, t.Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list) and all(isinstance(item, dict) and "name" in item for item in [*one, *other]):
        left, right = ({item["name"]: item for item in items} for items in (one, other))
        for name in [*left, *(name for name in right if name not in left)]:
            yield from _differences(left.get(name), right.get(name), f"{path}[{name}]")
    elif one != other:
        yield {"path": path, "legacy": _readable(one), "kata": _readable(other)}


def _readable(value: t.Any) -> t.Any:
    if isinstance(value, worker.Unknown):
        return str(value)
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value
