"""The roles containerd, crictl and kata from a bare machine and back, checked with the tools of systemd, containerd and the kernel."""

from __future__ import annotations

import json
import tomllib
import typing as t
from pathlib import Path

from .helpers import (
    CONTAINERD,
    CONTAINERD_OLD,
    END_PODS,
    KATA,
    NODE_ROLES,
    STUBS,
    differences,
    handlers,
    image,
    pod,
    started,
    state,
    versions,
)

if t.TYPE_CHECKING:
    from .conftest import Node, Roles

PROXY = 1080
ADMINISTRATOR = """
mkdir -p /usr/local/bin /usr/local/sbin /etc/containerd/certs.d/registry.example.com
printf '#!/bin/sh\\necho runc of the administrator\\n' >/usr/local/sbin/runc && chmod 755 /usr/local/sbin/runc
cd /usr/local/bin
printf '#!/bin/sh\\necho shim of the administrator\\n' >containerd-shim-kata-v2 && chmod 700 containerd-shim-kata-v2
echo 'timeout: 7' >/etc/crictl.yaml
echo 'server = "https://registry.example.com"' >/etc/containerd/certs.d/registry.example.com/hosts.toml
"""


def drop_in(node: Node, handler: str) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """The drop-in of a handler, and the configuration beside it, which is the shipped one."""
    directory = f"/opt/kata/handlers/{handler}"
    return tomllib.loads(node.run(f"cat {directory}/config.d/50-screwdriver.toml")), tomllib.loads(
        node.run(f"cat {directory}/configuration.toml")
    )


def test_versions(roles: Roles) -> None:
    node = roles.node
    image(roles)
    # The oldest releases that are supported, two shims and a snapshotter of a handler's own.
    old = {
        "containerd_version": CONTAINERD_OLD,
        "kata_version": "3.28.0",
        "kata_handlers": [
            {"name": "kata", "kernel_params": "quiet"},
            {"name": "kata-rs", "shim": "rust"},
            *STUBS,
        ],
    }
    results = roles.run(*NODE_ROLES, **old)
    assert not results[-1]["failed"], results[-1]
    warned = [sentence for result in results if "Warn of known faults" in result["task"] for sentence in result.get("msg", [])]
    assert any("kata 3.28.0 has CVE-2026-50540" in sentence for sentence in warned)
    assert f"containerd {'.'.join(CONTAINERD_OLD.split('.')[:2])} gets no more fixes (end of life 2026-09)." in warned
    assert versions(node) == (CONTAINERD_OLD, "3.28.0")
    limit = roles.variables.get("containerd_nofile", 1048576)
    assert pod(node, "runc")[0::2] == (limit, "io.containerd.runc.v2")
    # The stub's shim is of containerd 2: under 1.7 only containerd's configuration is checked.
    assert handlers(node) == {
        "runc": "io.containerd.runc.v2",
        **dict.fromkeys(("kata", "kata-rs", "stub", "stub-rs"), "io.containerd.kata.v2"),
    }
    dumped = node.run("containerd config dump")
    assert dumped.count("privileged_without_host_devices = true") == len(old["kata_handlers"])
    node.run(END_PODS)
    since = started(node)
    assert roles.changes(*NODE_ROLES, **old) == []
    assert started(node) == since
    written, shipped = drop_in(node, "kata")
    params = f"{shipped['hypervisor']['qemu']['kernel_params']} quiet".strip()
    assert written == {"hypervisor": {"qemu": {"kernel_params": params}}, "runtime": {"sandbox_cgroup_only": True}}
    assert drop_in(node, "kata-rs")[0] == {}
    assert node.run("cmp /opt/kata/share/defaults/kata-containers/configuration-qemu.toml /opt/kata/handlers/kata/configuration.toml") == ""

    # One variable each brings another release, and the one before.
    new = {**old, "containerd_version": CONTAINERD, "kata_version": "3.32.0"}
    assert roles.changes(*NODE_ROLES, **new)
    assert versions(node) == (CONTAINERD, "3.32.0")
    for handler in ("stub", "stub-rs"):
        assert pod(node, handler)[0::2] == (limit, "io.containerd.kata.v2")
    node.run(END_PODS)
    assert roles.changes(*NODE_ROLES, **{**new, "containerd_version": CONTAINERD_OLD, "kata_state": "rolled_back"})
    assert versions(node) == (CONTAINERD_OLD, "3.28.0")
    assert pod(node, "runc")[0] == limit
    node.run(END_PODS)
    assert roles.changes("kata", **{**new, "kata_state": "rolled_back"}) == []
    assert roles.changes(*NODE_ROLES, **new)
    assert versions(node) == (CONTAINERD, "3.32.0")
    # The default release, downloaded by the machine itself, with the Rust shim alone; nothing older than the release before stays.
    settings = {"hypervisor.qemu": {"disable_block_device_use": False, "no_such_setting": 1}}
    rust = {**new, "kata_version": KATA, "kata_handlers": [{"name": "kata", "settings": settings}, STUBS[1]]}
    with node.tunnel(roles.mirror.port):
        results = roles.run("kata", **rust, kata_download_on="node")
    assert not results[-1]["failed"], results[-1]
    [warned] = [
        one["msg"] for result in results if "Warn of settings" in result["task"] for one in result.get("results", []) if "msg" in one
    ]
    assert (
        f"handler kata sets hypervisor.qemu.no_such_setting, which configuration-qemu-runtime-rs.toml of Kata {KATA} does not have"
        in warned
    )
    assert node.run("ls /opt/kata-releases | grep -v downloads").split() == ["3.32.0", KATA, "previous"]
    assert drop_in(node, "kata")[0] == {"hypervisor": {"qemu": settings["hypervisor.qemu"]}}
    # Since 4.1 each shim has an archive of its own: a handler of the other shim brings the second one to the release that is there.
    shims = "ls /opt/kata/bin /opt/kata/runtime-rs/bin 2>/dev/null | grep -c containerd-shim-kata-v2"
    assert node.run(shims) == "1"
    both = {**rust, "kata_handlers": [*rust["kata_handlers"], {"name": "kata-go", "shim": "go"}]}
    assert roles.changes("kata", **both)
    assert node.run(shims) == "2"
    assert node.run("ls /opt/kata/handlers") == "kata\nkata-go"
    assert roles.changes("kata", **both) == []
    assert roles.changes("kata", **rust) == []


MEMORY = "io.katacontainers.config.hypervisor.default_memory"
VCPUS = "io.katacontainers.config.hypervisor.default_vcpus"
# Every annotation that a release of Kata from 3.0 to 4.1 documents or reads; some gave root on the host.
ANNOTATIONS = (Path(__file__).parent / "files/kata_annotations.txt").read_text().split()
# A pod and a container in it under the stub, from the files of a test, and the specification of each as the shim has it.
ANNOTATED = """
ctr -n k8s.io images import --no-unpack /srv/proof.tar >/dev/null 2>&1
pod=$(crictl runp --runtime {handler} /srv/canary.json)
container=$(crictl create "$pod" /srv/canary-container.json /srv/canary.json)
crictl start "$container" >/dev/null
for id in $pod $container; do tr -d '\\n' </run/containerd/io.containerd.runtime.v2.task/k8s.io/$id/config.json; echo; done
"""


def annotated(node: Node, handler: str = "stub") -> list[list[str]]:
    """Kata's annotations that the shim of a pod with all of them gets to see, for the sandbox and for its container."""
    metadata = {"name": "canary", "namespace": "test", "uid": handler}
    annotations = dict.fromkeys(ANNOTATIONS, "1")
    options = {"cgroup_parent": "system.slice", "security_context": {"namespace_options": {"network": 2}}}
    image_name = {"image": "docker.io/library/busybox:1.37.0"}
    container = {"metadata": {"name": "canary"}, "image": image_name, "command": ["sleep", "3600"], "linux": {}, "annotations": annotations}
    files = {"canary": {"metadata": metadata, "annotations": annotations, "linux": options}, "canary-container": container}
    copied = node.play(
        [{"ansible.builtin.copy": {"content": json.dumps(text), "dest": f"/srv/{name}.json"}} for name, text in files.items()]
    )
    assert not any(result["failed"] for result in copied), copied
    specifications = [json.loads(line)["annotations"] for line in node.run(ANNOTATED.format(handler=handler)).splitlines()]
    node.run(END_PODS)
    return [sorted(name for name in found if "katacontainers" in name) for found in specifications]


def test_annotations(roles: Roles) -> None:
    """The shim's own specification of a pod has the annotations of the list, and none else of Kata's."""
    node = roles.node
    image(roles)
    # Two handlers with lists of their own, one with the list of all.
    handlers = [STUBS[0], {**STUBS[0], "name": "listed", "pod_annotations": [VCPUS]}]
    assert len(ANNOTATIONS) == len(set(ANNOTATIONS)) == 110
    for listed in ([], [MEMORY]):
        roles.changes(*NODE_ROLES, kata_handlers=handlers, kata_pod_annotations=listed)
        assert annotated(node) == [listed, listed]
        assert annotated(node, "listed") == [[VCPUS], [VCPUS]]
    # A pattern has to be asked for by name, and then passes what it says.
    pattern = "io.katacontainers.config.agent.*"
    assert roles.refusal("kata", kata_handlers=handlers[:1], kata_pod_annotations=[pattern]).endswith(
        "or set kata_allow_annotation_patterns."
    )
    roles.changes(*NODE_ROLES, kata_handlers=handlers[:1], kata_pod_annotations=[pattern], kata_allow_annotation_patterns=True)
    agent = [name for name in ANNOTATIONS if name.startswith("io.katacontainers.config.agent.")]
    assert annotated(node) == [agent, agent]


def test_taken_back(roles: Roles) -> None:
    """Check mode on a bare machine, then the roles, then the machine as it was. Nothing is taken from under a pod."""
    node = roles.node
    node.run(ADMINISTRATOR)
    image(roles)
    # A disk of its own for the releases, and registries that another program has too.
    node.run("mkdir -p /srv/disk/lost+found")
    own = {f"{role}_releases": f"/srv/disk/{role}" for role in NODE_ROLES}
    roles.variables |= {
        **own,
        "containerd_registry_config_path": "/srv/registries:/etc/docker/certs.d",
        "containerd_registry_mirrors": {"docker.io": ["http://127.0.0.1:9"]},
        "crictl_socket": "/run/containerd/containerd.sock",
        "kata_privileged_without_host_devices": "false",
    }
    before = state(node)
    assert "Install the release" in " ".join(roles.changes(*NODE_ROLES, options=("--check",)))
    assert state(node) == before
    assert roles.changes(*NODE_ROLES, kata_handlers=STUBS)
    assert roles.changes(*NODE_ROLES, kata_handlers=STUBS) == []
    assert node.run("readlink -f /opt/kata /usr/local/bin/containerd /usr/local/sbin/runc /usr/local/bin/crictl").count("/srv/disk/") == 4
    assert node.run("ls -d /opt/*-releases", check=False) == ""
    assert "runtime-endpoint: unix:///run/containerd/containerd.sock" in node.run("cat /etc/crictl.yaml")
    assert node.run("find /srv/registries -type f") == "/srv/registries/docker.io/hosts.toml"
    assert "privileged_without_host_devices = true" not in node.run("containerd config dump")
    for role, directory in own.items():
        assert roles.refusal(role.removesuffix("_releases"), **{role: "/srv/other"}) == (
            f"{role}: the releases on node1 are in {directory}, not in /srv/other; set it to that directory, or run the playbook remove "
            "with that directory first."
        )
    # A socket without a CRI is found before it is configured.
    unanswered = roles.refusal("crictl", crictl_socket="unix:///run/missing.sock")
    assert unanswered.startswith("The CRI on node1 does not answer at unix:///run/missing.sock: validate service connection: ")
    assert unanswered.endswith('no such file or directory". Start containerd, or correct crictl_socket.')
    assert "missing" not in node.run("cat /etc/crictl.yaml")
    pod(node, "stub")
    assert (
        roles.refusal("kata", entry="absent")
        == "Kata sandboxes are still running on node1. Drain the node first (the playbook remove does), then run again."
    )
    assert roles.refusal("containerd", entry="absent") == (
        "2 containers are left on node1. Drain the node first (the playbook remove does), remove the containers "
        "that do not belong to Kubernetes, then run again."
    )
    node.run(END_PODS)
    assert roles.changes("crictl", "kata", "containerd", entry="absent", options=("--check",))
    assert versions(node) == (CONTAINERD, KATA)
    assert roles.changes("crictl", "kata", "containerd", entry="absent")
    assert node.run("/usr/local/sbin/runc; /usr/local/bin/containerd-shim-kata-v2").splitlines() == [
        "runc of the administrator",
        "shim of the administrator",
    ]
    assert state(node) == before
    assert roles.changes("crictl", "kata", "containerd", entry="absent") == []


# A package that depends on containerd, as docker.io does.
NEEDS_CONTAINERD = """
mkdir -p /tmp/needs/DEBIAN
printf 'Package: needs-containerd\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: test\\nDepends: containerd\\n' \
  >/tmp/needs/DEBIAN/control
dpkg-deb --build /tmp/needs /tmp/needs.deb >/dev/null && dpkg --install /tmp/needs.deb >/dev/null
"""


def test_packages_of_debian(roles: Roles) -> None:
    """The distribution's containerd is older than 1.7, and its CNI plugins lie elsewhere."""
    node = roles.node
    image(roles)
    node.run(f"""echo 'Acquire::http::Proxy "socks5h://127.0.0.1:{PROXY}";' >/etc/apt/apt.conf.d/99-test""")
    packages = "dpkg-query --show --showformat '${Package} ${Status}\\n'"
    with node.tunnel(proxy=PROXY):
        # One that the node has already, and the lists as a fresh image of the distribution has them.
        node.run("apt-get -qq update && apt-get -qq -y install runc >/dev/null 2>&1; rm -rf /var/lib/apt/lists/*")
        before = state(node), node.run(packages)
        assert roles.changes("containerd", "crictl", containerd_source="package")
    since = started(node)
    assert roles.changes("containerd", "crictl", containerd_source="package") == []
    assert started(node) == since
    version = node.run("/usr/bin/containerd --version | awk '{print $3}'")
    assert version.startswith("1.6.")
    assert pod(node, "runc")[0] == roles.variables.get("containerd_nofile", 1048576)
    assert node.run('crictl info | sed -n \'s/.*"binDir": "\\(.*\\)".*/\\1/p\'') == "/usr/lib/cni"
    node.run(END_PODS)
    mixed = [{"name": "kata", "runtime_type": "io.containerd.kata.v2", "snapshotter": "devmapper"}]
    assert roles.refusal("containerd", containerd_source="package", containerd_handlers=mixed) == (
        f"containerd {version} of the distribution does not support a snapshotter per handler on node1. Use the snapshotter of "
        "containerd_snapshotter for every handler, or set containerd_source to archive."
    )
    # What another package needs by now stays.
    node.run(NEEDS_CONTAINERD)
    results = roles.run("containerd", entry="absent", options=("--check",), containerd_source="package")
    [stays] = [result["msg"] for result in results if result["task"].endswith("Report packages that stay")]
    # Its dependencies are named too.
    assert stays.startswith("containerd, containernetworking-plugins, ")
    assert stays.endswith(" stay on node1: without them the package manager would remove needs-containerd.")
    node.run("dpkg --purge needs-containerd >/dev/null")
    assert roles.changes("crictl", "containerd", entry="absent", containerd_source="package")
    assert differences(before[0], state(node)) == []
    assert differences(before[1], node.run(packages)) == []
    assert roles.changes("crictl", "containerd", entry="absent", containerd_source="package") == []
