"""Command lines of the control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, all on loopback."""

from __future__ import annotations

import typing as t
from pathlib import Path

if t.TYPE_CHECKING:
    from collections.abc import Mapping

AUDIT_POLICY = Path(__file__).parent / "audit-policy.yaml"


def etcd(name: str, directory: Path, ports: Mapping[str, int]) -> list[str]:
    """Arguments of etcd; its data is in ``directory``."""
    client, peer = (f"http://127.0.0.1:{ports[port]}" for port in ("etcd", "peer"))
    return [
        f"--name={name}",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={name}={peer}",
        "--unsafe-no-fsync",
    ]


def kube_apiserver(directory: Path, ports: Mapping[str, int]) -> list[str]:
    """Arguments of kube-apiserver: certificates of ``pki/``, users of ``tokens.csv``, writes to ``audit.log``."""
    pki = directory / "pki"
    return [
        f"--etcd-servers=http://127.0.0.1:{ports['etcd']}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports['api']}",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--allow-privileged=true",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--audit-policy-file={AUDIT_POLICY}",
        f"--audit-log-path={directory / 'audit.log'}",
        "--audit-log-maxsize=1000",
    ]


def kube_controller_manager(directory: Path, ports: Mapping[str, int]) -> list[str]:
    """Arguments of kube-controller-manager."""
    return [
        f"--kubeconfig={directory / 'kube-controller-manager.kubeconfig'}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={directory / 'pki' / 'sa.key'}",
        f"--root-ca-file={directory / 'pki' / 'ca.crt'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports['manager']}",
        f"--cert-dir={directory / 'manager'}",
    ]


def kube_scheduler(directory: Path, ports: Mapping[str, int]) -> list[str]:
    """Arguments of kube-scheduler."""
    return [
        f"--kubeconfig={directory / 'kube-scheduler.kubeconfig'}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports['scheduler']}",
        f"--cert-dir={directory / 'scheduler'}",
    ]
