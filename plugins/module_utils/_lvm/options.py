# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The module's parameters, checked as far as they can be without the host. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import GIB, KIB, MIB, TIB, Size, Wanted

UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": TIB}
CHUNK_STEP = 64 * KIB
MAX_CHUNK = GIB
MIN_METADATA = 2 * MIB
MAX_METADATA = 15 * GIB
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")
RESERVED = re.compile(
    r"^(snapshot|pvmove|\.\.?$)|_(cdata|cmeta|corig|cpool|cvol|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)\b"
)


def parse_bytes(text: str, bare: int = 0) -> int | None:
    """Parses a size such as ``512KiB`` or ``40G``.

    Args:
        text: The size.
        bare: The factor of a number without a unit; without it such a number is not a size.

    Returns:
        Bytes, or None where the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB)?)?\s*", text, re.IGNORECASE)
    if match is None or not (match[2] or bare):
        return None
    return int(float(match[1]) * (UNITS[match[2].upper()] if match[2] else bare))


def parse_size(text: str) -> Size:
    """Parses the size of a pool.

    Raises:
        UserError: It is neither a percentage nor a size.
    """
    if match := re.fullmatch(r"\s*(\d+)\s*%\s*(VG|FREE)\s*", text, re.IGNORECASE):
        percent = int(match[1])
        if not 1 <= percent <= 100:
            raise UserError(f"size: {text!r} is not a percentage from 1 to 100; use for example 80%VG.")
        return Size(text, percent=percent, base=match[2].upper())
    count = parse_bytes(text)
    if not count:
        raise UserError(f"size: {text!r} is not a valid size; use for example 80%VG, 80%FREE or 40GiB.")
    return Size(text, bytes=count)


def check_name(option: str, name: str) -> None:
    """Checks the name of a volume group or volume.

    Raises:
        UserError: LVM does not accept it.
    """
    if not NAME.fullmatch(name) or RESERVED.search(name) or len(name) > 100:
        raise UserError(
            f"{option}: {name!r} is not a valid LVM name; use letters, digits and _ + . - and none of LVM's own endings such as _tmeta."
        )


def parse(params: dict[str, t.Any]) -> Wanted:
    """Checks the module's parameters.

    Raises:
        UserError: One is out of range.
    """
    check_name("volume_group", params["volume_group"])
    check_name("name", params["name"])
    chunk = parse_bytes(params["chunk_size"], KIB)
    if not chunk or chunk % CHUNK_STEP or chunk > MAX_CHUNK:
        raise UserError(f"chunk_size: {params['chunk_size']!r} is not a multiple of 64 KiB up to 1 GiB; use for example 512KiB.")
    metadata = None
    if params["metadata_size"]:
        metadata = parse_bytes(params["metadata_size"])
        if metadata is None or not MIN_METADATA <= metadata <= MAX_METADATA:
            raise UserError(f"metadata_size: {params['metadata_size']!r} is not a size from 2 MiB to 15 GiB; use for example 128MiB.")
    for option, least, example in (("autoextend_threshold", 50, 75), ("autoextend_percent", 1, 20)):
        if not least <= params[option] <= 100:
            raise UserError(f"{option}: {params[option]} is not a percentage from {least} to 100; use for example {example}.")
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
