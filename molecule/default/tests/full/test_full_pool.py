"""A pool that was full and got another disk; `full.yml` has stored the messages in between."""

from __future__ import annotations

import json
import typing as t

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host


@pytest.fixture(scope="module")
def keeper(host: Host) -> Iterator[str]:
    """The container that ran all along. Afterwards nothing of the test is left on the node."""
    container = host.check_output("cat /run/molecule/keeper")
    yield container
    for sandbox in host.check_output("crictl pods --quiet --namespace molecule").split():
        host.check_output("crictl stopp %s && crictl rmp --force %s", sandbox, sandbox)
    host.check_output("dmsetup remove --retry hoard && dmsetup message kata-pool 0 'delete 16000000'")


def test_a_pod_said_why_it_failed(host: Host) -> None:
    assert "rror" in host.file("/run/molecule/late").content_string


def test_the_roles_said_why(host: Host) -> None:
    assert host.file("/run/molecule/node_proof").content_string == (
        "The proof of handler kata failed on node1: Pool kata/pool has 100.00 % of its data in use, more than 80 %; "
        "add a disk to thin_pool_devices."
    )
    assert host.file("/run/molecule/thin_pool").content_string == (
        "Thin pool kata/pool is out of data space and its writes wait or fail; add a disk to devices or ask for more size, or delete "
        "images with `crictl rmi --prune`."
    )


def test_the_pool_has_grown(host: Host) -> None:
    pool = json.loads(host.check_output("lvs --reportformat json -o data_percent,lv_health_status kata/pool"))["report"][0]["lv"][0]
    assert pool["lv_health_status"] == ""
    assert 30 < float(pool["data_percent"]) < 80
    assert " rw " in host.check_output("dmsetup status kata-pool")
    assert host.check_output("vgs --noheadings -o pv_count kata").strip() == "2"


def test_nothing_was_lost(host: Host, keeper: str) -> None:
    assert json.loads(host.check_output("crictl inspect %s", keeper))["status"]["state"] == "CONTAINER_RUNNING"
    host.check_output("echo 3 >/proc/sys/vm/drop_caches")
    assert host.check_output("crictl exec %s busybox sha256sum /kept", keeper) == host.check_output("cat /run/molecule/kept")
