# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a thin pool; its effect on real disks is in tests/node."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import (
    GIB,
    KIB,
    MIB,
    TAG,
    Device,
    Group,
    HostState,
    Journal,
    Member,
    Pool,
    Volume,
    Wanted,
    device_mapper_name,
    diff_view,
    profile_text,
    profile_values,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.options import parse, parse_bytes
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.plan import default_metadata, identities, make_plan
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.removal import Removal, after_removal, make_removal

PARAMS: dict[str, t.Any] = {
    "volume_group": "kata",
    "name": "pool",
    "size": "80%VG",
    "chunk_size": "512KiB",
    "metadata_size": None,
    "autoextend_threshold": 75,
    "autoextend_percent": 20,
    "wipe": False,
}
EMPTY = Device("/dev/vdb", "/dev/vdb", size=4 * GIB)
OURS = frozenset({TAG})
BOOT = "c0ffee"
WWN = "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"
OTHER = "/dev/disk/by-id/nvme-eui.0025385a71b1d3c2"


def wanted(**params: t.Any) -> Wanted:
    return parse({**PARAMS, **params})


def volume(name: str, segtype: str = "linear", extents: int = 16, **more: t.Any) -> Volume:
    return Volume(name, f"uuid-{name}", segtype, extents * 4 * MIB, **more)


def pool(extents: int = 818, metadata: int = 16, **more: t.Any) -> Pool:
    tags = more.pop("tags", OURS | {f"{TAG}.size=80VG"})
    settings = {
        "profile": "screwdriver-kata-kata-pool",
        "active": True,
        "monitored": True,
        "data_percent": 1.0,
        "metadata_percent": 1.0,
        **more,
    }
    return Pool(extents, metadata, 512 * KIB, tags, **settings)


def group(of: Pool | None = None, extents: int = 1023, **more: t.Any) -> Group:
    volumes: tuple[Volume, ...] = more.pop("volumes", ())
    used = 0
    if of:
        used = of.extents + 2 * of.metadata_extents
        volumes += (
            volume("pool", "thin-pool", of.extents),
            volume("pool_tdata", extents=of.extents),
            volume("pool_tmeta", extents=of.metadata_extents),
            volume("lvol0_pmspare", extents=of.metadata_extents),
        )
    settings = {"tags": OURS, "members": (Member("/dev/vdb", OURS, used * 4 * MIB),), **more}
    return Group(4 * MIB, extents, extents - used, volumes=volumes, pool=of, **settings)


def found(**more: t.Any) -> HostState:
    return HostState(**{"profile": profile_text(75, 20), "boot": BOOT, **more})


def made() -> HostState:
    return found(devices=(replace(EMPTY, group="kata"),), group=group(pool()))


def refusal(want: Wanted, state: HostState) -> str:
    with pytest.raises(UserError) as caught:
        make_plan(want, state)
    return str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"chunk_size": "100"}, "chunk_size: '100' is not a multiple of 64 KiB up to 1 GiB; use for example 512KiB."),
        ({"chunk_size": "0"}, "chunk_size: '0' is not a multiple of 64 KiB up to 1 GiB; use for example 512KiB."),
        ({"chunk_size": "2GiB"}, "chunk_size: '2GiB' is not a multiple of 64 KiB up to 1 GiB; use for example 512KiB."),
        ({"chunk_size": "half"}, "chunk_size: 'half' is not a multiple of 64 KiB up to 1 GiB; use for example 512KiB."),
        ({"size": "101%VG"}, "size: '101%VG' is not a percentage from 1 to 100; use for example 80%VG."),
        ({"size": "0%FREE"}, "size: '0%FREE' is not a percentage from 1 to 100; use for example 80%VG."),
        ({"size": "40"}, "size: '40' is not a valid size; use for example 80%VG, 80%FREE or 40GiB."),
        ({"size": "80%"}, "size: '80%' is not a valid size; use for example 80%VG, 80%FREE or 40GiB."),
        ({"metadata_size": "1MiB"}, "metadata_size: '1MiB' is not a size from 2 MiB to 15 GiB; use for example 128MiB."),
        ({"metadata_size": "16GiB"}, "metadata_size: '16GiB' is not a size from 2 MiB to 15 GiB; use for example 128MiB."),
        ({"autoextend_threshold": 101}, "autoextend_threshold: 101 is not a percentage from 50 to 100; use for example 75."),
        ({"autoextend_threshold": 49}, "autoextend_threshold: 49 is not a percentage from 50 to 100; use for example 75."),
        ({"autoextend_percent": 101}, "autoextend_percent: 101 is not a percentage from 1 to 100; use for example 20."),
        (
            {"name": "my pool"},
            "name: 'my pool' is not a valid LVM name; use letters, digits and _ + . - and none of LVM's own endings such as _tmeta.",
        ),
        (
            {"volume_group": "-kata"},
            "volume_group: '-kata' is not a valid LVM name; use letters, digits and _ + . - and none of LVM's own endings such as _tmeta.",
        ),
        (
            {"name": "pool_tmeta"},
            "name: 'pool_tmeta' is not a valid LVM name; use letters, digits and _ + . - and none of LVM's own endings such as _tmeta.",
        ),
    ],
)
def test_bad_parameters(params: dict[str, t.Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        wanted(**params)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", 512 * KIB),
        ("512KiB", 512 * KIB),
        ("512k", 512 * KIB),
        ("1M", MIB),
        ("1.5 GiB", 1536 * MIB),
        ("1GB", None),
        ("-1", None),
        ("", None),
    ],
)
def test_parse_bytes(text: str, expected: int | None) -> None:
    assert parse_bytes(text, KIB) == expected


@pytest.mark.parametrize(("names", "expected"), [(("kata", "pool"), "kata-pool"), (("a-b", "c--d"), "a--b-c----d")])
def test_device_mapper_name(names: tuple[str, str], expected: str) -> None:
    assert device_mapper_name(*names) == expected


def test_profile_is_read_as_it_is_written() -> None:
    assert profile_values(profile_text(70, 15)) == (70, 15)
    assert profile_values(None) == (None, None)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device("/dev/x", "/dev/x", exists=False), "devices: /dev/x does not exist; name a block device that `lsblk --paths` lists."),
        (
            Device("/etc/fstab", "/etc/fstab", block=False),
            "devices: /etc/fstab is not a block device; name one that `lsblk --paths` lists.",
        ),
        (replace(EMPTY, read_only=True), "Device /dev/vdb is read-only; make it writable, or name another device."),
        (replace(EMPTY, size=MIB), "Device /dev/vdb has only 1 MiB; name a larger one."),
        (
            replace(EMPTY, mounts=("/a", "/b", "/c", "/d")),
            "Device /dev/vdb is mounted at /a, /b, /c and 1 more and is refused, even with wipe; unmount it, or name another device.",
        ),
        (
            replace(EMPTY, holders=("/dev/md0",)),
            "Device /dev/vdb is in use by /dev/md0 and is refused, even with wipe; free it, or name another device.",
        ),
        (
            replace(EMPTY, busy=True),
            "Device /dev/vdb is in use by the kernel and is refused, even with wipe; free it, or name another device.",
        ),
    ],
)
def test_device_that_is_refused_even_with_wipe(device: Device, message: str) -> None:
    assert refusal(wanted(wipe=True), found(devices=(device,))) == message


@pytest.mark.parametrize(
    ("device", "content"),
    [
        (replace(EMPTY, signatures=("a signature of ext4", "a signature of ext4")), "a signature of ext4"),
        (replace(EMPTY, signatures=("a gpt partition table", "1 partition")), "a gpt partition table and 1 partition"),
        (replace(EMPTY, signatures=("an LVM physical volume",), group="data"), "an LVM physical volume of volume group data"),
        (replace(EMPTY, signatures=("an LVM physical volume",), group=""), "an LVM physical volume of no volume group"),
        (
            replace(EMPTY, signatures=("an LVM physical volume",), group="[unknown]"),
            "an LVM physical volume of an unknown volume group",
        ),
    ],
)
def test_device_with_content(device: Device, content: str) -> None:
    message = refusal(wanted(), found(devices=(device,)))
    assert message == f"Device /dev/vdb contains {content}; name an empty device, or set wipe to erase it."
    assert make_plan(wanted(wipe=True), found(devices=(device,))).erase == {"/dev/vdb": content}


@pytest.mark.parametrize("unfinished", ["", "[unknown]", None])
def test_interrupted_run_finds_its_own_physical_volume(unfinished: str | None) -> None:
    begun = Journal(devices=("/dev/vdb",), boot=BOOT)
    orphan = replace(EMPTY, signatures=("an LVM physical volume",), group=unfinished)
    assert make_plan(wanted(), found(devices=(orphan,), journal=begun)).add == ("/dev/vdb",)
    other = replace(EMPTY, signatures=("a signature of ext4",))
    assert "contains a signature of ext4" in refusal(wanted(), found(devices=(other,), journal=begun))
    taken = replace(orphan, group="data")
    assert "of volume group data" in refusal(wanted(), found(devices=(taken,), journal=begun))


def test_member_that_an_interrupted_run_did_not_tag() -> None:
    there = replace(made(), group=replace(made().group or group(), members=(Member("/dev/vdb"),)))
    assert make_plan(wanted(), there).changed is False
    plan = make_plan(wanted(), replace(there, journal=Journal(devices=("/dev/vdb",), boot=BOOT)))
    assert plan.own == ("/dev/vdb",)
    assert plan.changed is True


def test_new_pool() -> None:
    plan = make_plan(wanted(), found(devices=(EMPTY,), profile=None))
    assert plan.add == ("/dev/vdb",)
    assert plan.create is True
    assert plan.write_profile is True
    assert plan.changed is True
    assert plan.after
    assert plan.after.pool
    # 1023 extents of a 4 GiB disk, 64 MiB of metadata and as much for their spare.
    assert plan.after.pool.extents == 818
    assert plan.after.pool.metadata_extents == 16
    assert plan.after.free == 1023 - 818 - 32
    assert plan.after.pool.tags == {TAG, f"{TAG}.size=80VG"}


def test_second_run() -> None:
    plan = make_plan(wanted(), made())
    assert plan.changed is False
    assert plan.after == made().group


@pytest.mark.parametrize(
    ("size", "extents"),
    [("100%FREE", 1023 - 32), ("50%FREE", (1023 - 32) // 2), ("1GiB", 256), ("1025MiB", 257), ("1%VG", 10)],
)
def test_sizes_mean_the_same_on_a_second_run(size: str, extents: int) -> None:
    first = make_plan(wanted(size=size), found(devices=(EMPTY,)))
    assert first.after
    assert first.after.pool
    assert first.after.pool.extents == extents
    there = group(replace(first.after.pool, data_percent=1.0))
    assert make_plan(wanted(size=size), found(group=there)).changed is False


@pytest.mark.parametrize(("data", "expected"), [(GIB, 64 * MIB), (1000 * GIB, GIB), (100_000 * GIB, 15 * GIB)])
def test_default_metadata(data: int, expected: int) -> None:
    assert default_metadata(data) == expected


def test_size_that_does_not_fit() -> None:
    assert refusal(wanted(size="4GiB"), found(devices=(EMPTY,))) == (
        "size: 4GiB (4 GiB) does not fit into volume group kata, which has room for 3.87 GiB besides metadata and its spare; "
        "ask for less, or add a device."
    )
    assert refusal(wanted(size="100%VG"), found(group=group(pool()))) == (
        "size: 100%VG (4 GiB) does not fit into volume group kata, which has room for 3.87 GiB besides metadata and its spare; "
        "ask for less, or add a device."
    )


def test_added_device_grows_a_percentage() -> None:
    second = Device("/dev/vdc", "/dev/vdc", size=4 * GIB)
    plan = make_plan(wanted(), replace(made(), devices=(EMPTY, second, replace(second, path="/dev/alias"))))
    assert plan.add == ("/dev/vdc",)
    assert plan.extend is True
    assert plan.create is False
    assert plan.after
    assert plan.after.pool
    assert plan.after.pool.extents == 2046 * 80 // 100
    assert [member.device for member in plan.after.members] == ["/dev/vdb", "/dev/vdc"]


def test_never_shrinks() -> None:
    assert refusal(wanted(size="1GiB"), made()) == (
        "size: thin pool kata/pool has 3.2 GiB and is never shrunk, but 1GiB is 1 GiB; ask for at least its size."
    )
    asked = found(group=group(pool(metadata=32, tags=OURS | {f"{TAG}.size=80VG", f"{TAG}.metadata={128 * MIB}"})))
    assert refusal(wanted(metadata_size="64MiB"), asked) == (
        "metadata_size: thin pool kata/pool has 128 MiB of metadata and is never shrunk to 64 MiB; ask for at least its size."
    )


def test_pool_that_extended_itself_stays() -> None:
    tags = OURS | {f"{TAG}.size={GIB}", f"{TAG}.metadata={64 * MIB}"}
    there = found(group=group(pool(extents=308, metadata=20, tags=tags)))
    assert make_plan(wanted(size="1GiB", metadata_size="64MiB"), there).changed is False
    assert "never shrunk" in refusal(wanted(size="1100MiB", metadata_size="64MiB"), there)
    plan = make_plan(wanted(size="2GiB", metadata_size="64MiB"), there)
    assert plan.extend is True
    assert plan.extend_metadata is False
    assert plan.record is True
    assert plan.after
    assert plan.after.pool
    assert plan.after.pool.tags == OURS | {f"{TAG}.size={2 * GIB}", f"{TAG}.metadata={64 * MIB}"}


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"active": False}, "activate"),
        ({"monitored": False}, "monitor"),
        ({"profile": ""}, "set_profile"),
        ({"autoactivation": False}, "autoactivate"),
        ({"tags": OURS}, "record"),
        ({"metadata": 8, "tags": OURS | {f"{TAG}.size=80VG", f"{TAG}.metadata={64 * MIB}"}}, "extend_metadata"),
    ],
)
def test_one_step_for_one_difference(change: dict[str, t.Any], step: str) -> None:
    params = {"metadata_size": "64MiB"} if step == "extend_metadata" else {}
    plan = make_plan(wanted(**params), found(group=group(pool(**change))))
    assert plan.steps == [step]


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (Group(4 * MIB, 1, 1, exported=True), "Volume group kata is exported; import it with `vgimport kata`, or name another one."),
        (
            Group(4 * MIB, 1, 1, missing=1),
            "Volume group kata lacks 1 of its physical volumes; attach them again, or name another volume group.",
        ),
        (
            group(volumes=(volume("pool"),)),
            "Logical volume kata/pool is not a thin pool but linear; choose another name.",
        ),
        (
            group(pool(), volumes=(volume("build", "thin", pool="pool"),)),
            "Thin pool kata/pool has LVM thin volumes (build), and containerd needs a pool of its own; choose another name.",
        ),
        (
            group(replace(pool(), chunk_size=64 * KIB)),
            "chunk_size: thin pool kata/pool has chunks of 64 KiB, which cannot be changed to 512 KiB; keep it, or remove the pool first.",
        ),
    ],
)
def test_volume_group_that_cannot_be_used(there: Group, message: str) -> None:
    assert refusal(wanted(), found(group=there)) == message


def test_nothing_to_create_it_on() -> None:
    assert refusal(wanted(), found()) == "devices: volume group kata does not exist; name at least one device to create it on."


def test_leftovers_of_an_interrupted_lvcreate() -> None:
    mine, foreign = (volume("pool_tmeta"), volume("lvol3")), (volume("lvol0"), volume("data"), volume("lvol0_pmspare"))
    there = found(group=replace(group(volumes=mine + foreign), free=900))
    assert make_plan(wanted(), there).leftovers == ()
    begun = replace(there, journal=Journal(volumes=("uuid-lvol0",)))
    plan = make_plan(wanted(), begun)
    assert plan.leftovers == ("pool_tmeta", "lvol3")
    # Their room and the spare's is free.
    assert plan.after
    assert plan.after.free == 900 + 32 - 818 - 16


def test_leftover_that_has_the_name_of_the_pool() -> None:
    """LVM makes the pool's metadata from a linear volume that has the pool's name."""
    half = found(group=replace(group(volumes=(volume("pool", tags=OURS),)), free=1023 - 16), journal=Journal(volumes=()))
    plan = make_plan(wanted(), half)
    assert plan.leftovers == ("pool",)
    assert plan.create is True
    assert plan.after
    assert plan.after.free == 1023 - 818 - 32
    removal = make_removal(wanted(), half)
    assert removal.leftovers == ("pool",)
    assert removal.pool is False
    assert removal.group is True
    for foreign in (replace(half, group=group(volumes=(volume("pool"),))), replace(half, journal=Journal(volumes=("uuid-pool",)))):
        assert refusal(wanted(), foreign) == "Logical volume kata/pool is not a thin pool but linear; choose another name."
        with pytest.raises(UserError) as caught:
            make_removal(wanted(), foreign)
        assert str(caught.value) == "Logical volume kata/pool is not a thin pool and is not removed; name the pool that was created."


def test_removal_of_what_was_created() -> None:
    removal = make_removal(wanted(), made())
    assert removal.pool is True
    assert removal.group is True
    assert removal.forget == ("/dev/vdb",)
    assert removal.profile is True
    assert make_removal(wanted(), HostState()).changed is False


def test_removal_keeps_what_is_foreign() -> None:
    other = replace(made(), group=group(pool(), volumes=(volume("data"),)))
    kept = make_removal(wanted(), other)
    assert kept.pool is True
    assert kept.group is False
    assert kept.reduce == ()
    assert kept.forget == ()
    members = (Member("/dev/vda", used=1), Member("/dev/vdb", OURS))
    foreign = replace(made(), group=group(tags=frozenset(), members=members))
    reduced = make_removal(wanted(), foreign)
    assert reduced.pool is False
    assert reduced.group is False
    assert reduced.reduce == ("/dev/vdb",)
    assert reduced.forget == ("/dev/vdb",)


def test_a_foreign_pool_is_handed_back() -> None:
    """It was adopted: it has the record of what was asked for and the profile, and not the tag of a pool that was created."""
    own = frozenset({"theirs"})
    adopted = replace(
        made(), group=group(pool(tags=own | {f"{TAG}.size=80VG", f"{TAG}.metadata=67108864"}), volumes=(volume("data", pool="pool"),))
    )
    removal = make_removal(wanted(), adopted)
    assert removal == Removal(profile=True, detach=True, untag=(f"{TAG}.metadata=67108864", f"{TAG}.size=80VG"))
    assert adopted.group is not None
    kept = after_removal(adopted.group, removal)
    assert kept.pool == pool(tags=own, profile="")
    # Nothing is left to hand back, and a profile of its owner stays.
    assert make_removal(wanted(), replace(adopted, profile=None, group=kept)).changed is False
    theirs = replace(adopted, profile=None, group=group(pool(tags=own, profile="theirs")))
    assert make_removal(wanted(), theirs).changed is False
    assert after_removal(adopted.group, Removal(untag=removal.untag)).pool == pool(tags=own)
    created = made().group
    assert created is not None
    assert after_removal(created, Removal(pool=True)).pool is None


def test_interrupted_removal_is_finished() -> None:
    orphan = replace(EMPTY, group="")
    others = [replace(EMPTY, real="/dev/vdc", group="data"), replace(EMPTY, real="/dev/vdd", group="[unknown]")]
    there = HostState(devices=(orphan, *others), journal=Journal(devices=("/dev/vdb", "/dev/vdc", "/dev/vdd"), boot=BOOT), boot=BOOT)
    removal = make_removal(wanted(), there)
    assert removal.forget == ("/dev/vdb",)
    assert removal.erase == ("/dev/vdd",)
    assert make_removal(wanted(), replace(there, journal=Journal())).changed is False


def test_diff_shows_what_is_lost_and_not_how_full_it_is() -> None:
    plan = make_plan(wanted(wipe=True), found(devices=(replace(EMPTY, signatures=("a signature of xfs",)),), profile=None))
    assert diff_view(wanted(), None, None, plan.erase) == {"content": {"/dev/vdb": "a signature of xfs"}}
    side = diff_view(wanted(), plan.after, profile_text(75, 20), {})
    assert side["volume_group"] == {"name": "kata", "devices": ["/dev/vdb"]}
    assert side["pool"]["asked"] == "80VG"
    assert "data_percent" not in side["pool"]


def test_physical_volume_that_lvm_does_not_list_is_refused_even_with_wipe() -> None:
    unknown = replace(EMPTY, signatures=("an LVM physical volume",))
    assert refusal(wanted(wipe=True), found(devices=(unknown,))) == (
        "Device /dev/vdb contains an LVM physical volume that LVM does not list, so its volume group is unknown, and is refused, even "
        "with wipe; see why with `pvs -vv /dev/vdb`, or erase it with `wipefs --all /dev/vdb` if it is not needed."
    )


def nvme(number: int, **more: t.Any) -> Device:
    name = f"/dev/nvme{number}n1"
    return Device(name, name, size=500 * GIB, **more)


def on_other_name(**more: t.Any) -> Group:
    """The pool's own disk is nvme2n1 now."""
    return replace(group(pool()), members=(Member("/dev/nvme2n1", OURS, 1, **more),))


@pytest.mark.parametrize("wipe", [False, True])
@pytest.mark.parametrize("signatures", [(), ("a signature of ext4 labelled ci-cache",)])
def test_disk_whose_kernel_name_another_has_now_is_refused(wipe: bool, signatures: tuple[str, ...]) -> None:
    device = nvme(1, links=(OTHER,), signatures=signatures)
    state = found(devices=(device,), group=on_other_name(links=(WWN,)), identities={"/dev/nvme1n1": WWN})
    assert refusal(wanted(wipe=wipe), state) == (
        f"Device /dev/nvme1n1 was {WWN} when it was given to the pool and is {OTHER} now, and is refused, even with wipe; name the pool's "
        "disk by that path in devices, and a new disk by its own path in /dev/disk/by-id."
    )


@pytest.mark.parametrize("links", [(), (OTHER,)])
def test_disk_that_replaced_the_pools_is_refused_where_no_volume_group_is_left(links: tuple[str, ...]) -> None:
    now = f"is {OTHER} now" if links else "has no path in /dev/disk/by-id now"
    message = refusal(wanted(wipe=True), found(devices=(nvme(1, links=links),), identities={"/dev/nvme1n1": WWN}))
    assert message.startswith(f"Device /dev/nvme1n1 was {WWN} when it was given to the pool and {now}, and is refused, even with wipe; ")


@pytest.mark.parametrize("wipe", [False, True])
def test_kernel_name_while_a_disk_of_the_pool_is_not_named(wipe: bool) -> None:
    """A pool from before identities were recorded."""
    device = nvme(1, signatures=("a signature of ext4",))
    assert refusal(wanted(wipe=wipe), found(devices=(device,), group=on_other_name(links=(WWN,)))) == (
        f"Device /dev/nvme1n1 does not belong to the volume group, whose disk {WWN} is not in devices, so kernel names may have changed; "
        "it is refused, even with wipe; name the pool's disks by their paths in /dev/disk/by-id, and a new disk too."
    )


def test_disk_that_is_added_by_its_stable_path() -> None:
    device = replace(nvme(1, links=(OTHER,)), path=OTHER)
    plan = make_plan(wanted(), found(devices=(device,), group=on_other_name(), identities={"/dev/nvme1n1": WWN}))
    assert plan.add == ("/dev/nvme1n1",)
    assert plan.identify is False


def test_identities_are_recorded_for_paths_that_may_change() -> None:
    devices = (nvme(1, links=(WWN,)), replace(nvme(2, links=(OTHER,)), path=OTHER), nvme(3))
    state = found(devices=devices)
    assert identities(state) == {"/dev/nvme1n1": WWN}
    assert make_plan(wanted(), state).identify
    assert not make_plan(wanted(), replace(state, identities={"/dev/nvme1n1": WWN})).identify
    # A device that is not given in this run keeps its identity.
    assert identities(found(identities={"/dev/nvme9n1": WWN})) == {"/dev/nvme9n1": WWN}


def test_disks_of_the_pool_may_change_names_among_themselves() -> None:
    members = (Member("/dev/nvme1n1", OURS, 1, (OTHER,)), Member("/dev/nvme2n1", OURS, 1, (WWN,)))
    devices = (nvme(1, links=(OTHER,), group="kata"), nvme(2, links=(WWN,), group="kata"))
    state = found(devices=devices, group=replace(group(pool()), members=members))
    plan = make_plan(wanted(), replace(state, identities={"/dev/nvme1n1": WWN, "/dev/nvme2n1": OTHER}))
    assert plan.steps == ["identify"]


@pytest.mark.parametrize(
    ("links", "journal", "begun"),
    [
        ((WWN,), Journal((WWN,)), True),
        ((OTHER,), Journal((WWN,)), False),
        # The journal's kernel name, and the disk has an identity that the journal would have.
        ((OTHER,), Journal(("/dev/nvme1n1",), boot=BOOT), False),
        ((), Journal(("/dev/nvme1n1",), boot=BOOT), True),
        ((), Journal(("/dev/nvme1n1",), boot="before"), False),
        ((), Journal(("/dev/nvme1n1",)), False),
    ],
)
def test_journal_knows_a_disk_by_its_identity(links: tuple[str, ...], journal: Journal, begun: bool) -> None:
    orphan = nvme(1, links=links, signatures=("an LVM physical volume",), group="[unknown]")
    state = found(devices=(orphan,), journal=journal)
    if begun:
        assert make_plan(wanted(), state).erase == {"/dev/nvme1n1": "an LVM physical volume of an unknown volume group"}
    else:
        assert "contains an LVM physical volume of an unknown volume group; name an empty device" in refusal(wanted(), state)
    assert bool(make_removal(wanted(), state).erase) is begun


def test_volume_group_that_lvms_settings_hide() -> None:
    state = replace(made(), hidden=frozenset({"/dev/vdb"}))
    message = (
        "Volume group kata is on /dev/vdb, which LVM's devices file or filter hides; add it with `lvmdevices --adddev /dev/vdb`, or "
        "correct filter and global_filter in /etc/lvm/lvm.conf."
    )
    assert refusal(wanted(wipe=True), state) == message
    with pytest.raises(UserError) as caught:
        make_removal(wanted(), state)
    assert str(caught.value) == message


REPAIR = (
    "stop containerd and repair it with `lvchange --activate n kata/pool && lvconvert --repair kata/pool && lvchange --activate y "
    "kata/pool`, or lose its snapshots with the entry point reset of the role thin_pool."
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"health": "failed", "data_percent": None, "metadata_percent": None}, f"Thin pool kata/pool has failed; {REPAIR}"),
        ({"health": "metadata_read_only"}, f"Thin pool kata/pool has read-only metadata; {REPAIR}"),
        ({"check_needed": True}, f"Thin pool kata/pool needs a check of its metadata; {REPAIR}"),
        ({"health": "out_of_data", "check_needed": True}, f"Thin pool kata/pool needs a check of its metadata; {REPAIR}"),
        ({"data_percent": None}, f"Thin pool kata/pool is active and reports no usage; {REPAIR}"),
        ({"metadata_percent": None}, f"Thin pool kata/pool is active and reports no usage; {REPAIR}"),
        (
            {"health": "out_of_data", "data_percent": 100.0},
            "Thin pool kata/pool is out of data space and its writes wait or fail; add a disk to devices or ask for more size, or delete "
            "images with `crictl rmi --prune`.",
        ),
        (
            {"health": "partial"},
            "Thin pool kata/pool is not healthy: LVM reports partial; inspect it with `lvs -a -o +lv_health_status kata/pool`.",
        ),
    ],
)
def test_unhealthy_pool(change: dict[str, t.Any], message: str) -> None:
    assert refusal(wanted(), found(group=group(pool(**change)))) == message


def test_pool_that_is_out_of_data_space_may_grow() -> None:
    full = group(pool(health="out_of_data", data_percent=100.0))
    assert make_plan(wanted(size="84%VG"), found(group=full)).extend


def test_inactive_pool_reports_no_usage() -> None:
    plan = make_plan(wanted(), found(group=group(pool(active=False, data_percent=None, metadata_percent=None))))
    assert plan.activate


def test_new_pool_with_the_database_of_an_old_one() -> None:
    root = "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper"
    assert refusal(wanted(wipe=True), found(devices=(EMPTY,), database=root)) == (
        f"Thin pool kata/pool does not exist, but {root} has containerd's database of an earlier pool, and devmapper would not start with "
        "it; if its "
        "snapshots are lost, stop containerd and run the entry point reset of the role thin_pool with thin_pool_discard_snapshots=true."
    )
    assert not make_plan(wanted(), replace(made(), database=root)).changed


def test_pool_of_thin_devices_without_a_database() -> None:
    root = "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper"
    there = replace(made(), lost_database=root)
    assert refusal(wanted(), there) == (
        f"Thin pool kata/pool has thin devices (1.0 % of its data), but {root} has no database of them, and containerd would give new "
        "snapshots the numbers of old ones, which fails; if the snapshots are lost, stop containerd and run the entry point reset of the "
        "role thin_pool with thin_pool_discard_snapshots=true, and if the database is elsewhere, set thin_pool_containerd_root."
    )
    # containerd has not started on it yet, or nothing is known of its use.
    for usage in (0.0, None):
        unused = group(pool(data_percent=usage, active=usage is not None))
        make_plan(wanted(), replace(there, group=unused))
    make_plan(wanted(), replace(there, group=None, devices=(EMPTY,)))
