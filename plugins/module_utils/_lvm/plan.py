# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a thin pool is to become, what stands against it, and the steps from what was found to what is asked for. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._values import ceil_div, format_bytes, join_names

KIB = 2**10
MIB = 2**20
GIB = 2**30
UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": 2**40}
CHUNK_STEP = 64 * KIB
MAX_CHUNK = GIB
MIN_METADATA = 2 * MIB
MAX_METADATA = 15 * GIB
DEFAULT_METADATA = 64 * MIB
# Where LVM puts the first extent, and how large an extent of a new volume group is.
PV_HEAD = MIB
NEW_EXTENT = 4 * MIB
TAG = "screwdriver.kata"
PHYSICAL_VOLUME = "an LVM physical volume"
# LVM's own word in pvs for the volume group of a physical volume that is marked as used and that no volume group has.
UNKNOWN_GROUP = "[unknown]"
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")
RESERVED = re.compile(
    r"^(snapshot|pvmove|\.\.?$)|_(cdata|cmeta|corig|cpool|cvol|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)\b"
)
PARTITION_TABLES = ("atari", "bsd", "dos", "gpt", "mac", "minix", "PMBR", "sgi", "sun")


@dataclass(frozen=True)
class Size:
    """Bytes, or a percentage of the volume group (``VG``) or of its free space (``FREE``)."""

    text: str
    bytes: int = 0
    percent: int = 0
    base: str = ""

    @property
    def record(self) -> str:
        """The size as a tag's value: LVM takes no percent sign there."""
        return f"{self.percent}{self.base}" if self.base else str(self.bytes)


@dataclass(frozen=True)
class Wanted:
    volume_group: str
    name: str
    size: Size
    chunk_size: int
    metadata_size: int | None
    threshold: int
    percent: int
    wipe: bool

    @property
    def full_name(self) -> str:
        return f"{self.volume_group}/{self.name}"

    @property
    def profile(self) -> str:
        """The name of the pool's LVM metadata profile."""
        return f"screwdriver-kata-{self.volume_group}-{self.name}"


@dataclass(frozen=True)
class Device:
    path: str
    real: str
    exists: bool = True
    block: bool = True
    size: int = 0
    read_only: bool = False
    signatures: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    busy: bool = False
    # None: no physical volume. Empty: one of no volume group. UNKNOWN_GROUP: one whose volume group is gone.
    group: str | None = None


@dataclass(frozen=True)
class Member:
    """A physical volume of the volume group."""

    device: str
    tags: frozenset[str] = frozenset()
    used: int = 0


@dataclass(frozen=True)
class Volume:
    name: str
    uuid: str
    segtype: str
    size: int
    pool: str = ""
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pool:
    extents: int
    metadata_extents: int
    chunk_size: int
    tags: frozenset[str] = frozenset()
    profile: str = ""
    active: bool = False
    monitored: bool = False
    autoactivation: bool = True
    zero: bool = False
    data_percent: float | None = None
    metadata_percent: float | None = None
    when_full: str = "queue"
    health: str = ""

    def recorded(self, what: str) -> str | None:
        """The ``size`` or ``metadata`` that was asked for last."""
        return next((tag.partition("=")[2] for tag in sorted(self.tags) if tag.startswith(f"{TAG}.{what}=")), None)


@dataclass(frozen=True)
class Group:
    extent_size: int
    extents: int
    free: int
    tags: frozenset[str] = frozenset()
    missing: int = 0
    exported: bool = False
    autoactivation: bool = True
    members: tuple[Member, ...] = ()
    volumes: tuple[Volume, ...] = ()
    pool: Pool | None = None

    @property
    def spare(self) -> int:
        """Extents of the spare for pool metadata that LVM keeps once in a volume group."""
        return sum(volume.size // self.extent_size for volume in self.volumes if volume.name.endswith("_pmspare"))


@dataclass(frozen=True)
class Journal:
    """What a run that may be killed has begun: devices that it found empty or owns, and the volumes that were there before its own."""

    devices: tuple[str, ...] = ()
    volumes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Found:
    """The host as it is."""

    devices: tuple[Device, ...] = ()
    group: Group | None = None
    profile: str | None = None
    journal: Journal = Journal()
    suspended: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The steps that are left, and what there is after them."""

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
    after: Group | None = None

    @property
    def changed(self) -> bool:
        return any(value for name, value in vars(self).items() if name != "after")


T = t.TypeVar("T")


def require(value: T | None) -> T:
    """What cannot be missing where it is asked for."""
    if value is None:
        raise AssertionError("a pool that was just looked at is not there")
    return value


def device_mapper_name(volume_group: str, name: str) -> str:
    """Device mapper doubles the hyphens of either name."""
    return f"{volume_group.replace('-', '--')}-{name.replace('-', '--')}"


def parse_bytes(text: str, bare: int = 0) -> int | None:
    """``512KiB``, ``40G`` or, where ``bare`` is the factor of a number alone, ``512``; None where it is none of these."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB)?)?\s*", text, re.IGNORECASE)
    if match is None or not (match[2] or bare):
        return None
    return int(float(match[1]) * (UNITS[match[2].upper()] if match[2] else bare))


def parse_size(text: str) -> Size:
    if match := re.fullmatch(r"\s*(\d+)\s*%\s*(VG|FREE)\s*", text, re.IGNORECASE):
        percent = int(match[1])
        if not 1 <= percent <= 100:
            raise UserError(f"size: {text} is no percentage from 1 to 100: write one such as 80%VG.")
        return Size(text, percent=percent, base=match[2].upper())
    count = parse_bytes(text)
    if not count:
        raise UserError(f"size: {text} is no size: write one such as 80%VG, 80%FREE or 40GiB.")
    return Size(text, bytes=count)


def check_name(option: str, name: str) -> None:
    if not NAME.fullmatch(name) or RESERVED.search(name) or len(name) > 100:
        raise UserError(
            f"{option}: LVM takes no {name!r} as a name: write letters, digits and _ + . - and none of LVM's own endings such as _tmeta."
        )


def parse(params: dict[str, t.Any]) -> Wanted:
    """
    The module's parameters, checked as far as they can be without a look at the host.

    :raises UserError: one is out of range.
    """
    check_name("volume_group", params["volume_group"])
    check_name("name", params["name"])
    chunk = parse_bytes(params["chunk_size"], KIB)
    if not chunk or chunk % CHUNK_STEP or chunk > MAX_CHUNK:
        raise UserError(f"chunk_size: {params['chunk_size']} is no multiple of 64 KiB up to 1 GiB: write one such as 512KiB.")
    metadata = None
    if params["metadata_size"]:
        metadata = parse_bytes(params["metadata_size"])
        if metadata is None or not MIN_METADATA <= metadata <= MAX_METADATA:
            raise UserError(f"metadata_size: {params['metadata_size']} is no size from 2 MiB to 15 GiB: write one such as 128MiB.")
    if not 50 <= params["autoextend_threshold"] <= 100:
        raise UserError(f"autoextend_threshold: {params['autoextend_threshold']} is no percentage from 50 to 100: write one such as 75.")
    if not 1 <= params["autoextend_percent"] <= 100:
        raise UserError(f"autoextend_percent: {params['autoextend_percent']} is no percentage from 1 to 100: write one such as 20.")
    return Wanted(
        volume_group=params["volume_group"],
        name=params["name"],
        size=parse_size(params["size"]),
        chunk_size=chunk,
        metadata_size=metadata,
        threshold=params["autoextend_threshold"],
        percent=params["autoextend_percent"],
        wipe=params["wipe"],
    )


def profile_text(threshold: int, percent: int) -> str:
    """An LVM metadata profile. LVM's own default of the threshold, 100, is off."""
    return (
        "# Managed by Ansible, screwdriver.kata.thin_pool.\n"
        "activation {\n"
        f"\tthin_pool_autoextend_threshold={threshold}\n"
        f"\tthin_pool_autoextend_percent={percent}\n"
        "}\n"
    )


def profile_values(text: str | None) -> tuple[int | None, int | None]:
    """Threshold and percent of a profile."""

    def value(setting: str) -> int | None:
        match = re.search(rf"^\s*thin_pool_autoextend_{setting}\s*=\s*(\d+)", text or "", re.MULTILINE)
        return int(match[1]) if match else None

    return value("threshold"), value("percent")


def describe_signature(kind: str, label: str = "") -> str:
    """A signature that wipefs found, for a sentence."""
    if kind == "LVM2_member":
        return PHYSICAL_VOLUME
    if kind in PARTITION_TABLES:
        return f"a {kind} partition table"
    called = f" labelled {label}" if label else ""
    return f"a signature of {kind}{called}"


def refuse_unusable(device: Device) -> None:
    if not device.exists:
        raise UserError(f"devices: there is no device {device.path}: name a block device that `lsblk --paths` lists.")
    if not device.block:
        raise UserError(f"devices: {device.path} is no block device: name one that `lsblk --paths` lists.")


def held_content(device: Device) -> str:
    """What a device holds, for a sentence; empty where it holds nothing."""
    if device.group == UNKNOWN_GROUP:
        return f"{PHYSICAL_VOLUME} of a volume group that is not there"
    if device.group:
        return f"{PHYSICAL_VOLUME} of volume group {device.group}"
    if device.group == "":
        return f"{PHYSICAL_VOLUME} of no volume group"
    return " and ".join(dict.fromkeys(device.signatures))


def check_new_device(device: Device, wipe: bool) -> str:
    """
    What has to be erased from a device before the volume group gets it.

    :raises UserError: it must not be touched.
    """
    never = "and is not touched, not even with wipe"
    if device.mounts:
        raise UserError(f"Device {device.path} is mounted at {join_names(device.mounts)} {never}: unmount it, or name another device.")
    if device.holders or device.busy:
        by = f" by {join_names(device.holders)}" if device.holders else " by the kernel"
        raise UserError(f"Device {device.path} is in use{by} {never}: free it, or name another device.")
    if device.read_only:
        raise UserError(f"Device {device.path} is read-only: make it writable, or name another device.")
    if device.size < PV_HEAD + NEW_EXTENT:
        raise UserError(f"Device {device.path} has only {format_bytes(device.size)}: name a larger one.")
    content = held_content(device)
    if content and not wipe:
        raise UserError(f"Device {device.path} holds {content}: name an empty device, or set wipe to erase it.")
    return content


def default_metadata(data: int) -> int:
    """Bytes of metadata for that many of data: a thousandth, since many snapshots map the same data."""
    return min(max(data // 1000, DEFAULT_METADATA), MAX_METADATA)


def sizes(wanted: Wanted, group: Group) -> tuple[int, int]:
    """
    The extents of data and of metadata that are asked for, at least 1 each.

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
        data = (room - growth(group, metadata)) * size.percent // 100
    else:
        data = ceil_div(size.bytes, extent)
    return max(data, 1), metadata


def growth(group: Group, metadata: int) -> int:
    """Extents that this much metadata takes beyond what it and its spare have."""
    had = group.pool.metadata_extents if group.pool else 0
    return max(metadata - had, 0) + max(metadata - group.spare, 0)


def with_devices(group: Group | None, devices: t.Sequence[Device], own: t.Sequence[str]) -> Group:
    """The volume group after devices were added. LVM may align a little differently, so the real one is looked at before a size is taken."""
    if group is None:
        group = Group(extent_size=NEW_EXTENT, extents=0, free=0, tags=frozenset({TAG}))
    more = sum((device.size - PV_HEAD) // group.extent_size for device in devices)
    members = tuple(replace(member, tags=member.tags | {TAG}) if member.device in own else member for member in group.members)
    added = tuple(Member(device.real, frozenset({TAG})) for device in devices)
    return replace(group, extents=group.extents + more, free=group.free + more, members=members + added)


def check_group(wanted: Wanted, group: Group) -> None:
    vg = wanted.volume_group
    if group.exported:
        raise UserError(f"Volume group {vg} is exported: import it with `vgimport {vg}`, or name another one.")
    if group.missing:
        raise UserError(f"Volume group {vg} lacks {group.missing} of its physical volumes: bring them back, or name another volume group.")
    for volume in group.volumes:
        if volume.name == wanted.name and volume.segtype != "thin-pool":
            raise UserError(f"Logical volume {wanted.full_name} is there and is no thin pool but {volume.segtype}: choose another name.")
    thin = [volume.name for volume in group.volumes if volume.pool == wanted.name]
    if thin and group.pool:
        raise UserError(
            f"Thin pool {wanted.full_name} holds LVM thin volumes ({join_names(thin)}), and containerd needs a pool that is its own: choose another name."
        )
    if group.pool and group.pool.chunk_size != wanted.chunk_size:
        raise UserError(
            f"chunk_size: thin pool {wanted.full_name} was made with {format_bytes(group.pool.chunk_size)}, which cannot be changed to "
            f"{format_bytes(wanted.chunk_size)}: leave it, or remove the pool first."
        )


def check_fit(wanted: Wanted, group: Group, data: int, metadata: int) -> None:
    """
    :raises UserError: the pool would shrink, or there is no room for it.
    """
    pool, extent = group.pool, group.extent_size
    if pool:
        # A pool that has extended itself is larger than what was asked for, and stays so.
        if data < pool.extents and pool.recorded("size") != wanted.size.record:
            raise UserError(
                f"size: thin pool {wanted.full_name} has {format_bytes(pool.extents * extent)} and is never shrunk, "
                f"{wanted.size.text} is {format_bytes(data * extent)}: ask for at least what it has."
            )
        if wanted.metadata_size and metadata < pool.metadata_extents and pool.recorded("metadata") != str(wanted.metadata_size):
            raise UserError(
                f"metadata_size: thin pool {wanted.full_name} has {format_bytes(pool.metadata_extents * extent)} of metadata and is never shrunk to "
                f"{format_bytes(wanted.metadata_size)}: ask for at least what it has."
            )
    had = pool.extents if pool else 0
    if max(data - had, 0) + growth(group, metadata) > group.free:
        most = max(group.free - growth(group, metadata) + had, 0) * extent
        raise UserError(
            f"size: {wanted.size.text} does not fit into volume group {wanted.volume_group}: besides metadata and its spare "
            f"there is room for {format_bytes(most)}, and {format_bytes(data * extent)} are asked for; ask for less, or add a device."
        )


def find_leftovers(wanted: Wanted, found: Found) -> tuple[str, ...]:
    """
    Volumes that a killed ``lvcreate`` left: they came after the journal was written.

    Some have names that only LVM gives. One has the pool's name and its tags, and is linear: LVM makes the pool's metadata from it.
    """
    if found.group is None or found.group.pool or found.journal.volumes is None:
        return ()
    hidden = re.compile(rf"(lvol\d+|{re.escape(wanted.name)}_t(meta|data))")
    new = [volume for volume in found.group.volumes if volume.uuid not in found.journal.volumes]
    return tuple(volume.name for volume in new if hidden.fullmatch(volume.name) or (volume.name == wanted.name and TAG in volume.tags))


def without(group: Group | None, leftovers: t.Sequence[str]) -> Group | None:
    """The volume group once leftovers are removed from it."""
    if group is None:
        return None
    freed = sum(volume.size // group.extent_size for volume in group.volumes if volume.name in leftovers)
    return replace(group, free=group.free + freed, volumes=tuple(volume for volume in group.volumes if volume.name not in leftovers))


def make_plan(wanted: Wanted, found: Found) -> Plan:
    """
    The steps from what was found to what is wanted.

    :raises UserError: something stands against it; nothing was touched.
    """
    leftovers = find_leftovers(wanted, found)
    group = without(found.group, leftovers)
    for device in found.devices:
        refuse_unusable(device)
    if group:
        check_group(wanted, group)
    inside = {member.device for member in group.members} if group else set()
    new = [device for device in dict((device.real, device) for device in found.devices).values() if device.real not in inside]
    erase = {}
    for device in new:
        # A physical volume that no volume group has is what a killed run leaves, and LVM may not list it yet.
        begun = (
            device.real in found.journal.devices
            and device.group in (None, "", UNKNOWN_GROUP)
            and set(device.signatures) <= {PHYSICAL_VOLUME}
        )
        if content := check_new_device(device, wanted.wipe or begun):
            erase[device.real] = content
    if group is None and not new:
        raise UserError(f"Volume group {wanted.volume_group} is not there, and no device is given to make it from: set devices.")
    own = tuple(
        member.device for member in (group.members if group else ()) if member.device in found.journal.devices and TAG not in member.tags
    )
    after = with_devices(group, new, own)
    data, metadata = sizes(wanted, after)
    check_fit(wanted, after, data, metadata)
    pool = after.pool
    record = {f"{TAG}.size={wanted.size.record}"} | ({f"{TAG}.metadata={wanted.metadata_size}"} if wanted.metadata_size else set())
    plan = Plan(
        resume=found.suspended,
        erase=erase,
        add=tuple(device.real for device in new),
        own=own,
        leftovers=leftovers,
        create=pool is None,
        extend=pool is not None and data > pool.extents,
        extend_metadata=pool is not None and metadata > pool.metadata_extents,
        write_profile=found.profile != profile_text(wanted.threshold, wanted.percent),
        set_profile=pool is not None and pool.profile != wanted.profile,
        record=pool is not None and not record <= pool.tags,
        activate=pool is not None and not pool.active,
        autoactivate_group=not after.autoactivation,
        autoactivate=pool is not None and not pool.autoactivation,
        monitor=pool is not None and not pool.monitored,
    )
    base = pool or Pool(
        extents=0, metadata_extents=0, chunk_size=wanted.chunk_size, tags=frozenset({TAG}), data_percent=0.0, metadata_percent=0.0
    )
    kept = {
        tag for tag in base.tags if not tag.startswith((f"{TAG}.size=", f"{TAG}.metadata=" if wanted.metadata_size else f"{TAG}.size="))
    }
    final = replace(
        base,
        extents=max(data, base.extents),
        metadata_extents=max(metadata, base.metadata_extents),
        tags=frozenset(kept | record),
        profile=wanted.profile,
        active=True,
        monitored=True,
        autoactivation=True,
    )
    taken = final.extents - (pool.extents if pool else 0) + growth(after, final.metadata_extents)
    return replace(plan, after=replace(after, free=after.free - taken, autoactivation=True, pool=final))


def describe(wanted: Wanted, group: Group | None, profile: str | None) -> dict[str, t.Any] | None:
    """The pool as the module returns it; None where there is none."""
    if group is None or group.pool is None:
        return None
    pool = group.pool
    threshold, percent = profile_values(profile)
    return {
        "name": wanted.name,
        "volume_group": wanted.volume_group,
        "device": device_mapper_name(wanted.volume_group, wanted.name),
        "devices": sorted(member.device for member in group.members),
        "size_bytes": pool.extents * group.extent_size,
        "volume_group_size_bytes": group.extents * group.extent_size,
        "volume_group_free_bytes": group.free * group.extent_size,
        "metadata_size_bytes": pool.metadata_extents * group.extent_size,
        "chunk_size_bytes": pool.chunk_size,
        "data_percent": pool.data_percent,
        "metadata_percent": pool.metadata_percent,
        "active": pool.active,
        "monitored": pool.monitored,
        "autoextend_threshold": threshold,
        "autoextend_percent": percent,
        "when_full": pool.when_full,
        "health": pool.health or "ok",
    }


def diff_view(wanted: Wanted, group: Group | None, profile: str | None, erase: dict[str, str]) -> dict[str, t.Any]:
    """One side of the diff: what the module manages, without what changes by itself."""
    side: dict[str, t.Any] = {"content": erase} if erase else {}
    if group:
        side["volume_group"] = {"name": wanted.volume_group, "devices": sorted(member.device for member in group.members)}
        if not group.autoactivation:
            side["volume_group"]["autoactivation"] = False
    if group and group.pool and (pool := describe(wanted, group, profile)):
        keys = (
            "name",
            "size_bytes",
            "metadata_size_bytes",
            "chunk_size_bytes",
            "active",
            "monitored",
            "autoextend_threshold",
            "autoextend_percent",
        )
        side["pool"] = {key: pool[key] for key in keys}
        side["pool"]["asked"] = group.pool.recorded("size")
        side["pool"]["profile"] = group.pool.profile
        if not group.pool.autoactivation:
            side["pool"]["autoactivation"] = False
    elif profile is not None:
        side["autoextend"] = dict(zip(("threshold", "percent"), profile_values(profile), strict=True))
    return side


@dataclass(frozen=True)
class Removal:
    """What of a thin pool the module made, and therefore takes away."""

    leftovers: tuple[str, ...] = ()
    pool: bool = False
    group: bool = False
    reduce: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    erase: tuple[str, ...] = ()
    profile: bool = False

    @property
    def changed(self) -> bool:
        return any(vars(self).values())


def without_pool(group: Group) -> Group:
    """For the diff of a removal that leaves the volume group."""
    return replace(group, pool=None)


def make_removal(wanted: Wanted, found: Found) -> Removal:
    """
    :raises UserError: the pool is there and somebody else made it.
    """
    begun = [device for device in found.devices if device.real in found.journal.devices]
    orphans = tuple(device.real for device in begun if device.group == "")
    erase = tuple(device.real for device in begun if device.group == UNKNOWN_GROUP)
    leftovers = find_leftovers(wanted, found)
    profile, group = found.profile is not None, without(found.group, leftovers)
    if group is None:
        return Removal(forget=orphans, erase=erase, profile=profile)
    pool = group.pool
    if any(volume.name == wanted.name and volume.segtype != "thin-pool" for volume in group.volumes):
        raise UserError(f"Logical volume {wanted.full_name} is no thin pool, and is not removed: name the pool that was made.")
    if pool and TAG not in pool.tags:
        raise UserError(
            f"Thin pool {wanted.full_name} was made by somebody else, and is not removed: remove it with `lvremove`, or name another one."
        )
    thin = [volume.name for volume in group.volumes if volume.pool == wanted.name]
    if thin and pool:
        raise UserError(f"Thin pool {wanted.full_name} holds LVM thin volumes ({join_names(thin)}), and is not removed: remove them first.")
    hidden = {wanted.name, f"{wanted.name}_tdata", f"{wanted.name}_tmeta"}
    others = [volume for volume in group.volumes if volume.name not in hidden and not volume.name.endswith("_pmspare")]
    ours = tuple(member.device for member in group.members if TAG in member.tags or member.device in found.journal.devices)
    if TAG in group.tags and not others:
        return Removal(leftovers, pool=bool(pool), group=True, forget=(*ours, *orphans), erase=erase, profile=profile)
    # In a volume group that stays, only a device that was added for the pool goes, and only if nothing else is on it.
    empty = tuple(member.device for member in group.members if member.device in ours and not member.used) if pool is None else ()
    reduce = empty if TAG not in group.tags and len(empty) < len(group.members) else ()
    return Removal(leftovers, pool=bool(pool), reduce=reduce, forget=(*reduce, *orphans), erase=erase, profile=profile)
