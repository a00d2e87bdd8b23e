# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is kept of a pool on the host: the journal of a run until it is done, and the identities of the disks."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.model import Journal

STATE = Path("/var/lib/screwdriver.kata")
BY_ID = "/dev/disk/by-id/"


def write_file(path: Path, text: str, mode: int) -> None:
    """Replaces a file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(mode)
    new.replace(path)


def boot_id() -> str:
    """Returns what identifies the boot: kernel names of disks hold until the next one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class IdentityFile:
    """The disks of one volume group: the path in /dev/disk/by-id of each device that the user gave under another path.

    Args:
        volume_group: The name of the volume group.
        directory: Where the file is.
    """

    def __init__(self, volume_group: str, directory: Path = STATE) -> None:
        self._path = directory / f"thin_pool-{volume_group}-disks.json"

    def read(self) -> dict[str, str]:
        """Returns the identities by path; empty where nothing is known.

        Raises:
            UserError: The file cannot be read, so the identities are unknown.
        """
        try:
            content = json.loads(self._path.read_text())
            return {str(path): str(link) for path, link in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as exc:
            raise UserError(
                f"{self._path} cannot be read ({exc}), so it is unknown which disks the pool was given; "
                "delete it to have the disks recorded again."
            ) from exc

    def write(self, identities: dict[str, str]) -> None:
        """Replaces the identities; removes the file where there are none."""
        if not identities:
            remove_file(self._path)
            return
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_file(self._path, json.dumps(identities, indent=2, sort_keys=True) + "\n", 0o644)


def remove_file(path: Path) -> None:
    """Removes a file, and its directory if nothing else is in it."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


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
        boot, volumes = content.get("boot", ""), content.get("volumes")
        # A kernel name may be another disk's after a boot.
        devices = tuple(path for path in content.get("devices", ()) if path.startswith(BY_ID) or boot == boot_id())
        return Journal(devices, None if volumes is None else tuple(volumes), boot_id())

    def write(self, journal: Journal) -> None:
        """Keeps what is about to be begun."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        content = {"devices": journal.devices, "volumes": journal.volumes, "boot": boot_id()}
        write_file(self._path, json.dumps(content), 0o600)

    def add(self, journal: Journal, devices: tuple[str, ...]) -> None:
        """Keeps more devices in addition to those of a journal."""
        self.write(Journal(tuple(dict.fromkeys((*journal.devices, *devices))), journal.volumes))

    def end(self) -> None:
        """Removes the journal of a run that is done."""
        remove_file(self._path)
