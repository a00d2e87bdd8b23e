# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names by release, drop-ins that fit what is shipped, and handlers that are refused."""

from __future__ import annotations

import tomllib
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.screwdriver.kata.plugins.module_utils._install.kata import describe, drop_in, find_problems

VARS = Path(__file__).parents[4] / "roles/download/vars/main"
ADVISORIES: list[dict[str, t.Any]] = yaml.safe_load((VARS / "advisories.yml").read_text())["download_advisories"]
QEMU = """
[hypervisor.qemu]
kernel_params = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
disable_block_device_use = true
# default_memory = 2048
kernel = "/opt/kata/share/kata-containers/vmlinux.container"

[hypervisor.qemu.factory]
enable_template = false

[runtime]
sandbox_cgroup_only = false
emptydir_mode = "shared-fs"
"""


def handler(version: str = "4.2.0", **given: t.Any) -> dict[str, t.Any]:
    [described] = describe([{"name": "kata", **given}], version, snapshotter="devmapper", pod_annotations=[])
    return described


def problems(handlers: list[dict[str, t.Any]], version: str, allow_patterns: bool = False, previous: str = "") -> list[str]:
    return find_problems(handlers, version, allow_patterns, ADVISORIES, previous)


def written(shipped: str = QEMU, systemd_cgroup: bool = True, **given: t.Any) -> dict[str, t.Any]:
    return tomllib.loads(drop_in(handler(**given), shipped, systemd_cgroup)["content"])


@pytest.mark.parametrize(
    ("version", "shim", "hypervisor", "file", "table"),
    [
        ("3.28.0", "rust", "clh", "runtime-rs/configuration-cloud-hypervisor.toml", "cloud-hypervisor"),
        ("3.29.0", "rust", "clh", "runtime-rs/configuration-cloud-hypervisor.toml", "cloud-hypervisor"),
        ("3.30.0", "rust", "clh", "runtime-rs/configuration-clh-runtime-rs.toml", "clh"),
        ("4.2.0", "rust", "clh", "runtime-rs/configuration-clh-runtime-rs.toml", "clh"),
        ("3.28.0", "go", "clh", "configuration-clh.toml", "clh"),
        ("3.28.0", "go", "fc", "configuration-fc.toml", "firecracker"),
        ("4.2.0", "rust", "qemu", "runtime-rs/configuration-qemu-runtime-rs.toml", "qemu"),
        ("4.2.0", "rust", "dragonball", "runtime-rs/configuration-dragonball.toml", "dragonball"),
    ],
)
def test_names_by_release(version: str, shim: str, hypervisor: str, file: str, table: str) -> None:
    found = handler(version, shim=shim, hypervisor=hypervisor)
    assert found["shipped"] == f"share/defaults/kata-containers/{file}"
    assert found["table"] == table


@pytest.mark.parametrize(
    ("version", "shim", "expected"),
    [
        ("3.32.0", None, ("go", "kata-static")),
        ("4.0.0", None, ("rust", "kata-static")),
        ("4.0.0", "go", ("go", "kata-static")),
        ("4.1.0", "go", ("go", "kata-go-static")),
        ("4.2.0", "rust", ("rust", "kata-static")),
    ],
)
def test_shim_and_archive_by_release(version: str, shim: str | None, expected: tuple[str, str]) -> None:
    found = handler(version, shim=shim)
    assert (found["shim"], found["archive"]) == expected


@pytest.mark.parametrize(
    ("version", "hypervisor", "memory"),
    [("3.32.0", "qemu", "256Mi"), ("4.0.0", "qemu", "320Mi"), ("4.2.0", "clh", "130Mi"), ("4.2.0", "dragonball", "130Mi")],
)
def test_overhead(version: str, hypervisor: str, memory: str) -> None:
    assert handler(version, hypervisor=hypervisor)["overhead"] == {"cpu": "250m", "memory": memory}


def test_parameters_of_the_kernel_are_added_to_the_shipped_ones() -> None:
    shipped = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
    assert "kernel_params" not in written()["hypervisor"]["qemu"]
    assert written(kernel_params="quiet")["hypervisor"]["qemu"]["kernel_params"] == f"{shipped} quiet"
    assert written(settings={"hypervisor.qemu": {"kernel_params": "debug"}})["hypervisor"]["qemu"]["kernel_params"] == f"{shipped} debug"
    both = written(settings={"hypervisor": {"qemu": {"kernel_params": f"{shipped} debug"}}}, kernel_params="quiet")
    assert both["hypervisor"]["qemu"]["kernel_params"] == f"{shipped} debug quiet"


def test_block_devices_with_devmapper_alone() -> None:
    assert written()["hypervisor"]["qemu"]["disable_block_device_use"] is False
    assert written(snapshotter="overlayfs") == {}


def test_hypervisor_in_the_cgroup_of_the_pod() -> None:
    assert written(shim="go")["runtime"] == {"sandbox_cgroup_only": True}
    assert "runtime" not in written(shim="go", systemd_cgroup=False)
    assert "runtime" not in written(shim="rust")


def test_settings() -> None:
    found = written(
        kernel="/boot/vmlinux-el6",
        emptydir_mode="block-plain",
        settings={
            "hypervisor.qemu": {"default_memory": 4096, "factory": {"enable_template": True}},
            "agent.kata": {"kernel_modules": ["a b"]},
        },
    )
    assert found == {
        "hypervisor": {
            "qemu": {
                "disable_block_device_use": False,
                "kernel": "/boot/vmlinux-el6",
                "default_memory": 4096,
                "factory": {"enable_template": True},
            }
        },
        "runtime": {"emptydir_mode": "block-plain"},
        "agent": {"kata": {"kernel_modules": ["a b"]}},
    }


def test_unknown_settings_are_reported() -> None:
    settings = {
        "hypervisor.qemu": {"defualt_memory": 1, "default_memory": 2},
        "runtime": {"sandbox_cgroups_only": True},
        "factory": {"x": 1},
    }
    unknown = drop_in(handler(settings=settings), QEMU, True)["unknown"]
    assert unknown == ["factory.x", "hypervisor.qemu.defualt_memory", "runtime.sandbox_cgroups_only"]
    # A setting of the shipped configuration that is a comment is known.
    assert drop_in(handler(settings={"hypervisor.qemu": {"default_memory": 2}}), QEMU, True)["unknown"] == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"settings": {"hypervisor.qemu": {"default_memory": None}}},
            "kata_handlers: settings of handler kata: hypervisor.qemu.default_memory is null, which TOML cannot express. "
            "Remove it, or give it a value.",
        ),
        (
            {"settings": {"hypervisor.qemu": {"sizes": [1, None]}}},
            "kata_handlers: settings of handler kata: hypervisor.qemu.sizes[1] is null, which TOML cannot express. "
            "Remove it, or give it a value.",
        ),
        (
            {"settings": {"hypervisor": {"qemu": 5}}},
            "kata_handlers: settings of handler kata: hypervisor.qemu is not a table. Give its settings by name.",
        ),
        ({"settings": {"runtime": "x"}}, "kata_handlers: settings of handler kata: runtime is not a table. Give its settings by name."),
        (
            {"name": "Kata_1"},
            "kata_handlers: Kata_1 is not a valid name of a RuntimeClass. Use lower-case letters, digits and hyphens.",
        ),
        (
            {"shim": "go", "hypervisor": "dragonball"},
            "kata_handlers: the go shim of handler kata does not support dragonball. Choose the other shim, or another hypervisor.",
        ),
    ],
)
def test_refused_handlers(given: dict[str, t.Any], sentence: str) -> None:
    assert problems([handler(**given)], "4.2.0") == [sentence]


def test_names_are_unique() -> None:
    assert problems([handler(), handler(name="other"), handler()], "4.2.0") == [
        "kata_handlers: kata is defined twice. Give each handler a unique name."
    ]


ROOT = "pod_annotations of handler kata: {} passes {}, and Kata {} has {}: {}. List the annotations that you need, or use Kata {} or newer."
PATTERN = (
    "pod_annotations of handler kata: {} passes annotations that nobody has listed. List the annotations that you need, or set "
    "kata_allow_annotation_patterns."
)
CONFIG_PATH = "io.katacontainers.config_path"
BIND_MOUNTS = "io.katacontainers.config.runtime.sandbox_bind_mounts"
EXTRA_ARGS = "io.katacontainers.config.hypervisor.virtio_fs_extra_args"
CONFIG_PATH_GIVES = "a pod with the annotation io.katacontainers.config_path runs programs as root on the host"


@pytest.mark.parametrize("pattern", ["io.katacontainers.config_path", "io.katacontainers.*", "*", "io.katacontainers.config_?ath"])
def test_no_annotation_that_gives_root(pattern: str) -> None:
    sentence = ROOT.format(pattern, CONFIG_PATH, "3.32.0", "CVE-2026-50540", CONFIG_PATH_GIVES, "4.0.0")
    for allow in (False, True):
        assert problems([handler("3.32.0", pod_annotations=[pattern])], "3.32.0", allow) == [sentence]


@pytest.mark.parametrize(
    ("version", "shim", "annotation", "advisory"),
    [
        ("3.32.0", "rust", BIND_MOUNTS, "GHSA-7fhf-v3p3-rp56"),
        ("3.32.0", "go", BIND_MOUNTS, None),
        ("4.0.0", "rust", BIND_MOUNTS, None),
        ("3.30.0", "go", EXTRA_ARGS, "CVE-2026-44210"),
        ("3.30.0", "rust", EXTRA_ARGS, "CVE-2026-44210"),
        ("3.31.0", "go", EXTRA_ARGS, None),
        ("4.2.0", "rust", CONFIG_PATH, None),
    ],
)
def test_annotations_are_refused_by_release_and_shim(version: str, shim: str, annotation: str, advisory: str | None) -> None:
    found = problems([handler(version, shim=shim, pod_annotations=[annotation])], version, True)
    assert [sentence.split(" has ")[1].split(":")[0] for sentence in found] == ([advisory] if advisory else [])


def test_patterns_of_annotations_only_when_asked_for() -> None:
    memory = "io.katacontainers.config.hypervisor.default_memory"
    for version in ("3.32.0", "4.2.0"):
        assert problems([handler(version, pod_annotations=[memory])], version) == []
    for pattern in ("io.katacontainers.*", "io.katacontainers.config.hypervisor.*", "io.[k]ata"):
        assert problems([handler(pod_annotations=[pattern])], "4.2.0") == [PATTERN.format(pattern)]
        assert problems([handler(pod_annotations=[pattern])], "4.2.0", True) == []


@pytest.mark.parametrize(
    ("version", "previous", "given", "shims"),
    [
        ("4.2.0", "3.32.0", {}, ("go", "rust")),
        ("3.32.0", "4.2.0", {}, ("rust", "go")),
        ("4.2.0", "4.1.0", {}, None),
        ("3.32.0", "3.28.0", {}, None),
        # A shim of one's own is the same in both.
        ("4.2.0", "3.32.0", {"shim": "go"}, None),
        # No rollback.
        ("4.2.0", "", {}, None),
    ],
)
def test_a_rollback_to_another_shim(version: str, previous: str, given: dict[str, t.Any], shims: tuple[str, str] | None) -> None:
    expected = [
        f"kata_state rolled_back: handler kata has the {before} shim in Kata {previous} and the {now} shim in Kata {version}, and each "
        f"has a configuration of its own. Set kata_version to {previous} instead, with kata_state present."
        for before, now in ([shims] if shims else [])
    ]
    assert problems([handler(version, **given)], version, previous=previous) == expected
