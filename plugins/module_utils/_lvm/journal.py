# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The journal of a run: what it has begun, kept until it is done."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import Journal

STATE = Path("/var/lib/screwdriver.kata")


def write_file(path: Path, text: str, mode: int) -> None:
    """Replaces a file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(mode)
    new.replace(path)


class JournalFile:
    """The journal of one volume group.

    Args:
        volume_group: The name of the volume group.
        directory: Where the file is.
    """

    def __init__(self, volume_group: str, directory: Path = STATE) -> None:
        self._path = directory / f"thin_pool-{volume_group}.json"

    def read(self) -> Journal:
        """Returns what an interrupted run has begun; empty where none was interrupted."""
        try:
            content = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return Journal()
        volumes = content.get("volumes")
        return Journal(tuple(content.get("devices", ())), None if volumes is None else tuple(volumes))

    def write(self, journal: Journal) -> None:
        """Keeps what is about to be begun."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_file(self._path, json.dumps({"devices": journal.devices, "volumes": journal.volumes}), 0o600)

    def add(self, journal: Journal, devices: tuple[str, ...]) -> None:
        """Keeps more devices in addition to those of a journal."""
        self.write(Journal(tuple(dict.fromkeys((*journal.devices, *devices))), journal.volumes))

    def end(self) -> None:
        """Removes the journal of a run that is done."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._path.parent.rmdir()
