"""Bad input gets one sentence before anything is changed. The rest of what a machine can lack is played by files in its place."""

from __future__ import annotations

import json
import shlex
import typing as t
from pathlib import Path

import yaml

from ..helpers import TOP
from .helpers import refusals, state_with_times

if t.TYPE_CHECKING:
    from .conftest import Roles

FILES = Path(__file__).parent / "files"
CHOICES = "value of {} must be one of: {}, got: {}"
DIGEST = (
    "{0} {1}: no digest of {2} is known. Choose a version listed in roles/download/vars/main/checksums.yml, or set the digest in "
    "{3}_checksums."
)
NAME = "is not a valid name of a RuntimeClass. Use lower-case letters, digits and hyphens."
RUNC = {"name": "one", "runtime_type": "io.containerd.runc.v2"}
SOCKET = "unix:///run/containerd/containerd.sock"
S390X = {"architecture": "s390x", "os_family": "Debian"}
# Role, its variables and the facts it finds, and the sentence.
CASES: list[tuple[str, dict[str, t.Any], dict[str, str], str]] = [
    (
        "containerd",
        {"containerd_version": "9.9.9"},
        {},
        DIGEST.format("containerd_version", "9.9.9", "containerd-9.9.9-amd64", "containerd"),
    ),
    ("containerd", {"containerd_runc_version": "0.1"}, {}, DIGEST.format("containerd_runc_version", "0.1", "runc-0.1-amd64", "containerd")),
    ("containerd", {"containerd_cni_version": "0.2"}, {}, DIGEST.format("containerd_cni_version", "0.2", "cni-0.2-amd64", "containerd")),
    ("crictl", {"crictl_version": "0.3"}, {}, DIGEST.format("crictl_version", "0.3", "crictl-0.3-amd64", "crictl")),
    ("kata", {"kata_version": "3.0.0"}, {}, DIGEST.format("kata_version", "3.0.0", "kata-static-3.0.0-amd64.tar.xz", "kata")),
    ("containerd", {}, S390X, "Architecture s390x of node1 is not supported: containerd is installed on x86_64 and aarch64."),
    ("crictl", {}, S390X, "Architecture s390x of node1 is not supported: crictl is installed on x86_64 and aarch64."),
    ("kata", {}, S390X, "Architecture s390x of node1 is not supported: Kata is installed on x86_64 and aarch64."),
    ("containerd", {"containerd_source": "snap"}, {}, CHOICES.format("containerd_source", "archive, package", "snap")),
    ("containerd", {"containerd_snapshotter": "zfs"}, {}, CHOICES.format("containerd_snapshotter", "overlayfs, devmapper", "zfs")),
    (
        "containerd",
        {"containerd_handlers": [{**RUNC, "name": "runc"}]},
        {},
        "containerd_handlers: runc is defined twice (the role defines runc itself). Give each handler a unique name.",
    ),
    ("containerd", {"containerd_handlers": [{**RUNC, "name": "Kata_1"}]}, {}, f"containerd_handlers: Kata_1 {NAME}"),
    (
        "containerd",
        {"containerd_pool_name": "kata/pool"},
        {},
        "containerd_pool_name kata/pool is not a valid device name. Use the name that 'dmsetup ls' shows, for example kata-pool.",
    ),
    (
        "containerd",
        {"containerd_base_image_size": "twenty"},
        {},
        "containerd_base_image_size twenty is not a valid size. Include the unit, for example 20GB.",
    ),
    (
        "containerd",
        {"containerd_handlers": [{**RUNC, "snapshotter": "devmapper"}], "containerd_discard_unpacked_layers": True},
        {},
        "containerd_discard_unpacked_layers with the snapshotters overlayfs and devmapper on node1: the one that unpacks second would "
        "find no layers. Use the snapshotter of containerd_snapshotter for every handler, or set it to false.",
    ),
    ("kata", {"kata_state": "gone"}, {}, CHOICES.format("kata_state", "present, rolled_back", "gone")),
    ("kata", {"kata_archive_suffix": ".zip"}, {}, CHOICES.format("kata_archive_suffix", ", .tar.zst, .tar.xz", ".zip")),
    ("kata", {"kata_handlers": [{"name": "kata pool"}]}, {}, f"kata_handlers: kata pool {NAME}"),
    ("kata", {"kata_handlers": [{"name": "kata", "shim": "c"}]}, {}, CHOICES.format("shim", "go, rust", "c") + " found in kata_handlers"),
    (
        "kata",
        {"kata_handlers": [{"name": "kata", "hypervisor": "xen"}]},
        {},
        CHOICES.format("hypervisor", "qemu, clh, fc, dragonball", "xen") + " found in kata_handlers",
    ),
    (
        "kata",
        {"kata_handlers": [{"name": "kata", "shim": "go", "hypervisor": "dragonball"}]},
        {},
        "kata_handlers: the go shim of handler kata does not support dragonball. Choose the other shim, or another hypervisor.",
    ),
    (
        "kata",
        {"kata_handlers": [{"name": "small", "shim": "rust", "hypervisor": "fc"}]},
        {},
        "kata_handlers: the rust shim of handler small does not support fc. Choose the other shim, or another hypervisor.",
    ),
    (
        "kata",
        {"kata_state": "rolled_back"},
        {},
        "kata_state rolled_back: node1 has no previous release in /opt/kata-releases to roll back to.",
    ),
    (
        "node_proof",
        {"node_proof_max_data_percent": 120},
        {},
        "node_proof_max_data_percent: 120 is not a percentage; use a number from 0 to 100.",
    ),
    (
        "node_proof",
        {"node_proof_max_metadata_percent": -1},
        {},
        "node_proof_max_metadata_percent: -1 is not a percentage; use a number from 0 to 100.",
    ),
]
RELEASES = (
    "{0}_releases: '{1}' is not a valid directory of releases; use an absolute path of letters, digits, '.', '_' and '-' outside of "
    "/opt/kata, for example /opt/{0}-releases."
)
FOREIGN_FILES = (
    "{0}_releases: /srv/disk on node1 contains precious, which this role did not create; use a directory of its own, for example "
    "/srv/disk/{0}."
)
REGISTRY = "containerd_registry_config_path: '{}' is not an absolute path; use for example /etc/containerd/certs.d."
for role in ("containerd", "crictl", "kata"):
    CASES += [(role, {f"{role}_releases": path}, {}, RELEASES.format(role, path)) for path in ("/srv/", "~/releases")]
    CASES += [
        (role, {f"{role}_releases": "/srv/disk"}, {}, FOREIGN_FILES.format(role)),
        (
            role,
            {f"{role}_download_timeout": "0"},
            {},
            f"{role}_download_timeout: 0 is not a number of seconds from 1 on; use for example 60.",
        ),
    ]
CASES += [
    ("kata", {"kata_releases": "/opt/kata/releases"}, {}, RELEASES.format("kata", "/opt/kata/releases")),
    *(
        ("crictl", {"crictl_socket": path}, {}, f"crictl_socket: '{path}' is not a socket; use for example {SOCKET}.")
        for path in ("containerd", "tcp://127.0.0.1:2375", "unix://containerd.sock")
    ),
    *(
        ("containerd", {"containerd_registry_config_path": path}, {}, REGISTRY.format(path))
        for path in ("certs.d", "~/certs.d", "/etc/containerd/certs.d:certs.d")
    ),
    (
        "containerd",
        {"containerd_registry_config_path": "", "containerd_registry_mirrors": {"docker.io": ["https://mirror.example.com"]}},
        {},
        "containerd_registry_config_path is empty, so that containerd would not read containerd_registry_mirrors; use for example "
        "/etc/containerd/certs.d.",
    ),
]
PATH = "is not an absolute path without spaces and percent signs; correct it, or leave it empty."
CASES += [
    *(
        ("thin_pool", {option: "101"}, {}, f"{option}: 101 is not a percentage; use a number from 0 to 100.")
        for option in ("thin_pool_max_data_percent", "thin_pool_watch_remove_images_percent")
    ),
    (
        "thin_pool",
        {"thin_pool_watch_interval": 0},
        {},
        "thin_pool_watch_interval: 0 is not a number of seconds from 1 on; use for example 300.",
    ),
    (
        "thin_pool",
        {"thin_pool_watch_textfile_directory": "metrics"},
        {},
        f"thin_pool_watch_textfile_directory: 'metrics' {PATH}",
    ),
]
CPU = "The CPU of node1 has no virtualization extension (neither vmx nor svm). Enable it in the firmware."
KVM = "/dev/kvm does not exist on node1. Load the kernel module kvm_intel or kvm_amd."
MODULE = "The kernel of node1 has no module vhost_net. Install the distribution's full kernel package."
FOREIGN = "/opt/kata on node1 is a directory that this role did not create (kata-deploy unpacks there). Remove it and run again."


def test_bad_input(roles: Roles) -> None:
    roles.node.run("mkdir -p /srv/disk/precious /srv/disk/lost+found")
    before, asked = state_with_times(roles.node) + roles.node.run("find /srv"), roles.mirror.requests()
    assert refusals(roles, [case[:3] for case in CASES]) == [sentence for *_case, sentence in CASES]
    assert state_with_times(roles.node) + roles.node.run("find /srv") == before
    assert roles.mirror.requests() == asked


def test_machine_that_cannot(roles: Roles) -> None:
    """The processor, the kernel and /opt/kata are stubs: files replace what the machine reports."""
    node = roles.node

    def refused() -> str:
        return refusals(roles, [("kata", {"kata_require_virtualization": True}, {})])[0]

    node.run("umount -q /proc/cpuinfo; grep -vwE 'vmx|svm' /proc/cpuinfo >/run/cpuinfo; mount --bind /run/cpuinfo /proc/cpuinfo")
    try:
        assert refused() == CPU
        node.run("echo 'flags : fpu vmx' >/run/cpuinfo; [ ! -e /dev/kvm ] || mv /dev/kvm /run/kvm")
        assert refused() == KVM
        node.run("[ ! -e /run/kvm ] || mv /run/kvm /dev/kvm; [ -e /dev/kvm ] || mknod /dev/kvm c 10 232")
        # modprobe of a kernel that has one of the two alone.
        node.run(
            "mkdir -p /usr/local/sbin; printf '#!/bin/sh\\n[ \"$2\" != vhost_net ]\\n' >/usr/local/sbin/modprobe; "
            "chmod 755 /usr/local/sbin/modprobe"
        )
        node.run("mount -t tmpfs tmpfs /lib/modules; [ ! -d /sys/module ] || mount -t tmpfs tmpfs /sys/module")
        assert refused() == MODULE
        node.run("umount -q /lib/modules /sys/module; rm /usr/local/sbin/modprobe; mkdir -p /opt/kata/bin")
        assert refused() == FOREIGN
        # What is not a Kata of this role's stays when the role is removed.
        assert roles.changes("kata", entry="absent") == []
        assert node.run("ls /opt/kata") == "bin"
    finally:
        node.run(
            "umount -q /proc/cpuinfo /lib/modules /sys/module; rm -rf /usr/local/sbin/modprobe /opt/kata; "
            "[ ! -e /run/kvm ] || mv /run/kvm /dev/kvm",
            check=False,
        )


def test_family_of_red_hat(roles: Roles) -> None:
    """The roles decide by facts as a host of this family gives them; the module dnf is a stub, and nothing is installed."""
    facts = json.loads((FILES / "rocky-9.json").read_text())
    node = roles.node
    node.run("mv /usr/bin/zstd /usr/bin/zstd.away")
    package = {**roles.variables, "containerd_source": "package"}
    tasks = [
        {"ansible.builtin.set_fact": {**facts, "cacheable": True}},
        {"ansible.builtin.include_role": {"name": "screwdriver.kata.containerd"}, "vars": package},
        {"ansible.builtin.include_role": {"name": "screwdriver.kata.crictl"}, "vars": roles.variables},
        {"ansible.builtin.include_role": {"name": "screwdriver.kata.kata"}, "vars": roles.variables},
        {"ansible.builtin.include_role": {"name": "screwdriver.kata.thin_pool", "tasks_from": "_packages"}},
    ]
    results = node.results(node.start(tasks, "--check"))
    node.run("mv /usr/bin/zstd.away /usr/bin/zstd")
    assert not results[-1]["failed"], results[-1]
    assert [result["asked"] for result in results if "asked" in result] == [
        ["containerd", "runc", "containernetworking-plugins"],
        ["zstd"],
        ["lvm2", "device-mapper-persistent-data", "e2fsprogs"],
    ]


def test_both_families_have_the_same_variables() -> None:
    debian, red_hat = (yaml.safe_load((TOP / "roles/thin_pool/vars" / f"{family}.yml").read_text()) for family in ("Debian", "RedHat"))
    assert debian.keys() == red_hat.keys()
    for role, name in (("containerd", "__containerd_families"), ("kata", "__kata_unpackers")):
        families = yaml.safe_load((TOP / "roles" / role / "vars/main.yml").read_text())[name]
        assert families["Debian"].keys() == families["RedHat"].keys()


# How a machine of another family identifies itself, and how the roles name it.
FAMILIES = {
    'ID=flatcar\nID_LIKE=coreos\nNAME="Flatcar Container Linux by Kinvolk"\n': "Flatcar Container Linux by Kinvolk",
    'NAME="SLES"\nPRETTY_NAME="SUSE Linux Enterprise Server 15 SP6"\nID="sles"\nID_LIKE="suse"\n': "SUSE Linux Enterprise Server 15 SP6",
    'NAME="Arch Linux"\nID=arch\n': "Arch Linux",
    'NAME="Alpine Linux"\nID=alpine\n': "Alpine Linux",
}


def test_other_families(roles: Roles) -> None:
    node = roles.node
    before = state_with_times(node)
    message = []
    try:
        for text in FAMILIES:
            node.run(
                f"umount -q /etc/os-release; printf %s {shlex.quote(text)} >/run/os-release; mount --bind /run/os-release /etc/os-release"
            )
            message += [roles.refusal(role) for role in ("containerd", "kata")]
    finally:
        node.run("umount -q /etc/os-release", check=False)
    assert message == [
        f"{name} on node1 is not supported: the role supports the families Debian and RedHat."
        for name in FAMILIES.values()
        for _role in range(2)
    ]
    assert state_with_times(node) == before


# What apt would do on a machine, played by a program in its place.
APT = """
mkdir -p /usr/local/sbin
printf '#!/bin/sh\\ncase $* in *--simulate*) cat /run/apt-output ;; *) touch /run/apt-ran ;; esac\\n' >/usr/local/sbin/apt-get
chmod 755 /usr/local/sbin/apt-get
"""


def test_packages_that_would_remove_another_one(roles: Roles) -> None:
    node = roles.node
    node.run(APT)
    packages = "containerd, runc, containernetworking-plugins"
    keep = "keep that and install from archives (containerd_source archive), or remove it yourself."
    cases = {
        "Remv docker-ce [5:27.0]\nRemv containerd.io [1.7.20]\nInst containerd (1.6.20)\n": (
            f"Installing {packages} on node1 would remove docker-ce and containerd.io: {keep}"
        ),
        "Remv podman [4.3]\n": f"Installing {packages} on node1 would remove podman: {keep}",
        "E: Unable to locate package containernetworking-plugins\n": (
            "The package manager of node1 does not find package containernetworking-plugins: enable a repository that has it, or install "
            "from archives (containerd_source archive)."
        ),
    }
    for message, sentence in cases.items():
        node.run(f"printf %s {shlex.quote(message)} >/run/apt-output")
        assert roles.refusal("containerd", containerd_source="package") == sentence
    node.run("rm /usr/local/sbin/apt-get; ! dpkg-query -W containerd 2>/dev/null")
