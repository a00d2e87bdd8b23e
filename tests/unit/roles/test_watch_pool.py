# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that checks a thin pool on the node; lvs, crictl and kubectl are stubs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[3] / "roles" / "thin_pool" / "files" / "watch_pool.py"
spec = importlib.util.spec_from_file_location("watch_pool", PROGRAM)
assert spec
assert spec.loader
watch_pool = importlib.util.module_from_spec(spec)
sys.modules["watch_pool"] = watch_pool
spec.loader.exec_module(watch_pool)
Usage, Verdict = watch_pool.Usage, watch_pool.Verdict
NOW = 1_700_000_000.0


def options(tmp_path: Path, **more: t.Any) -> argparse.Namespace:
    values = {
        "pool": "kata/pool",
        "percent": 80.0,
        "remove_images_percent": 0.0,
        "textfile_directory": "",
        "kubeconfig": "",
        "node": "build-1",
    }
    return argparse.Namespace(**{**values, "state": tmp_path / "state.json", **more})


def report(data: str = "12.50", metadata: str = "10.06", health: str = "", check: str = "") -> str:
    row = {"data_percent": data, "metadata_percent": metadata, "lv_health_status": health, "lv_check_needed": check}
    return json.dumps({"report": [{"lv": [row]}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (report(), ""),
        (
            report(data="80.00"),
            "Thin pool kata/pool uses 80.0 % of its data (80 % are allowed); delete images, or add a disk to thin_pool_devices.",
        ),
        (
            report(data="91.00", metadata="99.99"),
            "Thin pool kata/pool uses 91.0 % of its data and 100.0 % of its metadata (80 % are allowed); delete images, or add a disk to "
            "thin_pool_devices.",
        ),
        (report(data="", metadata="", health="failed"), "Thin pool kata/pool has failed; run the role thin_pool to see what repairs it."),
        (
            report(health="metadata_read_only"),
            "Thin pool kata/pool has read-only metadata; run the role thin_pool to see what repairs it.",
        ),
        (
            report(data="100.00", health="out_of_data"),
            "Thin pool kata/pool is out of data space; run the role thin_pool to see what repairs it.",
        ),
        (report(check="check needed"), "Thin pool kata/pool needs a check of its metadata; run the role thin_pool to see what repairs it."),
        (report(data="", metadata=""), "Thin pool kata/pool reports no usage; run the role thin_pool to see what repairs it."),
        (report(metadata=""), "Thin pool kata/pool reports no usage; run the role thin_pool to see what repairs it."),
        (report(health="partial"), "Thin pool kata/pool has the state partial; run the role thin_pool to see what repairs it."),
    ],
)
def test_verdict(text: str, message: str) -> None:
    verdict = watch_pool.judge("kata/pool", watch_pool.parse_usage(text), 80.0)
    assert verdict.message == message
    assert verdict.is_fault is ("run the role" in message)


def test_metrics(tmp_path: Path) -> None:
    watch_pool.Watch(options(tmp_path, textfile_directory=str(tmp_path)), {}, NOW).run(Usage(12.5, 10.0))
    [file] = tmp_path.iterdir()
    assert file.name == "screwdriver_kata_thin_pool_kata_pool.prom"
    samples = dict(line.rsplit(" ", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
    label = '{pool="kata/pool"}'
    assert samples == {
        f"screwdriver_kata_thin_pool_data_used_ratio{label}": "0.125",
        f"screwdriver_kata_thin_pool_metadata_used_ratio{label}": "0.1",
        f"screwdriver_kata_thin_pool_healthy{label}": "1",
        f"screwdriver_kata_thin_pool_checked_timestamp_seconds{label}": "1700000000",
    }


def test_what_cannot_be_done_does_not_hold_up_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its directory of metrics and without crictl the check creates its Event once, as ever, and fails."""
    programs = Programs(monkeypatch)
    programs.absent = "crictl"
    missing = tmp_path / "missing"
    given = options(tmp_path, textfile_directory=str(missing), kubeconfig=str(PROGRAM), remove_images_percent=50.0)
    state: dict[str, t.Any] = {}
    for moment in (0, 300):
        watch = watch_pool.Watch(given, state, NOW + moment)
        _verdict, state = watch.run(Usage(85.0, 1.0))
        assert watch.failed
    assert [event["reason"] for event in programs.created] == ["ThinPoolFillingUp"]
    out = capsys.readouterr().out
    assert f"<3>The metrics of thin pool kata/pool were not written to {missing}: No such file or directory; correct " in out
    assert "<3>The images on thin pool kata/pool were not listed: crictl is not there\n" in out


def test_metrics_of_a_failed_pool_have_no_usage() -> None:
    text = watch_pool.metrics("kata/pool", Usage(None, None, "failed"), Verdict("ThinPoolUnhealthy", "x"), NOW)
    assert "used_ratio" not in text
    assert 'screwdriver_kata_thin_pool_healthy{pool="kata/pool"} 0\n' in text


class Programs:
    """Stubs of the programs that are run, and what they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, images: t.Any = (), containers: t.Any = ()) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.created: list[dict[str, t.Any]] = []
        self.images = {"images": images}
        self.containers = {"containers": containers}
        self.error = self.absent = ""
        monkeypatch.setattr(watch_pool, "run", self.run)

    def run(self, *command: str, stdin: str | None = None) -> str:
        self.calls.append(command)
        if command[0] == self.absent:
            raise FileNotFoundError(f"{command[0]} is not there")
        if self.error:
            raise subprocess.CalledProcessError(1, command, stderr=self.error)
        if command[0] == "kubectl":
            self.created.append(json.loads(stdin or ""))
        if command[:2] == ("crictl", "images"):
            return json.dumps(self.images)
        return json.dumps(self.containers) if command[:2] == ("crictl", "ps") else ""


def test_an_event_for_each_change_and_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(monkeypatch)
    given = options(tmp_path, kubeconfig=str(PROGRAM))
    state: dict[str, t.Any] = {}
    for moment, data in [(0, 10.0), (300, 85.0), (600, 86.0), (3900, 87.0), (4200, 20.0), (4500, 20.0)]:
        _verdict, state = watch_pool.Watch(given, state, NOW + moment).run(Usage(data, 1.0))
    assert [event["reason"] for event in programs.created] == ["ThinPoolFillingUp", "ThinPoolFillingUp", "ThinPoolFine"]
    assert [event["type"] for event in programs.created] == ["Warning", "Warning", "Normal"]
    assert programs.created[0]["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "build-1", "uid": "build-1"}


def test_an_event_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    programs = Programs(monkeypatch)
    programs.error = "error: the server is away"
    given = options(tmp_path, kubeconfig=str(PROGRAM))
    _verdict, state = watch_pool.Watch(given, {}, NOW).run(Usage(85.0, 1.0))
    assert "<4>No Event was created for node build-1: error: the server is away" in capsys.readouterr().out
    programs.error = ""
    watch_pool.Watch(given, state, NOW + 4000).run(Usage(85.0, 1.0))
    assert len(programs.created) == 1


def test_no_cluster_gets_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    programs = Programs(monkeypatch)
    watch_pool.Watch(options(tmp_path, kubeconfig="/no/such/file"), {}, NOW).run(Usage(85.0, 1.0))
    assert programs.calls == []
    assert capsys.readouterr().out.startswith("<4>Thin pool kata/pool uses 85.0 % of its data")


IMAGES = [
    {"id": "sha256:used", "repoTags": ["a:1"]},
    {"id": "sha256:unused", "repoTags": ["b:1"]},
    {"id": "sha256:pinned", "repoTags": ["pause:3"], "pinned": True},
    {"id": "sha256:bytag", "repoTags": ["c:1"]},
    {"id": "sha256:bydigest", "repoTags": [], "repoDigests": ["d@sha256:1"]},
]
CONTAINERS = [
    {"imageRef": "sha256:used", "image": {"image": "sha256:used"}},
    {"imageRef": "x", "image": {"image": "c:1"}},
    {"imageRef": "d@sha256:1"},
]


def test_unused_images() -> None:
    unused = watch_pool.unused_images(json.dumps({"images": IMAGES}), json.dumps({"containers": CONTAINERS}))
    assert unused == ["sha256:unused"]
    assert watch_pool.unused_images('{"images": null}', '{"containers": null}') == []


def test_an_image_is_removed_when_it_was_unused_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(monkeypatch, IMAGES, CONTAINERS)
    given = options(tmp_path, remove_images_percent=85.0)
    _verdict, state = watch_pool.Watch(given, {}, NOW).run(Usage(84.9, 1.0))
    assert programs.calls == []
    _verdict, state = watch_pool.Watch(given, state, NOW).run(Usage(90.0, 1.0))
    assert ("crictl", "rmi", "sha256:unused") not in programs.calls
    watch_pool.Watch(given, state, NOW).run(Usage(1.0, 85.0))
    assert [call for call in programs.calls if call[1] == "rmi"] == [("crictl", "rmi", "sha256:unused")]


def test_no_image_is_removed_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(monkeypatch, IMAGES, CONTAINERS)
    watch_pool.Watch(options(tmp_path), {"unused": ["sha256:unused"]}, NOW).run(Usage(99.0, 1.0))
    assert programs.calls == []


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        (f"echo '{report()}'", 0, ""),
        # In a locale with a decimal comma.
        (f"""[ "$LC_ALL" = C ] && echo '{report()}' || echo '{report(data="1,00")}'""", 0, ""),
        (f"echo '{report(data='95.00')}'", 0, "<4>Thin pool kata/pool uses 95.0 % of its data (80 % are allowed); "),
        (f"echo '{report(health='failed')}'", 1, "<3>Thin pool kata/pool has failed; "),
        ("echo 'Volume group kata not found' >&2; exit 5", 1, "<3>Thin pool kata/pool cannot be read: Volume group kata not found\n"),
        ("echo nothing", 1, "<3>Thin pool kata/pool cannot be read: "),
    ],
)
def test_the_whole_program(tmp_path: Path, script: str, code: int, output: str) -> None:
    lvs = tmp_path / "lvs"
    lvs.write_text(f"#!/bin/sh\n{script}\n")
    lvs.chmod(0o755)
    command = [sys.executable, str(PROGRAM), "--pool=kata/pool", "--percent=80", f"--state={tmp_path}/state.json", "--kubeconfig="]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LC_ALL": "de_DE.UTF-8"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr == ""
    assert done.stdout.startswith(output)
    assert bool(done.stdout) is bool(output)
