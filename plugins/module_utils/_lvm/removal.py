# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The removal of what the module made. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.checks import check_hidden
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import (
    TAG,
    UNKNOWN_GROUP,
    Group,
    HostState,
    Pool,
    Wanted,
)
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.plan import find_leftovers, without_volumes
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names


@dataclass(frozen=True)
class Removal:
    """What the module made of a thin pool, and therefore removes.

    ``detach`` and ``untag`` are what it has changed of a foreign pool, which stays.
    """

    leftovers: tuple[str, ...] = ()
    pool: bool = False
    group: bool = False
    reduce: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    erase: tuple[str, ...] = ()
    profile: bool = False
    detach: bool = False
    untag: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return any(vars(self).values())


def is_foreign(pool: Pool) -> bool:
    """Whether the module did not create the pool: one that it was given only has tags of what was asked for."""
    return TAG not in pool.tags


def after_removal(group: Group, removal: Removal) -> Group:
    """Returns the volume group as the diff shows it after a removal that keeps it."""
    pool = group.pool
    if pool is None or not is_foreign(pool):
        return replace(group, pool=None)
    return replace(group, pool=replace(pool, tags=pool.tags - set(removal.untag), profile="" if removal.detach else pool.profile))


def make_removal(wanted: Wanted, state: HostState) -> Removal:
    """Plans the removal.

    Raises:
        UserError: The volume is not a thin pool, or in use; nothing was changed.
    """
    begun = [device for device in state.devices if state.has_begun(device.real, device.links)]
    orphans = tuple(device.real for device in begun if device.group == "")
    erase = tuple(device.real for device in begun if device.group == UNKNOWN_GROUP)
    check_hidden(wanted, state)
    leftovers = find_leftovers(wanted, state)
    profile, group = state.profile is not None, without_volumes(state.group, leftovers)
    if group is None:
        return Removal(forget=orphans, erase=erase, profile=profile)
    pool = group.pool
    if any(volume.name == wanted.name and volume.segtype != "thin-pool" for volume in group.volumes):
        raise UserError(f"Logical volume {wanted.full_name} is not a thin pool and is not removed; name the pool that was created.")
    if pool and is_foreign(pool):
        untag = tuple(sorted(tag for tag in pool.tags if tag.startswith(f"{TAG}.")))
        return Removal(forget=orphans, erase=erase, profile=profile, detach=pool.profile == wanted.profile, untag=untag)
    thin = [volume.name for volume in group.volumes if volume.pool == wanted.name]
    if thin and pool:
        raise UserError(f"Thin pool {wanted.full_name} has LVM thin volumes ({join_names(thin)}) and is not removed; remove them first.")
    hidden = {wanted.name, f"{wanted.name}_tdata", f"{wanted.name}_tmeta"}
    others = [volume for volume in group.volumes if volume.name not in hidden and not volume.name.endswith("_pmspare")]
    ours = tuple(member.device for member in group.members if TAG in member.tags or state.has_begun(member.device, member.links))
    if TAG in group.tags and not others:
        return Removal(leftovers, pool=bool(pool), group=True, forget=(*ours, *orphans), erase=erase, profile=profile)
    # In a volume group that stays, only a device that was added for the pool is removed, and only if nothing else is on it.
    empty = tuple(member.device for member in group.members if member.device in ours and not member.used) if pool is None else ()
    reduce = empty if TAG not in group.tags and len(empty) < len(group.members) else ()
    return Removal(leftovers, pool=bool(pool), reduce=reduce, forget=(*reduce, *orphans), erase=erase, profile=profile)
