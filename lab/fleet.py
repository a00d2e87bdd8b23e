"""The build nodes that kwok plays: registered with the real API server, scheduled on by the real scheduler."""

from __future__ import annotations

import itertools
import json
import typing as t
from concurrent.futures import ThreadPoolExecutor

import kubernetes
import yaml

from lab import fallback
from lab.paths import SOURCE

if t.TYPE_CHECKING:
    from pathlib import Path

    from lab.cluster import Lab

POOL = ("dedicated", "screwdriver-vm")
# What kwok knows its nodes by: a real machine that joins has not this label, and is left alone.
PLAYED = ("screwdriver.cd/lab", "played")
READY_LABEL = "kata.screwdriver.cd/ready"
CAPACITY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "250"}


def stages(fault: bool) -> str:
    """kwok's configuration: a Stage for each entry of stages.yaml, with or without the fault."""
    left_out = "kata-start" if fault else "kata-sandbox-failed"
    documents = [
        {
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "Stage",
            "metadata": {"name": entry["name"]},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": entry.get("kind", "Pod")},
                "selector": {"matchExpressions": entry["when"]},
                "delay": entry.get("delay", {"durationMilliseconds": 0}),
                "next": entry["next"],
            },
        }
        for entry in yaml.safe_load((SOURCE / "stages.yaml").read_text())
        if entry["name"] != left_out
    ]
    return "---\n".join(json.dumps(document) + "\n" for document in documents)


def core_api(kubeconfig: Path) -> t.Any:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))


def _node(name: str) -> dict[str, t.Any]:
    key, value = POOL
    handlers = [
        {"name": "", "features": {"recursiveReadOnlyMounts": True}},
        {"name": "runc", "features": {"recursiveReadOnlyMounts": True}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", key: value, PLAYED[0]: PLAYED[1]},
        },
        "spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY, "runtimeHandlers": handlers},
    }


def create(lab: Lab, last: int, first: int = 1) -> None:
    """Registers legacy build nodes: build-1, build-2, ..."""
    nodes = [_node(f"build-{number}") for number in range(first, last + 1)]
    if fallback.is_used(lab):
        fallback.create(lab, nodes)
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(core_api(lab.kubeconfig).create_node, nodes))


def convert(lab: Lab, count: int) -> list[str]:
    """Stands in for the node part of site: the first ``count`` nodes get handler kata, their old pool is left, and they count as proven."""
    api = core_api(lab.kubeconfig)
    key, value = POOL
    names = [f"build-{number}" for number in range(1, count + 1)]
    for name in names:
        handlers = [*_node(name)["status"]["runtimeHandlers"], {"name": "kata", "features": {}}]
        api.patch_node_status(name, {"status": {"runtimeHandlers": handlers}})
        taints = [
            taint for taint in api.read_node(name).to_dict()["spec"]["taints"] or [] if (taint["key"], taint["value"]) != (key, value)
        ]
        kept = [{part: taint[part] for part in ("key", "value", "effect") if taint[part]} for taint in taints]
        labels = {READY_LABEL: "true", **({} if api.read_node(name).metadata.labels.get(key) != value else {key: None})}
        api.patch_node(name, {"metadata": {"labels": labels}, "spec": {"taints": kept}})
    return names


def revert(lab: Lab, count: int) -> None:
    """The first ``count`` nodes as they were registered."""
    api = core_api(lab.kubeconfig)
    for number in range(1, count + 1):
        api.delete_node(f"build-{number}")
        api.create_node(_node(f"build-{number}"))


def ready(lab: Lab) -> int:
    """How many nodes kwok keeps Ready."""
    pages = itertools.chain.from_iterable(node.status.conditions or [] for node in core_api(lab.kubeconfig).list_node().items)
    return sum(1 for condition in pages if condition.type == "Ready" and condition.status == "True")
