# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A sparse file as a loop device that comes back at boot: a disk for tests."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.options import parse_bytes

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

UNITS = Path("/etc/systemd/system")
UNIT = """\
# Managed by Ansible, screwdriver.kata.thin_pool.
[Unit]
Description=Loop device of the thin pool in volume group {group}
RequiresMountsFor={file}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={losetup} --find --nooverlap {file}
ExecStartPost=-{lvm} vgchange --activate ay {group}

[Install]
WantedBy=multi-user.target
"""


class Loop:
    """A loop device whose file and unit belong to one volume group.

    Args:
        module: Ansible's module.
        run: Runs a tool.
        group: The name of the volume group.
    """

    def __init__(self, module: AnsibleModule, run: t.Callable[..., str], group: str) -> None:
        self._module = module
        self._run = run
        self._group = group
        self._file = Path(module.params["loop_file"])
        self._unit = UNITS / f"screwdriver-kata-loop-{group}.service"

    def check(self) -> None:
        """Checks the options of the file.

        Raises:
            UserError: The file is foreign, its path is one that systemd cannot take, or its size is not a size.
        """
        if not parse_bytes(self._module.params["loop_size"]):
            raise UserError(f"loop_size: {self._module.params['loop_size']!r} is not a valid size; use for example 10GiB.")
        if any(character.isspace() or character == "%" for character in str(self._file)):
            raise UserError(
                f"loop_file: {self._file} has a character that systemd expands in a unit; name a path without spaces and percent signs."
            )
        if self._file.exists() and not self._is_ours():
            raise UserError(
                f"loop_file: {self._file} exists and was not created for volume group {self._group}; name a path that does not exist."
            )

    def _is_ours(self) -> bool:
        return self._unit.exists() and f"RequiresMountsFor={self._file}\n" in self._unit.read_text()

    def device(self) -> str | None:
        """Returns the loop device of the file; None where it is not attached."""
        if not self._file.exists():
            return None
        return self._run("losetup", "--noheadings", "--output", "NAME", "--associated", str(self._file)).strip() or None

    def exists(self) -> bool:
        """Whether there is something to remove."""
        return self._is_ours()

    def is_missing(self) -> bool:
        """Whether there is something to attach."""
        return self.device() is None or not self._is_ours()

    def attach(self) -> None:
        """Creates the file and attaches it, at boot as well."""
        # The unit comes first: it marks the file as ours.
        tools = {name: self._module.get_bin_path(name, required=True) for name in ("losetup", "lvm")}
        self._unit.write_text(UNIT.format(group=self._group, file=self._file, **tools))
        if not self._file.exists():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("wb") as file:
                file.truncate(parse_bytes(self._module.params["loop_size"]) or 0)
        self._run("systemctl", "daemon-reload")
        self._run("systemctl", "enable", self._unit.name)
        self._run("systemctl", "restart" if self.device() is None else "start", self._unit.name)
        self._run("udevadm", "settle")

    def remove(self) -> None:
        """Detaches and deletes the file and its unit."""
        if not self._is_ours():
            return
        if device := self.device():
            self._run("losetup", "--detach", device)
        self._file.unlink(missing_ok=True)
        self._run("systemctl", "disable", "--now", self._unit.name)
        self._unit.unlink()
        self._run("systemctl", "daemon-reload")
