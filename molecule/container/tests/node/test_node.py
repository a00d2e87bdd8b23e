"""A build node in a container, inspected by programs other than the roles."""

from __future__ import annotations

import json
import typing as t

if t.TYPE_CHECKING:
    from testinfra.host import Host


def test_containerd_runs(host: Host) -> None:
    containerd = host.service("containerd")
    assert containerd.is_running, host.check_output("journalctl --no-pager --lines 50 --unit containerd")
    assert containerd.is_enabled
    assert host.check_output("systemctl list-units --failed --no-legend --plain") == ""


def test_the_cri_is_ready(host: Host) -> None:
    conditions = {one["type"]: one["status"] for one in json.loads(host.check_output("crictl info"))["status"]["conditions"]}
    assert conditions["RuntimeReady"]


def test_the_handler_is_known(host: Host) -> None:
    runtimes = json.loads(host.check_output("crictl info"))["config"]["containerd"]["runtimes"]
    assert runtimes["kata"]["runtimeType"] == "io.containerd.kata.v2"


def test_the_proof_left_no_pod(host: Host) -> None:
    assert host.check_output("crictl pods --quiet --label kata.screwdriver.cd/proof=true") == ""
