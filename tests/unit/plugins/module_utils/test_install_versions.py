# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of advisories, judged against versions and against the table of digests."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.screwdriver.kata.plugins.module_utils._install.versions import is_affected, judge

VARS = Path(__file__).parents[4] / "roles/download/vars/main"
ADVISORIES: dict[str, t.Any] = yaml.safe_load((VARS / "advisories.yml").read_text())
CHECKSUMS: dict[str, t.Any] = yaml.safe_load((VARS / "checksums.yml").read_text())
# What an image or a pod can do to the host; the others stop containerd, stay between pods, or need a program that no role installs.
ESCAPES = {
    "CVE-2026-50540",
    "GHSA-7fhf-v3p3-rp56",
    "GHSA-fgm4-mv68-h344",
    "CVE-2026-44210",
    "CVE-2026-47243",
    "CVE-2026-24834",
    "CVE-2026-24054",
    "CVE-2026-53488",
    "CVE-2026-53489",
    "CVE-2026-53492",
    "CVE-2025-31133",
    "CVE-2025-52565",
    "CVE-2025-52881",
}
GUIDE = VARS.parents[3] / "docs/docsite/rst/guide_security.rst"


def affected(version: str, component: str, handlers: list[dict[str, t.Any]] | None = None) -> set[str]:
    sentences = judge(version, component, ADVISORIES["download_advisories"], {}, handlers)
    return {found[0] for sentence in sentences if (found := re.search(r"(CVE|GHSA)-[\w-]+", sentence))}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.7.32", True),
        ("1.7.33", False),
        ("1.6.20", True),
        ("2.3.1", True),
        ("2.3.2", False),
        ("2.4.0", False),
        ("2.2.4", True),
        ("", False),
    ],
)
def test_fix_of_each_line(version: str, expected: bool) -> None:
    assert is_affected(version, ["1.7.33", "2.0.10", "2.1.9", "2.2.5", "2.3.2"]) is expected


@pytest.mark.parametrize(
    ("component", "version", "expected"),
    [
        # Checkpoints of containers are restored from 2.1 on.
        ("containerd", "1.7.36", set()),
        ("containerd", "2.0.12", {"CVE-2026-53493"}),
        ("containerd", "2.1.9", {"CVE-2026-95837", "CVE-2026-53493", "CVE-2026-53495"}),
        ("containerd", "2.2.8", {"CVE-2026-53493"}),
        (
            "containerd",
            "2.3.1",
            {
                *("CVE-2026-53488", "CVE-2026-53492", "CVE-2026-53489", "CVE-2026-50195"),
                *("CVE-2026-95837", "CVE-2026-47262", "CVE-2026-53495", "CVE-2026-53493"),
            },
        ),
        (
            "containerd",
            "2.3.2~rc1",
            {
                *("CVE-2026-53488", "CVE-2026-53492", "CVE-2026-53489", "CVE-2026-50195"),
                *("CVE-2026-95837", "CVE-2026-47262", "CVE-2026-53495", "CVE-2026-53493"),
            },
        ),
        ("containerd", "2.3.6", set()),
        ("containerd", "2.4.0", {"CVE-2026-53493"}),
        ("containerd", "2.4.1", set()),
        ("runc", "1.2.7", {"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"}),
        ("runc", "1.3.3", set()),
        ("runc", "1.5.1", set()),
    ],
)
def test_lines_of_containerd_and_runc(component: str, version: str, expected: set[str]) -> None:
    assert affected(version, component) == expected


def test_versions_of_distributions() -> None:
    assert is_affected("1.6.20~ds1", ["1.7.33"]) is True
    for version in ("2.3.2~ds1", "2.3.2+ds", "2.3.2-k3s1", "2.3.2-1~deb13u1"):
        assert is_affected(version, ["2.3.2"]) is False


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v4.0.0-rc1", True),
        ("4.0.0-alpha1", True),
        ("4.0.0~beta.2-1", True),
        ("4.0.0-RC0", True),
        ("4.0.0", False),
        ("4.0.1-rc0", False),
        ("4.1.0-rc0", False),
    ],
)
def test_a_pre_release_is_older_than_its_release(version: str, expected: bool) -> None:
    assert is_affected(version, ["4.0.0"]) is expected


def test_a_pre_release_may_have_the_fault_of_its_release() -> None:
    assert is_affected("2.1.0-rc.1", ["2.2.5"], introduced="2.1.0") is True


def test_no_escape_in_the_table() -> None:
    names = [name for key, table in CHECKSUMS.items() if key != "download_crictl_checksums" for name in table]
    assert len(names) > 30
    for name in names:
        component, version = re.match(r"(containerd|runc|cni|kata)[a-z-]*-(\d+\.\d+\.\d+)", name).groups()
        assert not affected(version, component) & ESCAPES, name


def test_the_defaults_have_no_known_fault_and_a_digest() -> None:
    for role, component in (("containerd", "containerd"), ("kata", "kata")):
        defaults = yaml.safe_load((VARS.parents[2] / role / "defaults/main.yml").read_text())
        version = defaults[f"{role}_version"]
        assert judge(version, component, ADVISORIES["download_advisories"], ADVISORIES["download_end_of_life"]) == []
        names = [name for name in CHECKSUMS[f"download_{role}_checksums"] if version in name and "go-static" not in name]
        assert {"amd64", "arm64"} == {name.split("-")[-1].split(".")[0] for name in names}


def test_sentences() -> None:
    handlers = [{"shim": "rust", "hypervisor": "qemu"}]
    assert judge("3.31.0", "kata", ADVISORIES["download_advisories"], ADVISORIES["download_end_of_life"], handlers) == [
        "kata 3.31.0 has CVE-2026-50540: a pod with the annotation io.katacontainers.config_path runs programs as root on the host. "
        "It is fixed in 4.0.0.",
        "kata 3.31.0 has GHSA-7fhf-v3p3-rp56: with the Rust shim the annotation sandbox_bind_mounts brings directories of the host into a "
        "pod. It is fixed in 4.0.0.",
    ]
    assert judge("1.7.36", "containerd", [], ADVISORIES["download_end_of_life"]) == [
        "containerd 1.7 gets no more fixes (end of life 2026-09)."
    ]


@pytest.mark.parametrize(
    ("version", "handlers", "expected"),
    [
        # Every advisory of its shim and hypervisor, and those of all.
        ("3.30.0", [{"shim": "go", "hypervisor": "qemu"}], {"CVE-2026-50540", "CVE-2026-44210"}),
        (
            "3.30.0",
            [{"shim": "rust", "hypervisor": "qemu"}],
            {"CVE-2026-50540", "CVE-2026-44210", "CVE-2026-47243", "GHSA-7fhf-v3p3-rp56"},
        ),
        ("3.25.0", [{"shim": "go", "hypervisor": "fc"}], {"CVE-2026-50540", "CVE-2026-44210", "CVE-2026-24054"}),
        (
            "3.25.0",
            [{"shim": "go", "hypervisor": "clh"}],
            {"CVE-2026-50540", "CVE-2026-44210", "CVE-2026-24054", "CVE-2026-24834"},
        ),
        ("3.32.0", [{"shim": "rust", "hypervisor": "dragonball"}], {"CVE-2026-50540", "GHSA-7fhf-v3p3-rp56", "GHSA-fgm4-mv68-h344"}),
        # One handler is enough, and the parts of two handlers are not those of one.
        (
            "3.32.0",
            [{"shim": "go", "hypervisor": "qemu"}, {"shim": "rust", "hypervisor": "qemu"}],
            {"CVE-2026-50540", "GHSA-7fhf-v3p3-rp56"},
        ),
        # What is unknown is taken to be affected.
        ("3.32.0", [{"shim": "rust", "hypervisor": ""}], {"CVE-2026-50540", "GHSA-7fhf-v3p3-rp56", "GHSA-fgm4-mv68-h344"}),
        (
            "3.32.0",
            [{"shim": "rust", "hypervisor": "qemu", "managed": False}],
            {"CVE-2026-50540", "GHSA-7fhf-v3p3-rp56", "GHSA-fgm4-mv68-h344"},
        ),
        ("3.32.0", None, {"CVE-2026-50540", "GHSA-7fhf-v3p3-rp56", "GHSA-fgm4-mv68-h344"}),
        ("3.32.0", [], set()),
        ("4.0.0-rc0", None, {"CVE-2026-50540", "GHSA-7fhf-v3p3-rp56", "GHSA-fgm4-mv68-h344"}),
        ("4.2.0", None, set()),
    ],
)
def test_shim_and_hypervisor(version: str, handlers: list[dict[str, t.Any]] | None, expected: set[str]) -> None:
    assert affected(version, "kata", handlers) == expected


def test_fields_of_an_advisory() -> None:
    """A mistyped value would match nothing, and hide the advisory."""
    for advisory in ADVISORIES["download_advisories"]:
        assert advisory.keys() <= {"id", "component", "shim", "hypervisor", "annotation", "summary", "introduced", "fixed"}, advisory
        assert advisory.get("shim", "go") in {"go", "rust"}
        assert advisory.get("hypervisor", "qemu") in {"qemu", "clh", "fc", "dragonball"}
        assert advisory.get("annotation", "io.katacontainers.").startswith("io.katacontainers.")


def test_guide_has_every_advisory() -> None:
    rows = re.findall(r"   \* - (\S+)\n     - .*\n(?:       .*\n)*     - (.*)\n", GUIDE.read_text())
    listed = {advisory: fixed for advisory, fixed in rows if re.match("CVE|GHSA", advisory)}
    assert listed == {advisory["id"]: ", ".join(advisory["fixed"]) for advisory in ADVISORIES["download_advisories"]}
