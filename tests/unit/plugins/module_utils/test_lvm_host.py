# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tools' output, and the messages where a tool is missing."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm import host
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import Pool, Volume


class FakeModule:
    """A host with these tools; modprobe knows the kernel module or not."""

    run_command_environ_update: t.ClassVar[dict[str, str]] = {}

    def __init__(self, tools: set[str], modprobe: int = 0) -> None:
        self.tools = tools
        self.modprobe = modprobe
        self.answer = (0, "", "")

    def get_bin_path(self, name: str) -> str | None:
        return f"/usr/sbin/{name}" if name in self.tools else None

    def run_command(self, command: list[str], data: str | None = None) -> tuple[int, str, str]:
        return (self.modprobe, "", "") if command[0] == "/usr/sbin/modprobe" else self.answer


def make(tools: set[str], modprobe: int = 0) -> tuple[host.Lvm, FakeModule]:
    module = FakeModule(tools, modprobe)
    return host.Lvm(t.cast(t.Any, module)), module


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("lvm", "The tool lvm is missing; install the package lvm2."),
        (
            "thin_check",
            "The tool thin_check is missing; install the package thin-provisioning-tools (Debian family) or device-mapper-persistent-data "
            "(RedHat family).",
        ),
    ],
)
def test_missing_tool(tool: str, message: str) -> None:
    lvm, _module = make({"modprobe", *host.TOOLS} - {tool})
    with pytest.raises(UserError) as caught:
        lvm.check_host()
    assert str(caught.value) == message


def test_missing_kernel_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(host.os, "uname", lambda: type("Uname", (), {"release": "6.1.0-test"}))
    lvm, _module = make({"modprobe", *host.TOOLS}, modprobe=1)
    with pytest.raises(UserError) as caught:
        lvm.check_host()
    assert str(caught.value) == (
        "The kernel 6.1.0-test has no module dm_thin_pool; install the package linux-image-ARCH (Debian family) or kernel-modules (RedHat "
        "family) of the running kernel."
    )


def test_failed_command_has_its_reason() -> None:
    lvm, module = make(set(host.TOOLS))
    module.answer = (5, "", "  WARNING: noise\n  Volume group is full.\n")
    with pytest.raises(UserError) as caught:
        lvm.lvm("vgs", "kata")
    assert str(caught.value) == "`lvm vgs kata` failed with exit code 5: Volume group is full."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  LVM version:     2.03.16(2) (2022-05-18)\n", (2, 3, 16)),
        ("  LVM version:     2.03.11(2)-RHEL8 (2021-01-28)", (2, 3, 11)),
        ("", (0, 0, 0)),
    ],
)
def test_version(text: str, expected: tuple[int, ...]) -> None:
    assert host.parse_version(text) == expected


def test_signatures() -> None:
    text = "# offset,uuid,label,type\n0x438,6f3a-1,precious,ext4\n0x218,PVUUID,,LVM2_member\n0x1fe,,,PMBR\n"
    assert host.parse_signatures(text) == ("a signature of ext4 labelled precious", "an LVM physical volume", "a PMBR partition table")
    assert host.parse_signatures("") == ()


def test_group() -> None:
    row = {
        "vg_name": "kata",
        "vg_extent_size": "4194304",
        "vg_extent_count": "1023",
        "vg_free_count": "173",
        "vg_tags": "screwdriver.kata,mine",
    }
    row |= {"vg_missing_pv_count": "0", "vg_exported": "", "vg_autoactivation": "enabled"}
    members = [{"pv_name": "/dev/vdb", "pv_tags": "", "pv_used": "4194304"}]
    empty = dict.fromkeys(host.VOLUME_FIELDS.split(","), "")
    pool = {**empty, "lv_name": "pool", "lv_uuid": "1", "segtype": "thin-pool", "lv_size": "3430940672", "lv_metadata_size": "67108864"}
    pool |= {"chunk_size": "524288", "seg_monitor": "monitored", "lv_active": "active", "data_percent": "0.00", "metadata_percent": "10.06"}
    pool |= {
        "lv_profile": "p",
        "lv_when_full": "error",
        "lv_health_status": "out_of_data",
        "lv_check_needed": "check needed",
        "lv_autoactivation": "",
    }
    volumes = [
        {**empty, "lv_name": "[lvol0_pmspare]", "lv_uuid": "2", "segtype": "linear", "lv_size": "67108864"},
        pool,
        # Two segments of one volume are two rows.
        {**empty, "lv_name": "[pool_tdata]", "lv_uuid": "3", "segtype": "linear", "lv_size": "3430940672"},
        {**empty, "lv_name": "[pool_tdata]", "lv_uuid": "3", "segtype": "linear", "lv_size": "3430940672"},
    ]
    group = host.parse_group(row, members, volumes, "pool")
    assert group.tags == {"screwdriver.kata", "mine"}
    assert group.spare == 16
    assert group.members[0].used == 4194304
    assert [volume.name for volume in group.volumes] == ["lvol0_pmspare", "pool", "pool_tdata"]
    assert group.volumes[0] == Volume("lvol0_pmspare", "2", "linear", 67108864)
    assert group.pool == Pool(
        extents=818,
        metadata_extents=16,
        chunk_size=524288,
        profile="p",
        active=True,
        monitored=True,
        autoactivation=False,
        data_percent=0.0,
        metadata_percent=10.06,
        when_full="error",
        health="out_of_data",
        check_needed=True,
    )
    assert host.parse_group(row, members, volumes, "other").pool is None


def test_links_that_name_a_disk_by_wwn_or_serial_come_first() -> None:
    names = [
        "nvme-Samsung_SSD_980_S64ANS0T",
        "lvm-pv-uuid-AbCd",
        "nvme-eui.0025385a71b1d3c2",
        "wwn-0x5000c500a1b2c3d4",
        "dm-name-kata-pool",
    ]
    assert host.order_links([*names, "virtio-data1", "dm-uuid-mpath-3600", "dm-uuid-LVM-x"]) == tuple(
        f"/dev/disk/by-id/{name}"
        for name in (
            "wwn-0x5000c500a1b2c3d4",
            "nvme-eui.0025385a71b1d3c2",
            "nvme-Samsung_SSD_980_S64ANS0T",
            "dm-uuid-mpath-3600",
            "virtio-data1",
        )
    )


def test_links_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "nvme1n1"
    disk.touch()
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    for name in ("nvme-serial", "wwn-1"):
        (by_id / name).symlink_to(disk)
    monkeypatch.setattr(host, "BY_ID", by_id)
    lvm, _module = make(set(host.TOOLS))
    assert lvm.links(str(disk)) == (f"{by_id}/wwn-1", f"{by_id}/nvme-serial")
    assert lvm.links("/dev/vdb") == ()
