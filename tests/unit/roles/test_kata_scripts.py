"""What the scripts of the role kata do to a node: directories of the test take the place of the node's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest

from ...helpers import TOP

FILES = TOP / "roles" / "kata" / "files"
SHARED = TOP / "roles" / "download" / "files"
REMOVAL = ("list_processes.sh", "releases.sh", "remove_kata.sh")
SWITCH = ("releases.sh", "switch_release.sh")
# The directories of a node that the scripts name.
PLACES = ("/opt/kata", "/opt/screwdriver", "/usr/local/", "/etc/", "/run/")


def run(root: Path, *names: str, given: tuple[str, ...] = (), places: tuple[str, ...] = PLACES, **environment: str) -> list[str]:
    """Runs scripts one behind the other, as the role does, and returns the lines that they print."""
    text = "\n".join((FILES / name if (FILES / name).exists() else SHARED / name).read_text() for name in names)
    for place in places:
        text = re.sub(rf"(?<![\w}}%]){place}", f"{root}{place}", text)
    command = ["sh", "-s", "--", *given]
    env = {"PATH": f"{root}/bin:{os.environ['PATH']}", **environment}
    done = subprocess.run(command, input=text, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class Processes:
    """Programs that run from a directory."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, program: Path) -> subprocess.Popen[bytes]:
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/sh", program)
        self._running.append(subprocess.Popen([program, "-c", "read line"], stdin=subprocess.PIPE))
        return self._running[-1]

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def processes() -> t.Iterator[Processes]:
    running = Processes()
    yield running
    running.end()


def stub(root: Path, name: str, text: str) -> None:
    program = root / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


# A containerd with a sandbox of each Kata, by its runtime.
CTR = """
case "$*" in
  "namespaces list --quiet") echo k8s.io ;;
  *"tasks list --quiet") printf 'one\\ntwo\\n' ;;
  *runtime.name==io.containerd.kata.v2) echo one ;;
esac
"""


@pytest.mark.parametrize("place", ["opt/kata", "opt/kata-other"])
def test_removal_leaves_the_processes_of_another_kata(tmp_path: Path, processes: Processes, place: str) -> None:
    releases = str(tmp_path / "opt/kata-releases")
    # Each has its own name: /opt/kata on a node of kata-deploy is a directory.
    foreign = processes.start(tmp_path / place / "bin/qemu-system-x86_64")
    own = processes.start(tmp_path / "opt/kata-releases/4.1.0/opt/kata/bin/containerd-shim-kata-v2")
    (tmp_path / "opt/kata-releases/4.1.0/complete").write_text("kata-static-4.1.0-amd64.tar.zst\n")
    checked = run(tmp_path, *REMOVAL, given=(releases, "check"))
    assert checked == ["processes of Kata", releases]
    assert own.poll() is None
    assert run(tmp_path, *REMOVAL, given=(releases, "apply")) == checked
    assert own.wait(timeout=10) == -9
    assert foreign.poll() is None
    assert (tmp_path / place / "bin/qemu-system-x86_64").exists()
    assert not Path(releases).exists()
    assert run(tmp_path, *REMOVAL, given=(releases, "apply")) == []


def test_releases_on_another_disk(tmp_path: Path, processes: Processes) -> None:
    own = processes.start(tmp_path / "disk/4.1.0/opt/kata/bin/qemu-system-x86_64")
    (tmp_path / "releases").symlink_to("disk")
    (tmp_path / "disk/4.1.0/complete").write_text("kata-static-4.1.0-amd64.tar.zst\n")
    run(tmp_path, *REMOVAL, given=(str(tmp_path / "releases"), "apply"))
    assert own.wait(timeout=10) == -9
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize(("containerd", "own"), [(CTR, ["one"]), ("exit 1", ["PID PROGRAM"])])
def test_sandboxes_of_another_kata_are_not_listed(tmp_path: Path, processes: Processes, containerd: str, own: list[str]) -> None:
    stub(tmp_path, "ctr", containerd)
    names, given = ("list_processes.sh", "list_sandboxes.sh"), (str(tmp_path / "opt/kata-releases"),)
    processes.start(tmp_path / "opt/kata/bin/containerd-shim-kata-v2")
    assert run(tmp_path, *names, given=given) == []
    program = tmp_path / "opt/kata-releases/4.1.0/opt/kata/bin/containerd-shim-kata-v2"
    shim = processes.start(program)
    listed = run(tmp_path, *names, given=given)
    assert [line.replace(f"{shim.pid} {program}", "PID PROGRAM") for line in listed] == own


def releases_of(root: Path, *versions: str) -> Path:
    """Releases that are complete, the last of which is in use."""
    releases = root / "opt/kata-releases"
    for version in versions:
        (releases / version / "opt/kata").mkdir(parents=True)
        (releases / version / "complete").write_text(f"kata-static-{version}-amd64.tar.zst\n")
    (root / "opt/kata").symlink_to(releases / versions[-1] / "opt/kata")
    return releases


def completed(releases: Path) -> list[str]:
    return sorted(marker.parent.name for marker in releases.glob("*/complete") if not marker.parent.is_symlink())


def test_foreign_files_beside_the_releases_stay(tmp_path: Path) -> None:
    releases = releases_of(tmp_path, "4.0.0", "4.2.0", "4.1.0")
    for name in ("precious", "2024.old", "lost+found"):
        (releases / name).mkdir()
        (releases / name / "file").touch()
    run(tmp_path, *SWITCH, given=(str(releases), "present", "4.2.0"))
    assert sorted(path.name for path in releases.iterdir()) == ["2024.old", "4.1.0", "4.2.0", "lost+found", "precious", "previous"]
    assert run(tmp_path, *REMOVAL, given=(str(releases), "apply"))[-1] == str(releases)
    assert sorted(path.parent.name for path in releases.rglob("*/file")) == ["2024.old", "lost+found", "precious"]
    assert len(list(releases.iterdir())) == 3
    assert run(tmp_path, *REMOVAL, given=(str(releases), "apply")) == []


@pytest.fixture
def interrupted(tmp_path: Path) -> None:
    """The removal of a directory ends before its first file."""
    stub(tmp_path, "rm", f'[ "$1" != -rf ] || exec kill -KILL $PPID\nexec {shutil.which("rm")} "$@"')


@pytest.mark.usefixtures("interrupted")
def test_an_old_release_that_is_removed_in_part_is_not_complete(tmp_path: Path) -> None:
    releases = releases_of(tmp_path, "4.0.0", "4.2.0", "4.1.0")
    with pytest.raises(AssertionError):
        run(tmp_path, *SWITCH, given=(str(releases), "present", "4.2.0"))
    assert (tmp_path / "opt/kata").readlink() == releases / "4.2.0/opt/kata"
    assert (releases / "4.0.0.old").exists()
    assert completed(releases) == ["4.0.0.old", "4.1.0", "4.2.0"]


@pytest.mark.usefixtures("interrupted")
def test_releases_that_are_removed_in_part_are_not_complete(tmp_path: Path) -> None:
    releases = releases_of(tmp_path, "4.0.0", "4.1.0")
    (tmp_path / "opt/kata").unlink()
    with pytest.raises(AssertionError):
        run(tmp_path, *REMOVAL, given=(str(releases), "apply"))
    assert releases.exists()
    assert not {"4.0.0", "4.1.0"} & set(completed(releases))
    # The next removal ends it.
    (tmp_path / "bin/rm").unlink()
    run(tmp_path, *REMOVAL, given=(str(releases), "apply"))
    assert not releases.exists()


# The mounts of a node, as mountinfo lists them, without the fields that follow. The third is of a build's container.
ROOT = "20 1 8:1 / /"
LAYOUTS = {
    "root": ([ROOT], "8:1 {}/tmp_1"),
    "in it": ([ROOT], "8:1 {}/tmp_1/workspace"),
    "opt": ([ROOT, "21 20 8:2 / {root}/opt"], "8:2 /screwdriver/tmp_1"),
    "own": ([ROOT, "21 20 8:2 / {root}/opt/screwdriver"], "8:2 /tmp_1"),
    "subvolume": (["20 1 0:30 /@rootfs /"], "0:30 /@rootfs{}/tmp_1"),
    "bind": ([ROOT, "21 20 8:2 /var/builds {root}/opt/screwdriver"], "8:2 /var/builds/tmp_1"),
    "unknown": ([], "8:1 /else{}"),
    "mounted twice": ([ROOT, "21 20 8:2 / {root}/opt/screwdriver", "22 21 8:3 / {root}/opt/screwdriver"], "8:3 /tmp_1"),
}
UNUSED = {
    "another build": "8:1 {}/tmp_11",
    "another file system": "8:9 {}/tmp_1",
    "the directory of all builds": "8:1 {}",
}


def clean_up(root: Path, mounts: list[str], source: str) -> list[str]:
    """Runs the clean-up on a node with these mounts and a build's container that has the source, and returns what it removed."""
    builds = root / "opt/screwdriver"
    builds.mkdir(parents=True, exist_ok=True)
    for name in ("tmp_1", "tmp_2"):
        (builds / name).mkdir()
    host = "".join(f"{mount.format(root=root)} rw - ext4 disk rw\n" for mount in mounts)
    container = f"90 80 {source.format(builds.resolve())} /sd/workspace rw - ext4 disk rw\n"
    for process, text in {"self": host, "1": host, "100": host + container}.items():
        (root / "proc" / process).mkdir(parents=True)
        (root / "proc" / process / "mountinfo").write_text(text)
    return run(root, "clean_up.sh", given=("0",), places=(*PLACES, "/proc/"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_directory_of_a_running_build_stays(tmp_path: Path, layout: str) -> None:
    assert f"{tmp_path}/opt/screwdriver/tmp_1" not in clean_up(tmp_path, *LAYOUTS[layout])
    assert (tmp_path / "opt/screwdriver/tmp_1").is_dir()


def test_the_directory_of_a_running_build_behind_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/screwdriver").symlink_to(tmp_path / "large disk")
    mounts = [ROOT, f"21 20 8:2 / {tmp_path}/large\\040disk"]
    assert clean_up(tmp_path, mounts, "8:2 /tmp_1") == [f"{tmp_path}/large disk/tmp_2"]


@pytest.mark.parametrize("source", UNUSED.values(), ids=UNUSED)
def test_the_directory_of_a_build_that_has_ended_is_removed(tmp_path: Path, source: str) -> None:
    assert clean_up(tmp_path, [ROOT], source) == [f"{tmp_path}/opt/screwdriver/tmp_1", f"{tmp_path}/opt/screwdriver/tmp_2"]
