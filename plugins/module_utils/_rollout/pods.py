# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From one version of a pod to its build. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

KATA = "kata"
LEGACY = "legacy"
# Of a job or pod: the executor that it asks for.
PIN_ANNOTATIONS = ("screwdriver.cd/executor", "beta.screwdriver.cd/executor")
# What executor-k8s writes about a build's job.
JOB_LABELS = ("screwdriver.cd/pipeline", "screwdriver.cd/job")
# The cause of all failures that are about the image's name or pull.
IMAGE_PULL = "ImagePull"

# A build that one of these signals ends (128 + SIGILL, SIGABRT, SIGBUS, SIGSEGV) this soon never did any work: el6 images without
# vsyscall emulation end with 139 at once.
CRASH_EXITS = frozenset({132, 134, 135, 139})
CRASH_SECONDS = 10

_IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CONTAINER_REASONS = frozenset({"CreateContainerError", "CreateContainerConfigError", "RunContainerError"})
# What kubelet reports of a container whose process the runtime could not start; its startedAt is the epoch.
_START_ERRORS = frozenset({"StartError", "ContainerCannotRun"})
_NODE_LOST = frozenset({"NodeLost", "NodeShutdown", "DeletionByTaintManager", "DeletionByPodGC"})
_EVICTED = frozenset({"Evicted", "PreemptionByScheduler", "EvictionByEvictionAPI", "TerminationByKubelet"})


def seconds_of(timestamp: str) -> int:
    """Epoch seconds of a timestamp of the API server, such as 2026-11-23T21:00:00Z."""
    return int(datetime.fromisoformat(timestamp).timestamp())


@dataclass(frozen=True)
class Build:
    """A build, as one version of its pod shows it.

    Attributes:
        created: Epoch seconds, by the API server's clock.
        image: The image as the executor router saw it.
        node: The node that it was scheduled to, or an empty string.
        pinned: The job asked for its executor by annotation, as far as the pod shows it.
        job: Its pipeline and its name, or an empty string where the pod does not show them.
        launcher: A pod of executor-k8s-vm: it shows the start of a launcher that pulls and starts the build's image out of sight.
        started: The build container has started.
        reported: When the pod's status was last written, in epoch seconds by the API server's clock, or None where that is not known.
        trouble: A cause that the pod names, such as ImagePull, or an empty string.
        overdue: What to call the failure when the time to start runs out and the pod names no trouble.
        final: The pod will not start any more.
        exit_code: Of the build container, or None while it runs.
        ran_seconds: How long the build container ran, where it has ended.
        lost: The cause for which a build that may have started already is lost, such as NodeLost, or an empty string.
        stopping: The pod's deletion was requested.
        stopped: When it was requested, in epoch seconds by the API server's clock, or None where that is not known.
    """

    uid: str
    name: str
    created: int
    kata: bool
    image: str
    node: str
    pinned: bool
    job: str
    launcher: bool
    started: bool
    reported: int | None
    trouble: str
    overdue: str
    final: bool
    exit_code: int | None
    ran_seconds: int
    oom_killed: bool
    lost: str
    stopping: bool
    stopped: int | None

    @property
    def executor(self) -> str:
        return KATA if self.kata else LEGACY

    @property
    def crashed(self) -> str:
        """OOMKilled or Crash for a build that crashed right after its start."""
        if self.exit_code is None or self.ran_seconds > CRASH_SECONDS:
            return ""
        return "OOMKilled" if self.oom_killed else "Crash" if self.exit_code in CRASH_EXITS else ""


def read_build(pod: dict[str, t.Any], kata_runtime_class: str) -> Build:
    """Reads a pod of executor-k8s or executor-k8s-vm."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    container = _build_container(pod)
    states = {item["name"]: item for item in status.get("containerStatuses") or []}
    own = states.get(container["name"]) or {}
    started, ended = _run_of(own)
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    lost = _lost(status, conditions)
    launched = _launched_image(container)
    return Build(
        uid=meta["uid"],
        name=meta["name"],
        created=seconds_of(meta["creationTimestamp"]),
        kata=spec.get("runtimeClassName") == kata_runtime_class,
        image=launched or container.get("image", ""),
        node=spec.get("nodeName") or "",
        pinned=any(map((meta.get("annotations") or {}).get, PIN_ANNOTATIONS)),
        job=_job(meta.get("labels") or {}),
        launcher=bool(launched),
        started=started is not None,
        reported=_reported(meta),
        trouble=lost or _trouble(status, own, conditions),
        overdue=_overdue(spec, status, conditions),
        final=status.get("phase") in ("Failed", "Succeeded") or _start_error(own),
        exit_code=ended.get("exitCode") if ended else None,
        # Both times are the node's, so that the difference has one clock.
        ran_seconds=seconds_of(ended["finishedAt"]) - (started or 0) if ended and ended.get("finishedAt") else 0,
        oom_killed=bool(ended) and ended.get("reason") == "OOMKilled",
        lost=lost,
        stopping="deletionTimestamp" in meta,
        stopped=_stopped(meta),
    )


def _job(labels: dict[str, str]) -> str:
    return "/".join(labels[key] for key in JOB_LABELS) if all(map(labels.get, JOB_LABELS)) else ""


def _reported(meta: dict[str, t.Any]) -> int | None:
    """The API server notes the time of each writer's last change; a node's own times are by another clock."""
    times = [entry["time"] for entry in meta.get("managedFields") or [] if entry.get("subresource") == "status" and entry.get("time")]
    # All are of the same format, so that the latest is the greatest text.
    return seconds_of(max(times)) if times else None


def _stopped(meta: dict[str, t.Any]) -> int | None:
    """A deletionTimestamp is the end of the grace period."""
    if "deletionTimestamp" not in meta or "deletionGracePeriodSeconds" not in meta:
        return None
    return seconds_of(meta["deletionTimestamp"]) - int(meta["deletionGracePeriodSeconds"] or 0)


def _build_container(pod: dict[str, t.Any]) -> dict[str, t.Any]:
    """executor-k8s names the build container like the label sdbuild, executor-k8s-vm has one container."""
    containers = pod["spec"]["containers"]
    build = (pod["metadata"].get("labels") or {}).get("sdbuild")
    return next((item for item in containers if item["name"] == build), containers[0])


def _launched_image(container: dict[str, t.Any]) -> str:
    """executor-k8s-vm runs its launcher as the pod's image and hands the build's image over as an argument."""
    args = container.get("args") or []
    return args[args.index("--container") + 1] if "--container" in args[:-1] else ""


def _start_error(container_status: dict[str, t.Any]) -> bool:
    return ((container_status.get("state") or {}).get("terminated") or {}).get("reason") in _START_ERRORS


def _run_of(container_status: dict[str, t.Any]) -> tuple[int | None, dict[str, t.Any]]:
    """Epoch seconds of the start, and the terminated state once the container has ended. Builds have restartPolicy Never."""
    state = container_status.get("state") or {}
    ran = state.get("running") or state.get("terminated") or {}
    if not ran.get("startedAt") or _start_error(container_status):
        return None, {}
    return seconds_of(ran["startedAt"]), state.get("terminated") or {}


def _lost(status: dict[str, t.Any], conditions: dict[str, t.Any]) -> str:
    """Evicted, NodeLost, or the reason for which a kubelet refused the pod, such as OutOfcpu."""
    reason = status.get("reason") or ""
    disruption = conditions.get("DisruptionTarget") or {}
    if disruption.get("status") == "True":
        reason = disruption.get("reason") or reason
    if reason in _NODE_LOST:
        return "NodeLost"
    if reason in _EVICTED:
        return "Evicted"
    return reason if status.get("phase") == "Failed" else ""


def _trouble(status: dict[str, t.Any], own: dict[str, t.Any], conditions: dict[str, t.Any]) -> str:
    inits = status.get("initContainerStatuses") or []
    if _start_error(own):
        return "RunContainerError"
    for state in [(item.get("state") or {}) for item in [own, *inits, *(status.get("containerStatuses") or [])]]:
        reason = (state.get("waiting") or {}).get("reason")
        if reason in _IMAGE_REASONS:
            return IMAGE_PULL
        if reason in _CONTAINER_REASONS:
            return reason
    if any(((item.get("state") or {}).get("terminated") or {}).get("exitCode") for item in inits):
        return "InitContainerFailed"
    scheduled = conditions.get("PodScheduled") or {}
    return "Unschedulable" if scheduled.get("reason") == "Unschedulable" and scheduled.get("status") == "False" else ""


def _overdue(spec: dict[str, t.Any], status: dict[str, t.Any], conditions: dict[str, t.Any]) -> str:
    if not spec.get("nodeName"):
        return "Unschedulable"
    ran = any(
        (item.get("state") or {}).get(key)
        for item in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
        for key in ("running", "terminated")
    )
    ready = (conditions.get("PodReadyToStartContainers") or {}).get("status") == "True"
    return "StartTimeout" if ran or ready else "SandboxFailed"
