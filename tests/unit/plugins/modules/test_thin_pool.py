# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module does with a pool that it did not create; its effect on real disks is in tests/node."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.journal import IdentityFile, JournalFile
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import TAG
from ansible_collections.screwdriver.kata.plugins.modules import thin_pool

from ..module_utils.test_lvm_plan import PARAMS, group, made, pool

WARNING = (
    "Thin pool kata/pool was not created by this module and stays with what is in it; delete what containerd left in it if you need the "
    "space."
)


class Host:
    """A host with an adopted pool, and the commands that change it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = replace(made(), group=group(pool(tags=frozenset({"theirs", f"{TAG}.size=80VG"}))))
        self.commands: list[str] = []
        self.warnings: list[str] = []
        self.profile = tmp_path / "screwdriver-kata-kata-pool.profile"
        self.profile.write_text(self.state.profile or "")
        monkeypatch.setattr(thin_pool, "Lvm", lambda _module: self)
        monkeypatch.setattr(thin_pool, "PROFILES", tmp_path)
        for name, kind in (("JournalFile", JournalFile), ("IdentityFile", IdentityFile)):
            monkeypatch.setattr(thin_pool, name, lambda group, kind=kind: kind(group, tmp_path / "state"))
        monkeypatch.setattr(thin_pool.ThinPool, "_inspect", lambda _self: self.state)

    def missing(self) -> str | None:
        return None

    def lvm(self, *command: str) -> None:
        self.commands.append(" ".join(command))

    def run(self, tool: str, *arguments: str) -> str:
        raise NotImplementedError(f"{tool} {' '.join(arguments)}")

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def absent(self, check: bool = False, loop_file: str | None = None) -> dict[str, t.Any]:
        self.params = {**PARAMS, "devices": [], "discard": True, "loop_file": loop_file, "state": "absent"}
        self.check_mode = check
        return thin_pool.ThinPool(t.cast(t.Any, self)).run()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_foreign_pool_stays_and_is_handed_back(host: Host) -> None:
    checked = host.absent(check=True)
    assert checked["changed"] is True
    assert checked["pool"]["device"] == "kata-pool"
    assert checked["diff"]["before"]["pool"]["profile"] == "screwdriver-kata-kata-pool"
    assert checked["diff"]["after"]["pool"]["profile"] == ""
    assert host.commands == []
    assert host.profile.exists()
    assert host.absent() == checked
    assert host.commands == [
        f"lvchange --deltag {TAG}.size=80VG kata/pool",
        "lvchange --detachprofile kata/pool",
        "lvchange --monitor n kata/pool",
        "lvchange --monitor y kata/pool",
    ]
    assert not host.profile.exists()
    assert host.warnings == [WARNING] * 2


def test_a_foreign_pool_that_is_handed_back_is_not_changed(host: Host) -> None:
    host.state = replace(host.state, profile=None, group=group(pool(tags=frozenset({"theirs"}), profile="")))
    done = host.absent()
    assert done["changed"] is False
    assert done["diff"]["before"] == done["diff"]["after"]
    assert host.commands == []
    assert host.warnings == [WARNING]


def test_a_foreign_pool_keeps_its_loop_device(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        def __init__(self, *_arguments: t.Any) -> None:
            pass

        def exists(self) -> bool:
            return True

        def remove(self) -> None:
            raise AssertionError("the pool is on it")

    monkeypatch.setattr(thin_pool, "Loop", Loop)
    host.absent(loop_file="/var/tmp/pool.img")
    assert host.commands
