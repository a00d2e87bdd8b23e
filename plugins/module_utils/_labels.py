# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Labels, annotations, taints and tolerations as users write them, checked by the API server's rules before anything is written. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError

# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def manifest_text(value: t.Any, what: str) -> str:
    """What a value of YAML is in a manifest.

    Args:
        value: A text, a boolean or an integer.
        what: The option and key that it comes from, for the message.

    Returns:
        The text: ``true`` for True.

    Raises:
        UserError: The value is null, or is not written the same way again.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    if value is None:
        raise UserError(f'{what} is null; give it a value, or "" for none.')
    raise UserError(f"{what} is {value!r}, which is not a string; put the value in quotes.")


def parse_labels(option: str, labels: dict[str, t.Any] | None) -> dict[str, str]:
    """Labels, or a node selector.

    Args:
        option: The option that they come from, for messages.
        labels: The values by key.

    Returns:
        The labels with values as a manifest has them.

    Raises:
        UserError: A key or a value is not valid.
    """
    parsed = {}
    for key, value in (labels or {}).items():
        _require_key(key, option)
        parsed[key] = _label_value(value, f"{option}: {key}")
    return parsed


def parse_annotations(option: str, annotations: dict[str, t.Any] | None) -> dict[str, str]:
    """As parse_labels, for annotations, whose values may be any text."""
    parsed = {}
    for key, value in (annotations or {}).items():
        _require_key(key, option)
        parsed[key] = manifest_text(value, f"{option}: {key}")
    return parsed


def parse_taints(option: str, taints: list[dict[str, t.Any]] | None) -> list[dict[str, str]]:
    """Taints.

    Args:
        option: The option that they come from, for messages.
        taints: Dictionaries with key, value and effect.

    Returns:
        The taints with values as a manifest has them.

    Raises:
        UserError: A key or a value is not valid, or two taints have the same key and effect.
    """
    parsed: dict[tuple[str, str], dict[str, str]] = {}
    for taint in taints or []:
        key, effect = taint["key"], taint["effect"]
        _require_key(key, option)
        if (key, effect) in parsed:
            raise UserError(f"{option}: {key} is given twice with effect {effect}; a node has one taint of a key and effect.")
        parsed[key, effect] = {"key": key, "value": _label_value(taint["value"], f"{option}: the value of {key}"), "effect": effect}
    return list(parsed.values())


def parse_tolerations(option: str, tolerations: list[dict[str, t.Any]] | None) -> list[dict[str, t.Any]] | None:
    """Tolerations.

    Args:
        option: The option that they come from, for messages.
        tolerations: Dictionaries with key, operator, value, effect and toleration_seconds, null where not given.

    Returns:
        The tolerations as a manifest has them, or None where none are given.

    Raises:
        UserError: A key or a value is not valid, or a toleration is given twice.
    """
    if tolerations is None:
        return None
    parsed: list[dict[str, t.Any]] = []
    for given in tolerations:
        key, operator, seconds = given["key"], given["operator"], given["toleration_seconds"]
        if key:
            _require_key(key, option)
        elif operator != "Exists":
            raise UserError(f"{option}: a toleration without a key tolerates every taint; set its operator to Exists, or give a key.")
        if operator == "Exists" and given["value"] not in (None, ""):
            raise UserError(f"{option}: {key or 'a toleration'} has operator Exists and a value; leave the value out.")
        if seconds is not None and given["effect"] != "NoExecute":
            raise UserError(f"{option}: {key or 'a toleration'} has toleration_seconds; set its effect to NoExecute, or leave them out.")
        value = "" if given["value"] is None else _label_value(given["value"], f"{option}: the value of {key}")
        # Equal is the API server's default.
        toleration = {
            "key": key,
            "operator": operator if operator != "Equal" else None,
            "value": value,
            "effect": given["effect"],
            "tolerationSeconds": seconds,
        }
        toleration = {name: field for name, field in toleration.items() if field not in (None, "")}
        if toleration in parsed:
            raise UserError(f"{option}: the toleration of {key or 'every taint'} is given twice; leave one out.")
        parsed.append(toleration)
    return parsed


def _label_value(value: t.Any, what: str) -> str:
    text = manifest_text(value, what)
    if text and not _NAME.fullmatch(text):
        raise UserError(
            f"{what} is {text!r}, which is not a valid label value; use up to 63 letters, digits, '-', '_' and '.', with a letter or digit "
            "at both ends."
        )
    return text


def _require_key(key: str, option: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        raise UserError(f"{option}: {key!r} is not a valid key; use for example dedicated or kata.screwdriver.cd/ready.")
