"""Build nodes that kwok simulates: registered with the real API server, scheduled on by the real scheduler."""

from __future__ import annotations

import itertools
import json
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubernetes
import yaml

STAGES = Path(__file__).parent / "stages.yaml"
POOL = ("dedicated", "screwdriver-vm")
# kwok manages nodes with this label only; a real machine that joins has none.
SIMULATED = ("screwdriver.cd/lab", "simulated")
READY_LABEL = "kata.screwdriver.cd/ready"
CAPACITY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "250"}


# The stages that a fault leaves out, and how many times as long the others take.
FAULTS: dict[str, tuple[set[str], dict[str, float]]] = {
    "none": ({"kata-sandbox-failed", "legacy-sandbox-failed"}, {}),
    "failed-starts": ({"kata-start", "legacy-sandbox-failed"}, {}),
    "all-starts-fail": ({"kata-start", "legacy-start"}, {}),
    # Some six times as long as the legacy executor's starts.
    "slow-starts": ({"kata-sandbox-failed", "legacy-sandbox-failed"}, {"kata-start": 10}),
}


def stages(fault: str, pace: float = 1) -> str:
    """kwok's configuration: a Stage for each entry of stages.yaml that the fault leaves, its times divided by ``pace``."""
    left_out, factors = FAULTS[fault]
    documents = [
        {
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "Stage",
            "metadata": {"name": entry["name"]},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": entry.get("kind", "Pod")},
                "selector": {"matchExpressions": entry["when"]},
                "delay": {
                    name: round(value * factors.get(entry["name"], 1) / pace)
                    for name, value in entry.get("delay", {"durationMilliseconds": 0}).items()
                },
                "next": entry["next"],
            },
        }
        for entry in yaml.safe_load(STAGES.read_text())
        if entry["name"] not in left_out
    ]
    return "---\n".join(json.dumps(document) + "\n" for document in documents)


def core_api(kubeconfig: Path) -> t.Any:
    """A client of the core API."""
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
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", key: value, SIMULATED[0]: SIMULATED[1]},
        },
        "spec": {"taints": [{"key": key, "value": value, "effect": "NoSchedule"}]},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY, "runtimeHandlers": handlers},
    }


def create(kubeconfig: Path, last: int, first: int = 1) -> None:
    """Registers the legacy build nodes build-``first`` to build-``last``."""
    nodes = [_node(f"build-{number}") for number in range(first, last + 1)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(core_api(kubeconfig).create_node, nodes))


def convert(kubeconfig: Path, count: int) -> list[str]:
    """Simulates the node part of site: the first ``count`` nodes report handler kata, leave their old pool, and count as verified.

    Returns:
        Their names.
    """
    api = core_api(kubeconfig)
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


def revert(kubeconfig: Path, count: int) -> None:
    """Registers the first ``count`` nodes again, as they were at the start."""
    api = core_api(kubeconfig)
    for number in range(1, count + 1):
        api.delete_node(f"build-{number}")
        api.create_node(_node(f"build-{number}"))


def count_ready(kubeconfig: Path) -> int:
    """How many nodes are Ready."""
    conditions = itertools.chain.from_iterable(node.status.conditions or [] for node in core_api(kubeconfig).list_node().items)
    return sum(1 for condition in conditions if condition.type == "Ready" and condition.status == "True")
