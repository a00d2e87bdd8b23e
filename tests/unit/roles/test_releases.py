"""What the roles take for their own in a directory of releases, and what stays there."""

from __future__ import annotations

import subprocess
import typing as t

import pytest

from ...helpers import TOP

if t.TYPE_CHECKING:
    from pathlib import Path

SCRIPT = (TOP / "roles/download/files/releases.sh").read_text()
# An archive of each role's, and what else the role keeps in the directory.
ROLES = {
    "containerd": ("runc-1.5.1.amd64", ["config.toml", "record", "data"]),
    "crictl": ("crictl-v1.36.0-linux-amd64.tar.gz", []),
    "kata": ("kata-static-4.2.0-amd64.tar.zst", ["rolled_back"]),
}


def run(command: str) -> list[str]:
    done = subprocess.run(["sh", "-eu"], input=f"{SCRIPT}\n{command}\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def install(directory: Path, role: str) -> None:
    """What a role leaves in the directory of releases, with a download of the node's and an unpacked part."""
    archive, files = ROLES[role]
    for name in ("1.2.3", "1.2.2", "1.2.4.part", "downloads"):
        (directory / name).mkdir(parents=True)
    for name in ("1.2.3", "1.2.2"):
        (directory / name / "complete").write_text(f"{archive}\n")
    (directory / "current").symlink_to(directory / "1.2.3")
    (directory / "downloads" / archive).touch()
    for name in files:
        (directory / name).touch()


@pytest.mark.parametrize("role", ROLES)
def test_only_what_the_role_created_is_removed(tmp_path: Path, role: str) -> None:
    releases = tmp_path / "releases"
    install(releases, role)
    assert run(f"foreign_entries {releases} {role}") == []
    assert run(f"remove_releases {releases} {role} check") == [str(releases)]
    assert (releases / "1.2.3/complete").exists()
    (releases / "notes").touch()
    assert run(f"remove_releases {releases} {role} apply") == [str(releases)]
    assert [path.name for path in releases.iterdir()] == ["notes"]
    assert run(f"remove_releases {releases} {role} apply") == []
    (releases / "notes").unlink()
    install(releases, role)
    run(f"remove_releases {releases} {role} apply")
    assert not releases.exists()


@pytest.mark.parametrize("role", ROLES)
def test_directories_of_others(tmp_path: Path, role: str) -> None:
    """Another role's releases are foreign too: both roles would have a link current."""
    for other in ROLES.keys() - {role}:
        install(tmp_path / other, other)
        assert "1.2.3" in run(f"foreign_entries {tmp_path / other} {role}")
    data = tmp_path / "data"
    for name in ("downloads", "current", "2024.old", "1.2.3", "lost+found"):
        (data / name).mkdir(parents=True)
    (data / "downloads/holiday.jpg").touch()
    assert run(f"foreign_entries {data} {role}") == ["1.2.3", "2024.old", "current"]
    before = sorted(data.rglob("*"))
    assert run(f"remove_releases {data} {role} apply") == []
    assert sorted(data.rglob("*")) == before
    assert run(f"foreign_entries {tmp_path / 'missing'} {role}") == []


@pytest.mark.parametrize("role", ROLES)
def test_releases_that_are_in_another_directory(tmp_path: Path, role: str) -> None:
    here, there, link = tmp_path / "here", tmp_path / "there", tmp_path / "link"
    assert run(f"other_releases {here} {role} {link}") == []
    install(there, role)
    for target in ("current/bin/program", "1.2.3/opt/kata"):
        link.unlink(missing_ok=True)
        link.symlink_to(there / target)
        assert run(f"other_releases {here} {role} {link}") == [str(there)]
        assert run(f"other_releases {there} {role} {link}") == []
    for foreign in ("/usr/lib/containerd/program", "program"):
        link.unlink()
        link.symlink_to(foreign)
        assert run(f"other_releases {here} {role} {link}") == []
