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
  - Creates a volume group and in it a thin pool without thin volumes, which is what containerd needs. The pool extends itself when it fills
    up (an LVM metadata profile, monitored by C(dmeventd)) and is activated at boot.
  - A pool grows where more is asked for, and never shrinks. A second run writes nothing.
  - A device with a signature is refused unless O(wipe=true). One that is mounted or otherwise in use is refused even then. LVM is asked
    without the host's devices file and filters, which may hide what is on a device.
  - A pool that has failed, needs a check, has read-only metadata or is out of data space is reported with what repairs it.
  - An interrupted run is finished by the next one. What it has begun is kept in C(/var/lib/screwdriver.kata) until it is done.
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
      - Block devices for the volume group, by any path. New ones are added, and none is ever removed.
      - A path outside of C(/dev/disk/by-id), such as V(/dev/nvme1n1), may be another disk's after a boot. The path in C(/dev/disk/by-id)
        that it has when it is given is recorded in C(/var/lib/screwdriver.kata). If it has another one later and does not belong to the
        volume group, it is refused, even with O(wipe=true).
      - A disk without WWN and serial has no path in C(/dev/disk/by-id), and is known by the volume group on it alone.
      - May be empty where the volume group exists. With O(state=absent) nothing but the identity of a device is checked.
    type: list
    elements: path
    default: []
  volume_group:
    description: The volume group. It is created where it does not exist.
    type: str
    default: kata
  name:
    description: The name of the pool. Containerd's C(pool_name) is made of both names, see RV(pool.device).
    type: str
    default: pool
  size:
    description:
      - The minimum size of the pool's data, such as V(80%VG), V(80%FREE) or V(40GiB). V(%FREE) is what is free besides the pool and its
        metadata.
      - The pool extends itself into the rest of the volume group.
      - A pool that has extended itself stays as large as it is.
    type: str
    default: 80%VG
  chunk_size:
    description:
      - The size of the pool's chunks, a multiple of 64 KiB. A number without a unit is in KiB. It cannot be changed later.
    type: str
    default: 512KiB
  metadata_size:
    description:
      - The minimum size of the pool's metadata, such as V(128MiB). LVM keeps a spare of the same size.
      - The default is a thousandth of the data, from 64 MiB to 15 GiB.
    type: str
  autoextend_threshold:
    description: Percent of data or metadata at which the pool extends itself, from V(50) to V(100). V(100) turns it off.
    type: int
    default: 75
  autoextend_percent:
    description: How much the pool grows each time it extends itself, in percent of its size.
    type: int
    default: 20
  wipe:
    description:
      - Erase the signatures of a new device. A device that belongs to the volume group is never erased.
    type: bool
    default: false
  discard:
    description:
      - With O(state=absent), delete the thin devices in the pool with it. All snapshots of containerd are lost, so its database must be
        deleted together with them. A thin device that is in use is refused even then.
    type: bool
    default: false
  snapshotter_root:
    description:
      - The directory of containerd's devmapper snapshotter, such as V(/var/lib/containerd/io.containerd.snapshotter.v1.devmapper). A pool
        is not created while there is a database in it, since containerd cannot use an old database with a new pool.
      - A pool with data in it is refused while there is no database, neither there nor in a directory beside it, since containerd cannot
        use a new database with an old pool.
    type: path
  loop_file:
    description:
      - A sparse file that is attached as a loop device, at boot as well, and used as one more device. For tests only.
    type: path
  loop_size:
    description: The size of O(loop_file) where it is created, such as V(10GiB).
    type: str
    default: 10GiB
  state:
    description:
      - V(absent) removes what the module created, and is refused while there are thin devices in the pool, see O(discard).
      - A pool that the module did not create stays with what is in it, see RV(pool). It loses the profile and the tags that the module gave
        it, and a warning names it.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - name: The devmapper snapshotter of containerd
    description: What containerd does with the pool.
    link: https://github.com/containerd/containerd/blob/main/docs/snapshotters/devmapper.md
"""

EXAMPLES = r"""
- name: Create a pool on two disks
  screwdriver.kata.thin_pool:
    devices:
      - /dev/disk/by-id/nvme-disk-1
      - /dev/disk/by-id/nvme-disk-2
    size: 80%VG
    metadata_size: 2GiB
  register: result

- name: Report how full it is
  ansible.builtin.debug:
    msg: "{{ result.pool.device }}: {{ result.pool.data_percent }} % of data, {{ result.pool.metadata_percent }} % of metadata"

- name: Create a pool in a volume group that has free space
  screwdriver.kata.thin_pool:
    volume_group: system
    name: containers
    size: 50%FREE

- name: Remove it
  screwdriver.kata.thin_pool:
    state: absent
"""

RETURN = r"""
steps:
  description: What was done, or would be done in check mode. Empty where everything is as asked for.
  returned: O(state=present)
  type: list
  elements: str
  sample: [add, create, write_profile]
pool:
  description: The pool after the module, or in check mode as it would be. V(null) where there is none, as after a removal.
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
      description: Its device mapper name, the C(pool_name) of containerd.
      type: str
      sample: kata-pool
    devices:
      description: The devices of the volume group.
      type: list
      elements: str
      sample: [/dev/nvme1n1]
    stable_devices:
      description: The devices of the volume group, by their paths in C(/dev/disk/by-id) where they have one.
      type: list
      elements: str
      sample: [/dev/disk/by-id/nvme-eui.0025385a71b1d3c2]
    size_bytes:
      description: The size of the data, in bytes.
      type: int
      sample: 3430940672
    metadata_size_bytes:
      description: The size of the metadata, in bytes.
      type: int
      sample: 67108864
    chunk_size_bytes:
      description: The size of the pool's chunks, in bytes.
      type: int
      sample: 524288
    volume_group_size_bytes:
      description: The size of the volume group, in bytes.
      type: int
      sample: 4290772992
    volume_group_free_bytes:
      description: The free space of the volume group, in bytes.
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
      description: Whether C(dmeventd) monitors it.
      type: bool
      sample: true
    autoextend_threshold:
      description: Percent of data or metadata at which it extends itself.
      type: int
      sample: 75
    autoextend_percent:
      description: How much it grows each time, in percent of its size.
      type: int
      sample: 20
    when_full:
      description: What happens to writes when the data is full, V(queue) or V(error).
      type: str
      sample: queue
    health:
      description: V(ok), V(check_needed), or the fault that LVM reports, such as V(out_of_data).
      type: str
      sample: ok
"""

import os
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.checks import (
    check_exists,
    check_health,
    check_identity,
    check_lost_database,
    is_broken,
    repair_advice,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.host import PROFILES, Lvm
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.journal import IdentityFile, JournalFile, boot_id, write_file
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.loop import Loop
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import (
    TAG,
    HostState,
    Journal,
    describe,
    device_mapper_name,
    diff_view,
    identity,
    profile_text,
    require_group,
    require_pool,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.options import parse
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.plan import Plan, identities, make_plan
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.removal import Removal, after_removal, make_removal
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names


class ThinPool:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, t.Any] = module.params
        self.check_mode: bool = module.check_mode
        self.wanted = parse(module.params)
        self.lvm = Lvm(module)
        self.vg = self.wanted.volume_group
        self.full_name = self.wanted.full_name
        self.profile = PROFILES / f"{self.wanted.profile}.profile"
        self.journal = JournalFile(self.vg)
        self.identities = IdentityFile(self.vg)
        self.loop = Loop(module, self.lvm.run, self.vg) if self.params["loop_file"] else None

    def run(self) -> dict[str, t.Any]:
        return self._absent() if self.params["state"] == "absent" else self._present()

    def _inspect(self) -> HostState:
        groups = self.lvm.groups()
        looped = self.loop.device() if self.loop else None
        paths = [*self.params["devices"], *([looped] if looped else [])]
        journal = self.journal.read()
        if self.params["state"] == "absent":
            # Only what an interrupted run began is of interest, and it may be gone.
            paths = [path for path in journal.devices if os.path.exists(path)]
        devices = tuple(self.lvm.device(path, groups, member=groups.get(os.path.realpath(path)) == self.vg) for path in paths)
        return HostState(
            devices=devices,
            group=self.lvm.group(self.vg, self.wanted.name),
            profile=self._read_profile(),
            journal=journal,
            suspended=self.lvm.suspended(self.vg),
            identities=self.identities.read(),
            hidden=self.lvm.hidden(groups, self.vg),
            database=self._find_database(),
            lost_database=self._find_lost_database(),
            boot=boot_id(),
        )

    def _find_database(self) -> str:
        root = self.params["snapshotter_root"]
        return root if root and any(Path(root).glob("*.db")) else ""

    def _find_lost_database(self) -> str:
        root = self.params["snapshotter_root"]
        if not root or self._find_database():
            return ""
        # A configuration of the user's own may have it in another directory, by the name of the pool.
        device = device_mapper_name(self.vg, self.wanted.name)
        return "" if any(Path(root).parent.glob(f"*/{device}.db")) else root

    def _stable(self, devices: t.Iterable[str]) -> tuple[str, ...]:
        return tuple(identity(real, self.lvm.links(real)) for real in devices)

    def _read_profile(self) -> str | None:
        return self.profile.read_text() if self.profile.exists() else None

    # Present.

    def _present(self) -> dict[str, t.Any]:
        # Before the tools are checked: a device that does not exist is the more useful message.
        for path in self.params["devices"]:
            check_exists(self.lvm.device(path, None))
        self.lvm.check_host()
        if self.loop:
            self.loop.check()
            if self.loop.is_missing():
                if self.check_mode:
                    diff = {"before": {}, "after": {"loop_file": self.params["loop_file"]}}
                    return {"changed": True, "pool": None, "steps": ["loop"], "diff": diff}
                self.loop.attach()
                return {**self._manage(), "changed": True}
        return self._manage()

    def _manage(self) -> dict[str, t.Any]:
        state = self._inspect()
        plan = make_plan(self.wanted, state)
        profile = profile_text(self.wanted.threshold, self.wanted.percent)
        before = diff_view(self.wanted, state.group, state.profile, plan.erase)
        if plan.resume:
            before["suspended"] = list(plan.resume)
        if plan.leftovers:
            before["unfinished"] = list(plan.leftovers)
        if plan.identify and state.identities:
            before["disks"] = state.identities
        group = plan.after
        if not self.check_mode:
            if plan.changed:
                self._add_devices(plan, state)
                self._change_pool()
                state = self._inspect()
                group, profile = state.group, state.profile or ""
                self.identities.write(identities(state))
            else:
                group = state.group
            check_health(self.wanted, require_pool(group))
            check_lost_database(self.wanted, state, require_pool(group))
            self.journal.end()
        after = diff_view(self.wanted, group, profile, {})
        if plan.identify:
            after["disks"] = identities(state)
        return {
            "changed": plan.changed,
            "pool": describe(self.wanted, group, profile),
            "steps": plan.steps,
            "diff": {"before": before, "after": after},
        }

    def _add_devices(self, plan: Plan, state: HostState) -> None:
        for name in plan.resume:
            self.lvm.resume(name)
        if not plan.add and not plan.own:
            return
        self.journal.add(state.journal, self._stable(plan.add))
        self.identities.write(identities(state))
        for device in plan.erase:
            self.lvm.erase(device)
        if plan.add and state.group is None:
            self.lvm.lvm("vgcreate", "--addtag", TAG, self.vg, *plan.add)
        elif plan.add:
            self.lvm.lvm("vgextend", self.vg, *plan.add)
        for device in (*plan.add, *plan.own):
            self.lvm.lvm("pvchange", "--addtag", TAG, device)

    def _change_pool(self) -> None:
        # The devices are in the volume group now, so that its size is known to the extent.
        state = self._inspect()
        plan = make_plan(self.wanted, state)
        group = require_group(state.group)
        pool, record = require_pool(plan.after), self._record_arguments(plan, state)
        self._remove_leftovers(plan.leftovers)
        if plan.write_profile:
            write_file(self.profile, profile_text(self.wanted.threshold, self.wanted.percent), 0o644)
        if plan.create:
            volumes = tuple(volume.uuid for volume in group.volumes if volume.name not in plan.leftovers)
            self.journal.write(Journal(state.journal.devices, volumes))
            self._create(pool.extents, pool.metadata_extents * group.extent_size, sorted(pool.tags))
        if plan.autoactivate_group:
            self.lvm.lvm("vgchange", "--setautoactivation", "y", self.vg)
        if plan.autoactivate:
            self.lvm.lvm("lvchange", "--setautoactivation", "y", self.full_name)
        if plan.activate:
            self._activate()
        if plan.set_profile:
            self.lvm.lvm("lvchange", "--metadataprofile", self.wanted.profile, self.full_name)
        if plan.extend_metadata:
            more = (pool.metadata_extents - require_pool(group).metadata_extents) * group.extent_size
            self.lvm.lvm("lvextend", "--poolmetadatasize", f"+{more}b", self.full_name)
        if plan.extend:
            self.lvm.lvm("lvextend", "--extents", str(pool.extents), self.full_name)
        if plan.record:
            self.lvm.lvm("lvchange", *record, self.full_name)
        if plan.write_profile and not (plan.create or plan.monitor):
            # dmeventd reads a profile when it begins to monitor.
            self.lvm.lvm("lvchange", "--monitor", "n", self.full_name)
        if plan.monitor or (plan.write_profile and not plan.create):
            self.lvm.lvm("lvchange", "--monitor", "y", self.full_name)

    def _activate(self) -> None:
        try:
            self.lvm.lvm("lvchange", "--activate", "y", self.full_name)
        except UserError as exc:
            raise UserError(f"Thin pool {self.full_name} cannot be activated ({exc}); {repair_advice(self.wanted)}.") from exc

    def _remove_leftovers(self, names: tuple[str, ...]) -> None:
        if names:
            self.lvm.lvm("lvremove", "--yes", *(f"{self.vg}/{name}" for name in names))

    def _record_arguments(self, plan: Plan, state: HostState) -> list[str]:
        """Records what was asked for last as tags, so that a pool that has extended itself is not mistaken for one that is to shrink."""
        old = state.group.pool.tags if state.group and state.group.pool else frozenset()
        new = require_pool(plan.after).tags
        changes = [("--deltag", tag) for tag in sorted(old - new)] + [("--addtag", tag) for tag in sorted(new - old)]
        return [word for change in changes for word in change]

    def _create(self, extents: int, metadata: int, tags: list[str]) -> None:
        settings = ["--chunksize", f"{self.wanted.chunk_size}b", "--zero", "n", "--poolmetadatasize", f"{metadata}b"]
        settings += ["--metadataprofile", self.wanted.profile, "--monitor", "y", *(part for tag in tags for part in ("--addtag", tag))]
        self.lvm.lvm("lvcreate", "--type", "thin-pool", "--name", self.wanted.name, "--extents", str(extents), *settings, self.vg)

    # Absent.

    def _absent(self) -> dict[str, t.Any]:
        if self.lvm.missing():
            # Without LVM's tools there is no pool that could be in use, only files.
            return self._remove_files(self._read_profile())
        state = self._inspect()
        self._check_identities(state)
        removal = make_removal(self.wanted, state)
        devices = self._thin_devices(state) if removal.pool else []
        before = diff_view(self.wanted, state.group, state.profile, {})
        if devices:
            before["thin_devices"] = sorted(name for name, _open in devices)
        if removal.leftovers:
            before["unfinished"] = list(removal.leftovers)
        kept = after_removal(state.group, removal) if state.group and not removal.group else None
        stays = kept is not None and kept.pool is not None
        loop = bool(self.loop and self.loop.exists()) and not stays
        if loop:
            before["loop_file"] = self.params["loop_file"]
        if not self.check_mode:
            self._remove(state, removal, devices, stays)
        if stays:
            self.module.warn(
                f"Thin pool {self.full_name} was not created by this module and stays with what is in it; "
                "delete what containerd left in it if you need the space."
            )
        return {
            "changed": removal.changed or loop,
            "pool": describe(self.wanted, kept, None),
            "diff": {"before": before, "after": diff_view(self.wanted, kept, None, {}) if kept else {}},
        }

    def _check_identities(self, state: HostState) -> None:
        # The caller is about to create the pool again on these devices, and the record of them is removed now.
        members = {member.device for member in state.group.members} if state.group else set()
        given = tuple(self.lvm.device(path, None) for path in self.params["devices"])
        for device in given:
            if device.real not in members:
                check_identity(device, replace(state, devices=given))

    def _thin_devices(self, state: HostState) -> list[tuple[str, bool]]:
        pool = require_pool(state.group)
        if not pool.active:
            if self.check_mode:
                return []
            try:
                self._activate()
            except UserError:
                if not self.params["discard"]:
                    raise
                return []
        if is_broken(pool) and not self.params["discard"]:
            raise UserError(
                f"Thin pool {self.full_name} has a fault ({pool.health or 'check needed'}), so it is unknown what is in it, and it is not "
                f"removed; {repair_advice(self.wanted)}."
            )
        for name in state.suspended:
            if not self.check_mode:
                self.lvm.resume(name)
        devices = self.lvm.thin_devices(self.vg, self.wanted.name, mapped_only=is_broken(pool))
        if opened := [name for name, is_open in devices if is_open]:
            raise UserError(
                f"Thin pool {self.full_name} has thin devices that are in use ({join_names(opened)}) and is not removed; "
                "end what uses them first."
            )
        if devices and not self.params["discard"]:
            names = join_names([name for name, _open in devices])
            raise UserError(
                f"Thin pool {self.full_name} has thin devices ({names}) and is not removed; delete containerd's images and snapshots, "
                "or set discard to lose them."
            )
        return devices

    def _remove(self, state: HostState, removal: Removal, devices: list[tuple[str, bool]], stays: bool) -> None:
        if removal.forget or removal.group:
            self.journal.add(state.journal, self._stable(removal.forget))
        for name, _open in devices:
            if not name.isdigit():
                self.lvm.unmap(name)
        self._remove_leftovers(removal.leftovers)
        if removal.pool:
            self.lvm.lvm("lvremove", "--yes", self.full_name)
        if removal.leftovers or removal.pool:
            # Only now it shows which devices are empty.
            state = self._inspect()
            removal = make_removal(self.wanted, state)
        if removal.reduce:
            self.journal.add(state.journal, self._stable(removal.reduce))
            self.lvm.lvm("vgreduce", self.vg, *removal.reduce)
        if removal.group:
            self.lvm.lvm("vgremove", "--yes", self.vg)
        if removal.forget:
            self.lvm.lvm("pvremove", "--yes", *removal.forget)
        # Pvremove refuses a physical volume that is marked as used.
        for device in removal.erase:
            self.lvm.erase(device)
        self._hand_back(state, removal)
        self._remove_files_of_pool(keep_loop=stays)

    def _hand_back(self, state: HostState, removal: Removal) -> None:
        """Undoes what the module has changed of a foreign pool."""
        if removal.untag:
            self.lvm.lvm("lvchange", *(part for tag in removal.untag for part in ("--deltag", tag)), self.full_name)
        if removal.detach:
            self.lvm.lvm("lvchange", "--detachprofile", self.full_name)
            pool = require_pool(state.group)
            if pool.active and pool.monitored:
                # dmeventd reads a profile when it begins to monitor.
                self.lvm.lvm("lvchange", "--monitor", "n", self.full_name)
                self.lvm.lvm("lvchange", "--monitor", "y", self.full_name)

    def _remove_files(self, profile: str | None) -> dict[str, t.Any]:
        loop = bool(self.loop and self.loop.exists())
        if not self.check_mode:
            self._remove_files_of_pool()
        before = diff_view(self.wanted, None, profile, {}) | ({"loop_file": self.params["loop_file"]} if loop else {})
        return {"changed": profile is not None or loop, "pool": None, "diff": {"before": before, "after": {}}}

    def _remove_files_of_pool(self, keep_loop: bool = False) -> None:
        if self.loop and not keep_loop:
            self.loop.remove()
        self.profile.unlink(missing_ok=True)
        self.identities.write({})
        self.journal.end()


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
            "snapshotter_root": {"type": "path"},
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
