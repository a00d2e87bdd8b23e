"""A mirror of release archives on loopback: names and layout of the upstream releases, packed from programs that are compiled here.

``python -m lab.programs.mirror pack`` prints its directory; ``serve --port 8099`` serves it; ``start DIRECTORY`` does so in the background
until ``stop DIRECTORY``. All of it is real except the release of Kata Containers, a stub (``kata_release.py``).
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import io
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import typing as t
from pathlib import Path

import yaml

from lab.common import CACHE, TOP, LabError, locked, progress
from lab.processes import Process, free_ports
from lab.programs import kata_release
from lab.programs.apt import install_packages
from lab.programs.go import NODE_PARTS, compile_part
from lab.programs.images import archive_of_images

MIRROR = CACHE / "mirror"
# The programs that pack the archives, and their Debian packages.
PACKERS = {"xz": "xz-utils", "zstd": "zstd"}
# containerd 1.7 does not understand the shim of 2.3. Its own serves both, but cannot read Kata's options:
# leave the handler's config_path empty.
KATA_OF_OLD = "3.28.0"
# The directory of each component by the start of its variables' names.
COMPONENTS = {"containerd": "containerd", "containerd_runc": "runc", "containerd_cni": "cni", "crictl": "crictl", "kata": "kata"}


def _pack(target: Path, members: dict[str, Path | str]) -> None:
    """Writes an archive of ``members``: a file to copy, or a text, by name."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in members.items():
            data = content.read_bytes() if isinstance(content, Path) else content.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if isinstance(content, Path) else 0o644
            archive.addfile(entry, io.BytesIO(data))
    command = {".zst": ["zstd", "-q", "-3"], ".xz": ["xz", "-1"]}.get(target.suffix, ["gzip", "-n", "-1"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(subprocess.run([*command, "-c"], input=plain.getvalue(), check=True, capture_output=True).stdout)


def pack() -> Path:
    """Packs the archives, unless the cache has them.

    Returns:
        The mirror's directory: ``files/`` is served, ``variables.yml`` makes the roles use it.

    Raises:
        LabError: A program could not be compiled, or a package not be installed.
    """
    parts = {part.name: (part.version.removeprefix("v"), compile_part(part)) for part in NODE_PARTS}
    key = hashlib.sha256(
        repr(sorted(parts.items())).encode() + Path(__file__).read_bytes() + Path(kata_release.__file__).read_bytes()
    ).hexdigest()[:8]
    target = MIRROR / key
    with locked(MIRROR / "lock"):
        if target.exists():
            return target
        if missing := [package for program, package in PACKERS.items() if not shutil.which(program)]:
            install_packages(f"The mirror's archives are packed with {' and '.join(PACKERS)}", missing)
        progress("Packing the mirror's archives (once)")
        files = target.with_suffix(".part") / "files"
        for name in ("containerd-1.7", "containerd-2"):
            version, programs = parts[name]
            _pack(
                files / f"containerd/v{version}/containerd-{version}-linux-amd64.tar.gz",
                {f"bin/{p.name}": p for p in sorted(programs.iterdir())},
            )
        version, programs = parts["cri-tools"]
        _pack(files / f"crictl/v{version}/crictl-v{version}-linux-amd64.tar.gz", {"crictl": programs / "crictl"})
        version, programs = parts["cni"]
        _pack(files / f"cni/v{version}/cni-plugins-linux-amd64-v{version}.tgz", {f"./{p.name}": p for p in sorted(programs.iterdir())})
        version, programs = parts["runc"]
        (files / f"runc/v{version}").mkdir(parents=True)
        (files / f"runc/v{version}/runc.amd64").write_bytes((programs / "runc").read_bytes())
        for version in kata_release.VERSIONS:
            shim = parts["containerd-1.7" if version == KATA_OF_OLD else "containerd-2"][1] / "containerd-shim-runc-v2"
            for name, members in kata_release.archives(version, shim).items():
                _pack(files / f"kata/{version}/{name}-{version}-amd64{kata_release.suffix(version)}", members)
        (files / "images").mkdir()
        (files / "images/proof.tar").write_bytes(archive_of_images())
        (files.parent / "variables.yml").write_text(yaml.safe_dump(_variables(files, parts)))
        files.parent.rename(target)
    return target


def _variables(files: Path, parts: dict[str, tuple[str, Path]]) -> dict[str, t.Any]:
    """The variables of the roles that make them use this mirror, apart from the base URLs, which need the port."""

    def digest(pattern: str) -> str:
        return hashlib.sha256(next(files.glob(pattern)).read_bytes()).hexdigest()

    containerd = {
        f"containerd-{parts[name][0]}-amd64": digest(f"containerd/v{parts[name][0]}/*") for name in ("containerd-1.7", "containerd-2")
    }
    return {
        "containerd_version": parts["containerd-2"][0],
        "containerd_runc_version": parts["runc"][0],
        "containerd_cni_version": parts["cni"][0],
        "crictl_version": parts["cri-tools"][0],
        "containerd_checksums": {**containerd, **{f"{name}-{parts[name][0]}-amd64": digest(f"{name}/*/*") for name in ("runc", "cni")}},
        "crictl_checksums": {f"crictl-{parts['cri-tools'][0]}-amd64": digest("crictl/*/*")},
        "kata_checksums": {path.name: digest(f"kata/*/{path.name}") for path in sorted(files.glob("kata/*/*"))},
    }


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files; a first directory ``fault-KIND`` breaks all below it: a status (404, 500), ``hang`` or ``truncated``."""

    log: t.ClassVar[Path | None] = None

    def do_GET(self) -> None:
        first, _slash, rest = self.path.lstrip("/").partition("/")
        fault = first.removeprefix("fault-") if first.startswith("fault-") else ""
        if fault:
            self.path = f"/{rest}"
        if fault.isdigit():
            self.send_error(int(fault))
        elif fault == "hang":
            time.sleep(60)
        elif fault == "truncated":
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        if self.log:
            with self.log.open("a") as log:
                log.write(f"{format % args}\n")


def serve(port: int, log: Path | None = None) -> http.server.ThreadingHTTPServer:
    """A server on loopback, ready to serve the mirror. Port 0 takes a free one."""
    files = str(pack() / "files")

    def handler(*arguments: t.Any) -> Handler:
        return Handler(*arguments, directory=files)

    Handler.log = log
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    return server


def variables(port: int, *broken: str, fault: str = "") -> dict[str, t.Any]:
    """Variables that make the roles use a mirror on this port; ``broken`` components come from its directory of the fault."""
    prefix = {name: f"fault-{fault}/" if fault and name in broken else "" for name in COMPONENTS.values()}
    urls = {f"{role}_base_url": f"http://127.0.0.1:{port}/{prefix[name]}{name}" for role, name in COMPONENTS.items()}
    return yaml.safe_load((pack() / "variables.yml").read_text()) | urls


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def start(directory: Path) -> Path:
    """Serves in the background, known by ``directory``. A server that runs already is kept.

    Returns:
        A file with the variables that make the roles use it and accept the stub, and ``images``: the path of the archive of images.
    """
    target = directory / "variables.yml"
    server = Process(directory, "mirror")
    if server.pid and target.exists():
        return target
    server.stop()
    (port,) = free_ports(1)
    packed = pack()
    server.start([sys.executable, "-m", "lab.programs.mirror", "serve", "--port", port], cwd=TOP)
    while not _answers(port):
        if not server.pid:
            raise LabError(f"The mirror ended when it started: {server.tail()}")
        time.sleep(0.1)
    images = {"images": str(packed / "files/images/proof.tar"), "node_proof_image_archive": "/srv/proof.tar"}
    target.write_text(yaml.safe_dump({**variables(port), **kata_release.STUB_VARIABLES, **images}))
    return target


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.programs.mirror", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("pack", help="pack the archives and print their directory")
    serving = commands.add_parser("serve", help="serve them on loopback until interrupted")
    serving.add_argument("--port", type=int, default=8099, help="(default: %(default)s)")
    serving.add_argument("--log", type=Path, help="log requests to this file")
    for name, does in (
        ("start", "serve them in the background, and print a file of variables that make the roles use them"),
        ("stop", "stop serving"),
    ):
        commands.add_parser(name, help=does).add_argument("directory", type=Path, help="keeps its process id, log and variables")
    options = parser.parse_args()
    try:
        if options.command == "pack":
            print(pack())
        elif options.command == "start":
            print(start(options.directory))
        elif options.command == "stop":
            Process(options.directory, "mirror").stop()
        else:
            serve(options.port, options.log).serve_forever()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
