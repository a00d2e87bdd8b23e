# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the module finds the database of a snapshotter; its effect on real disks is in tests/node."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace

import pytest
from ansible_collections.screwdriver.kata.plugins.modules.thin_pool import ThinPool

if t.TYPE_CHECKING:
    from pathlib import Path

ROOT = "io.containerd.snapshotter.v1.devmapper"
PARAMS = {
    "devices": [],
    "volume_group": "kata",
    "name": "pool",
    "size": "80%VG",
    "chunk_size": "512KiB",
    "metadata_size": None,
    "autoextend_threshold": 75,
    "autoextend_percent": 20,
    "wipe": False,
    "loop_file": None,
    "state": "present",
}


@pytest.mark.parametrize(
    ("file", "found", "lost"),
    [
        (f"{ROOT}/metadata.db", True, False),
        # As an installation of containerd is before its first start, and with another snapshotter alone.
        ("", False, True),
        ("io.containerd.metadata.v1.bolt/meta.db", False, True),
        # The root_path of the user's own, and the database of another pool in one.
        ("devmapper/kata-pool.db", False, False),
        ("devmapper/other-pool.db", False, True),
    ],
)
def test_database(tmp_path: Path, file: str, found: bool, lost: bool) -> None:
    if file:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("")
    root = str(tmp_path / ROOT)
    module = SimpleNamespace(params={**PARAMS, "snapshotter_root": root}, check_mode=False)
    pool = ThinPool(t.cast("t.Any", module))
    assert pool._find_database() == (root if found else "")
    assert pool._find_lost_database() == (root if lost else "")


def test_no_database_is_asked_for() -> None:
    pool = ThinPool(t.cast("t.Any", SimpleNamespace(params={**PARAMS, "snapshotter_root": None}, check_mode=False)))
    assert pool._find_database() == ""
    assert pool._find_lost_database() == ""
