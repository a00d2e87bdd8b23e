"""What became of builds, seen by somebody who only watches the API server and reads the worker's journal."""

from __future__ import annotations

import json
import threading
import typing as t
from contextlib import suppress

import kubernetes

from lab import fleet

if t.TYPE_CHECKING:
    from lab.cluster import Lab

Pod = dict[str, t.Any]
NAMESPACE = "sd-builds"


class Witness(threading.Thread):
    """Watches build pods until it is over and the lab is gone. ``pods`` has the last that was seen of each, by the number of its build."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self.lab = lab
        self.pods: dict[int, Pod] = {}
        self.over = threading.Event()

    def run(self) -> None:
        api = fleet.core_api(self.lab.kubeconfig)
        while not self.over.wait(0.5):
            # The API server ends each watch after a while, and all of them with itself.
            with suppress(Exception):
                for event in kubernetes.watch.Watch().stream(api.list_namespaced_pod, NAMESPACE, label_selector="tier=builds"):
                    pod = event["raw_object"]
                    self.pods[int(pod["metadata"]["labels"]["sdbuild"])] = pod

    def on(self, node: str, phase: str = "") -> list[int]:
        """Builds that were last seen on a node; those that are there still, in ``phase``, where one is given."""
        found = [build for build, pod in self.pods.items() if pod["spec"].get("nodeName") == node]
        return [build for build in found if self.pods[build]["status"]["phase"] == phase] if phase else found

    def alive(self) -> list[int]:
        """Builds on Kata that are not over."""
        on_kata = {build: pod["status"]["phase"] for build, pod in self.pods.items() if pod["spec"].get("runtimeClassName")}
        return [build for build, phase in on_kata.items() if phase in ("Pending", "Running")]

    def journal(self) -> dict[int, dict[str, t.Any]]:
        """The worker's journal of builds that are over, by number: the executor that the router picked, the result, the times."""
        path = self.lab.directory / "builds" / "builds.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return {entry["id"]: entry for entry in map(json.loads, lines)}
