"""Packages of a Debian host."""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t

from lab.common import CACHE, LabError, locked, progress

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def install_packages(reason: str, packages: Sequence[str]) -> None:
    """Installs packages of Debian.

    Args:
        reason: What needs them; the error on another system starts with it.
        packages: Their names.

    Raises:
        LabError: This is not a Debian host, or the user is not root.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"{reason}: install that first; on Debian: apt-get install {' '.join(packages)}")
    progress(f"Installing {' and '.join(packages)}")
    apt_get("install", "--yes", "--no-install-recommends", *packages)


def apt_get(*arguments: str, directory: Path | None = None) -> None:
    """Runs apt-get in ``directory``. A fresh machine has no package lists, so a failure is tried again after ``apt-get update``.

    Raises:
        LabError: It failed after the update too.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with locked(CACHE / "apt.lock"):
        for command in (arguments, ("update",), arguments):
            done = subprocess.run(
                ["apt-get", "-qq", *command],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if command == arguments and done.returncode == 0:
                return
    raise LabError(f"apt-get {' '.join(arguments)} failed, also after apt-get update:\n{done.stderr[-1000:]}")
