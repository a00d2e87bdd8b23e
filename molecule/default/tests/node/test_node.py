"""A build node checked from outside, before a reboot and after it."""

from __future__ import annotations

import json
import typing as t

if t.TYPE_CHECKING:
    from testinfra.host import Host

    from .conftest import Pod


def test_services(host: Host) -> None:
    containerd = host.service("containerd")
    assert containerd.is_running, host.check_output("journalctl --no-pager --lines 50 --unit containerd")
    assert containerd.is_enabled
    assert host.check_output("systemctl list-units --failed --no-legend --plain") == ""
    assert "Server:" in host.check_output("ctr version")
    conditions = {one["type"]: one["status"] for one in json.loads(host.check_output("crictl info"))["status"]["conditions"]}
    assert (conditions["RuntimeReady"], conditions["NetworkReady"]) == (True, True)


def test_plugins_are_ok(host: Host) -> None:
    states = {line.split()[1]: line.split()[-1] for line in host.check_output("ctr plugins ls").splitlines()[1:]}
    assert (states["devmapper"], states["cri"]) == ("ok", "ok")


def test_pool_extends_itself(host: Host) -> None:
    pool = json.loads(host.check_output("lvs --reportformat json -o seg_monitor,lv_profile,lv_health_status kata/pool"))["report"][0]["lv"][
        0
    ]
    assert (pool["seg_monitor"], pool["lv_health_status"]) == ("monitored", "")
    assert "thin_pool_autoextend_threshold=75" in host.file(f"/etc/lvm/profile/{pool['lv_profile']}.profile").content_string
    assert host.service("dm-event").is_running
    assert host.service("lvm2-monitor").is_enabled


def test_pod_runs_on_a_snapshot_of_the_pool(host: Host, pod: Pod) -> None:
    assert len(pod.devices - pod.devices_before) == 2, "one snapshot for the sandbox and one for the container"
    root = host.check_output(
        "findmnt --noheadings --output SOURCE --mountpoint /run/containerd/io.containerd.runtime.v2.task/k8s.io/%s/rootfs", pod.container
    )
    device = root.removeprefix("/dev/mapper/")
    assert device in pod.devices - pod.devices_before
    number = host.check_output("dmsetup info --columns --noheadings --separator : --options major,minor kata-pool")
    assert host.check_output("dmsetup table %s", device).split()[2:4] == ["thin", number]


def test_pod_runs_under_the_handler(host: Host, pod: Pod) -> None:
    info = json.loads(host.check_output("ctr --namespace k8s.io containers info %s", pod.container))
    assert (info["Runtime"]["Name"], info["Snapshotter"]) == ("io.containerd.kata.v2", "devmapper")
    assert host.check_output("crictl exec %s sh -c 'ulimit -n; ulimit -Hn'", pod.container).split() == ["262144", "262144"]


def test_the_proof_left_no_pod(host: Host) -> None:
    assert host.check_output("crictl pods --quiet --label kata.screwdriver.cd/proof=true") == ""
