# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What buildcluster-queue-worker (5.2.0, config/) acts on: its shipped values, under the file, under NODE_CONFIG, under its variables."""

from __future__ import annotations

import json
import typing as t
from copy import deepcopy
from dataclasses import dataclass, field

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import tree

_SIZES = ("micro", "low", "high", "turbo", "max")


class Unknown:
    """A value that the worker has and that cannot be read from here. ``source`` names where it comes from."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __repr__(self) -> str:
        return f"(unknown, from {self.source})"


class WorkerError(UserError):
    """A variable that the worker cannot start with, as one sentence."""


@dataclass
class Environment:
    """The variables of the worker's container.

    Attributes:
        values: value by name; an Unknown where it cannot be read.
        sources: where a variable that is not written in the container itself comes from, such as "ConfigMap sd/worker-env".
        unread: sources whose names cannot be read: each can set any variable.
    """

    values: dict[str, str | Unknown] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def get(self, name: str) -> str | Unknown | None:
        """A variable as node-config sees it: one that is empty counts as not set."""
        value = self.values.get(name)
        if value is None and self.unread:
            return Unknown(" or ".join(self.unread))
        return None if value == "" else value


def _kubernetes(**paths: str) -> dict[str, str]:
    return {variable: f"options.kubernetes.{path}" for variable, path in paths.items()}


_COMMON = {
    **_kubernetes(
        K8S_HOST="host",
        K8S_TOKEN="token",
        K8S_JOBS_NAMESPACE="jobsNamespace",
        K8S_SECURITYCONTEXT_PRIVILEGED="privileged",
        K8S_POD_LABELS="podLabels",
        TERMINATION_GRACE_PERIOD_SECONDS="terminationGracePeriodSeconds",
        **{f"K8S_{kind.upper()}_{size.upper()}": f"resources.{kind}.{size}" for kind in ("cpu", "memory") for size in _SIZES},
    ),
    "LAUNCH_IMAGE": "options.launchImage",
    "LAUNCH_VERSION": "options.launchVersion",
    "EXECUTOR_PREFIX": "options.prefix",
    "CIRCUIT_TIMEOUT": "options.fusebox.breaker.timeout",
    "REQUEST_RETRYDELAY": "options.requestretry.retryDelay",
    "REQUEST_MAXATTEMPTS": "options.requestretry.maxAttempts",
    "SD_HAB_ENABLED": "options.sdHabEnabled",
}
_K8S = {
    **_COMMON,
    **_kubernetes(
        K8S_SERVICE_ACCOUNT_NAME="serviceAccount",
        K8S_AUTOMOUNT_SERVICE_ACCOUNT_TOKEN="automountServiceAccountToken",
        DOCKER_FEATURE_ENABLED="dockerFeatureEnabled",
        K8S_BUILD_TIMEOUT="buildTimeout",
        K8S_MAX_BUILD_TIMEOUT="maxBuildTimeout",
        K8S_LIFECYCLE_HOOKS="lifecycleHooks",
        K8S_ANNOTATIONS="annotations",
        K8S_RUNTIME_CLASS="runtimeClass",
        K8S_IMAGE_PULL_SECRET_NAME="imagePullSecretName",
        K8S_VOLUME_MOUNTS="volumeMounts",
        K8S_POD_STATUSQUERY_DELAY="podStatusQueryDelay",
    ),
}
_JENKINS = {
    f"EXECUTOR_JENKINS_{variable}": f"options.{path}"
    for variable, path in {
        "HOST": "jenkins.host",
        "PORT": "jenkins.port",
        "USERNAME": "jenkins.username",
        "PASSWORD": "jenkins.password",
        "NODE_LABEL": "jenkins.nodeLabel",
        "BUILD_TIMEOUT": "jenkins.buildTimeout",
        "MAX_BUILD_TIMEOUT": "jenkins.maxBuildTimeout",
        "DOCKER_COMPOSE_COMMAND": "docker.composeCommand",
        "DOCKER_PREFIX": "docker.prefix",
        "LAUNCH_VERSION": "docker.launchVersion",
        "DOCKER_MEMORY": "docker.memory",
        "DOCKER_MEMORY_LIMIT": "docker.memoryLimit",
        "BUILD_SCRIPT": "buildScript",
        "CLEANUP_SCRIPT": "cleanupScript",
        "CLEANUP_TIME_LIMIT": "cleanupTimeLimit",
        "CLEANUP_WATCH_INTERVAL": "cleanupWatchInterval",
    }.items()
}

# entry -> variable -> path in the entry. An entry of any other name has none.
ENVIRONMENT: dict[str, dict[str, str]] = {
    "k8s": {
        "WEIGHT_K8S": "weightage",
        **_K8S,
        **_kubernetes(
            K8S_NODE_SELECTORS="nodeSelectors",
            K8S_PREFERRED_NODE_SELECTORS="preferredNodeSelectors",
            K8S_POD_DNS_POLICY="dnsPolicy",
            K8S_POD_IMAGE_PULL_POLICY="imagePullPolicy",
            K8S_SECRETS="buildSecrets",
            K8S_SECRETS_FILE="buildSecretsFile",
        ),
    },
    "k8s-sandbox": {
        # The map of the worker has the name of the module where the name of a variable belongs.
        "k8s": "pluginName",
        **_K8S,
        **_kubernetes(K8S_SANDBOX_NODE_SELECTORS="nodeSelectors", K8S_SANDBOX_PREFERRED_NODE_SELECTORS="preferredNodeSelectors"),
    },
    "k8s-vm": {
        "WEIGHT_K8S_VM": "weightage",
        **_COMMON,
        **_kubernetes(
            K8S_BASE_IMAGE="baseImage",
            K8S_DISK_LABEL="resources.disk.space",
            K8S_DISK_SPEED_LABEL="resources.disk.speed",
            K8S_VM_BUILD_TIMEOUT="buildTimeout",
            K8S_VM_MAX_BUILD_TIMEOUT="maxBuildTimeout",
            K8S_VM_NODE_SELECTORS="nodeSelectors",
            K8S_VM_PREFERRED_NODE_SELECTORS="preferredNodeSelectors",
        ),
    },
    "jenkins": {"WEIGHT_JENKINS": "weightage", **_JENKINS},
}
# Variables that are to be removed from a worker, each with the keys of the executor section that it sets.
Removal = t.Mapping[str, t.Collection[str]]
DEFAULT_EXECUTOR_VARIABLE = "EXECUTOR_PLUGIN"
NODE_CONFIG = "NODE_CONFIG"
# The worker reads it, by a slip in its mapping, as an object that no rule reads.
DEAD_EXCLUSION_VARIABLE = "K8S_EXECUTOR_EXCLUSION"
RETRY_QUEUE_VARIABLE = "RABBITMQ_RETRYQUEUE_ENABLED"
# Variables that hold JSON5; one that does not parse keeps the worker from starting.
_JSON_KEYS = (
    "podLabels",
    "nodeSelectors",
    "preferredNodeSelectors",
    "annotations",
    "volumeMounts",
    "lifecycleHooks",
    "buildSecrets",
    "buildSecretsFile",
)

_RESOURCES = {
    "cpu": {"micro": 1, "low": 2, "high": 6, "turbo": 12, "max": 12},
    "memory": {"micro": 1, "low": 2, "high": 12, "turbo": 16, "max": 16},
}
_LAUNCH: dict[str, t.Any] = {
    "launchImage": "screwdrivercd/launcher",
    "launchVersion": "stable",
    "fusebox": {"breaker": {"timeout": 10000}},
    "requestretry": {"retryDelay": 3000, "maxAttempts": 5},
    "sdHabEnabled": True,
}
_SCHEDULED: dict[str, t.Any] = {
    "host": "kubernetes.default",
    "privileged": False,
    "resources": _RESOURCES,
    "buildTimeout": 90,
    "maxBuildTimeout": 120,
    "terminationGracePeriodSeconds": 60,
    "podLabels": {},
    "nodeSelectors": {},
    "preferredNodeSelectors": {},
}
_POD: dict[str, t.Any] = {
    **_SCHEDULED,
    "automountServiceAccountToken": False,
    "dockerFeatureEnabled": False,
    "annotations": {},
    "runtimeClass": "",
    "imagePullSecretName": "",
    "volumeMounts": {},
    "podStatusQueryDelay": 0,
}
# The executor section of the worker's default.yaml.
SHIPPED: dict[str, t.Any] = {
    "plugin": "k8s-vm",
    "k8s": {
        "pluginName": "k8s",
        "exclusion": ["rhel6"],
        "weightage": 0,
        "options": {
            "kubernetes": {
                **_POD,
                "dnsPolicy": "ClusterFirst",
                "imagePullPolicy": "Always",
                "buildSecrets": {},
                "buildSecretFile": {},
            },
            **_LAUNCH,
        },
    },
    "k8s-sandbox": {"pluginName": "k8s", "options": {"kubernetes": _POD, **_LAUNCH}},
    "k8s-vm": {"pluginName": "k8s-vm", "weightage": 0, "options": {"kubernetes": _SCHEDULED, **_LAUNCH}},
}
# What an entry of another name must be given, since neither default.yaml nor a variable fills it.
DEFAULTS: dict[str, t.Any] = {
    "kubernetes": {
        **{key: _SCHEDULED[key] for key in ("host", "buildTimeout", "maxBuildTimeout", "terminationGracePeriodSeconds", "resources")},
        "jobsNamespace": "default",
        "serviceAccount": "default",
    },
    "prefix": "",
    **{key: value for key, value in _LAUNCH.items() if key != "sdHabEnabled"},
}


def lookup(entry: t.Any, path: str) -> t.Any:
    """The value at a dotted path, None where there is none."""
    for key in path.split("."):
        if not isinstance(entry, t.Mapping) or key not in entry:
            return None
        entry = entry[key]
    return entry


def merged(base: t.Mapping[str, t.Any], over: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """``over`` laid over ``base``: maps merge, everything else replaces (as node-config merges its sources)."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, t.Mapping) and isinstance(value, t.Mapping) else value
    return result


def nested(path: str, value: t.Any) -> dict[str, t.Any]:
    """A map with one value at a dotted path."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def variables() -> t.Iterator[tuple[str, str]]:
    """(variable, path below executor) of each one that the worker maps there."""
    yield DEFAULT_EXECUTOR_VARIABLE, "plugin"
    for name, paths in ENVIRONMENT.items():
        for variable, path in paths.items():
            yield variable, f"{name}.{path}"


def parse_node_config(text: str) -> dict[str, t.Any]:
    """What the worker's JSON.parse makes of a NODE_CONFIG.

    Raises:
        ValueError: it is not a JSON object.
    """

    def refuse(constant: str) -> t.NoReturn:
        raise ValueError(f"{constant} is not a JSON value")

    try:
        value = json.loads(text, parse_constant=refuse)
    except RecursionError as exc:
        raise ValueError("It is nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("It is not an object")
    return value


def node_config(environment: Environment) -> dict[str, t.Any] | Unknown:
    """What NODE_CONFIG holds. One that is not a JSON object is ignored by the worker, with a line in its log."""
    text = environment.get(NODE_CONFIG)
    if isinstance(text, Unknown):
        return text
    try:
        return parse_node_config(text or "{}")
    except ValueError:
        return {}


def is_malformed(environment: Environment) -> bool:
    """Whether the worker ignores NODE_CONFIG, since it is not JSON."""
    text = environment.get(NODE_CONFIG)
    if not isinstance(text, str):
        return False
    try:
        parse_node_config(text)
    except ValueError:
        return True
    return False


def without_keys(config: t.Mapping[str, t.Any], keys: t.Collection[str]) -> str:
    """A NODE_CONFIG without some keys of the executor section, such as ``plugin`` and ``k8s.weightage``, as JSON."""
    section: dict[str, t.Any] = {}
    for name, entry in config["executor"].items():
        if name in keys:
            continue
        kept = {key: value for key, value in entry.items() if f"{name}.{key}" not in keys} if isinstance(entry, dict) else entry
        if kept or not isinstance(entry, dict):
            section[name] = kept
    return json.dumps({**config, "executor": section})


def from_environment(environment: Environment) -> dict[str, t.Any]:
    """The executor section that the variables set.

    Raises:
        WorkerError: a variable that should hold JSON does not.
    """
    result: dict[str, t.Any] = {}
    for variable, path in variables():
        value: t.Any = environment.get(variable)
        if value is None or (variable not in environment.values and isinstance(value, Unknown)):
            continue
        if isinstance(value, str) and path.rsplit(".", 1)[-1] in _JSON_KEYS:
            try:
                value = tree.construct(tree.parse_json(value))
            except tree.TreeError as exc:
                raise WorkerError(f"{variable} {exc}, and the worker does not start with it.") from exc
        result = merged(result, nested(path, value))
    return result


def effective(section: t.Mapping[str, t.Any], environment: Environment, shipped: bool = True) -> dict[str, t.Any]:
    """The executor section that the worker acts on, from the file's. Values that cannot be known are Unknown.

    Args:
        section: the file's executor section.
        environment: the variables of the worker's container.
        shipped: false where a mount hides the worker's own config directory, with its default.yaml and its map of variables.

    Raises:
        WorkerError: the worker does not start with these variables.
    """
    return with_environment(merged(deepcopy(SHIPPED) if shipped else {}, section), environment, shipped)


def with_environment(section: t.Mapping[str, t.Any], environment: Environment, mapped: bool = True) -> dict[str, t.Any]:
    """An executor section with NODE_CONFIG and the other variables over it. mapped: the worker has its own map of variables."""
    result = deepcopy(dict(section))
    over = node_config(environment)
    if isinstance(over, dict) and isinstance(over.get("executor"), dict):
        result = merged(result, over["executor"])
    return merged(result, from_environment(environment)) if mapped else result


def unknowns(value: t.Any, path: str = "") -> t.Iterator[tuple[str, Unknown]]:
    """(path, value) of all that is unknown below a value."""
    if isinstance(value, Unknown):
        yield path, value
    elif isinstance(value, t.Mapping):
        for key, item in value.items():
            yield from unknowns(item, f"{path}.{key}" if path else str(key))
