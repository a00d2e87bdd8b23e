# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares versions, and judges them by the list of advisories and of lines whose support has ended."""

from __future__ import annotations

import re
import typing as t

PRE_RELEASE = re.compile(r"v?\d+(\.\d+)*[-~](alpha|beta|rc)", re.IGNORECASE)


def parse(version: str) -> tuple[int, ...]:
    """The numbers of a version; what follows them, such as a distribution's ``~ds1``, does not count."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", str(version))
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _order(version: str) -> tuple[tuple[int, ...], bool]:
    """What a version is ordered by: a pre-release, such as ``-rc1``, is older than its release."""
    return parse(version), not PRE_RELEASE.match(str(version))


def is_affected(version: str, fixed: list[str], introduced: str = "0") -> bool:
    """Whether a version has the fault and is older than the fix of its line, or than the newest fix where its line has none."""
    ours = parse(version)
    # What a release brought may be in its pre-releases already.
    if not ours or ours < parse(introduced):
        return False
    of_line = [release for release in fixed if parse(release)[:2] == ours[:2]]
    return _order(version) < (_order(of_line[0]) if of_line else max(map(_order, fixed)))


def _concerns(advisory: dict[str, t.Any], handlers: list[dict[str, t.Any]] | None) -> bool:
    """Whether a handler has the shim and the hypervisor of an advisory. What is unknown of a handler may be either."""
    if handlers is None:
        return True
    for handler in handlers:
        # A configuration of the user's own may name any hypervisor.
        known = {part: handler.get(part) for part in ("shim", "hypervisor") if part == "shim" or handler.get("managed", True)}
        if all(not value or advisory.get(part, value) == value for part, value in known.items()):
            return True
    return False


def affecting(
    version: str, component: str, advisories: list[dict[str, t.Any]], handlers: list[dict[str, t.Any]] | None = None
) -> list[dict[str, t.Any]]:
    """The advisories that a version of a component is affected by.

    Args:
        version: The version, such as ``2.3.4``.
        component: ``kata``, ``containerd`` or ``runc``.
        advisories: Each with ``id``, ``component``, ``summary`` and ``fixed``, the first fixed release of each line; ``introduced`` is the
            first release that has the fault, and ``shim`` and ``hypervisor`` limit it to handlers of that one.
        handlers: Those of the node, each with ``shim`` and ``hypervisor``; an empty one is unknown. None if nothing is known of them.
    """
    return [
        advisory
        for advisory in advisories
        if advisory["component"] == component
        and is_affected(version, advisory["fixed"], advisory.get("introduced", "0"))
        and _concerns(advisory, handlers)
    ]


def judge(
    version: str,
    component: str,
    advisories: list[dict[str, t.Any]],
    end_of_life: dict[str, dict[str, t.Any]],
    handlers: list[dict[str, t.Any]] | None = None,
) -> list[str]:
    """Warnings about a version of a component, one sentence each.

    Args:
        version: The version, such as ``2.3.4``.
        component: ``kata``, ``containerd`` or ``runc``.
        advisories: As of ``affecting``.
        end_of_life: The end of support by component and line.
        handlers: As of ``affecting``.
    """
    sentences = [
        f"{component} {version} has {advisory['id']}: {advisory['summary']}. It is fixed in {' and '.join(advisory['fixed'])}."
        for advisory in affecting(version, component, advisories, handlers)
    ]
    line = ".".join(str(part) for part in parse(version)[:2])
    if ended := end_of_life.get(component, {}).get(line):
        sentences.append(f"{component} {line} gets no more fixes (end of life {ended}).")
    return sentences
