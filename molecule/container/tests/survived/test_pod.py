"""A pod under the handler survives the second run of the roles and a restart of containerd; `pod.yml` has saved the pod before them."""

from __future__ import annotations

import json
import typing as t

if t.TYPE_CHECKING:
    from testinfra.host import Host


def test_pod_survived(host: Host) -> None:
    before = json.loads(host.check_output("cat /run/molecule/pod.json"))
    now = json.loads(host.check_output("crictl inspect %s", before["status"]["id"]))
    assert now["status"]["state"] == "CONTAINER_RUNNING"
    assert now["info"]["pid"] == before["info"]["pid"]
    assert host.check_output("crictl exec %s sh -c 'echo alive'", before["status"]["id"]) == "alive"


def test_its_runtime_is_that_of_the_handler(host: Host) -> None:
    container = json.loads(host.check_output("cat /run/molecule/pod.json"))["status"]["id"]
    assert (
        json.loads(host.check_output("ctr --namespace k8s.io containers info %s", container))["Runtime"]["Name"] == "io.containerd.kata.v2"
    )
    for sandbox in host.check_output("crictl pods --quiet").split():
        host.check_output("crictl stopp %s && crictl rmp %s", sandbox, sandbox)
