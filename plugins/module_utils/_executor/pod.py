# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The pod that executor-k8s 17 would POST for a build of an entry. Pure."""

from __future__ import annotations

import re
import typing as t
from decimal import Decimal, InvalidOperation

from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import text_of

Pod = dict[str, t.Any]

# What stands for the values that each build has of its own.
BUILD_ID = 1
IMAGE = "node:22"

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]+")
_ENDS = re.compile(r"^[^A-Za-z0-9]*|[^A-Za-z0-9]*$")


def build_pod(options: t.Mapping[str, t.Any], image: str = IMAGE) -> Pod:
    """The pod of a build that asks for nothing by annotation, so that it has LOW cpu and memory.

    The command line is left out: it has the build's token, and the API server does not judge it. Caches on the node's disk are left out,
    because they are not part of an entry.

    Args:
        options: The ``options`` of the executor's entry with what the worker adds, as the executor gets them.
        image: The build's image.

    Returns:
        The manifest.
    """
    kubernetes = _map(options.get("kubernetes"))
    resources = _map(kubernetes.get("resources"))
    name = f"{options.get('prefix') or ''}{BUILD_ID}"
    version = options.get("launchVersion") or "stable"
    cpu = _times(_size(resources.get("cpu"), 2), 1000)
    memory = _times(_size(resources.get("memory"), 2), 1)
    grace = kubernetes.get("terminationGracePeriodSeconds") or 30
    volumes, mounts = _volumes(kubernetes)
    build = {
        "name": name,
        "image": image,
        "imagePullPolicy": kubernetes.get("imagePullPolicy") or "Always",
        "securityContext": {"privileged": text_of(kubernetes.get("privileged")).lower() == "true"},
        "resources": {"limits": {"cpu": f"{cpu}m", "memory": f"{memory}Gi"}},
        "env": _environment(options, kubernetes, name, image, grace),
        "command": ["/opt/sd/launcher_entrypoint.sh"],
        "volumeMounts": [
            {"name": "podinfo", "mountPath": "/etc/podinfo", "readOnly": True},
            {"mountPath": "/opt/sd", "name": "screwdriver", "readOnly": True},
            {"mountPath": "/opt/sd_tmp", "name": "sdtemp"},
            {"mountPath": "/workspace", "name": "workspace"},
            *mounts,
        ],
    }
    if hooks := _map(kubernetes.get("lifecycleHooks")):
        build["lifecycle"] = hooks
    launcher = {
        "name": f"launcher-{name}",
        "image": f"{options.get('launchImage') or 'screwdrivercd/launcher'}:{version}",
        "volumeMounts": [{"mountPath": "/opt/launcher", "name": "screwdriver"}, {"mountPath": "/workspace", "name": "workspace"}],
    }
    spec: dict[str, t.Any] = {
        "serviceAccountName": kubernetes.get("serviceAccount") or "default",
        # The executor compares with the string.
        "automountServiceAccountToken": kubernetes.get("automountServiceAccountToken") == "true",
        "terminationGracePeriodSeconds": grace,
        "restartPolicy": "Never",
        "dnsPolicy": kubernetes.get("dnsPolicy") or "ClusterFirst",
        "containers": [build],
        "initContainers": [launcher],
        "volumes": [
            {
                "name": "podinfo",
                "downwardAPI": {
                    "items": [{"path": part, "fieldRef": {"fieldPath": f"metadata.{part}"}} for part in ("labels", "annotations")]
                },
            },
            {"name": "screwdriver", "hostPath": {"path": f"/opt/screwdriver/sdlauncher/{version}"}},
            {"name": "sdtemp", "hostPath": {"path": f"/opt/screwdriver/tmp_{BUILD_ID}"}},
            {"name": "workspace", "emptyDir": {}},
            *volumes,
        ],
    }
    if kubernetes.get("runtimeClass"):
        spec["runtimeClassName"] = kubernetes["runtimeClass"]
    if kubernetes.get("imagePullSecretName"):
        spec["imagePullSecrets"] = [{"name": kubernetes["imagePullSecretName"]}]
    _select_nodes(spec, kubernetes)
    metadata: dict[str, t.Any] = {"name": f"{name}-abcde", "labels": _labels(kubernetes, name, cpu, memory)}
    if annotations := _map(kubernetes.get("annotations")):
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _map(value: t.Any) -> dict[str, t.Any]:
    return dict(value) if isinstance(value, t.Mapping) else {}


def _list(value: t.Any) -> list[dict[str, t.Any]]:
    return [dict(item) for item in value if isinstance(item, t.Mapping)] if isinstance(value, list) else []


def _size(sizes: t.Any, default: int) -> t.Any:
    return _map(sizes).get("low", default)


def _times(value: t.Any, factor: int) -> str:
    """A JavaScript product as text, without trailing zeros."""
    try:
        product = Decimal(str(value)) * factor
    except InvalidOperation:
        return "NaN" if factor != 1 else str(value)
    return f"{product.normalize():f}"


def _environment(
    options: t.Mapping[str, t.Any], kubernetes: t.Mapping[str, t.Any], name: str, image: str, grace: t.Any
) -> list[dict[str, t.Any]]:
    def limit(resource: str) -> dict[str, t.Any]:
        return {"resourceFieldRef": {"containerName": name, "resource": f"limits.{resource}"}}

    return [
        {"name": "SD_HAB_ENABLED", "value": text_of(options.get("sdHabEnabled") or "true")},
        {"name": "SD_RUNTIME_CLASS", "value": kubernetes.get("runtimeClass") or None},
        {"name": "SD_PUSHGATEWAY_URL", "value": None},
        {"name": "SD_TERMINATION_GRACE_PERIOD_SECONDS", "value": text_of(grace)},
        {"name": "CONTAINER_IMAGE", "value": image},
        {"name": "SD_PIPELINE_ID", "value": ""},
        {"name": "SD_BUILD_PREFIX", "value": options.get("prefix") or ""},
        {"name": "NODE_ID", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "SD_BASE_COMMAND_PATH", "value": "/sd/commands/"},
        {"name": "SD_TEMP", "value": "/opt/sd_tmp"},
        {"name": "CONTAINER_CPU_LIMIT", "valueFrom": limit("cpu")},
        {"name": "CONTAINER_MEMORY_LIMIT", "valueFrom": limit("memory")},
        *(
            {
                "name": secret.get("secret_env"),
                "valueFrom": {"secretKeyRef": {"name": secret.get("secret_name"), "key": secret.get("secret_key")}},
            }
            for secret in _secrets(kubernetes.get("buildSecrets"))
        ),
    ]


def _secrets(value: t.Any) -> list[dict[str, t.Any]]:
    """One empty item is how the worker's defaults turn the option off."""
    secrets = _list(value)
    return [] if secrets == [{}] else secrets


def _volumes(kubernetes: t.Mapping[str, t.Any]) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
    hosts, secrets = _list(kubernetes.get("volumeMounts")), _secrets(kubernetes.get("buildSecretsFile"))
    volumes: list[dict[str, t.Any]] = [
        {"name": item.get("name"), "hostPath": {"path": item.get("path"), "type": item.get("type")}} for item in hosts
    ]
    volumes += [{"name": item.get("name"), "secret": {"secretName": item.get("secretName")}} for item in secrets]
    mounts = [
        {"mountPath": item.get("mountPath"), "name": item.get("name"), "readOnly": item.get("readOnly")} for item in [*hosts, *secrets]
    ]
    return volumes, mounts


def _select_nodes(spec: dict[str, t.Any], kubernetes: t.Mapping[str, t.Any]) -> None:
    """Each node selector becomes a toleration and a required affinity, never a nodeSelector."""
    affinity: dict[str, t.Any] = {}
    if required := _map(kubernetes.get("nodeSelectors")):
        spec["tolerations"] = [{"key": key, "value": value, "effect": "NoSchedule", "operator": "Equal"} for key, value in required.items()]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [{"matchExpressions": _expressions(required)}]}
    if preferred := _map(kubernetes.get("preferredNodeSelectors")):
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": {"matchExpressions": _expressions(preferred)}}
        ]
    if affinity:
        spec["affinity"] = {**spec.get("affinity", {}), "nodeAffinity": affinity}


def _expressions(selectors: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    return [{"key": key, "operator": "In", "values": [value]} for key, value in selectors.items()]


def _labels(kubernetes: t.Mapping[str, t.Any], name: str, cpu: str, memory: str) -> dict[str, str]:
    labels: dict[str, t.Any] = {"app": "screwdriver", "tier": "builds", "sdbuild": name}
    if cpu not in ("0", "NaN"):
        labels["screwdriver.cd/cpu"] = _times(Decimal(cpu) / 1000, 1)
    if memory != "0":
        labels["screwdriver.cd/memory"] = memory
    labels["screwdriver.cd/disk"] = "LOW"
    return {key: _label(value) for key, value in {**labels, **_map(kubernetes.get("podLabels"))}.items()}


def _label(value: t.Any) -> str:
    """A label value as the executor makes it from anything."""
    text = "" if value is None else text_of(value)
    return _ENDS.sub("", _FORBIDDEN.sub(".", text).strip("-_.")[:63])


def build_vm_pod(options: t.Mapping[str, t.Any], image: str = IMAGE) -> Pod:
    """The pod that executor-k8s-vm would POST: a launcher that asks the node's hyperd for a VM. Without its command line and caches.

    Args:
        options: The ``options`` of the executor's entry with what the worker adds, as the executor gets them.
        image: The build's image, which is an argument of the launcher and not a container's.

    Returns:
        The manifest.
    """
    kubernetes = _map(options.get("kubernetes"))
    resources = _map(kubernetes.get("resources"))
    version = options.get("launchVersion") or "stable"
    name = f"{options.get('prefix') or ''}{BUILD_ID}"
    grace = kubernetes.get("terminationGracePeriodSeconds") or 30
    limits = {"cpu": str(_size(resources.get("cpu"), 2)), "memory": f"{_times(_size(resources.get('memory'), 2), 1024)}Mi"}
    term = {"labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["screwdriver-vm"]}]}}
    apart = {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", **term}}
    launcher = {
        "name": "vm-launcher",
        "image": kubernetes.get("baseImage"),
        "imagePullPolicy": "Always",
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "sleep 30"]}}},
        "securityContext": {"privileged": True},
        "resources": {"limits": limits},
        "env": [
            {"name": "SD_PUSHGATEWAY_URL", "value": ""},
            {"name": "SD_TERMINATION_GRACE_PERIOD_SECONDS", "value": text_of(grace)},
            {"name": "NODE_ID", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "volumeMounts": [
            {"mountPath": "/var/run", "name": "hyper-socket"},
            {"mountPath": "/var/sd-workspaces", "name": "sd-workspaces"},
            {"mountPath": "/opt/sd", "name": "sdlauncher"},
        ],
    }
    image_launcher = {
        "name": "launcher",
        "image": f"{options.get('launchImage') or 'screwdrivercd/launcher'}:{version}",
        "volumeMounts": [{"mountPath": "/opt/launcher", "name": "sdlauncher"}],
    }
    spec: dict[str, t.Any] = {
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace,
        "containers": [launcher],
        "initContainers": [image_launcher],
        "volumes": [
            {"name": "hyper-socket", "hostPath": {"path": "/var/run"}},
            {"name": "sd-workspaces", "hostPath": {"path": "/opt/screwdriver"}},
            {"name": "sdlauncher", "hostPath": {"path": f"/opt/screwdriver/sdlauncher/{version}"}},
        ],
    }
    _select_nodes(spec, kubernetes)
    labels = {"sdbuild": name, "app": "screwdriver-vm", "tier": "builds"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-abcde", "labels": labels}, "spec": spec}
