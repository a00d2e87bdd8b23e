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
    UNKNOWN_GROUP,
    Device,
    Group,
    Wanted,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._values import format_bytes, join_names

# Where LVM puts the first extent, and how large an extent of a new volume group is.
PV_HEAD = MIB
NEW_EXTENT = 4 * MIB


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


def check_new_device(device: Device, wipe: bool) -> str:
    """Checks that a device can be given to the volume group.

    Args:
        device: The device.
        wipe: Whether its content may be erased.

    Returns:
        The content that has to be erased first, for a message; empty where there is none.

    Raises:
        UserError: The device is in use, too small or read-only, or has content that may not be erased.
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
    content = describe_content(device)
    if content and not wipe:
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
                f"size: thin pool {wanted.full_name} has {format_bytes(pool.extents * extent)} and is never shrunk, but {wanted.size.text} is "
                f"{format_bytes(data * extent)}; ask for at least its size."
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
            f"size: {wanted.size.text} ({format_bytes(data * extent)}) does not fit into volume group {wanted.volume_group}, which has room "
            f"for {format_bytes(most)} besides metadata and its spare; ask for less, or add a device."
        )
