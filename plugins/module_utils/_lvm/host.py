# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The one seam to LVM, device mapper and util-linux: nothing else in this collection calls their tools."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import typing as t
from pathlib import Path

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import (
    Device,
    Group,
    Member,
    Pool,
    Volume,
    describe_signature,
    device_mapper_name,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PROFILES = Path("/etc/lvm/profile")
TOOLS = {
    "lvm": "lvm2",
    "dmsetup": "dmsetup (Debian family) or device-mapper (RedHat family)",
    "wipefs": "util-linux",
    "lsblk": "util-linux",
    "thin_check": "thin-provisioning-tools (Debian family) or device-mapper-persistent-data (RedHat family)",
    "thin_ls": "thin-provisioning-tools (Debian family) or device-mapper-persistent-data (RedHat family)",
}
VOLUME_FIELDS = (
    "lv_name,lv_uuid,segtype,lv_size,lv_metadata_size,chunk_size,pool_lv,lv_tags,lv_profile,seg_monitor,lv_active,data_percent,metadata_percent,"
    "lv_when_full,lv_health_status,lv_check_needed"
)
# The first release with a setting per volume for the activation at boot, and with a devices file.
AUTOACTIVATION = (2, 3, 12)
# For what LVM reports: a device that a host's own settings hide from LVM is not an empty one.
UNFILTERED = 'hints="none" filter=["a|.*|"] global_filter=["a|.*|"]'
BY_ID = Path("/dev/disk/by-id")
# Links in /dev/disk/by-id that name a disk by WWN or serial, the best first. Those of volumes name what is on a disk.
STABLE = ("wwn-", "nvme-eui.", "nvme-nguid.", "nvme-uuid.", "nvme-", "scsi-", "ata-", "dm-uuid-mpath-", "md-uuid-")
VOLATILE = ("lvm-pv-uuid-", "dm-name-", "dm-uuid-", "md-name-")


def number(text: str) -> int:
    return int(text) if text else 0


def percentage(text: str) -> float | None:
    return float(text) if text else None


def words(text: str) -> frozenset[str]:
    return frozenset(word for word in text.split(",") if word)


def parse_version(text: str) -> tuple[int, ...]:
    """Reads the version from the output of ``lvm version``."""
    match = re.search(r"LVM version:\s*(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0, 0, 0)


def parse_signatures(text: str) -> tuple[str, ...]:
    """Describes what ``wipefs --parsable`` found: lines of offset, uuid, label, type."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            parts = line.split(",")
            found.append(describe_signature(parts[3] if len(parts) > 3 else parts[-1], parts[2] if len(parts) > 3 else ""))
    return tuple(found)


def order_links(names: t.Iterable[str]) -> tuple[str, ...]:
    """Orders names in /dev/disk/by-id of one disk, the best first, without those that may change."""

    def rank(name: str) -> tuple[int, str]:
        return next((index for index, prefix in enumerate(STABLE) if name.startswith(prefix)), len(STABLE)), name

    stable = [name for name in names if not name.startswith(VOLATILE) or name.startswith(STABLE)]
    return tuple(str(BY_ID / name) for name in sorted(stable, key=rank))


def parse_group(
    group: dict[str, str],
    members: list[dict[str, str]],
    volumes: list[dict[str, str]],
    name: str,
    links: t.Callable[[str], tuple[str, ...]] = lambda real: (),
) -> Group:
    """Reads a volume group from the rows of LVM's reports.

    Args:
        group: The row of the volume group.
        members: The rows of its physical volumes.
        volumes: The rows of its logical volumes, hidden ones too; one for each segment.
        name: The name of the pool.
        links: Returns the paths in /dev/disk/by-id of a device.
    """
    extent = number(group["vg_extent_size"])
    rows = {row["lv_uuid"]: {**row, "lv_name": row["lv_name"].strip("[]")} for row in volumes}
    pool = next((row for row in rows.values() if row["lv_name"] == name and row["segtype"] == "thin-pool"), None)
    return Group(
        extent_size=extent,
        extents=number(group["vg_extent_count"]),
        free=number(group["vg_free_count"]),
        tags=words(group["vg_tags"]),
        missing=number(group["vg_missing_pv_count"]),
        exported=bool(group["vg_exported"]),
        autoactivation=group.get("vg_autoactivation", "enabled") == "enabled",
        members=tuple(
            Member(real, words(row["pv_tags"]), number(row["pv_used"]), links(real))
            for row in members
            for real in (os.path.realpath(row["pv_name"]),)
        ),
        volumes=tuple(parse_volume(row) for row in rows.values()),
        pool=parse_pool(pool, extent) if pool else None,
    )


def parse_volume(row: dict[str, str]) -> Volume:
    return Volume(
        name=row["lv_name"],
        uuid=row["lv_uuid"],
        segtype=row["segtype"],
        size=number(row["lv_size"]),
        pool=row["pool_lv"].strip("[]"),
        tags=words(row["lv_tags"]),
    )


def parse_pool(row: dict[str, str], extent: int) -> Pool:
    return Pool(
        extents=number(row["lv_size"]) // extent,
        metadata_extents=number(row["lv_metadata_size"]) // extent,
        chunk_size=number(row["chunk_size"]),
        tags=words(row["lv_tags"]),
        profile=row["lv_profile"],
        active=row["lv_active"] == "active",
        monitored=row["seg_monitor"] == "monitored",
        autoactivation=row.get("lv_autoactivation", "enabled") == "enabled",
        data_percent=percentage(row["data_percent"]),
        metadata_percent=percentage(row["metadata_percent"]),
        when_full=row["lv_when_full"] or "queue",
        health=row["lv_health_status"],
        check_needed=row["lv_check_needed"] == "check needed",
    )


class Lvm:
    """LVM and the tools beside it, run through Ansible's module."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        module.run_command_environ_update = {"LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
        self._paths: dict[str, str] = {}
        self._version: tuple[int, ...] | None = None
        self._links: dict[str, list[str]] | None = None

    def missing(self) -> str | None:
        """Returns the first tool that is not installed."""
        return next((tool for tool in TOOLS if self._path(tool) is None), None)

    def check_host(self) -> None:
        """Checks that the tools and the kernel module are there.

        Raises:
            UserError: One is missing.
        """
        modprobe = self._path("modprobe")
        loaded = Path("/sys/module/dm_thin_pool").exists()
        if not loaded and (modprobe is None or self._module.run_command([modprobe, "--dry-run", "--quiet", "dm_thin_pool"])[0]):
            raise UserError(
                f"The kernel {os.uname().release} has no module dm_thin_pool; install the package linux-image-ARCH (Debian family) or "
                "kernel-modules (RedHat family) of the running kernel."
            )
        if tool := self.missing():
            raise UserError(f"The tool {tool} is missing; install the package {TOOLS[tool]}.")

    def _path(self, tool: str) -> str | None:
        if tool not in self._paths and (path := self._module.get_bin_path(tool)):
            self._paths[tool] = path
        return self._paths.get(tool)

    def run(self, tool: str, *arguments: str) -> str:
        """Runs a tool without an answer to any question that it may ask.

        Returns:
            Its standard output.

        Raises:
            UserError: It failed; the message has its reason.
        """
        code, out, err = self._module.run_command([self._path(tool) or tool, *arguments], data="")
        if code:
            reason = " ".join(line.strip() for line in (err or out).splitlines() if "WARNING" not in line) or err.strip()
            raise UserError(f"`{tool} {' '.join(arguments)}` failed with exit code {code}: {reason}")
        return out

    def lvm(self, *arguments: str) -> str:
        return self.run("lvm", *arguments)

    def _report(self, command: str, fields: str, *arguments: str, filtered: bool = False) -> list[dict[str, str]]:
        options = () if filtered else ("--config", self._unfiltered(), "--foreign", "--shared")
        out = self.lvm(command, "--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields, *options, *arguments)
        key = {"pvs": "pv", "vgs": "vg", "lvs": "lv"}[command]
        return [row for report in json.loads(out)["report"] for row in report.get(key, [])]

    def _unfiltered(self) -> str:
        devices_file = " use_devicesfile=0" if self._is_recent() else ""
        return f"devices {{ {UNFILTERED}{devices_file} }}"

    def _is_recent(self) -> bool:
        if self._version is None:
            self._version = parse_version(self.lvm("version"))
        return self._version >= AUTOACTIVATION

    def _with_autoactivation(self, fields: str, of: str) -> str:
        return f"{fields},{of}_autoactivation" if self._is_recent() else fields

    def groups(self) -> dict[str, str]:
        """Returns the volume group of every physical volume, hidden ones too; empty where it is in none."""
        return {os.path.realpath(row["pv_name"]): row["vg_name"] for row in self._report("pvs", "pv_name,vg_name")}

    def hidden(self, groups: dict[str, str], volume_group: str) -> frozenset[str]:
        """Returns the physical volumes of a volume group that LVM's own settings hide.

        Args:
            groups: The volume group of every physical volume.
            volume_group: The volume group.
        """
        members = {real for real, group in groups.items() if group == volume_group}
        if not members:
            return frozenset()
        return frozenset(members - {os.path.realpath(row["pv_name"]) for row in self._report("pvs", "pv_name", filtered=True)})

    def links(self, real: str) -> tuple[str, ...]:
        """Returns the paths of a device in /dev/disk/by-id, the best first."""
        if self._links is None:
            self._links = {}
            for link in BY_ID.iterdir() if BY_ID.is_dir() else ():
                self._links.setdefault(os.path.realpath(link), []).append(link.name)
        return order_links(self._links.get(real, ()))

    def group(self, name: str, pool: str) -> Group | None:
        """Reads a volume group and the pool in it; None where it does not exist."""
        fields = self._with_autoactivation(
            "vg_name,vg_extent_size,vg_extent_count,vg_free_count,vg_tags,vg_missing_pv_count,vg_exported", "vg"
        )
        rows = self._report("vgs", fields, "--select", f"vg_name={name}")
        if not rows:
            return None
        members = self._report("pvs", "pv_name,pv_tags,pv_used", "--select", f"vg_name={name}")
        volumes = [] if rows[0]["vg_exported"] else self._report("lvs", self._with_autoactivation(VOLUME_FIELDS, "lv"), "--all", name)
        return parse_group(rows[0], members, volumes, pool, self.links)

    def suspended(self, volume_group: str) -> tuple[str, ...]:
        """Returns devices of a volume group that an interrupted LVM left suspended: whatever reads one hangs."""
        prefix = volume_group.replace("-", "--") + "-"
        rows = self._rows("info", "--columns", "--noheadings", "--separator", "/", "--options", "name,suspended")
        return tuple(name for name, state in rows if re.match(re.escape(prefix) + "(?!-)", name) and state == "Suspended")

    def _rows(self, *arguments: str) -> list[list[str]]:
        return [line.strip().split("/") for line in self.run("dmsetup", *arguments).splitlines() if "/" in line]

    def device(self, path: str, groups: dict[str, str] | None, member: bool = False) -> Device:
        """Inspects a device.

        Args:
            path: Any path of it.
            groups: The volume group of every physical volume; None inspects no content.
            member: Whether it belongs to the pool's volume group already; its content is then not inspected.
        """
        real = os.path.realpath(path)
        try:
            mode = os.stat(real).st_mode
        except OSError:
            return Device(path, real, exists=False)
        if not stat.S_ISBLK(mode):
            return Device(path, real, block=False)
        if member or groups is None:
            return Device(path, real, group=(groups or {}).get(real), links=self.links(real))
        tree = json.loads(self.run("lsblk", "--json", "--bytes", "--paths", "--output", "NAME,TYPE,SIZE,RO,MOUNTPOINT", real))[
            "blockdevices"
        ]
        children = list(self._below(tree[0]))
        return Device(
            path,
            real,
            size=int(tree[0]["size"]),
            read_only=tree[0]["ro"] in (True, "1"),
            signatures=self._signatures(real) + self._partitions(children),
            mounts=tuple(node["mountpoint"] for node in (tree[0], *children) if node["mountpoint"]),
            holders=tuple(node["name"] for node in children if node["type"] != "part"),
            busy=self._is_busy(real),
            group=groups.get(real),
            links=self.links(real),
        )

    def _below(self, node: dict[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
        for child in node.get("children", []):
            yield child
            yield from self._below(child)

    def _signatures(self, real: str) -> tuple[str, ...]:
        return parse_signatures(self.run("wipefs", "--no-act", "--parsable", real))

    def _partitions(self, children: list[dict[str, t.Any]]) -> tuple[str, ...]:
        parts = [node["name"] for node in children if node["type"] == "part"]
        return (f"{len(parts)} partition{'s' if len(parts) > 1 else ''}",) if parts else ()

    def _is_busy(self, real: str) -> bool:
        """Whether anything in the kernel has claimed the device: a mount in any namespace, swap, RAID, device mapper."""
        try:
            os.close(os.open(real, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
        except OSError as exc:
            return exc.errno == errno.EBUSY
        return False

    def erase(self, device: str) -> None:
        """Erases the signatures of a device and of its partitions."""
        # Partitions first, so that nothing of them comes back with a new table.
        tree = json.loads(self.run("lsblk", "--json", "--paths", "--output", "NAME,TYPE", device))["blockdevices"]
        for node in reversed(list(self._below(tree[0]))):
            self.run("wipefs", "--all", node["name"])
        self.run("wipefs", "--all", device)

    def thin_devices(self, volume_group: str, name: str, mapped_only: bool = False) -> list[tuple[str, bool]]:
        """Returns the thin devices in an active pool, and whether each is open; by number where it has no name.

        Containerd creates them through device mapper alone, so LVM does not list them. Those that are not mapped are read from the
        metadata.

        Args:
            volume_group: The volume group.
            name: The name of the pool.
            mapped_only: Whether the metadata cannot be read, as those of a failed pool.
        """
        pool = device_mapper_name(volume_group, name)
        rows = self._rows("info", "--columns", "--noheadings", "--separator", "/", "--options", "name,open,major,minor")
        opened = {row[0]: int(row[1]) for row in rows}
        number_of = next((f"{row[2]}:{row[3]}" for row in rows if row[0] == pool), None)
        if number_of is None:
            return []
        mapped = []
        numbers = set()
        for line in self.run("dmsetup", "table", "--target", "thin").splitlines():
            match = re.match(r"(\S+): \d+ \d+ thin (\S+) (\d+)", line)
            if match and match[2] == number_of:
                mapped.append((match[1], opened.get(match[1], 0) > 0))
                numbers.add(match[3])
        return mapped + [(number, False) for number in ([] if mapped_only else self._numbers(pool)) if number not in numbers]

    def _numbers(self, pool: str) -> list[str]:
        status = self.run("dmsetup", "status", pool).split()
        # A snapshot of the metadata that an interrupted run left.
        if len(status) > 6 and status[6] != "-":
            self.run("dmsetup", "message", pool, "0", "release_metadata_snap")
        self.run("dmsetup", "message", pool, "0", "reserve_metadata_snap")
        try:
            return self.run("thin_ls", "--metadata-snap", "--no-headers", "--format", "DEV", f"/dev/mapper/{pool}_tmeta").split()
        finally:
            self.run("dmsetup", "message", pool, "0", "release_metadata_snap")

    def unmap(self, name: str) -> None:
        self.run("dmsetup", "remove", "--retry", name)

    def resume(self, name: str) -> None:
        self.run("dmsetup", "resume", name)
