# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the package managers print of a simulation, and what the roles read in it. The package managers are stubs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/download/files/plan_packages.sh"
DNF_INSTALL = """Dependencies resolved.
================================================================================
 Package              Architecture Version              Repository        Size
================================================================================
Installing:
 containerd           x86_64       1.7.24-1.el9         epel              34 M
Installing dependencies:
 container-selinux    noarch       3:2.235.0-2.el9      appstream         55 k
 runc                 x86_64       4:1.2.5-2.el9        appstream        3.9 M

Transaction Summary
================================================================================
Install  3 Packages
Operation aborted.
"""
DNF_REMOVE = """Dependencies resolved.
================================================================================
 Package              Architecture Version              Repository        Size
================================================================================
Removing:
 containerd           x86_64       1.7.24-1.el9         @epel            130 M
Removing dependent packages:
 moby-engine          x86_64       24.0.5-1.el9         @epel             90 M
Removing unused dependencies:
 runc                 x86_64       4:1.2.5-2.el9        @appstream        10 M

Transaction Summary
================================================================================
Remove  3 Packages
Operation aborted.
"""
DNF_CONFLICT = """Error:
 Problem: problem with installed package containerd.io-1.7.20-3.1.el9.x86_64
  - package containerd-1.7.24-1.el9 from epel conflicts with containerd.io provided by containerd.io-1.7.20-3.1.el9.x86_64 from @System
"""
EL10 = "No match for argument: containernetworking-plugins\nError: Unable to find a match: containernetworking-plugins\n"
APT_INSTALL = """Inst libip6tc2 (1.8.9-2 Debian:12.12/stable [amd64])
Inst libc6 [2.36-9] (2.36-10 Debian:12.12/stable [amd64])
Inst containerd (1.6.20~ds1-1+b1 Debian:12.12/stable [amd64])
Conf containerd (1.6.20~ds1-1+b1 Debian:12.12/stable [amd64])
"""
APT_REMOVE = "Remv docker.io [20.10.24]\nRemv containerd [1.6.20]\nRemv runc [1.1.5]\n"


def planned(tmp_path: Path, family: str, action: str, output: str, *packages: str) -> list[str]:
    stub = tmp_path / {"Debian": "apt-get", "RedHat": "dnf"}[family]
    stub.write_text(f"#!/bin/sh\ncat <<'OUTPUT'\n{output}OUTPUT\n")
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", str(SCRIPT), family, action, *packages]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("family", "action", "output", "expected"),
    [
        # What is new, and neither an upgrade nor its configuration.
        ("Debian", "install", APT_INSTALL, ["installs libip6tc2", "installs containerd"]),
        ("Debian", "install", "E: Unable to locate package runc\n", ["unknown runc"]),
        # The packages themselves are meant to go, and another one is not.
        ("Debian", "remove", APT_REMOVE, ["removes docker.io"]),
        ("RedHat", "install", DNF_INSTALL, ["installs containerd", "installs container-selinux", "installs runc"]),
        ("RedHat", "install", DNF_CONFLICT, ["removes containerd.io-1.7.20-3.1.el9.x86_64"]),
        ("RedHat", "install", EL10, ["unknown containernetworking-plugins"]),
        ("RedHat", "remove", DNF_REMOVE, ["removes moby-engine"]),
    ],
)
def test_plan(tmp_path: Path, family: str, action: str, output: str, expected: list[str]) -> None:
    assert planned(tmp_path, family, action, output, "containerd", "runc") == expected
