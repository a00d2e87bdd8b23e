"""A pod under the handler, run through the CRI as a kubelet would."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

POD = (Path(__file__).parents[2] / "files" / "pod.sh").read_text()


@dataclass(frozen=True)
class Pod:
    container: str
    # Thin devices of the node without this pod, and with it.
    devices_before: frozenset[str]
    devices: frozenset[str]


def thin_devices(host: Host) -> frozenset[str]:
    return frozenset(line.split()[0] for line in host.check_output("dmsetup ls --target thin").splitlines() if "(" in line)


@pytest.fixture(scope="module")
def pod(host: Host) -> Iterator[Pod]:
    before = thin_devices(host)
    container = host.check_output("sh -c %s pod kata looked-at", POD)
    yield Pod(container, before, thin_devices(host))
    sandbox = json.loads(host.check_output("crictl inspect %s", container))["info"]["sandboxID"]
    host.check_output("crictl stopp %s && crictl rmp %s", sandbox, sandbox)
