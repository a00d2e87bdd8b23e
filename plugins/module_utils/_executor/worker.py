# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What buildcluster-queue-worker adds to the file: its environment variables and its shipped values (worker 5.2.0, config/)."""

from __future__ import annotations

import typing as t

_COMMON = {
    "K8S_HOST": "options.kubernetes.host",
    "K8S_TOKEN": "options.kubernetes.token",
    "K8S_JOBS_NAMESPACE": "options.kubernetes.jobsNamespace",
    "K8S_SECURITYCONTEXT_PRIVILEGED": "options.kubernetes.privileged",
    "K8S_POD_LABELS": "options.kubernetes.podLabels",
    "TERMINATION_GRACE_PERIOD_SECONDS": "options.kubernetes.terminationGracePeriodSeconds",
    "LAUNCH_IMAGE": "options.launchImage",
    "LAUNCH_VERSION": "options.launchVersion",
    "EXECUTOR_PREFIX": "options.prefix",
    "CIRCUIT_TIMEOUT": "options.fusebox.breaker.timeout",
    "REQUEST_RETRYDELAY": "options.requestretry.retryDelay",
    "REQUEST_MAXATTEMPTS": "options.requestretry.maxAttempts",
    **{
        f"K8S_{resource.upper()}_{size.upper()}": f"options.kubernetes.resources.{resource}.{size}"
        for resource in ("cpu", "memory")
        for size in ("micro", "low", "high", "turbo", "max")
    },
}
_K8S = {
    **_COMMON,
    "K8S_SERVICE_ACCOUNT_NAME": "options.kubernetes.serviceAccount",
    "K8S_AUTOMOUNT_SERVICE_ACCOUNT_TOKEN": "options.kubernetes.automountServiceAccountToken",
    "DOCKER_FEATURE_ENABLED": "options.kubernetes.dockerFeatureEnabled",
    "K8S_POD_DNS_POLICY": "options.kubernetes.dnsPolicy",
    "K8S_POD_IMAGE_PULL_POLICY": "options.kubernetes.imagePullPolicy",
    "K8S_BUILD_TIMEOUT": "options.kubernetes.buildTimeout",
    "K8S_MAX_BUILD_TIMEOUT": "options.kubernetes.maxBuildTimeout",
    "K8S_ANNOTATIONS": "options.kubernetes.annotations",
    "K8S_RUNTIME_CLASS": "options.kubernetes.runtimeClass",
    "K8S_IMAGE_PULL_SECRET_NAME": "options.kubernetes.imagePullSecretName",
    "K8S_VOLUME_MOUNTS": "options.kubernetes.volumeMounts",
}

# entry -> environment variable -> path in the entry. An entry of any other name has none.
ENVIRONMENT: dict[str, dict[str, str]] = {
    "k8s": {
        **_K8S,
        "WEIGHT_K8S": "weightage",
        "K8S_NODE_SELECTORS": "options.kubernetes.nodeSelectors",
        "K8S_PREFERRED_NODE_SELECTORS": "options.kubernetes.preferredNodeSelectors",
    },
    "k8s-sandbox": {
        **_K8S,
        "K8S_SANDBOX_NODE_SELECTORS": "options.kubernetes.nodeSelectors",
        "K8S_SANDBOX_PREFERRED_NODE_SELECTORS": "options.kubernetes.preferredNodeSelectors",
    },
    "k8s-vm": {
        **_COMMON,
        "WEIGHT_K8S_VM": "weightage",
        "K8S_BASE_IMAGE": "options.kubernetes.baseImage",
        "K8S_VM_BUILD_TIMEOUT": "options.kubernetes.buildTimeout",
        "K8S_VM_MAX_BUILD_TIMEOUT": "options.kubernetes.maxBuildTimeout",
        "K8S_VM_NODE_SELECTORS": "options.kubernetes.nodeSelectors",
        "K8S_VM_PREFERRED_NODE_SELECTORS": "options.kubernetes.preferredNodeSelectors",
    },
}
DEFAULT_EXECUTOR_VARIABLE = "EXECUTOR_PLUGIN"
# The worker reads it, by a slip in its mapping, as an object that no rule looks at.
DEAD_EXCLUSION_VARIABLE = "K8S_EXECUTOR_EXCLUSION"
RETRY_QUEUE_VARIABLE = "RABBITMQ_RETRYQUEUE_ENABLED"

# What default.yaml gives k8s and k8s-vm, and what an entry of another name must therefore be told.
DEFAULTS: dict[str, t.Any] = {
    "kubernetes": {
        "host": "kubernetes.default",
        "jobsNamespace": "default",
        "serviceAccount": "default",
        "buildTimeout": 90,
        "maxBuildTimeout": 120,
        "terminationGracePeriodSeconds": 60,
        "resources": {
            "cpu": {"micro": 1, "low": 2, "high": 6, "turbo": 12, "max": 12},
            "memory": {"micro": 1, "low": 2, "high": 12, "turbo": 16, "max": 16},
        },
    },
    "launchImage": "screwdrivercd/launcher",
    "launchVersion": "stable",
    "prefix": "",
    "fusebox": {"breaker": {"timeout": 10000}},
    "requestretry": {"retryDelay": 3000, "maxAttempts": 5},
}
# Inherited from the legacy entry as well where it has them: the credentials of the API server.
CREDENTIALS = ("token",)
# Off unless asked for: each gives a build a privileged container.
SAFE = {"privileged": False, "dockerFeatureEnabled": False, "rootlessBuildkitFeatureEnabled": False}


def lookup(tree: t.Any, path: str) -> t.Any:
    """The value at a dotted path, None where there is none."""
    for key in path.split("."):
        if not isinstance(tree, t.Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def merged(base: t.Mapping[str, t.Any], over: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """``over`` laid over ``base``: maps merge, everything else replaces (as node-config merges files)."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, t.Mapping) and isinstance(value, t.Mapping) else value
    return result


def effective(name: str, entry: t.Mapping[str, t.Any], environment: t.Mapping[str, str | None]) -> dict[str, t.Any]:
    """An entry's options with the variables laid over that the worker would lay; those of unknown value are left out."""
    result = merged(entry, {})
    for variable, path in ENVIRONMENT.get(name, {}).items():
        if value := environment.get(variable):
            tree: t.Any = value
            for key in reversed(path.split(".")):
                tree = {key: tree}
            result = merged(result, tree)
    return result


def complete(entry: t.Mapping[str, t.Any], legacy: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A new entry written out in full: shipped values, over them the legacy entry's of the same keys, over them its own."""
    inherited = _pick(t.cast("t.Mapping[str, t.Any]", legacy.get("options") or {}), DEFAULTS)
    kubernetes = lookup(legacy, "options.kubernetes") or {}
    secrets = {key: kubernetes[key] for key in CREDENTIALS if key in kubernetes}
    options = merged(
        merged({**DEFAULTS, "kubernetes": {**DEFAULTS["kubernetes"], **SAFE}}, inherited), {"kubernetes": secrets} if secrets else {}
    )
    return merged({"pluginName": "k8s", "weightage": 0, "options": options}, entry)


def _pick(tree: t.Mapping[str, t.Any], shape: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    result: dict[str, t.Any] = {}
    for key, value in shape.items():
        if key in tree:
            found = tree[key]
            result[key] = _pick(found, value) if isinstance(value, t.Mapping) and isinstance(found, t.Mapping) else found
    return result
