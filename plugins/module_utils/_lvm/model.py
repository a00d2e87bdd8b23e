# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The state of a host's disks, volume group and thin pool, and what is asked of them. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

KIB = 2**10
MIB = 2**20
GIB = 2**30
TIB = 2**40
TAG = "screwdriver.kata"
PHYSICAL_VOLUME = "an LVM physical volume"
# LVM's own word in pvs for the volume group of a physical volume that is marked as used and that no volume group has.
UNKNOWN_GROUP = "[unknown]"
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
        """The size as a tag's value: LVM accepts no percent sign there."""
        return f"{self.percent}{self.base}" if self.base else str(self.bytes)


@dataclass(frozen=True)
class Wanted:
    """The checked parameters of the module."""

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
    """A block device as named by the user (``path``) and by the kernel (``real``).

    ``links`` are its paths in /dev/disk/by-id, the best first: they name the disk by WWN or serial, and stay when kernel names change.
    """

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
    # None: not a physical volume. Empty: one of no volume group. UNKNOWN_GROUP: one whose volume group is gone.
    group: str | None = None
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Member:
    """A physical volume of the volume group."""

    device: str
    tags: frozenset[str] = frozenset()
    used: int = 0
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A logical volume, hidden ones too."""

    name: str
    uuid: str
    segtype: str
    size: int
    pool: str = ""
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pool:
    """A thin pool."""

    extents: int
    metadata_extents: int
    chunk_size: int
    tags: frozenset[str] = frozenset()
    profile: str = ""
    active: bool = False
    monitored: bool = False
    autoactivation: bool = True
    data_percent: float | None = None
    metadata_percent: float | None = None
    when_full: str = "queue"
    health: str = ""
    check_needed: bool = False

    def recorded(self, what: str) -> str | None:
        """The ``size`` or ``metadata`` that was asked for last."""
        return next((tag.partition("=")[2] for tag in sorted(self.tags) if tag.startswith(f"{TAG}.{what}=")), None)


@dataclass(frozen=True)
class Group:
    """A volume group, and the pool in it."""

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
    """What an interrupted run has begun: devices that it found empty or owns, and the volumes that existed before its own.

    A device is kept by its path in /dev/disk/by-id. One that has none is kept by its kernel name, which counts only until the next boot.
    """

    devices: tuple[str, ...] = ()
    volumes: tuple[str, ...] | None = None
    boot: str = ""


@dataclass(frozen=True)
class HostState:
    """The host as it is.

    ``identities`` has the path in /dev/disk/by-id of each device that an earlier run was given under another path. ``hidden`` are physical
    volumes that LVM's devices file or filter hides. ``database`` is the directory of a snapshotter's database, where there is one, and
    ``lost_database`` the one that it should be in, where there is none.
    """

    devices: tuple[Device, ...] = ()
    group: Group | None = None
    profile: str | None = None
    journal: Journal = Journal()
    suspended: tuple[str, ...] = ()
    identities: dict[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    database: str = ""
    lost_database: str = ""
    boot: str = ""

    def has_begun(self, real: str, links: tuple[str, ...]) -> bool:
        """Whether an interrupted run has begun to use a device."""
        if links:
            return not set(links).isdisjoint(self.journal.devices)
        return real in self.journal.devices and bool(self.boot) and self.journal.boot == self.boot


def identity(real: str, links: tuple[str, ...]) -> str:
    """Returns the most stable path of a device."""
    return links[0] if links else real


def require_group(group: Group | None) -> Group:
    """Returns a volume group that was just created or found.

    Raises:
        AssertionError: There is none, which is an error of this collection.
    """
    if group is None:
        raise AssertionError("a volume group that was just created is missing")
    return group


def require_pool(group: Group | None) -> Pool:
    """Returns the pool of a volume group, where both were just created or found.

    Raises:
        AssertionError: There is none, which is an error of this collection.
    """
    pool = require_group(group).pool
    if pool is None:
        raise AssertionError("a thin pool that was just created is missing")
    return pool


def device_mapper_name(volume_group: str, name: str) -> str:
    """Returns the device mapper name of a volume: hyphens of either name are doubled."""
    return f"{volume_group.replace('-', '--')}-{name.replace('-', '--')}"


def describe_signature(kind: str, label: str = "") -> str:
    """Describes a signature that wipefs found, for a message."""
    if kind == "LVM2_member":
        return PHYSICAL_VOLUME
    if kind in PARTITION_TABLES:
        return f"a {kind} partition table"
    return f"a signature of {kind}" + (f" labelled {label}" if label else "")


def profile_text(threshold: int, percent: int) -> str:
    """Returns the text of an LVM metadata profile. LVM's own threshold, 100, is off."""
    return (
        "# Managed by Ansible, screwdriver.kata.thin_pool.\n"
        "activation {\n"
        f"\tthin_pool_autoextend_threshold={threshold}\n"
        f"\tthin_pool_autoextend_percent={percent}\n"
        "}\n"
    )


def profile_values(text: str | None) -> tuple[int | None, int | None]:
    """Returns threshold and percent of a profile; None where it sets none."""

    def value(setting: str) -> int | None:
        match = re.search(rf"^\s*thin_pool_autoextend_{setting}\s*=\s*(\d+)", text or "", re.MULTILINE)
        return int(match[1]) if match else None

    return value("threshold"), value("percent")


def describe(wanted: Wanted, group: Group | None, profile: str | None) -> dict[str, t.Any] | None:
    """Returns the pool as the module returns it; None where there is none."""
    if group is None or group.pool is None:
        return None
    pool = group.pool
    threshold, percent = profile_values(profile)
    return {
        "name": wanted.name,
        "volume_group": wanted.volume_group,
        "device": device_mapper_name(wanted.volume_group, wanted.name),
        "devices": sorted(member.device for member in group.members),
        "stable_devices": sorted(identity(member.device, member.links) for member in group.members),
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
        "health": pool.health or ("check_needed" if pool.check_needed else "ok"),
    }


# What the diff shows of a pool: what the module manages, not what changes by itself.
DIFF_KEYS = (
    "name",
    "size_bytes",
    "metadata_size_bytes",
    "chunk_size_bytes",
    "active",
    "monitored",
    "autoextend_threshold",
    "autoextend_percent",
)


def diff_view(wanted: Wanted, group: Group | None, profile: str | None, erase: dict[str, str]) -> dict[str, t.Any]:
    """Returns one side of the diff.

    Args:
        wanted: The checked parameters.
        group: The volume group on that side.
        profile: The text of the pool's profile on that side.
        erase: Content of devices that is lost, by device.
    """
    side: dict[str, t.Any] = {"content": erase} if erase else {}
    if group:
        side["volume_group"] = {"name": wanted.volume_group, "devices": sorted(member.device for member in group.members)}
        if not group.autoactivation:
            side["volume_group"]["autoactivation"] = False
    if group and group.pool and (pool := describe(wanted, group, profile)):
        side["pool"] = {key: pool[key] for key in DIFF_KEYS}
        side["pool"]["asked"] = group.pool.recorded("size")
        side["pool"]["profile"] = group.pool.profile
        if not group.pool.autoactivation:
            side["pool"]["autoactivation"] = False
    elif profile is not None:
        threshold, percent = profile_values(profile)
        side["autoextend"] = {"threshold": threshold, "percent": percent}
    return side
