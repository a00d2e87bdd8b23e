# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports how full a thin pool is, and removes unused images when it is too full. Run by a systemd timer."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

FAULTS = {"failed": "has failed", "metadata_read_only": "has read-only metadata", "out_of_data": "is out of data space"}
# Priorities of systemd's journal, sd-daemon(3).
ERROR, WARNING, INFO = "<3>", "<4>", "<6>"
# The API server forgets an Event after an hour.
REPEAT_EVENT = 55 * 60


@dataclass(frozen=True)
class Usage:
    """How full the pool is, in percent, and what LVM reports of its health."""

    data: float | None
    metadata: float | None
    health: str = ""
    check_needed: bool = False


@dataclass(frozen=True)
class Verdict:
    """What is reported: the reason of an Event, empty where the pool is fine."""

    reason: str = ""
    message: str = ""

    @property
    def is_fault(self) -> bool:
        return self.reason == "ThinPoolUnhealthy"


def run(*command: str, stdin: str | None = None) -> str:
    # Programs print decimal points and English messages.
    env = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, input=stdin, env=env, check=True, capture_output=True, text=True, timeout=300).stdout


def parse_usage(report: str) -> Usage:
    """Reads the output of lvs."""
    row = json.loads(report)["report"][0]["lv"][0]

    def percent(field: str) -> float | None:
        return float(row[field]) if row[field] else None

    return Usage(percent("data_percent"), percent("metadata_percent"), row["lv_health_status"], bool(row["lv_check_needed"]))


def read_usage(pool: str) -> Usage:
    fields = "data_percent,metadata_percent,lv_health_status,lv_check_needed"
    return parse_usage(run("lvs", "--reportformat", "json", "--options", fields, pool))


def judge(pool: str, usage: Usage, percent: float) -> Verdict:
    """Judges the pool.

    Args:
        pool: The volume group and the name.
        usage: How full it is.
        percent: The percentage of data or metadata from which it is reported.
    """
    fault = FAULTS.get(usage.health) or (f"has the state {usage.health}" if usage.health else "")
    if not fault and usage.check_needed:
        fault = "needs a check of its metadata"
    if not fault and (usage.data is None or usage.metadata is None):
        fault = "reports no usage"
    if fault:
        return Verdict("ThinPoolUnhealthy", f"Thin pool {pool} {fault}; run the role thin_pool to see what repairs it.")
    full = [
        f"{value:.1f} % of its {what}" for what, value in (("data", usage.data), ("metadata", usage.metadata)) if (value or 0) >= percent
    ]
    if full:
        return Verdict(
            "ThinPoolFillingUp",
            f"Thin pool {pool} uses {' and '.join(full)} ({percent:g} % are allowed); delete images, or add a disk to thin_pool_devices.",
        )
    return Verdict()


def metrics(pool: str, usage: Usage, verdict: Verdict, now: float) -> str:
    """Returns the metrics in the format that node_exporter's textfile collector reads."""
    label = f'{{pool="{pool}"}}'
    values: list[tuple[str, str, float | None]] = [
        ("data_used_ratio", "Used share of the pool's data, 0 to 1.", None if usage.data is None else usage.data / 100),
        ("metadata_used_ratio", "Used share of the pool's metadata, 0 to 1.", None if usage.metadata is None else usage.metadata / 100),
        ("healthy", "Whether LVM reports no fault of the pool.", float(not verdict.is_fault)),
        ("checked_timestamp_seconds", "Unix time of the last check.", now),
    ]
    lines = []
    for name, text, value in values:
        if value is not None:
            name = f"screwdriver_kata_thin_pool_{name}"
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name}{label} {value:.16g}"]
    return "\n".join(lines) + "\n"


def event(verdict: Verdict, node: str, now: float) -> dict[str, t.Any]:
    """Returns an Event of the node; the kubelet names a node by its name as the UID too."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "thin-pool-", "namespace": "default"},
        "type": "Warning" if verdict.reason else "Normal",
        "reason": verdict.reason or "ThinPoolFine",
        "message": verdict.message or "The thin pool is fine again.",
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "source": {"component": "screwdriver.kata", "host": node},
        "reportingComponent": "screwdriver.kata/thin_pool",
        "reportingInstance": node,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def unused_images(images: str, containers: str) -> list[str]:
    """Returns the images that no container has and that are not pinned, from the output of crictl."""
    used = set()
    for container in json.loads(containers)["containers"] or []:
        used |= {container.get("imageRef"), container.get("imageId"), (container.get("image") or {}).get("image")}
    unused = []
    for image in json.loads(images)["images"] or []:
        names = {image["id"], *(image.get("repoTags") or []), *(image.get("repoDigests") or [])}
        if not image.get("pinned") and used.isdisjoint(names):
            unused.append(image["id"])
    return sorted(unused)


def write_whole(path: Path, text: str) -> None:
    """Replaces a file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


class Watch:
    """One check of a pool.

    Args:
        options: The command line.
        state: What the last check kept.
        now: The time.
    """

    def __init__(self, options: argparse.Namespace, state: dict[str, t.Any], now: float) -> None:
        self._options = options
        self._state = state
        self._now = now
        self.failed = False

    def run(self, usage: Usage) -> tuple[Verdict, dict[str, t.Any]]:
        """Returns the verdict, and what the next check needs."""
        options = self._options
        verdict = judge(options.pool, usage, options.percent)
        if verdict.reason:
            print(f"{ERROR if verdict.is_fault else WARNING}{verdict.message}", flush=True)
        elif self._state.get("reason"):
            print(f"{INFO}Thin pool {options.pool} is fine again.", flush=True)
        if options.textfile_directory:
            self._write_metrics(usage, verdict)
        event_at = self._create_event(verdict)
        unused = self._remove_images(usage) if options.remove_images_percent else []
        return verdict, {"reason": verdict.reason, "event_at": event_at, "unused": unused}

    def _fail(self, message: str) -> None:
        """Reports what could not be done; the rest of the check continues."""
        self.failed = True
        print(f"{ERROR}{message}", flush=True)

    def _write_metrics(self, usage: Usage, verdict: Verdict) -> None:
        pool, directory = self._options.pool, self._options.textfile_directory
        try:
            path = Path(directory) / f"screwdriver_kata_thin_pool_{pool.replace('/', '_')}.prom"
            write_whole(path, metrics(pool, usage, verdict, self._now))
        except OSError as exc:
            self._fail(
                f"The metrics of thin pool {pool} were not written to {directory}: {exc.strerror}; correct "
                "thin_pool_watch_textfile_directory."
            )

    def _create_event(self, verdict: Verdict) -> float:
        """Creates an Event where the verdict has changed, or is old; returns when the last one was created."""
        event_at = float(self._state.get("event_at", 0))
        changed = verdict.reason != self._state.get("reason", "")
        if not Path(self._options.kubeconfig or "/nonexistent").exists() or not (
            changed or (verdict.reason and self._now - event_at > REPEAT_EVENT)
        ):
            return event_at
        content = json.dumps(event(verdict, self._options.node, self._now))
        try:
            run("kubectl", "--kubeconfig", self._options.kubeconfig, "create", "--validate=false", "-f", "-", stdin=content)
        except (OSError, subprocess.SubprocessError) as exc:
            print(f"{WARNING}No Event was created for node {self._options.node}: {reason(exc)}", flush=True)
            return event_at
        return self._now

    def _remove_images(self, usage: Usage) -> list[str]:
        """Removes images that were unused at the last check too; returns those that are unused now.

        An image that a pod has just pulled has no container for a moment.
        """
        if max(usage.data or 0, usage.metadata or 0) < self._options.remove_images_percent:
            return []
        try:
            unused = unused_images(run("crictl", "images", "--output", "json"), run("crictl", "ps", "--all", "--output", "json"))
        except (OSError, subprocess.SubprocessError, ValueError) as exc:
            self._fail(f"The images on thin pool {self._options.pool} were not listed: {reason(exc)}")
            return []
        for image in unused:
            if image in self._state.get("unused", []):
                try:
                    run("crictl", "rmi", image)
                    print(
                        f"{INFO}Image {image} was removed: thin pool {self._options.pool} is too full and no container has it.", flush=True
                    )
                except (OSError, subprocess.SubprocessError) as exc:
                    print(f"{WARNING}Image {image} was not removed: {reason(exc)}", flush=True)
        return unused


def reason(exc: Exception) -> str:
    """Returns the last line that a program wrote, or what kept it from running."""
    lines = (getattr(exc, "stderr", "") or "").strip().splitlines()
    return lines[-1] if lines else str(exc)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", required=True, help="volume group and name")
    parser.add_argument("--percent", type=float, required=True, help="report from this percentage of data or metadata on")
    parser.add_argument("--remove-images-percent", type=float, default=0, help="remove unused images from this percentage on; 0 never")
    parser.add_argument("--textfile-directory", default="", help="directory of node_exporter's textfile collector")
    parser.add_argument("--kubeconfig", default="", help="kubeconfig of the node, for Events")
    parser.add_argument("--node", default="", help="name of the node")
    parser.add_argument("--state", type=Path, required=True, help="file that is kept between two checks")
    options = parser.parse_args()
    # Not every unit's PATH has crictl and kubectl.
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}:/usr/local/bin"
    try:
        usage = read_usage(options.pool)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        print(f"{ERROR}Thin pool {options.pool} cannot be read: {reason(exc)}", flush=True)
        return 1
    try:
        state = json.loads(options.state.read_text())
    except (OSError, ValueError):
        state = {}
    try:
        watch = Watch(options, state, time.time())
        verdict, state = watch.run(usage)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        print(f"{ERROR}The check of thin pool {options.pool} failed: {reason(exc)}", flush=True)
        return 1
    write_whole(options.state, json.dumps(state))
    return int(verdict.is_fault or watch.failed)


if __name__ == "__main__":
    sys.exit(main())
