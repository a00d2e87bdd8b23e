"""The proof beside a kubelet, which ends every pod that it does not know."""

from __future__ import annotations

import signal
import time
import typing as t

from .test_install import NODE_ROLES, image

if t.TYPE_CHECKING:
    from .conftest import Roles

# A stand-in: it does to pods what a kubelet does to those that are not of its cluster, at once.
KUBELET = """
printf '[Service]\\nExecStart=/usr/local/sbin/kubelet\\nRestart=always\\n' >/etc/systemd/system/kubelet.service
cat >/usr/local/sbin/kubelet <<'SCRIPT'
#!/bin/sh
PATH=$PATH:/usr/local/bin
while sleep 0.1; do for pod in $(crictl pods -q); do crictl rmp -f "$pod"; done; done
SCRIPT
chmod 755 /usr/local/sbin/kubelet
systemctl daemon-reload
systemctl start kubelet
"""
PROOF: dict[str, t.Any] = {
    "kata_handlers": [{"name": "kata", "config_path": ""}],
    "node_proof_image_archive": "/srv/proof.tar",
    "node_proof_pod_network": False,
    "node_proof_snapshotter": "overlayfs",
    "node_proof_pool": "",
    "node_proof_require_guest_kernel": False,
    "node_proof_require_block_root": False,
    "node_proof_min_nofile": 1024,
}


def wait(roles: Roles, script: str) -> None:
    deadline = time.monotonic() + 120
    while roles.node.run(f"{script} && echo yes", check=False) != "yes":
        assert time.monotonic() < deadline, script
        time.sleep(0.2)


def test_a_kubelet_rests_meanwhile(roles: Roles) -> None:
    node = roles.node
    image(roles)
    roles.changes(*NODE_ROLES, **PROOF)
    node.run(KUBELET)
    assert roles.changes("node_proof", **PROOF) == []
    wait(roles, "systemctl is-active --quiet kubelet")

    # Killed as it proves: the kubelet comes back.
    process = roles.start("node_proof", **PROOF, node_proof_write_bytes=2_000_000_000)
    wait(roles, '[ -n "$(crictl pods -q)" ] && ! systemctl is-active --quiet kubelet')
    node.run("pkill -KILL -f '/prove$'")
    wait(roles, "systemctl is-active --quiet kubelet")
    process.send_signal(signal.SIGTERM)
    process.communicate()

    # Without the rest the proof shows that the stand-in does what it is there for.
    assert "No proof on node1" in roles.refusal("node_proof", **PROOF, node_proof_kubelet_service="")
    assert node.run("systemctl is-active kubelet") == "active"
