"""Joins a real machine to a lab: a kubelet with its own identity, a pod network, and tunnels to ports on this machine's loopback.

The collection, not this, makes the machine a Kata node.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import time
import typing as t
from pathlib import Path

import yaml

from lab.cluster import pki
from lab.common import progress, wait_until
from lab.programs.go import KUBELET, compile_part

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.cluster.lab import Lab
    from lab.machines.ssh import Machine

FILES = Path(__file__).parent / "kubelet"
# Reconnects when the machine is back; a refused forward is an error.
RECONNECT = 'while :; do "$@" </dev/null; sleep 2; done'
SSH_OPTIONS = ("-N", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")


def join(lab: Lab, machine: Machine, *ports: int, kubelet: Mapping[str, t.Any] | None = None) -> None:
    """Makes ``machine`` a node of ``lab`` under its name.

    Args:
        lab: A lab that is up.
        machine: Reached as root.
        ports: Ports of this machine that it sees on its loopback, besides the API server's.
        kubelet: Settings of the kubelet that replace those of ``kubelet/kubelet.yaml``.
    """
    _open_tunnels(lab, machine, int(lab.server.rsplit(":", 1)[1]), *ports)
    progress(f"Joining {machine.name}: kubelet {KUBELET.version}")
    machine.run("tar -C / -xzf -", stdin=_files(lab, machine, kubelet or {}))
    machine.run("systemctl daemon-reload && systemctl enable kubelet && systemctl restart kubelet")


def wait_ready(lab: Lab, name: str, seconds: float) -> None:
    """Waits until the node is Ready.

    Raises:
        LabError: It was not within ``seconds``.
    """
    failure = f"Node {name} of lab {lab.name} is not Ready after {seconds:.0f} s: read 'journalctl -u kubelet' there."
    wait_until(lambda: is_ready(lab, name), failure, seconds, interval=1)


def is_ready(lab: Lab, name: str) -> bool:
    status = lab.kubectl("get", "node", name, "--ignore-not-found", "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')
    return status == "True"


def _open_tunnels(lab: Lab, machine: Machine, *ports: int) -> None:
    forwards = [word for port in ports for word in ("-R", f"127.0.0.1:{port}:127.0.0.1:{port}")]
    lab.process(f"tunnel-{machine.name}").start(["bash", "-c", RECONNECT, "tunnel", *machine.ssh(*SSH_OPTIONS, *forwards)])


def _files(lab: Lab, machine: Machine, kubelet: Mapping[str, t.Any]) -> bytes:
    """The kubelet and its configuration, as a tar.gz."""
    address = machine.run("ip -o route get 203.0.113.1 2>/dev/null | sed -n 's/.* src \\([^ ]*\\).*/\\1/p'") or machine.run(
        'ip -o -4 addr show scope global | awk \'{sub("/.*", "", $4); print $4; exit}\''
    )
    unit = (FILES / "kubelet.service").read_text().replace("@NAME@", machine.name).replace("@ADDRESS@", address)
    settings = yaml.safe_load((FILES / "kubelet.yaml").read_text())
    files = {
        "usr/local/bin/kubelet": ((compile_part(KUBELET) / "kubelet").read_bytes(), 0o755),
        "etc/systemd/system/kubelet.service": (unit.encode(), 0o644),
        "etc/lab/kubelet.yaml": (yaml.safe_dump({**settings, **kubelet}).encode(), 0o644),
        "etc/lab/kubeconfig": (kubeconfig(lab, machine.name), 0o600),
        "etc/cni/net.d/10-lab.conflist": ((FILES / "10-lab.conflist").read_bytes(), 0o644),
    }
    whole = io.BytesIO()
    with gzip.open(whole, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


def kubeconfig(lab: Lab, name: str) -> bytes:
    """A kubeconfig that makes the kubelet ``system:node:NAME``, with certificate and key inside."""
    directory = lab.directory / "pki"
    certificate, key = pki.sign_client(directory, f"system:node:{name}", "system:nodes")
    authority = (directory / "ca.crt").read_bytes()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": f"https://{lab.server}", "certificate-authority-data": _text(authority)}}],
        "users": [{"name": "node", "user": {"client-certificate-data": _text(certificate), "client-key-data": _text(key)}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "node"}}],
        "current-context": "lab",
    }
    return json.dumps(config).encode()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
