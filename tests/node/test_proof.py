"""The proof beside a kubelet, which ends every pod that it does not know."""

from __future__ import annotations

import signal
import time
import typing as t

from .helpers import NODE_ROLES, image

if t.TYPE_CHECKING:
    from .conftest import Roles

# A stand-in: it does to pods what a kubelet does to those that are not of its cluster, at once.
KUBELET = """
printf '[Service]\\nExecStart=/usr/local/sbin/kubelet\\nRestart=always\\nRestartSec=600\\n' >/etc/systemd/system/kubelet.service
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


def kubelet(states: str) -> str:
    """A command that holds where the kubelet's process is in one of these states (ps(1), PROCESS STATE CODES)."""
    return f"ps --format state= --pid $(systemctl show --property MainPID --value kubelet) | grep --quiet '[{states}]'"


def test_a_kubelet_is_halted_meanwhile(roles: Roles) -> None:
    node = roles.node
    image(roles)
    roles.changes(*NODE_ROLES, **PROOF)
    node.run(KUBELET)
    # One that was stopped, or started anew, would have failed the pods that it was about to start.
    process_of = "systemctl show --property MainPID --property NRestarts --property ActiveEnterTimestampMonotonic kubelet"
    before = node.run(process_of)
    assert roles.changes("node_proof", **PROOF) == []
    wait(roles, kubelet("RSD"))

    # Killed as it proves: the kubelet goes on.
    process = roles.start("node_proof", **PROOF, node_proof_write_bytes=2_000_000_000)
    wait(roles, f'[ -n "$(crictl pods -q)" ] && {kubelet("T")}')
    node.run("pkill -KILL -f '/prove$'")
    wait(roles, kubelet("RSD"))
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert node.run(process_of) == before

    # One that waits to be started again does not come in the middle.
    node.run("systemctl kill --signal KILL kubelet")
    wait(roles, "systemctl show --property SubState kubelet | grep --quiet auto-restart")
    assert roles.changes("node_proof", **PROOF) == []
    wait(roles, kubelet("RSD"))

    # Where it is not halted the proof shows that the stand-in does what it is there for.
    assert "No proof on node1" in roles.refusal("node_proof", **PROOF, node_proof_kubelet_service="")
    assert node.run("systemctl is-active kubelet") == "active"
