"""Container images without a registry: all consist of Debian's static busybox."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile

from lab.common import CACHE, LabError, locked
from lab.programs.apt import apt_get

APPLETS = ("sh", "sleep", "uname", "awk", "dd", "cat", "rm", "mount", "ls")
# The image that the proof runs, and the pause image under the name that the role containerd configures.
IMAGES = {
    "docker.io/library/busybox:1.37.0": ["/bin/sh"],
    "registry.k8s.io/pause:3.10.1": ["/bin/sleep", "2147483647"],
}


def busybox() -> bytes:
    """Debian's static busybox, downloaded once.

    Raises:
        LabError: There is no apt-get, or it failed.
    """
    target = CACHE / "busybox"
    with locked(CACHE / "busybox.lock"):
        if not target.exists():
            if not shutil.which("apt-get"):
                raise LabError("The images need Debian's busybox-static, and there is no apt-get to download it: use a Debian host.")
            work = CACHE / "busybox.part"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            apt_get("-o", "APT::Sandbox::User=root", "download", "busybox-static", directory=work)
            subprocess.run(["dpkg-deb", "-x", str(next(work.glob("*.deb"))), "root"], cwd=work, check=True)
            next(path for path in (work / "root").rglob("bin/busybox") if path.is_file()).rename(target)
            shutil.rmtree(work)
    return target.read_bytes()


def layer() -> bytes:
    """A layer with busybox, a link for each applet, and the usual directories."""
    content = busybox()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for directory in ("bin", "tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return whole.getvalue()


def archive_of_images() -> bytes:
    """``IMAGES`` in the format of `docker save`."""
    content = {"layer.tar": layer()}
    manifest = []
    for name, command in IMAGES.items():
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content['layer.tar']).hexdigest()}"]},
        }
        text = json.dumps(config, sort_keys=True).encode()
        file = f"{hashlib.sha256(text).hexdigest()}.json"
        content[file] = text
        manifest.append({"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]})
    content["manifest.json"] = json.dumps(manifest).encode()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return whole.getvalue()
