# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What stands against a thin pool on these devices. Pure."""

from __future__ import annotations

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import (
    MIB,
    PHYSICAL_VOLUME,
    TAG,
    UNKNOWN_GROUP,
    Device,
    Group,
    HostState,
    Pool,
    Wanted,
    identity,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._values import format_bytes, join_names

# Where LVM puts the first extent, and how large an extent of a new volume group is.
PV_HEAD = MIB
NEW_EXTENT = 4 * MIB
# What LVM reports of a pool that needs a repair.
FAULTS = {"failed": "has failed", "metadata_read_only": "has read-only metadata"}


def check_exists(device: Device) -> None:
    """Checks that a path is a block device.

    Raises:
        UserError: It is not.
    """
    if not device.exists:
        raise UserError(f"devices: {device.path} does not exist; name a block device that `lsblk --paths` lists.")
    if not device.block:
        raise UserError(f"devices: {device.path} is not a block device; name one that `lsblk --paths` lists.")


def describe_content(device: Device) -> str:
    """Describes what a device contains, for a message; empty where it is empty."""
    if device.group == UNKNOWN_GROUP:
        return f"{PHYSICAL_VOLUME} of an unknown volume group"
    if device.group:
        return f"{PHYSICAL_VOLUME} of volume group {device.group}"
    if device.group == "":
        return f"{PHYSICAL_VOLUME} of no volume group"
    return " and ".join(dict.fromkeys(device.signatures))


def check_identity(device: Device, state: HostState) -> None:
    """Checks that a device outside of the volume group is the disk that the user means: kernel names may change at boot.

    Raises:
        UserError: Its path named another disk before, or its path is a kernel name and a disk of the pool is not named at all.
    """
    recorded = state.identities.get(device.path)
    if recorded and recorded not in device.links:
        now = f"is {device.links[0]} now" if device.links else "has no path in /dev/disk/by-id now"
        raise UserError(
            f"Device {device.path} was {recorded} when it was given to the pool and {now}, and is refused, even with wipe; name the "
            "pool's disk by that path in devices, and a new disk by its own path in /dev/disk/by-id."
        )
    named = {other.real for other in state.devices}
    unnamed = [member for member in (state.group.members if state.group else ()) if TAG in member.tags and member.device not in named]
    if unnamed and not recorded and device.path == device.real:
        paths = join_names([identity(member.device, member.links) for member in unnamed])
        raise UserError(
            f"Device {device.path} does not belong to the volume group, whose disk {paths} is not in devices, so kernel names may have "
            "changed; it is refused, even with wipe; name the pool's disks by their paths in /dev/disk/by-id, and a new disk too."
        )


def check_hidden(wanted: Wanted, state: HostState) -> None:
    """Checks that LVM's own settings let it use the volume group.

    Raises:
        UserError: They hide a physical volume of it.
    """
    if hidden := sorted(state.hidden):
        raise UserError(
            f"Volume group {wanted.volume_group} is on {join_names(hidden)}, which LVM's devices file or filter hides; add it with "
            f"`lvmdevices --adddev {hidden[0]}`, or correct filter and global_filter in /etc/lvm/lvm.conf."
        )


def check_database(wanted: Wanted, state: HostState) -> None:
    """Checks that a new pool does not meet the database of an older one: containerd would not start devmapper on it.

    Raises:
        UserError: There is such a database.
    """
    if state.database:
        raise UserError(
            f"Thin pool {wanted.full_name} does not exist, but {state.database} has containerd's database of an earlier pool, and "
            "devmapper would "
            "not start with it; if its snapshots are lost, stop containerd and run the entry point reset of the role thin_pool with "
            "thin_pool_discard_snapshots=true."
        )


def check_lost_database(wanted: Wanted, state: HostState, pool: Pool) -> None:
    """Checks that a pool with thin devices has its database: without one containerd counts from 1 again and fails at each old device.

    Raises:
        UserError: There is none.
    """
    if state.lost_database and pool.data_percent:
        raise UserError(
            f"Thin pool {wanted.full_name} has thin devices ({pool.data_percent} % of its data), but {state.lost_database} has no database "
            "of them, and containerd would give new snapshots the numbers of old ones, which fails; if the snapshots are lost, stop "
            "containerd and run the entry point reset of the role thin_pool with thin_pool_discard_snapshots=true, and if the database is "
            "elsewhere, set thin_pool_containerd_root."
        )


def repair_advice(wanted: Wanted) -> str:
    """Returns what to do with a pool that needs a repair, for a message."""
    name = wanted.full_name
    return (
        f"stop containerd and repair it with `lvchange --activate n {name} && lvconvert --repair {name} && lvchange --activate y {name}`, "
        "or lose its snapshots with the entry point reset of the role thin_pool"
    )


def is_broken(pool: Pool) -> bool:
    """Whether nothing can be read from the pool's metadata or written to them before a repair."""
    return pool.health in FAULTS or pool.check_needed


def check_health(wanted: Wanted, pool: Pool, grows: bool = False) -> None:
    """Checks that the pool works.

    Args:
        wanted: The checked parameters.
        pool: The pool.
        grows: Whether the run gives it more space.

    Raises:
        UserError: It needs a repair, is full, or reports no usage although it is active.
    """
    name = wanted.full_name
    fault = FAULTS.get(pool.health)
    if fault is None and pool.check_needed:
        fault = "needs a check of its metadata"
    if fault is None and pool.active and not pool.health and None in (pool.data_percent, pool.metadata_percent):
        fault = "is active and reports no usage"
    if fault:
        raise UserError(f"Thin pool {name} {fault}; {repair_advice(wanted)}.")
    if pool.health == "out_of_data" and not grows:
        raise UserError(
            f"Thin pool {name} is out of data space and its writes wait or fail; add a disk to devices or ask for more size, or delete "
            "images with `crictl rmi --prune`."
        )
    if pool.health and pool.health != "out_of_data":
        raise UserError(
            f"Thin pool {name} is not healthy: LVM reports {pool.health}; inspect it with `lvs -a -o +lv_health_status {name}`."
        )


def check_new_device(device: Device, wipe: bool, begun: bool = False) -> str:
    """Checks that a device can be given to the volume group.

    Args:
        device: The device.
        wipe: Whether its content may be erased.
        begun: Whether its content is what an interrupted run left.

    Returns:
        The content that has to be erased first, for a message; empty where there is none.

    Raises:
        UserError: The device is in use, too small or read-only, has content that may not be erased, or an unknown one.
    """
    never = "and is refused, even with wipe"
    if device.mounts:
        raise UserError(f"Device {device.path} is mounted at {join_names(device.mounts)} {never}; unmount it, or name another device.")
    if device.holders or device.busy:
        by = f" by {join_names(device.holders)}" if device.holders else " by the kernel"
        raise UserError(f"Device {device.path} is in use{by} {never}; free it, or name another device.")
    if device.read_only:
        raise UserError(f"Device {device.path} is read-only; make it writable, or name another device.")
    if device.size < PV_HEAD + NEW_EXTENT:
        raise UserError(f"Device {device.path} has only {format_bytes(device.size)}; name a larger one.")
    if device.group is None and PHYSICAL_VOLUME in device.signatures and not begun:
        raise UserError(
            f"Device {device.path} contains {PHYSICAL_VOLUME} that LVM does not list, so its volume group is unknown, {never}; see why "
            f"with `pvs -vv {device.path}`, or erase it with `wipefs --all {device.path}` if it is not needed."
        )
    content = describe_content(device)
    if content and not (wipe or begun):
        raise UserError(f"Device {device.path} contains {content}; name an empty device, or set wipe to erase it.")
    return content


def check_group(wanted: Wanted, group: Group) -> None:
    """Checks that the volume group can have the pool.

    Raises:
        UserError: It is exported or incomplete, or the pool in it is another one than the wanted.
    """
    vg = wanted.volume_group
    if group.exported:
        raise UserError(f"Volume group {vg} is exported; import it with `vgimport {vg}`, or name another one.")
    if group.missing:
        raise UserError(
            f"Volume group {vg} lacks {group.missing} of its physical volumes; attach them again, or name another volume group."
        )
    for volume in group.volumes:
        if volume.name == wanted.name and volume.segtype != "thin-pool":
            raise UserError(f"Logical volume {wanted.full_name} is not a thin pool but {volume.segtype}; choose another name.")
    thin = [volume.name for volume in group.volumes if volume.pool == wanted.name]
    if thin and group.pool:
        raise UserError(
            f"Thin pool {wanted.full_name} has LVM thin volumes ({join_names(thin)}), and containerd needs a pool of its own; "
            "choose another name."
        )
    if group.pool and group.pool.chunk_size != wanted.chunk_size:
        raise UserError(
            f"chunk_size: thin pool {wanted.full_name} has chunks of {format_bytes(group.pool.chunk_size)}, which cannot be changed to "
            f"{format_bytes(wanted.chunk_size)}; keep it, or remove the pool first."
        )


def check_fit(wanted: Wanted, group: Group, data: int, metadata: int, growth: int) -> None:
    """Checks that the pool fits into the volume group and does not shrink.

    Args:
        wanted: The checked parameters.
        group: The volume group with its new devices.
        data: Extents of data.
        metadata: Extents of metadata.
        growth: Extents that metadata and their spare need in addition.

    Raises:
        UserError: The pool would shrink, or does not fit.
    """
    pool, extent = group.pool, group.extent_size
    if pool:
        # A pool that has extended itself is larger than what was asked for, and stays so.
        if data < pool.extents and pool.recorded("size") != wanted.size.record:
            raise UserError(
                f"size: thin pool {wanted.full_name} has {format_bytes(pool.extents * extent)} and is never shrunk, but "
                f"{wanted.size.text} is {format_bytes(data * extent)}; ask for at least its size."
            )
        if wanted.metadata_size and metadata < pool.metadata_extents and pool.recorded("metadata") != str(wanted.metadata_size):
            raise UserError(
                f"metadata_size: thin pool {wanted.full_name} has {format_bytes(pool.metadata_extents * extent)} of metadata and is never "
                f"shrunk to {format_bytes(wanted.metadata_size)}; ask for at least its size."
            )
    had = pool.extents if pool else 0
    if max(data - had, 0) + growth > group.free:
        most = max(group.free - growth + had, 0) * extent
        raise UserError(
            f"size: {wanted.size.text} ({format_bytes(data * extent)}) does not fit into volume group {wanted.volume_group}, which has "
            f"room for {format_bytes(most)} besides metadata and its spare; ask for less, or add a device."
        )
