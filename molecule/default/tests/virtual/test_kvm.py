"""The machine's own /dev/kvm: it runs a guest, which role kata only assumes when it finds the device."""

from __future__ import annotations

import typing as t
from pathlib import Path

if t.TYPE_CHECKING:
    from testinfra.host import Host

GUEST = (Path(__file__).parents[2] / "files" / "kvm.py").read_text()


def test_a_guest_runs_under_kvm(host: Host) -> None:
    assert host.check_output("python3 -c %s", GUEST) == "K"
