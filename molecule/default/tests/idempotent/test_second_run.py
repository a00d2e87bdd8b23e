"""What a second run of the roles left alone; `pod.yml` has noted it before."""

from __future__ import annotations

import json
import typing as t

if t.TYPE_CHECKING:
    from testinfra.host import Host


def test_containerd_was_not_restarted(host: Host) -> None:
    assert host.check_output("systemctl show --property ActiveEnterTimestampMonotonic containerd") == host.check_output(
        "cat /run/molecule/started"
    )


def test_pod_survived(host: Host) -> None:
    before = json.loads(host.check_output("cat /run/molecule/pod.json"))
    now = json.loads(host.check_output("crictl inspect %s", before["status"]["id"]))
    assert now["status"]["state"] == "CONTAINER_RUNNING"
    assert (now["status"]["startedAt"], now["info"]["pid"]) == (before["status"]["startedAt"], before["info"]["pid"])
