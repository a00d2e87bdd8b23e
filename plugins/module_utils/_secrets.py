# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What must not leave the place that it is in: values under a key that names a secret, and credentials in a text. Pure."""

from __future__ import annotations

import re
import typing as t

MASK = "********"
_NAMES = re.compile(
    r"token|passw|secret|credential|private|apikey|api_key|accesskey|access_key|(?:^|[_-])key$|[a-z]Key$|^key$|jwt|auth$", re.I
)
# Names and switches that only sound like secrets.
_HARMLESS = re.compile(
    r"automountServiceAccountToken|imagePullSecretName|buildSecrets|buildSecretsFile|buildSecretFile|secretName|secret_(?:env|name|key)"
)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]+(?=@)")
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?")
# A shorter one would be found inside ordinary words.
MIN_LENGTH = 6


def names_secret(key: str) -> bool:
    """Whether a key is one whose value is a secret."""
    return bool(_NAMES.search(key)) and not _HARMLESS.fullmatch(key)


def masked(value: t.Any, secret: bool = False) -> t.Any:
    """A value as results may show it."""
    if isinstance(value, t.Mapping):
        return {key: masked(item, names_secret(str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, secret) for item in value]
    if value is None or isinstance(value, bool) or value == "":
        return value
    if secret:
        return MASK
    if isinstance(value, (int, float)):
        return value
    return mask_text(str(value))


def mask_text(text: str) -> str:
    """A text without the credentials in its URIs and without tokens."""
    return _JWT.sub(MASK, _CREDENTIALS.sub(MASK, text))


def credentials(text: str) -> list[str]:
    """The credentials in the URIs of a text."""
    return _CREDENTIALS.findall(text)


def find(value: t.Any, secret: bool = False) -> t.Iterator[str]:
    """The secrets in a value, for Ansible's own filter of results."""
    if isinstance(value, t.Mapping):
        for key, item in value.items():
            yield from find(item, names_secret(str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from find(item, secret)
    elif isinstance(value, str) and len(value) >= MIN_LENGTH:
        if secret:
            yield value
        for pattern in (_CREDENTIALS, _JWT):
            for found in pattern.finditer(value):
                yield from (part for part in [found[0], *found[0].split(":")] if len(part) >= MIN_LENGTH)
