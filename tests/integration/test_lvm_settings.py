"""LVM's own devices file and filters against a physical volume on a loop device, with the real LVM."""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._lvm.host import Lvm

if t.TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = f"test-hidden-{os.getpid()}"
SETTINGS = {
    "filter": 'devices { filter = [ "r|.*|" ] }',
    "global_filter": 'devices { global_filter = [ "r|/dev/loop.*|" ] }',
    "devices file": 'devices { use_devicesfile = 1 devicesfile = "test.devices" }',
}


class Runner:
    """What the seam to LVM needs of Ansible's module, with the settings of another host."""

    run_command_environ_update: t.ClassVar[dict[str, str]] = {}

    def __init__(self, settings: Path) -> None:
        self._settings = settings

    def get_bin_path(self, name: str) -> str | None:
        return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")

    def run_command(self, command: list[str], data: str = "") -> tuple[int, str, str]:
        env = {**os.environ, **self.run_command_environ_update, "LVM_SYSTEM_DIR": str(self._settings)}
        done = subprocess.run(command, input=data, capture_output=True, text=True, env=env, check=False)
        return done.returncode, done.stdout, done.stderr


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A physical volume of a volume group of this test."""
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    for tool in ("lvm", "losetup"):
        if shutil.which(tool, path="/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is not installed")
    image = tmp_path_factory.mktemp("lvm") / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 * 2**20)
    attached = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        run("vgcreate", "-q", "--config", 'devices { hints="none" }', GROUP, device)
        yield device
    finally:
        subprocess.run(["vgremove", "-q", "--yes", GROUP], capture_output=True, check=False)
        run("losetup", "--detach", device)


@pytest.mark.parametrize("name", SETTINGS)
def test_hidden_physical_volume_is_found(disk: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "lvm.conf").write_text(SETTINGS[name])
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "test.devices").write_text("VERSION=1.1.1\n")
    runner = Runner(tmp_path)
    assert disk not in runner.run_command(["/usr/sbin/lvm", "pvs", "--noheadings"])[1]
    lvm = Lvm(t.cast(t.Any, runner))
    groups = lvm.groups()
    assert groups[disk] == GROUP
    assert lvm.hidden(groups, GROUP) == {disk}


def test_nothing_is_hidden_by_lvms_own_defaults(disk: str, tmp_path: Path) -> None:
    (tmp_path / "lvm.conf").write_text("")
    lvm = Lvm(t.cast(t.Any, Runner(tmp_path)))
    groups = lvm.groups()
    assert groups[disk] == GROUP
    assert lvm.hidden(groups, GROUP) == frozenset()
