"""The build watcher: how builds ended, by watching the API server and reading the worker's journal only."""

from __future__ import annotations

import json
import threading
import typing as t
from contextlib import suppress

import kubernetes

from lab.cluster import kwok

if t.TYPE_CHECKING:
    from lab.cluster.lab import Lab

Pod = dict[str, t.Any]
NAMESPACE = "sd-builds"


class BuildWatcher(threading.Thread):
    """Watches build pods until ``over`` is set and the lab is down. ``pods`` has the last state of each, by its build's number."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self.lab = lab
        self.pods: dict[int, Pod] = {}
        self.over = threading.Event()

    def run(self) -> None:
        api = kwok.core_api(self.lab.kubeconfig)
        while not self.over.wait(0.5):
            # The API server ends each watch after a while, and all of them with itself.
            with suppress(Exception):
                for event in kubernetes.watch.Watch().stream(api.list_namespaced_pod, NAMESPACE, label_selector="tier=builds"):
                    pod = event["raw_object"]
                    self.pods[int(pod["metadata"]["labels"]["sdbuild"])] = pod

    def on(self, node: str, phase: str = "") -> list[int]:
        """Builds whose pod is bound to a node; with ``phase``, those in that phase."""
        found = [build for build, pod in self.pods.items() if pod["spec"].get("nodeName") == node]
        return [build for build in found if self.pods[build]["status"]["phase"] == phase] if phase else found

    def alive(self) -> list[int]:
        """Builds on Kata that have not ended."""
        on_kata = {build: pod["status"]["phase"] for build, pod in self.pods.items() if pod["spec"].get("runtimeClassName")}
        return [build for build, phase in on_kata.items() if phase in ("Pending", "Running")]

    def journal(self) -> dict[int, dict[str, t.Any]]:
        """The worker's journal of ended builds, by number: the executor that the router picked, the result, the times."""
        path = self.lab.directory / "builds" / "builds.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return {entry["id"]: entry for entry in map(json.loads, lines)}
