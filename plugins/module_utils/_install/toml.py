# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of TOML: merging them, comparing them, finding secrets in them, and writing them with tomli-w."""

from __future__ import annotations

import datetime
import tomllib
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._secrets import mask_text, names_secret

try:
    import tomli_w
except ImportError:
    tomli_w = None  # type: ignore[assignment]

Table = dict[str, t.Any]
# HTTP headers, which authenticate whatever their names are.
HEADERS = ("header", "headers")


class TomlError(Exception):
    """What TOML cannot express, as one sentence."""


def merge(*tables: Table) -> Table:
    """The tables merged key by key; a later value replaces an earlier one."""
    merged: Table = {}
    for table in tables:
        for key, value in table.items():
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def nested(table: Table) -> Table:
    """The table with dotted names of tables split: ``hypervisor.qemu`` is the table qemu in the table hypervisor."""
    result: Table = {}
    for name, value in table.items():
        *outer, last = str(name).split(".") if isinstance(value, dict) else [str(name)]
        entry: Table = {last: nested(value) if isinstance(value, dict) else value}
        for part in reversed(outer):
            entry = {part: entry}
        result = merge(result, entry)
    return result


def added(current: t.Any, written: t.Any) -> t.Any:
    """What ``current`` has and ``written`` has not: keys of tables, entries of lists. None where there is nothing."""
    if isinstance(current, dict) and isinstance(written, dict):
        found = {}
        for key, value in current.items():
            if key not in written:
                found[key] = value
            elif (extra := added(value, written[key])) is not None:
                found[key] = extra
        return found or None
    if isinstance(current, list) and isinstance(written, list):
        return [entry for entry in current if entry not in written] or None
    return None


def extend(base: Table, extra: Table) -> Table:
    """``base`` with what ``extra`` adds to it: new keys of tables, new entries of lists. Values of ``base`` stay."""
    result = dict(base)
    for key, value in extra.items():
        if key not in result:
            result[key] = value
        elif isinstance(result[key], dict) and isinstance(value, dict):
            result[key] = extend(result[key], value)
        elif isinstance(result[key], list) and isinstance(value, list):
            result[key] = [*result[key], *(entry for entry in value if entry not in result[key])]
    return result


def _holds_secret(value: t.Any, secret: bool = False) -> bool:
    if isinstance(value, dict):
        return any(_holds_secret(entry, secret or key in HEADERS or names_secret(key)) for key, entry in value.items())
    if isinstance(value, list):
        return any(_holds_secret(entry, secret) for entry in value)
    return secret and isinstance(value, str) and value != ""


def has_secret(text: str) -> bool:
    """Whether a file has a password, a token, a header or credentials in a URL."""
    return mask_text(text) != text or _holds_secret(tomllib.loads(text))


def _plain(value: t.Any, path: str) -> t.Any:
    """The value in types that tomli-w knows."""
    if value is None:
        raise TomlError(f"{path} is null, which TOML cannot express. Remove it, or give it a value.")
    if isinstance(value, dict):
        return {str(key): _plain(entry, f"{path}.{key}" if path else str(key)) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, f"{path}[{number}]") for number, entry in enumerate(value)]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value
    raise TomlError(f"{path} is a {type(value).__name__}, which TOML cannot express.")


def to_toml(table: Table) -> str:
    """The text of a table.

    Raises:
        TomlError: A value that TOML cannot express, or tomli-w is not installed.
    """
    plain = _plain(table, "")
    if tomli_w is None:
        raise TomlError("the Python package tomli-w is not installed on the controller. Install it with pip install tomli-w.")
    return tomli_w.dumps(plain)
