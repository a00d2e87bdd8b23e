"""A registry of container images on loopback, for a machine that reaches no other: it has every name that is asked for.

All images are Debian's static busybox. ``screwdrivercd/launcher`` also has a stub of Screwdriver's launcher (``launcher/``); ``pause``
sleeps.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import io
import json
import re
import sys
import tarfile
import typing as t
from pathlib import Path

from lab.common import LabError
from lab.programs.images import layer

if t.TYPE_CHECKING:
    from collections.abc import Mapping

LAUNCHER = Path(__file__).parent / "launcher"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
# The scripts of a build pod call these, besides those of the layer.
APPLETS = ("chmod", "cp", "date", "mkdir", "mktemp", "mv")


def _layer(files: Mapping[str, str | bytes]) -> bytes:
    """A layer of files: bytes are a file's content, a text is the target of a link."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


class Images:
    """Manifests by name of repository, and blobs by digest."""

    def __init__(self) -> None:
        busybox = layer()
        tools = _layer({f"bin/{applet}": "busybox" for applet in APPLETS})
        launcher = {f"opt/sd/{path.name}": path.read_bytes() for path in sorted(LAUNCHER.iterdir())}
        # The init container waits for `launch`.
        launcher |= {"opt/sd/launch": b"#!/bin/sh\n", "hab/README": b"This stub has nothing of Habitat.\n"}
        self.blobs: dict[str, bytes] = {}
        self._default = self._add(["/bin/sh"], busybox, tools)
        self._special = {
            "pause": self._add(["/bin/sleep", "2147483647"], busybox),
            "launcher": self._add(["/bin/sh"], busybox, tools, _layer(launcher)),
        }

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """The manifest of a tag, or the one whose digest ``reference`` is."""
        if reference.startswith("sha256:"):
            return self.blobs.get(reference)
        return self.blobs[self._special.get(repository.rsplit("/", 1)[-1], self._default)]

    def _blob(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def _described(self, kind: str, content: bytes) -> dict[str, t.Any]:
        return {"mediaType": kind, "digest": self._blob(content), "size": len(content)}

    def _add(self, command: list[str], *layers: bytes) -> str:
        described = [self._described(LAYER, layer) for layer in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
            # A layer that is not packed has one digest for both.
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._described(CONFIG, json.dumps(config, sort_keys=True).encode()),
            "layers": described,
        }
        return self._blob(json.dumps(manifest, sort_keys=True).encode())


class Handler(http.server.BaseHTTPRequestHandler):
    """The pull part of the OCI distribution specification."""

    protocol_version = "HTTP/1.1"
    images: t.ClassVar[Images]

    def do_GET(self) -> None:
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/?]+)(?:\?.*)?", self.path)
        content: bytes | None = b"{}"
        kind = "application/json"
        if found:
            repository, what, reference = found.groups()
            kind = MANIFEST if what == "manifests" else "application/octet-stream"
            content = self.images.manifest(repository, reference) if what == "manifests" else self.images.blobs.get(reference)
        elif self.path not in ("/v2/", "/v2"):
            content = None
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content or b"")))
        if content and found:
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
        self.end_headers()
        if content and self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815  the base class looks for this name


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.machines.registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=5000, help="(default: %(default)s)")
    options = parser.parse_args()
    try:
        Handler.images = Images()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
