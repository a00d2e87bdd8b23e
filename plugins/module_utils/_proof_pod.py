# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The pod that proves a node: its body, its RuntimeClass, and its progress. Pure."""

from __future__ import annotations

import typing as t

NODE_API = "node.k8s.io/v1"
LABEL = "kata.screwdriver.cd/proof"
LABELS = {LABEL: "true", "app.kubernetes.io/managed-by": "screwdriver.kata"}
# Reasons of a waiting container that do not go away by themselves.
HOPELESS = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"})
SANDBOX_FAILED = "FailedCreatePodSandBox"
# The kubelet tries again and again; a sandbox that failed this often is not waited for.
MAX_SANDBOX_FAILURES = 3
# The kubelet rejects a pod that its node has no room for, such as OutOfmemory: no scheduler has looked for room before.
NO_ROOM = "OutOf"
# It ends on SIGTERM, and by itself after an hour if nobody deletes it.
SCRIPT = "trap 'exit 0' TERM; sleep 3600 & wait"


def fits(runtime_class: dict[str, t.Any] | None, node: dict[str, t.Any], handler: str) -> bool:
    """Whether a pod of the RuntimeClass may run on the node now: the kubelet refuses one whose node selector does not match."""
    if not runtime_class or runtime_class.get("handler") != handler:
        return False
    selector = (runtime_class.get("scheduling") or {}).get("nodeSelector") or {}
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def own_runtime_class(node: str, handler: str, runtime_class: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """Returns a RuntimeClass for the proof of one node: without a node selector, with the overhead of the builds' one."""
    body: dict[str, t.Any] = {
        "apiVersion": NODE_API,
        "kind": "RuntimeClass",
        "metadata": {"name": f"kata-proof-{handler}-{node}"[:253].rstrip("-."), "labels": LABELS},
        "handler": handler,
    }
    if overhead := (runtime_class or {}).get("overhead"):
        body["overhead"] = overhead
    return body


def pod_body(params: dict[str, t.Any], runtime_class: str) -> dict[str, t.Any]:
    """Returns the pod: bound to the node, tolerating whatever keeps other pods from it, and asking for no more than the overhead."""
    resources = {"requests": {"cpu": "0", "memory": "0"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    container = {
        "name": "proof",
        "image": params["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", SCRIPT],
        "resources": resources,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "kata-proof-", "namespace": params["namespace"], "labels": LABELS},
        "spec": {
            "nodeName": params["node"],
            "runtimeClassName": runtime_class,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 3600,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostNetwork": params["host_network"],
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def container_id(pod: dict[str, t.Any]) -> str:
    """Returns the ID of the container once it runs, else an empty string."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if "running" in (status.get("state") or {}):
            return str(status.get("containerID") or "unknown").rpartition("/")[2]
    return ""


def in_service(node: dict[str, t.Any], label: str) -> bool:
    """Whether an earlier proof has verified the node as it is: one that is being installed is cordoned."""
    return (node["metadata"].get("labels") or {}).get(label) == "true" and not node["spec"].get("unschedulable")


def lacks_room(pod: dict[str, t.Any]) -> str:
    """Returns why the node has no room for the pod, else an empty string."""
    status = pod.get("status", {})
    rejected = status.get("phase") == "Failed" and str(status.get("reason") or "").startswith(NO_ROOM)
    return describe_end(status) if rejected else ""


def failure(pod: dict[str, t.Any]) -> str:
    """Returns why the pod cannot run any more, else an empty string."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "it was deleted meanwhile"
    if status.get("phase") in ("Failed", "Succeeded"):
        return describe_end(status)
    reason, message = waiting(pod)
    return f"{reason}: {message}".rstrip(": ") if reason in HOPELESS else ""


def describe_end(status: dict[str, t.Any]) -> str:
    """Describes a pod that has ended."""
    if status.get("reason") or status.get("message"):
        return f"{status.get('reason') or status['phase']}: {status.get('message') or 'no message'}"
    for container in status.get("containerStatuses") or []:
        if ended := (container.get("state") or {}).get("terminated"):
            return (
                f"its container ended with exit code {ended.get('exitCode')} ({ended.get('message') or ended.get('reason') or 'no reason'})"
            )
    return f"its phase is {status['phase']}"


def waiting(pod: dict[str, t.Any]) -> tuple[str, str]:
    """Returns reason and message of the waiting container, empty where it does not wait."""
    for container in pod.get("status", {}).get("containerStatuses") or []:
        if state := (container.get("state") or {}).get("waiting"):
            return state.get("reason") or "", state.get("message") or ""
    return "", ""


def sandbox_failures(events: list[dict[str, t.Any]]) -> int:
    """Counts how often the kubelet failed to create the pod's sandbox."""
    return sum(
        int((event.get("series") or {}).get("count") or event.get("count") or 1)
        for event in events
        if event.get("reason") == SANDBOX_FAILED
    )


def last_warning(events: list[dict[str, t.Any]]) -> str:
    """Returns reason and message of the newest warning, for a message."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    warnings.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return f"{warnings[-1].get('reason')}: {warnings[-1].get('message')}" if warnings else ""
