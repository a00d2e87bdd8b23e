#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: thin_pool
short_description: Manages an LVM thin pool for the devmapper snapshotter of containerd
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Makes a volume group and in it a thin pool without thin volumes, which is what containerd needs. The pool extends itself when it fills up
    (an LVM metadata profile, watched by C(dmeventd)) and is activated at boot.
  - A pool grows where more is asked for, and never shrinks. What is as asked for already is not written.
  - A device that holds anything is refused unless O(wipe=true). One that is mounted or otherwise in use is refused even then.
  - A run that was killed is finished by the next one. What was begun is kept in C(/var/lib/screwdriver.kata) until it is done.
  - Needs LVM 2.03, C(thin_check) and C(thin_ls) on the host, and the kernel module C(dm_thin_pool).
extends_documentation_fragment:
  - screwdriver.kata._attributes
attributes:
  check_mode:
    support: full
    details:
      - The size that is predicted for a pool on new devices may differ by a few extents where LVM aligns data to the device's own geometry.
      - With O(state=absent) the thin devices of an active pool are read through a snapshot of its metadata, also in check mode.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  devices:
    description:
      - Block devices for the volume group, by any path. New ones are added, and none is ever taken away.
      - May be empty where the volume group is there already.
    type: list
    elements: path
    default: []
  volume_group:
    description: The volume group. It is made where it is not there.
    type: str
    default: kata
  name:
    description: The name of the pool. Containerd is given both, as RV(pool.device).
    type: str
    default: pool
  size:
    description:
      - The size of the pool's data, such as V(80%VG), V(80%FREE) or V(40GiB), at least. V(%FREE) is what is free besides the pool and its metadata.
      - The rest of the volume group is what the pool can extend itself with.
      - A pool that has extended itself stays as large as it is.
    type: str
    default: 80%VG
  chunk_size:
    description:
      - What the pool gives out at a time, a multiple of 64 KiB. A number alone is in KiB. It cannot be changed later.
    type: str
    default: 512KiB
  metadata_size:
    description:
      - The size of the pool's metadata, such as V(128MiB), at least. LVM keeps a spare of the same size.
      - The default is a thousandth of the data, from 64 MiB to 15 GiB.
    type: str
  autoextend_threshold:
    description: Percent of data or metadata at which the pool extends itself, from V(50) to V(100). V(100) turns it off.
    type: int
    default: 75
  autoextend_percent:
    description: How much larger the pool makes itself each time, in percent of its size.
    type: int
    default: 20
  wipe:
    description:
      - Erase what a new device holds. A device that is of the volume group already is never erased.
    type: bool
    default: false
  discard:
    description:
      - With O(state=absent), delete the thin devices in the pool with it. All snapshots of containerd are lost, so its database must be deleted together with
        them. A thin device that is open is not deleted even so.
    type: bool
    default: false
  loop_file:
    description:
      - A sparse file that is attached as a loop device, at boot as well, and taken as one more device. For tests alone.
    type: path
  loop_size:
    description: The size of O(loop_file) where it is made, such as V(10GiB).
    type: str
    default: 10GiB
  state:
    description:
      - V(absent) removes what the module made, and is refused while there is a thin device in the pool, see O(discard).
    type: str
    choices: [present, absent]
    default: present
seealso:
  - name: The devmapper snapshotter of containerd
    description: What containerd does with the pool.
    link: https://github.com/containerd/containerd/blob/main/docs/snapshotters/devmapper.md
"""

EXAMPLES = r"""
- name: Make a pool of two disks
  screwdriver.kata.thin_pool:
    devices:
      - /dev/disk/by-id/nvme-disk-1
      - /dev/disk/by-id/nvme-disk-2
    size: 80%VG
    metadata_size: 2GiB
  register: result

- name: Show how full it is
  ansible.builtin.debug:
    msg: "{{ result.pool.device }}: {{ result.pool.data_percent }} % of data, {{ result.pool.metadata_percent }} % of metadata"

- name: Make a pool in a volume group that has free space
  screwdriver.kata.thin_pool:
    volume_group: system
    name: containers
    size: 50%FREE

- name: Remove it
  screwdriver.kata.thin_pool:
    state: absent
"""

RETURN = r"""
pool:
  description: The pool as it is, or in check mode would be, after the module. V(null) where there is none.
  returned: success
  type: dict
  contains:
    name:
      description: The name of the pool.
      type: str
      sample: pool
    volume_group:
      description: The volume group that it is in.
      type: str
      sample: kata
    device:
      description: Its name in device mapper, the C(pool_name) of containerd.
      type: str
      sample: kata-pool
    devices:
      description: The devices of the volume group.
      type: list
      elements: str
      sample: [/dev/vdb]
    size_bytes:
      description: The size of the data, in bytes.
      type: int
      sample: 3430940672
    metadata_size_bytes:
      description: The size of the metadata, in bytes.
      type: int
      sample: 67108864
    chunk_size_bytes:
      description: What the pool gives out at a time, in bytes.
      type: int
      sample: 524288
    volume_group_size_bytes:
      description: The size of the volume group, in bytes.
      type: int
      sample: 4290772992
    volume_group_free_bytes:
      description: What is free in the volume group, in bytes.
      type: int
      sample: 725614592
    data_percent:
      description: How much of the data is in use, in percent. V(null) where the pool is not active.
      type: float
      sample: 12.5
    metadata_percent:
      description: How much of the metadata is in use, in percent. V(null) where the pool is not active.
      type: float
      sample: 10.1
    active:
      description: Whether the pool is active.
      type: bool
      sample: true
    monitored:
      description: Whether C(dmeventd) watches it.
      type: bool
      sample: true
    autoextend_threshold:
      description: Percent at which it extends itself.
      type: int
      sample: 75
    autoextend_percent:
      description: How much larger it makes itself each time, in percent.
      type: int
      sample: 20
    when_full:
      description: What writes do when the data is full, V(queue) or V(error).
      type: str
      sample: queue
    health:
      description: V(ok), or what LVM says is wrong, such as V(out_of_data).
      type: str
      sample: ok
"""

import json
import os
import typing as t
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm import loop as _loop
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm import model as _lvm
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm import plan as _thin_pool
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.plan import TAG, Found, Journal, Plan, require
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

STATE = Path("/var/lib/screwdriver.kata")


class ThinPool:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, t.Any] = module.params
        self.check_mode: bool = module.check_mode
        self.wanted = _thin_pool.parse(module.params)
        self.lvm = _lvm.Lvm(module)
        self.vg = self.wanted.volume_group
        self.full_name = self.wanted.full_name
        self.profile = _lvm.PROFILES / f"{self.wanted.profile}.profile"
        self.journal = STATE / f"thin_pool-{self.vg}.json"
        self.loop = _loop.Loop(module, self.lvm.run, self.vg) if self.params["loop_file"] else None

    def run(self) -> dict[str, t.Any]:
        return self._absent() if self.params["state"] == "absent" else self._present()

    # What there is.

    def _found(self) -> Found:
        groups = self.lvm.groups()
        looped = self.loop.device() if self.loop else None
        paths = [*self.params["devices"], *([looped] if looped else [])]
        journal = self._read_journal()
        if self.params["state"] == "absent":
            # Only what a killed run began is of interest, and it may be gone.
            paths = [path for path in journal.devices if os.path.exists(path)]
        devices = tuple(self.lvm.device(path, groups, member=groups.get(os.path.realpath(path)) == self.vg) for path in paths)
        return Found(
            devices=devices,
            group=self.lvm.group(self.vg, self.wanted.name),
            profile=self.profile.read_text() if self.profile.exists() else None,
            journal=journal,
            suspended=self.lvm.suspended(self.vg),
        )

    def _check_paths(self) -> None:
        """Before the tools are asked for: a device that is not there is the more useful message."""
        for path in self.params["devices"]:
            _thin_pool.refuse_unusable(self.lvm.device(path, None))

    def _read_journal(self) -> Journal:
        try:
            content = json.loads(self.journal.read_text())
        except (OSError, ValueError):
            return Journal()
        volumes = content.get("volumes")
        return Journal(tuple(content.get("devices", ())), None if volumes is None else tuple(volumes))

    def _write_journal(self, journal: Journal) -> None:
        self.journal.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._write(self.journal, json.dumps({"devices": journal.devices, "volumes": journal.volumes}), 0o600)

    def _write(self, path: Path, text: str, mode: int) -> None:
        new = path.with_name(f".{path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        new.replace(path)

    def _end_journal(self) -> None:
        self.journal.unlink(missing_ok=True)
        with suppress(OSError):
            self.journal.parent.rmdir()

    # Present.

    def _present(self) -> dict[str, t.Any]:
        self._check_paths()
        self.lvm.check_host()
        if self.loop:
            self.loop.check()
            if self.loop.is_missing():
                if self.check_mode:
                    return {"changed": True, "pool": None, "diff": {"before": {}, "after": {"loop_file": self.params["loop_file"]}}}
                self.loop.attach()
                return {**self._manage(), "changed": True}
        return self._manage()

    def _manage(self) -> dict[str, t.Any]:
        found = self._found()
        plan = _thin_pool.make_plan(self.wanted, found)
        profile = _thin_pool.profile_text(self.wanted.threshold, self.wanted.percent)
        before = _thin_pool.diff_view(self.wanted, found.group, found.profile, plan.erase)
        if plan.resume:
            before["suspended"] = list(plan.resume)
        if plan.leftovers:
            before["unfinished"] = list(plan.leftovers)
        group = plan.after
        if not self.check_mode:
            if plan.changed:
                self._add_devices(plan, found)
                self._change_pool()
                found = self._found()
                group, profile = found.group, found.profile or ""
            else:
                group = found.group
            self._end_journal()
        after = _thin_pool.diff_view(self.wanted, group, profile, {})
        return {
            "changed": plan.changed,
            "pool": _thin_pool.describe(self.wanted, group, profile),
            "diff": {"before": before, "after": after},
        }

    def _add_devices(self, plan: Plan, found: Found) -> None:
        for name in plan.resume:
            self.lvm.resume(name)
        if not plan.add and not plan.own:
            return
        devices = tuple(dict.fromkeys((*found.journal.devices, *plan.add)))
        self._write_journal(Journal(devices, found.journal.volumes))
        for device in plan.erase:
            self.lvm.erase(device)
        if plan.add and found.group is None:
            self.lvm.lvm("vgcreate", "--addtag", TAG, self.vg, *plan.add)
        elif plan.add:
            self.lvm.lvm("vgextend", self.vg, *plan.add)
        for device in (*plan.add, *plan.own):
            self.lvm.lvm("pvchange", "--addtag", TAG, device)

    def _change_pool(self) -> None:
        # The devices are in the volume group now, so that its size is known to the extent.
        found = self._found()
        plan = _thin_pool.make_plan(self.wanted, found)
        group = require(found.group)
        pool, record = require(require(plan.after).pool), self._record_arguments(plan, found)
        self._remove_leftovers(plan.leftovers)
        if plan.write_profile:
            self._write(self.profile, _thin_pool.profile_text(self.wanted.threshold, self.wanted.percent), 0o644)
        if plan.create:
            self._write_journal(Journal(found.journal.devices, self._volumes_before(found, plan)))
            self._create(pool.extents, pool.metadata_extents * group.extent_size, sorted(pool.tags))
        if plan.autoactivate_group:
            self.lvm.lvm("vgchange", "--setautoactivation", "y", self.vg)
        if plan.autoactivate:
            self.lvm.lvm("lvchange", "--setautoactivation", "y", self.full_name)
        if plan.activate:
            self.lvm.lvm("lvchange", "--activate", "y", self.full_name)
        if plan.set_profile:
            self.lvm.lvm("lvchange", "--metadataprofile", self.wanted.profile, self.full_name)
        if plan.extend_metadata:
            more = (pool.metadata_extents - require(group.pool).metadata_extents) * group.extent_size
            self.lvm.lvm("lvextend", "--poolmetadatasize", f"+{more}b", self.full_name)
        if plan.extend:
            self.lvm.lvm("lvextend", "--extents", str(pool.extents), self.full_name)
        if plan.record:
            self.lvm.lvm("lvchange", *record, self.full_name)
        if plan.write_profile and not (plan.create or plan.monitor):
            # dmeventd reads a profile when it begins to watch.
            self.lvm.lvm("lvchange", "--monitor", "n", self.full_name)
        if plan.monitor or (plan.write_profile and not plan.create):
            self.lvm.lvm("lvchange", "--monitor", "y", self.full_name)

    def _remove_leftovers(self, names: tuple[str, ...]) -> None:
        if names:
            self.lvm.lvm("lvremove", "--yes", *(f"{self.vg}/{name}" for name in names))

    def _volumes_before(self, found: Found, plan: Plan) -> tuple[str, ...]:
        return tuple(volume.uuid for volume in require(found.group).volumes if volume.name not in plan.leftovers)

    def _record_arguments(self, plan: Plan, found: Found) -> list[str]:
        """What was asked for last is kept as tags, so that a pool that has extended itself is not mistaken for one that is to shrink."""
        old = found.group.pool.tags if found.group and found.group.pool else frozenset()
        new = require(require(plan.after).pool).tags
        return [part for tag in sorted(old - new) for part in ("--deltag", tag)] + [
            part for tag in sorted(new - old) for part in ("--addtag", tag)
        ]

    def _create(self, extents: int, metadata: int, tags: list[str]) -> None:
        settings = ["--chunksize", f"{self.wanted.chunk_size}b", "--zero", "n", "--poolmetadatasize", f"{metadata}b"]
        settings += ["--metadataprofile", self.wanted.profile, "--monitor", "y", *(part for tag in tags for part in ("--addtag", tag))]
        self.lvm.lvm("lvcreate", "--type", "thin-pool", "--name", self.wanted.name, "--extents", str(extents), *settings, self.vg)

    # Absent.

    def _absent(self) -> dict[str, t.Any]:
        if self.lvm.missing():
            # Without LVM's tools there is no pool that could be in use, only files.
            return self._remove_files(Found(profile=self.profile.read_text() if self.profile.exists() else None))
        found = self._found()
        removal = _thin_pool.make_removal(self.wanted, found)
        devices = self._thin_devices(found) if removal.pool else []
        before = _thin_pool.diff_view(self.wanted, found.group, found.profile, {})
        if devices:
            before["thin_devices"] = sorted(name for name, _open in devices)
        if removal.leftovers:
            before["unfinished"] = list(removal.leftovers)
        loop = bool(self.loop and self.loop.is_require())
        after: dict[str, t.Any] = {}
        if found.group and not removal.group:
            after = _thin_pool.diff_view(self.wanted, _thin_pool.without_pool(found.group), None, {})
        if loop:
            before["loop_file"] = self.params["loop_file"]
        result = {"changed": removal.changed or loop, "pool": None, "diff": {"before": before, "after": after}}
        if not self.check_mode:
            self._remove(found, removal, devices)
        return result

    def _thin_devices(self, found: Found) -> list[tuple[str, bool]]:
        if not require(require(found.group).pool).active:
            if self.check_mode:
                return []
            self.lvm.lvm("lvchange", "--activate", "y", self.full_name)
        for name in found.suspended:
            if not self.check_mode:
                self.lvm.resume(name)
        devices = self.lvm.thin_devices(self.vg, self.wanted.name)
        if opened := [name for name, is_open in devices if is_open]:
            raise UserError(
                f"Thin pool {self.full_name} is not removed while thin devices in it are in use ({join_names(opened)}): end what uses them first."
            )
        if devices and not self.params["discard"]:
            names = join_names([name for name, _open in devices])
            raise UserError(
                f"Thin pool {self.full_name} is not removed while there are thin devices in it ({names}): have containerd delete its images and snapshots, "
                "or set discard to lose them."
            )
        return devices

    def _remove(self, found: Found, removal: _thin_pool.Removal, devices: list[tuple[str, bool]]) -> None:
        if removal.forget or removal.group:
            self._write_journal(Journal(tuple(dict.fromkeys((*found.journal.devices, *removal.forget))), found.journal.volumes))
        for name, _open in devices:
            if not name.isdigit():
                self.lvm.unmap(name)
        self._remove_leftovers(removal.leftovers)
        if removal.pool:
            self.lvm.lvm("lvremove", "--yes", self.full_name)
        if removal.leftovers or removal.pool:
            # What they were on can only be told now.
            found = self._found()
            removal = _thin_pool.make_removal(self.wanted, found)
        if removal.reduce:
            self._write_journal(Journal(tuple(dict.fromkeys((*found.journal.devices, *removal.reduce))), found.journal.volumes))
            self.lvm.lvm("vgreduce", self.vg, *removal.reduce)
        if removal.group:
            self.lvm.lvm("vgremove", "--yes", self.vg)
        if removal.forget:
            self.lvm.lvm("pvremove", "--yes", *removal.forget)
        # Pvremove refuses a physical volume that is marked as used.
        for device in removal.erase:
            self.lvm.erase(device)
        if self.loop:
            self.loop.remove()
        self.profile.unlink(missing_ok=True)
        self._end_journal()

    def _remove_files(self, found: Found) -> dict[str, t.Any]:
        loop = bool(self.loop and self.loop.is_require())
        if not self.check_mode:
            if self.loop:
                self.loop.remove()
            self.profile.unlink(missing_ok=True)
            self._end_journal()
        before = _thin_pool.diff_view(self.wanted, None, found.profile, {}) | ({"loop_file": self.params["loop_file"]} if loop else {})
        return {"changed": found.profile is not None or loop, "pool": None, "diff": {"before": before, "after": {}}}


def main() -> None:
    module = AnsibleModule(
        {
            "devices": {"type": "list", "elements": "path", "default": []},
            "volume_group": {"type": "str", "default": "kata"},
            "name": {"type": "str", "default": "pool"},
            "size": {"type": "str", "default": "80%VG"},
            "chunk_size": {"type": "str", "default": "512KiB"},
            "metadata_size": {"type": "str"},
            "autoextend_threshold": {"type": "int", "default": 75},
            "autoextend_percent": {"type": "int", "default": 20},
            "wipe": {"type": "bool", "default": False},
            "discard": {"type": "bool", "default": False},
            "loop_file": {"type": "path"},
            "loop_size": {"type": "str", "default": "10GiB"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**ThinPool(module).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
