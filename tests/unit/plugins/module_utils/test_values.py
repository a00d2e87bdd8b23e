# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from decimal import Decimal

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._values import ceil_div, format_bytes, join_names, parse_share


@pytest.mark.parametrize("share", ["0", "100", "0.01", "99.99", 50, 2.5])
def test_parse_share(share: t.Any) -> None:
    assert parse_share(share, "share") == Decimal(str(share))


@pytest.mark.parametrize("share", ["101", "-1", "ten", "33.333", "", "nan", "inf", "1e3", None, True, -0.01, 100.01])
def test_parse_share_refuses_what_is_not_a_share(share: t.Any) -> None:
    with pytest.raises(UserError) as refused:
        parse_share(share, "kata_share")
    assert str(refused.value) == f"kata_share must be a percentage from 0 to 100 with at most two decimals, not {share!r}."


def test_join_names() -> None:
    assert [join_names(["a", "b", "c", "d", "e"][:count]) for count in range(6)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and 1 more",
        "a, b, c and 2 more",
    ]
    assert join_names(["a", "b", "c", "d"], 4) == "a, b, c and d"


def test_ceil_div() -> None:
    assert [ceil_div(count, 4) for count in (0, 1, 4, 5)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536 * 1024, "1.5 MiB"), (10 * 2**40, "10240 GiB")]
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text
