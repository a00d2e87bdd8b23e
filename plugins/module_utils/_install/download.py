# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads release archives into a directory, each checked against its digest before it gets its name."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import typing as t
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from ansible.module_utils.urls import open_url
from ansible_collections.screwdriver.kata.plugins.module_utils._secrets import mask_text

if t.TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPTS = 3
DELAY = 2
CHUNK = 1 << 20


class DownloadError(Exception):
    """Why an archive could not be downloaded, as one sentence."""


def file_name(archive: dict[str, t.Any]) -> str:
    """The archive's name in the directory."""
    return archive.get("file") or archive["url"].rsplit("/", 1)[1]


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _locked(path: str) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP Error {error.code}: {error.reason}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return "Connection failure: timed out"
    return str(getattr(error, "reason", error)).rstrip(".")


def _transfer(archive: dict[str, t.Any], part: str, timeout: int) -> None:
    """Writes the archive to ``part`` and checks its digest."""
    with open_url(archive["url"], timeout=timeout, http_agent="ansible-screwdriver.kata") as response, open(part, "wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
    found = sha256(part)
    if found != archive["sha256"]:
        raise DownloadError(f"its SHA-256 is {found}, not {archive['sha256']}")


def fetch(archive: dict[str, t.Any], directory: str, timeout: int, host: str) -> str:
    """The path of one archive in ``directory``, downloaded unless it is there with the right digest.

    Args:
        archive: Its ``url``, ``sha256``, ``file`` (its name in the directory) and ``option`` (the option of its base URL, for the error).
        directory: An existing directory.
        timeout: Seconds without data after which an attempt fails.
        host: The host that downloads, for the error.

    Raises:
        DownloadError: The archive could not be downloaded.
    """
    target = os.path.join(directory, file_name(archive))
    part = f"{target}.part"
    with _locked(f"{target}.lock"):
        if os.path.exists(target) and sha256(target) == archive["sha256"]:
            return target
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _transfer(archive, part, timeout)
                os.replace(part, target)
                return target
            except Exception as error:
                reason = _reason(error)
                if os.path.exists(part):
                    os.unlink(part)
                # A digest or a status such as 404 stays what it is.
                final = isinstance(error, DownloadError) or (isinstance(error, urllib.error.HTTPError) and error.code < 500)
                if final or attempt == ATTEMPTS:
                    break
                time.sleep(DELAY)
        message = (
            f"{archive['url']} could not be downloaded to {host}: {reason}. Fix that, or set {archive['option']} to a mirror that has it."
        )
        raise DownloadError(mask_text(message))


def fetch_all(archives: list[dict[str, t.Any]], directory: str, timeout: int, host: str) -> dict[str, str]:
    """The paths of all archives by their names, downloaded at the same time.

    Raises:
        DownloadError: The first archive of the list that could not be downloaded, or the directory that could not be created or written.
    """

    def refusal(action: str, error: OSError) -> DownloadError:
        advice = "make it writable, or choose another directory"
        return DownloadError(f"The directory of downloads {directory!r} cannot be {action} on {host}: {error.strerror}; {advice}.")

    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
    except OSError as error:
        raise refusal("created", error) from error
    with ThreadPoolExecutor(max_workers=max(1, len(archives))) as pool:
        futures = {file_name(archive): pool.submit(fetch, archive, directory, timeout, host) for archive in archives}
        try:
            return {name: future.result() for name, future in futures.items()}
        except OSError as error:
            raise refusal("written", error) from error
