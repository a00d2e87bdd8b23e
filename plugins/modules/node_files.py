#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_files
short_description: Writes a set of small files
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Writes several files in one call. All of them are validated before the first one is replaced.
  - A foreign file, one without C(Managed by the role screwdriver.kata) in its first five lines, is renamed to
    C(<name>.screwdriver-kata-backup). With O(state=absent) it comes back, unless another foreign file has its place by then.
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
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The file's path. Directories above it are created.
        type: path
        required: true
      content:
        description: The whole content. Ignored with O(state=absent).
        type: str
        default: ""
      mode:
        description: The permissions, as octal digits.
        type: str
        default: "0644"
      foreign:
        description: Whether a foreign file is kept aside. V(false) is for files that do not show who wrote them.
        type: bool
        default: true
      backup:
        description: Keep a copy of the file that is replaced, with the time in its name.
        type: bool
        default: false
      validate:
        description: A command that has to succeed on the new content; the word C(%s) stands for the path of a copy.
        type: list
        elements: str
        default: []
      secret_content:
        description:
          - The whole content of a file with a password, which is shown nowhere. Used instead of O(files[].content). The present content of
            a file that its owner alone can read is not shown either.
        type: str
  state:
    description: V(absent) removes files of the roles, and brings foreign ones back.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Configure the socket of the CRI
  screwdriver.kata.node_files:
    files:
      - path: /etc/crictl.yaml
        content: |
          # Managed by the role screwdriver.kata.crictl.
          runtime-endpoint: unix:///run/containerd/containerd.sock
"""

RETURN = r"""
paths:
  description: The files that were written or removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/crictl.yaml]
"""

import os
import tempfile
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

BACKUP = ".screwdriver-kata-backup"
MARK = "Managed by the role screwdriver.kata."
HIDDEN = "(not shown)\n"


class FilesError(Exception):
    """What went wrong, as one sentence."""


def is_managed(path: Path) -> bool:
    """Whether a role of this collection wrote the file."""
    try:
        return any(MARK in line for line in path.read_text(errors="replace").splitlines()[:5])
    except OSError:
        return False


def is_equal(file: dict[str, t.Any]) -> bool:
    """Whether the file has the content, mode and owner that are asked for."""
    path = Path(file["path"])
    if path.is_symlink() or not path.is_file():
        return False
    status = path.stat()
    return (
        path.read_bytes() == file["content"].encode() and status.st_mode & 0o7777 == int(file["mode"], 8) and status.st_uid == os.geteuid()
    )


def validate(module: AnsibleModule, file: dict[str, t.Any]) -> None:
    """Runs the file's command on a copy of the new content."""
    if not file["validate"]:
        return
    with tempfile.NamedTemporaryFile("w", dir=module.tmpdir, suffix=Path(file["path"]).suffix) as candidate:
        candidate.write(file["content"])
        candidate.flush()
        code, out, err = module.run_command([candidate.name if word == "%s" else word for word in file["validate"]])
    if code:
        raise FilesError((err or out).strip() or f"{file['path']} was refused with exit code {code}.")


def diff(file: dict[str, t.Any], after: str) -> dict[str, str]:
    path = Path(file["path"])
    before = path.read_text(errors="replace") if path.is_file() else ""
    if before and (file["secret_content"] or not path.stat().st_mode & 0o077):
        before = HIDDEN
    if after and file["secret_content"]:
        after = HIDDEN
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def write(module: AnsibleModule, file: dict[str, t.Any]) -> None:
    path = Path(file["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or (path.exists() and file["foreign"] and not is_managed(path)):
        path.rename(f"{path}{BACKUP}")
    elif path.exists() and file["backup"]:
        copy = module.backup_local(str(path))
        if file["secret_content"]:
            os.chmod(copy, int(file["mode"], 8))
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as stream:
        stream.write(file["content"])
        os.fchmod(handle, int(file["mode"], 8))
        stream.flush()
        os.fsync(handle)
    os.replace(new, path)


def is_ours(file: dict[str, t.Any]) -> bool:
    """Whether the file is there and of a role of this collection."""
    path = Path(file["path"])
    return is_managed(path) or (not file["foreign"] and path.is_file())


def present(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def is_superseded(file: dict[str, t.Any]) -> bool:
    """Whether a foreign file is there that is newer than the one that was kept aside."""
    return present(Path(f"{file['path']}{BACKUP}")) and present(Path(file["path"])) and not is_ours(file)


def remove(file: dict[str, t.Any], check: bool) -> bool:
    """Removes a managed file and brings back the foreign one. Returns whether there was either."""
    path, backup = Path(file["path"]), Path(f"{file['path']}{BACKUP}")
    ours = is_ours(file)
    back = present(backup) and not is_superseded(file)
    if not check:
        if ours:
            path.unlink()
        if back:
            backup.rename(path)
    return ours or back


def main() -> None:
    file = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "default": ""},
        "mode": {"type": "str", "default": "0644"},
        "foreign": {"type": "bool", "default": True},
        "backup": {"type": "bool", "default": False},
        "validate": {"type": "list", "elements": "str", "default": []},
        "secret_content": {"type": "str", "no_log": True},
    }
    module = AnsibleModule(
        {
            "files": {"type": "list", "elements": "dict", "required": True, "options": file},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    files = module.params["files"]
    for one in files:
        one["content"] = one["secret_content"] or one["content"]
    if module.params["state"] == "absent":
        for file in filter(is_superseded, files):
            module.warn(
                f"Foreign file {file['path']} is newer than the one that the roles replaced, and stays; "
                f"delete the replaced one, {file['path']}{BACKUP}, or rename it to {file['path']}."
            )
        diffs = [diff(file, "") for file in files]
        gone = [remove(file, module.check_mode) for file in files]
        paths = [file["path"] for file, was in zip(files, gone) if was]  # noqa: B905  Python 3.9 on the node
        module.exit_json(changed=bool(paths), paths=paths, diff=[one for one, was in zip(diffs, gone) if was])  # noqa: B905
    changed = [file for file in files if not is_equal(file)]
    diffs = [diff(file, file["content"]) for file in changed]
    try:
        for file in changed:
            validate(module, file)
        if not module.check_mode:
            for file in changed:
                write(module, file)
    except (FilesError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changed), paths=[file["path"] for file in changed], diff=diffs)


if __name__ == "__main__":
    main()
