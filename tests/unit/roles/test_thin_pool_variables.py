"""What the role thin_pool passes to its module and writes into its units, as Ansible evaluates it."""

from __future__ import annotations

import typing as t

import pytest

from ... import helpers

ROLE = helpers.TOP / "roles" / "thin_pool"


def evaluate(template: str, **values: t.Any) -> t.Any:
    """A template with the defaults and variables of the role and these values."""
    return helpers.evaluate(template, "thin_pool", **values)


# Each has another value than its default; numbers and bools as text, as from -e.
POOL: dict[str, t.Any] = {
    "devices": ["/dev/sdb"],
    "volume_group": "builds",
    "name": "thin",
    "size": "40GiB",
    "chunk_size": "1MiB",
    "metadata_size": "128MiB",
    "autoextend_threshold": "60",
    "autoextend_percent": "30",
    "wipe": "true",
    "loop_file": "/var/tmp/pool.img",
    "loop_size": "2GiB",
}
WATCH = {
    "percent": "70",
    "remove_images_percent": "85",
    "textfile_directory": "/var/lib/node_exporter",
    "kubeconfig": "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
}


def test_options_of_the_pool_reach_the_module() -> None:
    given = {f"thin_pool_{name}": value for name, value in POOL.items()}
    database = "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper"
    assert evaluate("{{ __thin_pool_parameters }}", **given) == {**POOL, "snapshotter_root": database}
    assert POOL.keys() | {"snapshotter_root"} == evaluate("{{ __thin_pool_parameters }}").keys()


def test_options_of_the_check_reach_its_units() -> None:
    given = {f"thin_pool_watch_{name}": value for name, value in WATCH.items()}
    service = evaluate((ROLE / "templates/watch.service.j2").read_text(), **given, thin_pool_watch_node_name="build-1")
    words = {**WATCH, "node": "build-1", "pool": "kata/pool"}
    assert {f"--{name.replace('_', '-')}={value}" for name, value in words.items()} <= set(service.split())
    assert "OnUnitActiveSec=60s\n" in evaluate((ROLE / "templates/watch.timer.j2").read_text(), thin_pool_watch_interval="60")


@pytest.mark.parametrize("service", ["docker", "docker.service"])
def test_the_service_that_starts_after_the_pool(service: str) -> None:
    path = evaluate("{{ __thin_pool_drop_in }}", thin_pool_containerd_service=service)
    assert path == "/etc/systemd/system/docker.service.d/20-screwdriver-kata-thin-pool.conf"


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("max_data_percent", "101", "is not a percentage; use a number from 0 to 100."),
        ("max_metadata_percent", -1, "is not a percentage; use a number from 0 to 100."),
        ("watch_percent", 200, "is not a percentage; use a number from 0 to 100."),
        ("watch_remove_images_percent", -1, "is not a percentage; use a number from 0 to 100."),
        ("watch_interval", "0", "is not a number of seconds from 1 on; use for example 300."),
    ],
)
def test_options_out_of_range(option: str, value: t.Any, problem: str) -> None:
    assert evaluate("{{ __thin_pool_refusals }}", **{f"thin_pool_{option}": value}) == [f"thin_pool_{option}: {value} {problem}"]
    assert evaluate("{{ __thin_pool_refusals }}") == []
