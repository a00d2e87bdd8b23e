# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The steps from the state of the host to the wanted pool. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.checks import (
    NEW_EXTENT,
    PV_HEAD,
    check_database,
    check_exists,
    check_fit,
    check_group,
    check_health,
    check_hidden,
    check_identity,
    check_lost_database,
    check_new_device,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import (
    MIB,
    PHYSICAL_VOLUME,
    TAG,
    UNKNOWN_GROUP,
    Device,
    Group,
    HostState,
    Member,
    Pool,
    Wanted,
    profile_text,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.options import MAX_METADATA
from ansible_collections.screwdriver.kata.plugins.module_utils._values import ceil_div

DEFAULT_METADATA = 64 * MIB


@dataclass(frozen=True)
class Plan:
    """The steps that are left, and the volume group after them."""

    resume: tuple[str, ...] = ()
    erase: dict[str, str] = field(default_factory=dict)
    add: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    create: bool = False
    extend: bool = False
    extend_metadata: bool = False
    write_profile: bool = False
    set_profile: bool = False
    record: bool = False
    activate: bool = False
    autoactivate_group: bool = False
    autoactivate: bool = False
    monitor: bool = False
    identify: bool = False
    after: Group | None = None

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def steps(self) -> list[str]:
        """The names of the steps that are left."""
        return [name for name, value in vars(self).items() if value and name != "after"]


def default_metadata(data: int) -> int:
    """Returns the bytes of metadata for that many of data: a thousandth, since many snapshots map the same data."""
    return min(max(data // 1000, DEFAULT_METADATA), MAX_METADATA)


def compute_sizes(wanted: Wanted, group: Group) -> tuple[int, int]:
    """Computes the extents of data and of metadata that are asked for, at least 1 each.

    A percentage of the free space counts the pool's own data as free, so that it means the same on every run.
    """
    size, extent = wanted.size, group.extent_size
    room = group.free + (group.pool.extents if group.pool else 0)
    if wanted.metadata_size:
        metadata = ceil_div(wanted.metadata_size, extent)
    elif group.pool:
        metadata = group.pool.metadata_extents
    else:
        share = {"VG": group.extents * size.percent // 100, "FREE": room * size.percent // 100}.get(size.base)
        metadata = ceil_div(default_metadata(size.bytes if share is None else share * extent), extent)
    if size.base == "VG":
        data = group.extents * size.percent // 100
    elif size.base == "FREE":
        data = (room - metadata_growth(group, metadata)) * size.percent // 100
    else:
        data = ceil_div(size.bytes, extent)
    return max(data, 1), metadata


def metadata_growth(group: Group, metadata: int) -> int:
    """Computes the extents that this much metadata needs beyond what it and its spare have."""
    had = group.pool.metadata_extents if group.pool else 0
    return max(metadata - had, 0) + max(metadata - group.spare, 0)


def with_devices(group: Group | None, devices: t.Sequence[Device], own: t.Sequence[str]) -> Group:
    """Returns the volume group after devices were added.

    LVM may align a little differently, so the real volume group is read before a size is set.
    """
    if group is None:
        group = Group(extent_size=NEW_EXTENT, extents=0, free=0, tags=frozenset({TAG}))
    more = sum((device.size - PV_HEAD) // group.extent_size for device in devices)
    members = tuple(replace(member, tags=member.tags | {TAG}) if member.device in own else member for member in group.members)
    added = tuple(Member(device.real, frozenset({TAG}), links=device.links) for device in devices)
    return replace(group, extents=group.extents + more, free=group.free + more, members=members + added)


def find_leftovers(wanted: Wanted, state: HostState) -> tuple[str, ...]:
    """Finds volumes that an interrupted ``lvcreate`` left: they came after the journal was written.

    Some have names that only LVM gives. One has the pool's name and its tags, and is linear: LVM makes the pool's metadata from it.
    """
    if state.group is None or state.group.pool or state.journal.volumes is None:
        return ()
    hidden = re.compile(rf"(lvol\d+|{re.escape(wanted.name)}_t(meta|data))")
    new = [volume for volume in state.group.volumes if volume.uuid not in state.journal.volumes]
    return tuple(volume.name for volume in new if hidden.fullmatch(volume.name) or (volume.name == wanted.name and TAG in volume.tags))


def without_volumes(group: Group | None, names: t.Sequence[str]) -> Group | None:
    """Returns the volume group after volumes were removed from it."""
    if group is None:
        return None
    freed = sum(volume.size // group.extent_size for volume in group.volumes if volume.name in names)
    return replace(group, free=group.free + freed, volumes=tuple(volume for volume in group.volumes if volume.name not in names))


def is_begun(device: Device, state: HostState) -> bool:
    """Whether an interrupted run left the device as it is: a physical volume in no volume group, which LVM may not list yet."""
    return (
        state.has_begun(device.real, device.links)
        and device.group in (None, "", UNKNOWN_GROUP)
        and set(device.signatures) <= {PHYSICAL_VOLUME}
    )


def identities(state: HostState) -> dict[str, str]:
    """Returns the path in /dev/disk/by-id of each device that was given under another path, now or before."""
    given = {device.path for device in state.devices}
    kept = {path: link for path, link in state.identities.items() if path not in given}
    return kept | {device.path: device.links[0] for device in state.devices if device.links and device.path not in device.links}


def make_plan(wanted: Wanted, state: HostState) -> Plan:
    """Plans the steps from the state of the host to the wanted pool.

    Raises:
        UserError: Something stands against it; nothing was changed.
    """
    leftovers = find_leftovers(wanted, state)
    group = without_volumes(state.group, leftovers)
    for device in state.devices:
        check_exists(device)
    check_hidden(wanted, state)
    if group:
        check_group(wanted, group)
    if group is None or group.pool is None:
        check_database(wanted, state)
    else:
        check_lost_database(wanted, state, group.pool)
    inside = {member.device for member in group.members} if group else set()
    new = [device for device in {device.real: device for device in state.devices}.values() if device.real not in inside]
    for device in new:
        check_identity(device, state)
    erase = {device.real: content for device in new if (content := check_new_device(device, wanted.wipe, is_begun(device, state)))}
    if group is None and not new:
        raise UserError(f"devices: volume group {wanted.volume_group} does not exist; name at least one device to create it on.")
    members = group.members if group else ()
    own = tuple(member.device for member in members if state.has_begun(member.device, member.links) and TAG not in member.tags)
    after = with_devices(group, new, own)
    data, metadata = compute_sizes(wanted, after)
    check_fit(wanted, after, data, metadata, metadata_growth(after, metadata))
    pool = after.pool
    # A suspended pool reports no usage; it is judged after it was resumed.
    if pool and not state.suspended:
        check_health(wanted, pool, grows=data > pool.extents)
    record = {f"{TAG}.size={wanted.size.record}"} | ({f"{TAG}.metadata={wanted.metadata_size}"} if wanted.metadata_size else set())
    plan = Plan(
        resume=state.suspended,
        erase=erase,
        add=tuple(device.real for device in new),
        own=own,
        leftovers=leftovers,
        create=pool is None,
        extend=pool is not None and data > pool.extents,
        extend_metadata=pool is not None and metadata > pool.metadata_extents,
        write_profile=state.profile != profile_text(wanted.threshold, wanted.percent),
        set_profile=pool is not None and pool.profile != wanted.profile,
        record=pool is not None and not record <= pool.tags,
        activate=pool is not None and not pool.active,
        autoactivate_group=not after.autoactivation,
        autoactivate=pool is not None and not pool.autoactivation,
        monitor=pool is not None and not pool.monitored,
        identify=identities(state) != state.identities,
    )
    return replace(plan, after=with_pool(wanted, after, data, metadata, record))


def with_pool(wanted: Wanted, group: Group, data: int, metadata: int, record: set[str]) -> Group:
    """Returns the volume group with the wanted pool in it.

    Args:
        wanted: The checked parameters.
        group: The volume group with its new devices.
        data: Extents of data that are asked for.
        metadata: Extents of metadata that are asked for.
        record: Tags that record what was asked for.
    """
    empty = Pool(extents=0, metadata_extents=0, chunk_size=wanted.chunk_size, tags=frozenset({TAG}), data_percent=0.0, metadata_percent=0.0)
    base = group.pool or empty
    replaced = (f"{TAG}.size=", f"{TAG}.metadata=") if wanted.metadata_size else (f"{TAG}.size=",)
    pool = replace(
        base,
        extents=max(data, base.extents),
        metadata_extents=max(metadata, base.metadata_extents),
        tags=frozenset({tag for tag in base.tags if not tag.startswith(replaced)} | record),
        profile=wanted.profile,
        active=True,
        monitored=True,
        autoactivation=True,
    )
    taken = pool.extents - base.extents + metadata_growth(group, pool.metadata_extents)
    return replace(group, free=group.free - taken, autoactivation=True, pool=pool)
