# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept of a pool on the host."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm import journal as kept
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import Journal

if t.TYPE_CHECKING:
    from pathlib import Path

WWN = "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"


def test_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    journal = kept.JournalFile("kata", tmp_path / "state")
    assert journal.read() == Journal()
    journal.add(Journal((WWN,), ("uuid",)), (WWN, "/dev/vdb"))
    assert journal.read() == Journal((WWN, "/dev/vdb"), ("uuid",), kept.boot_id())
    journal.end()
    assert list(tmp_path.iterdir()) == []


def test_kernel_names_are_forgotten_after_a_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = kept.JournalFile("kata", tmp_path)
    journal.write(Journal((WWN, "/dev/vdb"), ("uuid",)))
    monkeypatch.setattr(kept, "boot_id", lambda: "the next boot")
    assert journal.read() == Journal((WWN,), ("uuid",), "the next boot")


def test_journal_that_is_not_json_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "thin_pool-kata.json").write_text("{")
    assert kept.JournalFile("kata", tmp_path).read() == Journal()


def test_identities_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = kept.IdentityFile("kata", tmp_path / "state")
    assert file.read() == {}
    file.write({"/dev/nvme1n1": WWN})
    assert file.read() == {"/dev/nvme1n1": WWN}
    file.write({})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_identities_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thin_pool-kata-disks.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        kept.IdentityFile("kata", tmp_path).read()
    assert str(caught.value).startswith(f"{path} cannot be read (")
    assert str(caught.value).endswith("), so it is unknown which disks the pool was given; delete it to have the disks recorded again.")
