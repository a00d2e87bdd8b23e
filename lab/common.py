"""Shared by all parts of the lab: paths, the error, locks, waiting and progress lines. All data is outside of the checkout."""

from __future__ import annotations

import fcntl
import os
import sys
import time
import typing as t
from contextlib import contextmanager
from pathlib import Path

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOP = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("KATA_CACHE") or Path.home() / ".cache" / "screwdriver.kata")
BINARIES = CACHE / "bin"
LABS = CACHE / "labs"


class LabError(Exception):
    """What is wrong and what to do, as one sentence."""


def progress(message: str) -> None:
    """Prints one line on stderr, at once."""
    print(message, file=sys.stderr, flush=True)


def wait_until(holds: Callable[[], t.Any], failure: str | Callable[[], str], seconds: float, interval: float = 0.2) -> t.Any:
    """Calls ``holds`` until it returns something true, and returns that.

    Args:
        holds: The condition.
        failure: The sentence of the error; a callable is called for it then.
        seconds: The time limit.
        interval: Seconds between two calls.

    Raises:
        LabError: It was not true in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise LabError(failure() if callable(failure) else failure)
        time.sleep(interval)
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, so that two labs that start at the same time compile once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
