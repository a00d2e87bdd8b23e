#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Installs a release of programs side by side with others
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Downloads the archives of a release, checks their digests, unpacks them into a directory of their own, and links programs to it.
  - The directory gets its name by one rename after everything in it is complete. A release that is there with all its archives is not
    downloaded.
  - A file or link that stands where a link belongs is renamed to C(<name>.screwdriver-kata-backup), and comes back with O(state=unlinked).
  - This module is internal to the roles of this collection. Its options can change in any release.
extends_documentation_fragment:
  - screwdriver.kata._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  path:
    description: The directory of the release.
    type: path
    required: true
  archives:
    description: The archives of the release. Required by O(state=present).
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: The archive's URL. A user and password in it are shown nowhere.
        type: str
        required: true
      sha256:
        description: The archive's SHA-256 in hexadecimal digits.
        type: str
        required: true
      option:
        description: The role's option that has the base of the URL, named in the error of a failed download.
        type: str
        required: true
      file:
        description: The archive's name in the directory of downloads. The default is the last part of the URL.
        type: str
      directory:
        description: The directory that the archive is unpacked into, below the release.
        type: str
        default: "."
      program:
        description: The path below the release of what is no archive but a program itself.
        type: str
      members:
        description: The members to unpack. The default is all.
        type: list
        elements: str
        default: []
  programs:
    description: Programs below the release that have to run with C(--version) before the release gets its name.
    type: list
    elements: str
    default: []
  current:
    description: A link to the release that the other links go through.
    type: path
  links:
    description:
      - Directories of links, each with the programs below the release that are linked there. A last part of C(*) stands for all files of a
        directory.
    type: dict
    default: {}
  download_on:
    description: Download once on the controller and copy, or download on the node.
    type: str
    choices: [controller, node]
    default: controller
  cache:
    description: The controller's directory of downloads.
    type: path
  timeout:
    description: Seconds without data after which a download is retried.
    type: int
    default: 60
  sources:
    description: Where the action plugin has put archives on the node, by their names. Not to be given.
    type: dict
    default: {}
  state:
    description: V(unlinked) removes the links and restores what was there before.
    type: str
    choices: [present, unlinked]
    default: present
"""

EXAMPLES = r"""
- name: Install crictl
  screwdriver.kata.release:
    path: /opt/crictl-releases/1.36.0
    archives:
      - url: https://github.com/kubernetes-sigs/cri-tools/releases/download/v1.36.0/crictl-v1.36.0-linux-amd64.tar.gz
        sha256: 83855e114566a8a8c44c548d515670f51de3a5e1da8b2effb59870e2f10c25a3
        option: crictl_base_url
        members: [crictl]
    programs: [crictl]
    current: /opt/crictl-releases/current
    links:
      /usr/local/bin: [crictl]
    cache: /tmp/archives
"""

RETURN = r"""
installed:
  description: The archives that were unpacked.
  returned: success
  type: list
  elements: str
  sample: [crictl-v1.36.0-linux-amd64.tar.gz]
linked:
  description: The links that were created or removed.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/bin/crictl]
"""

import os
import shutil
import subprocess
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.screwdriver.kata.plugins.module_utils._install.download import DownloadError, fetch_all, file_name
from ansible_collections.screwdriver.kata.plugins.module_utils._secrets import credentials

BACKUP = ".screwdriver-kata-backup"
# What no package of CNI plugins wants to be called.
NO_PROGRAMS = ("LICENSE", "README.md")
# A release unpacks to less than three times its archives: Kata 4.1.0 to 2.6 times.
UNPACKED = 3


class ReleaseError(Exception):
    """What went wrong, as one sentence."""


def present(place: Path) -> bool:
    """Whether a file or a link is there, a dangling link being one."""
    return place.is_symlink() or place.exists()


def missing(path: Path, archives: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The archives that the release does not have yet."""
    marker = path / "complete"
    complete = marker.read_text().splitlines() if marker.exists() else []
    return [archive for archive in archives if file_name(archive) not in complete]


def expand(path: Path, links: dict[str, list[str]]) -> list[tuple[Path, str]]:
    """Each link's place and the path of its program below the release."""
    found = []
    for directory, programs in links.items():
        for program in programs:
            names = [program]
            if program.endswith("/*"):
                names = [f"{program[:-1]}{file.name}" for file in sorted((path / program[:-2]).glob("*")) if file.name not in NO_PROGRAMS]
            found += [(Path(directory) / Path(name).name, name) for name in names]
    return found


def plan_links(path: Path, current: Path | None, links: dict[str, list[str]]) -> list[tuple[Path, str]]:
    """The links that have to be created: place and target."""
    through = current or path
    wanted = [(place, f"{through}/{program}") for place, program in expand(path, links)]
    if current:
        wanted.insert(0, (current, str(path)))
    return [(place, target) for place, target in wanted if not (place.is_symlink() and os.readlink(place) == target)]


def link(place: Path, target: str, releases: Path) -> None:
    """Points a link at its target, and keeps what is at its place unless that is a link into the releases."""
    place.parent.mkdir(parents=True, exist_ok=True)
    own = place.is_symlink() and os.readlink(place).startswith(f"{releases}/")
    if present(place) and not own:
        place.rename(f"{place}{BACKUP}")
    new = Path(f"{place}.new.{os.getpid()}")
    new.symlink_to(target)
    new.rename(place)


def check_space(path: Path, size: int) -> None:
    """Refuses a release that the file system has no room for."""
    directory = path.parent
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < UNPACKED * size:
        raise ReleaseError(
            f"{directory} has {free / 2**30:.1f} GiB free, and {path.name} needs about {UNPACKED * size / 2**30:.1f} GiB to unpack: "
            "free some space, or choose another directory of releases."
        )


def run(*command: str) -> None:
    # Called from functions that have no AnsibleModule, by tests too.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ReleaseError(f"{command[0]} failed on {command[-1]}: {last[0]}")


def unpack(path: Path, archives: list[dict[str, t.Any]], sources: dict[str, str], programs: list[str]) -> None:
    """Unpacks archives beside the release and renames the whole into its place."""
    part, old = Path(f"{path}.part"), Path(f"{path}.old")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    # An existing release lacks an archive: what it has is linked, not copied.
    if path.exists():
        run("cp", "-al", str(path), str(part))
        (part / "complete").unlink()
        shutil.copy2(path / "complete", part / "complete")
    part.mkdir(exist_ok=True)
    for archive in archives:
        source = sources[file_name(archive)]
        if archive["program"]:
            target = part / archive["program"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755)
        else:
            target = part / archive["directory"]
            target.mkdir(parents=True, exist_ok=True)
            run("tar", "--no-same-owner", "--unlink-first", "-C", str(target), *archive["members"], "-xf", source)
    for program in programs:
        run(str(part / program), "--version")
    with (part / "complete").open("a") as marker:
        marker.writelines(f"{file_name(archive)}\n" for archive in archives)
    if path.exists():
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def unlink(path: Path, links: dict[str, list[str]], check: bool) -> list[str]:
    """Removes the links into the releases and brings back what was there before them. Returns the places."""
    changed = []
    for place in (Path(directory) / Path(program).name for directory, programs in links.items() for program in programs):
        backup = Path(f"{place}{BACKUP}")
        if place.is_symlink() and os.readlink(place).startswith(f"{path}/"):
            changed.append(str(place))
            if not check:
                place.unlink()
        if present(backup) and (check or not present(place)):
            changed.append(str(place))
            if not check:
                backup.rename(place)
    return sorted(set(changed))


def install(module: AnsibleModule) -> dict[str, t.Any]:
    """Brings the release and its links to what was asked for."""
    options = module.params
    path, current = Path(options["path"]), Path(options["current"]) if options["current"] else None
    left = missing(path, options["archives"])
    if left and not module.check_mode:
        if options["download_on"] == "node":
            directory = path.parent / "downloads"
            sources = fetch_all(left, str(directory), options["timeout"], options["sources"].get("host", "the node"))
        else:
            sources = options["sources"]
        check_space(path, sum(os.path.getsize(sources[file_name(archive)]) for archive in left))
        unpack(path, left, sources, options["programs"])
    links = plan_links(path, current, options["links"])
    if not module.check_mode:
        for place, target in links:
            link(place, target, path.parent)
    installed, linked = [file_name(archive) for archive in left], [str(place) for place, _target in links]
    after = [f"{path}: {name}" for name in installed] + [f"{place} -> {target}" for place, target in links]
    return {
        "changed": bool(after),
        "installed": installed,
        "linked": linked,
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in after)},
    }


def main() -> None:
    archive = {
        "url": {"type": "str", "required": True},
        "sha256": {"type": "str", "required": True},
        "option": {"type": "str", "required": True},
        "file": {"type": "str"},
        "directory": {"type": "str", "default": "."},
        "program": {"type": "str"},
        "members": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        {
            "path": {"type": "path", "required": True},
            "archives": {"type": "list", "elements": "dict", "default": [], "options": archive},
            "programs": {"type": "list", "elements": "str", "default": []},
            "current": {"type": "path"},
            "links": {"type": "dict", "default": {}},
            "download_on": {"type": "str", "choices": ["controller", "node"], "default": "controller"},
            "cache": {"type": "path"},
            "timeout": {"type": "int", "default": 60},
            "sources": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "unlinked"], "default": "present"},
        },
        supports_check_mode=True,
    )
    module.no_log_values.update(credentials(" ".join(archive["url"] for archive in module.params["archives"])))
    try:
        if module.params["state"] == "unlinked":
            places = unlink(Path(module.params["path"]), module.params["links"], module.check_mode)
            diff = {"before": "".join(f"{place}\n" for place in places), "after": ""}
            module.exit_json(changed=bool(places), installed=[], linked=places, diff=diff)
        module.exit_json(**install(module))
    except (ReleaseError, DownloadError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
