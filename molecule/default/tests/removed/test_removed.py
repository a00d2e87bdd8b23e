"""After `remove` the node is as it was before the roles; `prepare` has saved its listing."""

from __future__ import annotations

import difflib
import os
import typing as t
from pathlib import Path

if t.TYPE_CHECKING:
    from testinfra.host import Host

LISTING = (Path(__file__).parents[2] / "files" / "listing.sh").read_text()


def test_node_is_as_it_was(host: Host) -> None:
    before = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "bare.txt").read_text()
    after = host.check_output("sh -c %s", LISTING)
    # Some versions of Ansible print an empty line before a script's output.
    lines = [[line.rstrip() for line in listing.strip().splitlines()] for listing in (before, after)]
    differences = list(difflib.unified_diff(*lines, "before", "after", lineterm="", n=0))
    assert not differences, "\n".join(differences)


def test_administrators_programs_work(host: Host) -> None:
    assert host.check_output("/usr/local/sbin/runc") == "runc of the administrator"
    assert not host.exists("containerd")
