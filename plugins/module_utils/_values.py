# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Values as users write them and as messages show them. Pure."""

from __future__ import annotations

import typing as t
from decimal import Decimal

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError

MAX_NAMED = 3


def parse_share(value: t.Any, option: str) -> Decimal:
    """A share in percent.

    Args:
        value: A number, or its text.
        option: The option that it comes from, for the message.

    Returns:
        The share, from 0 to 100 with at most two decimals.

    Raises:
        UserError: It is not such a number.
    """
    try:
        share = Decimal(str(value))
        if Decimal(0) <= share <= Decimal(100) and share == round(share, 2):
            return share
    except ArithmeticError:
        pass
    raise UserError(f"{option} must be a percentage from 0 to 100 with at most two decimals, not {value!r}.")


def join_names(names: t.Sequence[str], limit: int = MAX_NAMED) -> str:
    """Names for a message: "a, b and c", or "a, b, c and 4 more" where there are more than the limit."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def ceil_div(count: int, unit: int) -> int:
    """How many units it takes to hold that many."""
    return -(-count // unit)


def format_bytes(count: int) -> str:
    """Bytes for a message, such as 1.5 GiB."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{count} B"
