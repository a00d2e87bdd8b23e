"""What several tests of the node roles use: pods, images and the state of the machine, by programs other than the roles."""

from __future__ import annotations

import json
import typing as t

from lab.programs.go import NODE_PARTS

from ..helpers import default

if t.TYPE_CHECKING:
    from .conftest import Node, Roles

# The versions that the roles install: Kata's is the role's default, containerd's the mirror's.
KATA: str = default("kata", "kata_version")
CONTAINERD, CONTAINERD_OLD = (
    next(part for part in NODE_PARTS if part.name == name).version.removeprefix("v") for name in ("containerd-2", "containerd-1.7")
)
NODE_ROLES = ("kata", "containerd", "crictl")
# Kata's stub is runc's shim, which reads none of Kata's configuration.
STUBS = [{"name": "stub", "config_path": ""}, {"name": "stub-rs", "shim": "rust", "config_path": ""}]
# What lets the proof pass in a container, with Kata's stub on overlayfs.
PROOF: dict[str, t.Any] = {
    "kata_handlers": STUBS,
    "node_proof_handlers": [handler["name"] for handler in STUBS],
    "node_proof_image_archive": "/srv/proof.tar",
    "node_proof_pod_network": False,
    "node_proof_snapshotter": "overlayfs",
    "node_proof_pool": "",
    "node_proof_require_guest_kernel": False,
    "node_proof_require_block_root": False,
    "node_proof_min_nofile": 1024,
}
# A pod on the machine's own network; prints the container's open file limit and process, and the runtime.
POD = """
set -e
ctr -n k8s.io images import --no-unpack /srv/proof.tar >/dev/null 2>&1
echo '{{"metadata": {{"name": "{name}", "namespace": "test", "uid": "{name}"}},
  "linux": {{"cgroup_parent": "system.slice", "security_context": {{"namespace_options": {{"network": 2}}}}}}}}' >/tmp/pod.json
echo '{{"metadata": {{"name": "test"}}, "image": {{"image": "docker.io/library/busybox:1.37.0"}},
  "command": ["sleep", "3600"], "linux": {{}}}}' >/tmp/container.json
pod=$(crictl runp --runtime {handler} /tmp/pod.json)
container=$(crictl create "$pod" /tmp/container.json /tmp/pod.json)
crictl start "$container" >/dev/null
crictl exec "$container" sh -c 'ulimit -n'
crictl inspect "$container" | sed -n 's/^ *"pid": \\([0-9]*\\),$/\\1/p'
ctr -n k8s.io containers info "$pod" | sed -n 's/.*"Name": "\\(io.containerd.*\\)".*/\\1/p'
"""
END_PODS = 'for pod in $(crictl pods -q); do crictl stopp "$pod" && crictl rmp "$pod"; done'


def image(roles: Roles) -> None:
    """Copies the archive of images to the machine."""
    (copied,) = roles.node.play(
        [{"ansible.builtin.copy": {"src": str(roles.mirror.directory / "files/images/proof.tar"), "dest": "/srv/proof.tar"}}]
    )
    assert not copied["failed"], copied


def pod(node: Node, handler: str) -> tuple[int, int, str]:
    """Runs a pod under the handler: its open file limit, its process on the machine, and its runtime."""
    nofile, pid, runtime = node.run(POD.format(handler=handler, name=handler)).splitlines()
    return int(nofile), int(pid), runtime


def state(node: Node) -> str:
    """Everything that the roles could change."""
    return node.run(
        "find /etc /opt /srv /usr/local /var/lib/containerd -printf '%p %y %m %s %l\\n' | sort; systemctl list-unit-files --no-legend"
    )


def differences(before: str, after: str) -> list[str]:
    """The lines that two listings do not share."""
    return sorted(set(before.splitlines()) ^ set(after.splitlines()))


def state_with_times(node: Node) -> str:
    """As ``state``, with the times of files, and without what only containerd changes."""
    return node.run("find /etc /opt /usr/local /var/lib -xdev -path /var/lib/systemd -prune -o -printf '%p %y %m %s %T@\\n' | sort")


def versions(node: Node) -> tuple[str, str]:
    """The version of containerd that runs, and the release of Kata that is in use."""
    server = node.run("ctr version | awk '/^Server/ {server = 1} server && /Version:/ {print $2}'")
    return server.removeprefix("v"), node.run("cat /opt/kata/VERSION")


def handlers(node: Node) -> dict[str, str]:
    """The runtime of each handler, as containerd has read its configuration."""
    known = json.loads(node.run("crictl info"))["config"]["containerd"]["runtimes"]
    return {name: runtime["runtimeType"] for name, runtime in known.items()}


def started(node: Node) -> str:
    """When containerd was started."""
    return node.run("systemctl show --property ActiveEnterTimestampMonotonic containerd")


def refusals(roles: Roles, cases: list[tuple[str, dict[str, t.Any], dict[str, str]]]) -> list[str]:
    """The sentences of roles that run one after the other in one playbook, each with its own variables and facts."""
    facts = {"architecture": "x86_64", "os_family": "Debian"}
    tasks = [
        {
            "block": [
                {"ansible.builtin.set_fact": {**facts, **found, "cacheable": True}},
                {"ansible.builtin.include_role": {"name": f"screwdriver.kata.{role}"}, "vars": roles.variables | variables},
            ],
            "rescue": [{"ansible.builtin.meta": "noop"}],
        }
        for role, variables, found in cases
    ]
    results = roles.node.results(roles.node.start(tasks))
    failed = [result for result in results if result["failed"]]
    return [result["msg"].removeprefix("Validation of arguments failed:\n") for result in failed]


def prove(roles: Roles, **variables: t.Any) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
    """Runs the proof: what it observed of each handler, and the results of the run, the last of which has the error."""
    role = {"ansible.builtin.include_role": {"name": "screwdriver.kata.node_proof", "public": True}, "vars": {**PROOF, **variables}}
    found = {"ansible.builtin.debug": {"msg": "{{ node_proof_handlers_result | to_json }}"}}
    results = roles.node.results(roles.node.start([role, found]))
    return ([] if results[-1]["failed"] else json.loads(results[-1]["msg"])), results
