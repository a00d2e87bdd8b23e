"""The pod that we judge against the one that Screwdriver's own executor from npm would POST."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.pod import build_pod, build_vm_pod

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


@pytest.mark.parametrize(("executor", "given"), [("k8s", OPTIONS), ("k8s-vm", VM_OPTIONS)])
def test_the_pod_is_the_one_that_the_executor_posts(executor: str, given: list[dict[str, t.Any]]) -> None:
    environment = {**os.environ, "NODE_PATH": str(install_worker() / "node_modules"), "LOG_LEVEL": "silent"}
    asked = json.dumps([{"executor": executor, "options": options} for options in given])
    done = subprocess.run([nodejs(), FILES / "pod.js"], input=asked, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    posted = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")).removeprefix("ANSWERS "))
    for options, pod in zip(given, posted, strict=True):
        ours = build_vm_pod(options) if executor == "k8s-vm" else build_pod(options)
        assert comparable(ours) == comparable(pod)
