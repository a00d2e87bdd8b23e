# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are downloaded, unpacked and linked in a directory of the test, with a server of its own."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import typing as t
from collections import namedtuple
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._install import download
from ansible_collections.screwdriver.kata.plugins.module_utils._install.download import DownloadError, fetch_all
from ansible_collections.screwdriver.kata.plugins.module_utils._secrets import credentials
from ansible_collections.screwdriver.kata.plugins.modules import release

PROGRAM = b"#!/bin/sh\necho 1.0\n"


def pack(path: Path, **members: bytes) -> dict[str, t.Any]:
    """An archive with these programs, as the module takes it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return {
        "url": f"http://127.0.0.1/{path.name}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "option": "x_base_url",
        "file": path.name,
        "directory": ".",
        "program": None,
        "members": [],
    }


def unpack(target: Path, *archives: dict[str, t.Any], where: Path, programs: t.Sequence[str] = ()) -> None:
    release.unpack(target, list(archives), {archive["file"]: str(where / archive["file"]) for archive in archives}, list(programs))


def test_a_release_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "releases/1.0"
    good, bad = pack(tmp_path / "a.tgz", tool=PROGRAM), pack(tmp_path / "b.tgz", other=b"#!/bin/sh\nexit 3\n")
    assert release.missing(target, [good, bad]) == [good, bad]
    with pytest.raises(release.ReleaseError, match=r"other failed on --version: exit code 3"):
        unpack(target, good, bad, where=tmp_path, programs=["bin/tool", "bin/other"])
    assert not target.exists()
    unpack(target, good, where=tmp_path, programs=["bin/tool"])
    assert release.missing(target, [good, bad]) == [bad]
    # Another archive joins a release that is there; what it had stays.
    unpack(target, pack(tmp_path / "b.tgz", other=PROGRAM), where=tmp_path)
    assert sorted(file.name for file in (target / "bin").iterdir()) == ["other", "tool"]
    assert (target / "complete").read_text().split() == ["a.tgz", "b.tgz"]
    assert [path.name for path in target.parent.iterdir()] == ["1.0"]


def test_a_damaged_archive(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tgz", tool=PROGRAM)
    (tmp_path / "a.tgz").write_bytes((tmp_path / "a.tgz").read_bytes()[:40])
    with pytest.raises(release.ReleaseError, match="tar failed on"):
        unpack(tmp_path / "releases/1.0", archive, where=tmp_path)


def test_links_keep_what_is_foreign_and_bring_it_back(tmp_path: Path) -> None:
    target, current, place = tmp_path / "releases/1.0", tmp_path / "releases/current", tmp_path / "usr"
    unpack(target, pack(tmp_path / "a.tgz", file=PROGRAM, dangling=PROGRAM, link=PROGRAM, fresh=PROGRAM), where=tmp_path)
    place.mkdir()
    (place / "file").write_text("foreign")
    (place / "dangling").symlink_to("k3s")
    (place / "link").symlink_to("file")
    before = {path.name: path.readlink() if path.is_symlink() else path.read_text() for path in place.iterdir()}
    links = {str(place): ["bin/*"]}
    for link, content in release.plan_links(target, current, links):
        release.link(link, content, target.parent)
    assert {path.name: str(path.readlink()) for path in place.iterdir() if release.BACKUP not in path.name} == {
        name: f"{current}/bin/{name}" for name in ("dangling", "file", "fresh", "link")
    }
    assert release.plan_links(target, current, links) == []
    # Another release is one link.
    unpack(tmp_path / "releases/2.0", pack(tmp_path / "b.tgz", file=PROGRAM, dangling=PROGRAM, link=PROGRAM, fresh=PROGRAM), where=tmp_path)
    assert release.plan_links(tmp_path / "releases/2.0", current, links) == [(current, str(tmp_path / "releases/2.0"))]
    programs = {str(place): [f"bin/{name}" for name in ("dangling", "file", "fresh", "link")]}
    assert release.unlink(target.parent, programs, check=True) == release.unlink(target.parent, programs, check=False)
    assert {path.name: path.readlink() if path.is_symlink() else path.read_text() for path in place.iterdir()} == before
    assert release.unlink(target.parent, programs, check=False) == []


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(release.shutil, "disk_usage", lambda path: usage(0, 0, 2 * 2**30))
    release.check_space(tmp_path / "releases/4.2.0", 2**29)
    with pytest.raises(release.ReleaseError) as refused:
        release.check_space(tmp_path / "releases/4.2.0", 2**30)
    assert str(refused.value) == (
        f"{tmp_path} has 2.0 GiB free, and 4.2.0 needs about 3.0 GiB to unpack: free some space, or choose another directory of releases."
    )


@pytest.fixture
def server(tmp_path: Path) -> t.Iterator[tuple[str, list[str]]]:
    """The URL of a server of ``files``, and the paths that were asked for.

    Below ``broken`` each answer is a 500, ``short`` lacks a half.
    """
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/broken"):
                self.send_error(500)
            elif self.path.startswith("/short"):
                content = (tmp_path / "files/a.tgz").read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    (tmp_path / "files").mkdir()
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: Handler(*arguments, directory=str(tmp_path / "files")))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_address[1]}", asked
    serving.shutdown()


def test_downloads(tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DELAY", 0)
    base, asked = server
    archive = {**pack(tmp_path / "files/a.tgz", tool=PROGRAM), "url": f"{base}/a.tgz"}
    cache = tmp_path / "cache"
    assert fetch_all([archive], str(cache), 5, "localhost") == {"a.tgz": str(cache / "a.tgz")}
    # What is there is asked for once, and a file of another content is replaced.
    fetch_all([archive], str(cache), 5, "localhost")
    assert asked == ["/a.tgz"]
    (cache / "a.tgz").write_text("damaged")
    fetch_all([archive], str(cache), 5, "localhost")
    assert asked == ["/a.tgz", "/a.tgz"]
    end = ". Fix that, or set x_base_url to a mirror that has it."
    digest = archive["sha256"]
    for path, changed, reason, attempts in (
        ("gone.tgz", {}, "HTTP Error 404: File not found", 1),
        ("broken/a.tgz", {}, "HTTP Error 500: Internal Server Error", download.ATTEMPTS),
        ("a.tgz", {"sha256": "0" * 64}, f"its SHA-256 is {digest}, not {'0' * 64}", 1),
        ("short/a.tgz", {}, None, 1),
    ):
        (cache / "a.tgz").unlink(missing_ok=True)
        asked.clear()
        with pytest.raises(DownloadError) as refused:
            fetch_all([{**archive, "url": f"{base}/{path}", **changed}], str(cache), 5, "localhost")
        start = f"{base}/{path} could not be downloaded to localhost: "
        assert str(refused.value).startswith(start)
        assert str(refused.value).endswith(end)
        assert reason is None or str(refused.value) == start + reason + end
        assert len(asked) >= attempts
        assert [file.name for file in cache.iterdir() if not file.name.endswith(".lock")] == []


def test_no_password_of_a_url_is_shown(tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DELAY", 0)
    base, _asked = server
    archive = {**pack(tmp_path / "files/a.tgz", tool=PROGRAM), "url": f"{base.replace('://', '://deploy:S3CRET@')}/gone.tgz"}
    with pytest.raises(DownloadError) as refused:
        fetch_all([archive], str(tmp_path / "cache"), 5, "localhost")
    assert str(refused.value) == (
        f"{base.replace('://', '://********@')}/gone.tgz could not be downloaded to localhost: HTTP Error 404: File not found. Fix that, "
        "or set x_base_url to a mirror that has it."
    )
    # The module's result repeats its options.
    assert credentials(archive["url"]) == ["deploy:S3CRET"]
    assert credentials(f"https://deploy:S3@CRET@mirror.example.com/a.tgz {base}/@scope/a.tgz") == ["deploy:S3@CRET"]


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    end = "on localhost: {}; make it writable, or choose another directory."
    with pytest.raises(DownloadError) as refused:
        fetch_all([], str(tmp_path / "file/cache"), 5, "localhost")
    assert str(refused.value) == f"The directory of downloads '{tmp_path}/file/cache' cannot be created {end.format('Not a directory')}"
    # A lock that cannot be taken, as in a directory of another user's.
    archive = pack(tmp_path / "a.tgz", tool=PROGRAM)
    (tmp_path / "a.tgz.lock").mkdir()
    with pytest.raises(DownloadError) as refused:
        fetch_all([archive], str(tmp_path), 5, "localhost")
    assert str(refused.value) == f"The directory of downloads '{tmp_path}' cannot be written {end.format('Is a directory')}"
