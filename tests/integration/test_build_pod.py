"""The pod that we judge against the one that Screwdriver's own executor from npm would POST."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.entry import _differences, complete, left_out, pod_diff
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.pod import build_pod, build_vm_pod
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, effective

from lab.programs.npm import install_worker, nodejs

FILES = Path(__file__).parent / "files"
KATA = {"runtimeClass": "kata", "nodeSelectors": {"dedicated": "screwdriver-kata"}, "jobsNamespace": "sd-builds"}
OPTIONS: list[dict[str, t.Any]] = [
    {},
    {"kubernetes": KATA},
    {
        "prefix": "beta-",
        "launchImage": "registry.example/launcher",
        "launchVersion": "v6.0.200",
        "sdHabEnabled": "false",
        "kubernetes": {
            **KATA,
            "resources": {"cpu": {"low": 0.5}, "memory": {"low": "1"}},
            "serviceAccount": "builds",
            "automountServiceAccountToken": "true",
            "terminationGracePeriodSeconds": 60,
            "dnsPolicy": "Default",
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecretName": "registry",
            "privileged": True,
            "preferredNodeSelectors": {"disk": "ssd", "zone": "a"},
            "annotations": {"example.com/egress": "on"},
            "podLabels": {"team": "Über den Wolken!", "tier": "builds", "number": 7, "flag": True, "long": "x" * 80, "odd": "-._a_.-"},
            "lifecycleHooks": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "sleep 5"]}}},
            "volumeMounts": [{"name": "cache", "mountPath": "/cache", "path": "/var/cache", "type": "Directory", "readOnly": True}],
            "buildSecrets": [{"secret_env": "SSHCA", "secret_name": "sd-secret", "secret_key": "private"}],
            "buildSecretsFile": [{"name": "ca", "mountPath": "/ca", "secretName": "sd-ca", "readOnly": True}],
        },
    },
    {"kubernetes": {**KATA, "nodeSelectors": {"ready": True, "a": "b"}, "resources": {"cpu": {"low": "1.5"}, "memory": {"low": 0.5}}}},
    {"kubernetes": {"buildSecrets": [{}], "buildSecretsFile": [{}], "automountServiceAccountToken": True, "podLabels": {"app": "mine"}}},
]


def comparable(pod: dict[str, t.Any]) -> dict[str, t.Any]:
    """Without what each build has of its own, the command lines, and fields that the API server does not know."""
    pod = copy.deepcopy(pod)
    pod["metadata"]["name"] = pod["metadata"]["name"].rsplit("-", 1)[0]
    for container in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
        container.pop("command", None)
        container.pop("args", None)
    for volume in pod["spec"]["volumes"]:
        volume.pop("type", None)
    return pod


VM_OPTIONS: list[dict[str, t.Any]] = [
    {"kubernetes": {"baseImage": "hyperctl"}},
    {
        "prefix": "beta-",
        "launchImage": "registry.example/launcher",
        "launchVersion": "v6.0.200",
        "kubernetes": {
            **KATA,
            "baseImage": "registry.example/hyperctl:v1",
            "resources": {"cpu": {"low": 4}, "memory": {"low": "3"}, "disk": {"space": "screwdriver.cd/disk"}},
            "terminationGracePeriodSeconds": 90,
            "preferredNodeSelectors": {"disk": "ssd", "zone": "a"},
            # It reads none of these.
            "annotations": {"example.com/egress": "on"},
            "podLabels": {"team": "x"},
            "privileged": False,
            "dockerFeatureEnabled": True,
        },
    },
    {"kubernetes": {"baseImage": "hyperctl", "resources": {"cpu": {"low": 0.5}, "memory": {"low": 1.5}}, "nodeSelectors": {"ready": True}}},
]


def post(cases: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The pods that npm's executors POST for [{executor, options}]."""
    environment = {**os.environ, "NODE_PATH": str(install_worker() / "node_modules"), "LOG_LEVEL": "silent"}
    done = subprocess.run(
        [nodejs(), FILES / "pod.js"], input=json.dumps(cases), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")).removeprefix("ANSWERS "))


@pytest.mark.parametrize(("executor", "given"), [("k8s", OPTIONS), ("k8s-vm", VM_OPTIONS)])
def test_the_pod_is_the_one_that_the_executor_posts(executor: str, given: list[dict[str, t.Any]]) -> None:
    for options, pod in zip(given, post([{"executor": executor, "options": options} for options in given]), strict=True):
        ours = build_vm_pod(options) if executor == "k8s-vm" else build_pod(options)
        assert comparable(ours) == comparable(pod)


# The new entry against the legacy one

ALL = OPTIONS[2]["kubernetes"]
# name: the legacy entry's kubernetes options in the file, the worker's variables, which options the new entry must not have.
LEGACY: dict[str, tuple[dict[str, t.Any], dict[str, str], list[str]]] = {
    "nothing": ({}, {}, ["rootlessBuildkitFeatureEnabled"]),
    "all that is carried": (
        {key: value for key, value in ALL.items() if key not in ("runtimeClass", "nodeSelectors", "preferredNodeSelectors", "privileged")},
        {"SD_HAB_ENABLED": "false", "EXECUTOR_PREFIX": "prod-", "LAUNCH_VERSION": "v6.0.221", "K8S_CPU_LOW": "4"},
        ["rootlessBuildkitFeatureEnabled"],
    ),
    "all of it in variables": (
        {"rootlessBuildkitFeatureEnabled": False},
        {
            "K8S_POD_LABELS": '{"network-egress": "restricted"}',
            "K8S_ANNOTATIONS": "{'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false',}",
            "K8S_LIFECYCLE_HOOKS": json.dumps(ALL["lifecycleHooks"]),
            "K8S_VOLUME_MOUNTS": json.dumps(ALL["volumeMounts"]),
            "K8S_SECRETS": json.dumps(ALL["buildSecrets"]),
            "K8S_SECRETS_FILE": json.dumps(ALL["buildSecretsFile"]),
            "K8S_IMAGE_PULL_SECRET_NAME": "registry",
            "K8S_POD_IMAGE_PULL_POLICY": "IfNotPresent",
            "K8S_POD_DNS_POLICY": "None",
            "K8S_SERVICE_ACCOUNT_NAME": "builds",
            "K8S_AUTOMOUNT_SERVICE_ACCOUNT_TOKEN": "true",
            "TERMINATION_GRACE_PERIOD_SECONDS": "75",
            "K8S_MEMORY_LOW": "3",
        },
        [],
    ),
    "what is unsafe there": (
        {
            "privileged": True,
            "rootlessBuildkitFeatureEnabled": False,
            "annotations": {"io.kubernetes.cri.untrusted-workload": "true", "kept": "yes"},
            "volumeMounts": [
                *ALL["volumeMounts"],
                {"name": "docker", "mountPath": "/var/run/docker.sock", "path": "/var/run/docker.sock", "type": "Socket"},
                {"name": "root", "mountPath": "/host", "path": "/", "type": "Directory"},
            ],
        },
        {},
        ["privileged", "annotations", "volumeMounts[1]", "volumeMounts[2]"],
    ),
    "its own nodes and class": ({"rootlessBuildkitFeatureEnabled": False, **KATA, "runtimeClass": "gvisor"}, {}, []),
}
# Fields that are the Kata entry's own, and the option that sets another field.
OWN = r"spec\.(runtimeClassName|tolerations|affinity.*)|spec\.containers\[[^]]*\]\.env\[SD_RUNTIME_CLASS\].*"
OPTION_OF = {
    r".*securityContext\.privileged": "privileged",
    r"metadata\.annotations\..*": "annotations",
    r".*volumes\[(docker|root)\]|.*volumeMounts(\[(docker|root)\])?": "volumeMounts",
}


@pytest.mark.parametrize("name", LEGACY)
def test_the_new_entrys_pod_is_the_legacy_ones_or_a_finding_says_why_not(name: str) -> None:
    kubernetes, variables, missing = LEGACY[name]
    environment = Environment(dict(variables))
    section = {"plugin": "k8s", "k8s": {"weightage": 100, "options": {"kubernetes": kubernetes}}}
    own = {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata", "nodeSelectors": {"dedicated": "kata"}}}}
    kata = complete("k8s-kata", own, effective(section, environment)["k8s"])
    worker = effective({**section, "k8s-kata": kata}, environment)
    legacy, kata = worker["k8s"], worker["k8s-kata"]
    one, other = (comparable(pod) for pod in post([{"executor": "k8s", "options": entry["options"]} for entry in (legacy, kata)]))
    found = list(left_out(legacy, kata, "k8s"))
    assert sorted(item.path.removeprefix("options.kubernetes.") for item in found) == sorted(missing)
    differences = {item["path"] for item in _differences(one, other, "")}
    assert differences == {item["path"] for item in pod_diff(legacy, kata, "k8s")}
    for path in differences:
        options = [option for pattern, option in OPTION_OF.items() if re.fullmatch(pattern, path)]
        assert re.fullmatch(OWN, path) or any(item.startswith(options[0]) for item in missing), path
    assert "spec.runtimeClassName" in differences
