# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of files: validated before the first one is written, foreign ones kept aside."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.modules import node_files

HEADING = "# Managed by the role screwdriver.kata.test.\n"


class Module:
    """What the functions need of AnsibleModule."""

    def __init__(self, tmpdir: Path) -> None:
        self.tmpdir = str(tmpdir)
        self.backups: list[str] = []

    def backup_local(self, path: str) -> str:
        self.backups.append(path)
        copy = Path(f"{path}.copy~")
        copy.write_bytes(Path(path).read_bytes())
        copy.chmod(Path(path).stat().st_mode)
        return str(copy)

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        return (0, "", "") if "good" in Path(command[-1]).read_text() else (1, "", f"{command[0]} refuses it\n")


def file(path: Path, content: str = f"{HEADING}good\n", **given: t.Any) -> dict[str, t.Any]:
    return {
        "path": str(path),
        "content": content,
        "mode": "0644",
        "foreign": True,
        "backup": False,
        "validate": [],
        "secret_content": None,
        **given,
    }


@pytest.fixture
def module(tmp_path: Path) -> Module:
    (tmp_path / "tmp").mkdir()
    return Module(tmp_path / "tmp")


def test_content_mode_and_owner_are_compared(module: Module, tmp_path: Path) -> None:
    asked = file(tmp_path / "etc/x.conf", mode="0600")
    assert not node_files.is_equal(asked)
    node_files.write(t.cast(t.Any, module), asked)
    assert node_files.is_equal(asked)
    assert not node_files.is_equal({**asked, "mode": "0644"})
    (tmp_path / "etc/link").symlink_to("x.conf")
    assert not node_files.is_equal(file(tmp_path / "etc/link", mode="0600"))


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_a_foreign_file_comes_back(module: Module, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.conf"
    (tmp_path / "other").write_text("foreign")
    if kind == "file":
        path.write_text("foreign")
    else:
        path.symlink_to("other" if kind == "link" else "nowhere")
    for _run in range(2):
        node_files.write(t.cast(t.Any, module), file(path))
    assert path.read_text() == f"{HEADING}good\n"
    assert node_files.remove(file(path), check=True) is True
    assert node_files.remove(file(path), check=False) is True
    assert (path.read_text() == "foreign") if kind == "file" else path.is_symlink()
    assert node_files.remove(file(path), check=False) is False


def test_a_foreign_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("foreign")
    assert node_files.remove(file(path), check=False) is False
    assert path.read_text() == "foreign"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_newer_foreign_file_stays(module: Module, tmp_path: Path, kind: str) -> None:
    path, backup = tmp_path / "x.conf", tmp_path / "x.conf.screwdriver-kata-backup"
    path.write_text("older")
    node_files.write(t.cast(t.Any, module), file(path))
    assert not node_files.is_superseded(file(path))
    path.unlink()
    assert not node_files.is_superseded(file(path))
    if kind == "file":
        path.write_text("newer")
    else:
        path.symlink_to("nowhere")
    for check in (True, False, False):
        assert node_files.is_superseded(file(path))
        assert node_files.remove(file(path), check=check) is False
    assert (path.read_text() == "newer") if kind == "file" else path.is_symlink()
    assert backup.read_text() == "older"
    path.unlink()
    assert node_files.remove(file(path), check=False) is True
    assert path.read_text() == "older"


def test_validation(module: Module, tmp_path: Path) -> None:
    node_files.validate(t.cast(t.Any, module), file(tmp_path / "x", validate=["check", "%s"]))
    with pytest.raises(node_files.FilesError, match="^check refuses it$"):
        node_files.validate(t.cast(t.Any, module), file(tmp_path / "x", content="bad", validate=["check", "%s"]))


def test_a_secret_is_not_in_the_diff(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text("password = 1")
    shown = node_files.diff(file(path, content="password = 2", secret_content="password = 2"), "password = 2")
    assert shown["before"] == "(not shown)\n"
    assert shown["after"] == "(not shown)\n"


def test_a_secret_that_goes_away_is_not_in_the_diff(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("password = 1")
    path.chmod(0o600)
    shown = node_files.diff(file(path, content="version = 3\n"), "version = 3\n")
    assert shown["before"] == "(not shown)\n"
    assert shown["after"] == "version = 3\n"


def test_the_copy_of_a_file_with_a_secret_is_as_private(module: Module, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{HEADING}password = 1")
    path.chmod(0o644)
    node_files.write(t.cast(t.Any, module), file(path, mode="0600", backup=True, secret_content="password = 2"))
    assert (tmp_path / "config.toml.copy~").stat().st_mode & 0o777 == 0o600
