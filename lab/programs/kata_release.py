"""The stub of Kata's release: the layout, the names and the values that upstream ships, with a shim that runs no virtual machine.

The shim is containerd's for runc under Kata's name, so pods run as ordinary containers. The configurations have the tables, keys and
defaults of each release, so that a drop-in with a wrong name or a lost default fails in the tests.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from pathlib import Path

README = """\
This is not Kata Containers: it is a stub with the layout of its release, for tests on machines that cannot run virtual machines.
containerd-shim-kata-v2 in it is containerd's shim for runc under Kata's name, so pods run as ordinary containers.
"""
# The releases of the mirror: the last one of .tar.xz, before and after the short names of Cloud Hypervisor,
# before and after an archive per shim.
VERSIONS = ("3.20.0", "3.27.0", "3.28.0", "3.32.0", "4.1.0", "4.2.0")
# What makes the roles accept the stub: its shim reads no configuration of Kata's, has the node's kernel, and no block device as its root.
STUB_VARIABLES: dict[str, t.Any] = {
    "kata_handlers": [{"name": "kata", "config_path": ""}],
    "node_proof_require_guest_kernel": False,
    "node_proof_require_block_root": False,
}
DEFAULTS = "share/defaults/kata-containers"
GUEST_CGROUPS = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"


def numbers(version: str) -> tuple[int, ...]:
    """A version that can be compared."""
    return tuple(int(part) for part in version.split("."))


def suffix(version: str) -> str:
    """The suffix of the archive's name."""
    return ".tar.zst" if numbers(version) >= (3, 21) else ".tar.xz"


@dataclass(frozen=True)
class Configuration:
    """One configuration file of a release.

    Attributes:
        shim: ``go`` or ``rust``.
        name: Between ``configuration-`` and ``.toml``.
        table: The name of its table below ``hypervisor``.
        kernel_params: As it is shipped.
        block_devices_off: Whether disable_block_device_use is true; None where the file does not have it.
    """

    shim: str
    name: str
    table: str
    kernel_params: str = GUEST_CGROUPS
    block_devices_off: bool | None = None


def configurations(version: str) -> tuple[Configuration, ...]:
    """The configurations that this collection's handlers can name."""
    # Of the Rust shim, until 3.29.
    long_name = numbers(version) < (3, 30)
    rust_clh = ("cloud-hypervisor", "cloud-hypervisor") if long_name else ("clh-runtime-rs", "clh")
    return (
        Configuration("go", "qemu", "qemu", block_devices_off=True),
        Configuration("go", "clh", "clh", block_devices_off=True),
        Configuration("rust", "qemu-runtime-rs", "qemu", block_devices_off=False),
        Configuration("rust", *rust_clh),
        Configuration("rust", "dragonball", "dragonball", kernel_params="console=ttyS1 agent.log_vport=1025"),
    )


def render(configuration: Configuration, version: str) -> str:
    """The file's text: the keys of upstream's file that an administrator sets, and neighbours of them."""
    rust = configuration.shim == "rust"
    release = numbers(version)
    annotations = ["enable_iommu", *(["virtio_fs_extra_args"] if release < (3, 31) else []), "kernel_params", "kernel_verity_params"]
    block = (
        [] if configuration.block_devices_off is None else [f"disable_block_device_use = {str(configuration.block_devices_off).lower()}"]
    )
    cgroup_only = rust and (configuration.table != "qemu" or release >= (3, 32))
    runtime = [
        "enable_debug = false",
        'internetworking_model = "tcfilter"',
        *(['name = "virt_container"', f'hypervisor_name = "{configuration.table}"', 'agent_name = "kata"'] if rust else []),
        "disable_guest_seccomp = true",
        "disable_new_netns = false",
        f"sandbox_cgroup_only = {str(cgroup_only).lower()}",
        f"static_sandbox_resource_mgmt = {str(rust and configuration.table != 'qemu').lower()}",
        "sandbox_bind_mounts = []",
        *(['emptydir_mode = "shared-fs"'] if release >= ((3, 31) if rust else (3, 28)) else []),
        "experimental = []",
        "create_container_timeout = 60" if not rust else "enable_pprof = false",
    ]
    hypervisor = [
        f'path = "/opt/kata/bin/{"qemu-system-x86_64" if configuration.table == "qemu" else "cloud-hypervisor"}"',
        'kernel = "/opt/kata/share/kata-containers/vmlinux.container"',
        'image = "/opt/kata/share/kata-containers/kata-containers.img"',
        'rootfs_type = "ext4"',
        f"enable_annotations = {[*annotations, *(['default_vcpus', 'default_memory'] if rust else [])]}".replace("'", '"'),
        f'kernel_params = "{configuration.kernel_params}"',
        'firmware = ""' if rust else "rootless = false",
        "default_vcpus = 1",
        "default_maxvcpus = 0",
        "default_memory = 2048",
        *block,
        'shared_fs = "virtio-fs"' if configuration.table != "dragonball" else 'shared_fs = "inline-virtio-fs"',
        'virtio_fs_extra_args = ["--thread-pool-size=1", "--announce-submounts"]',
        'virtio_fs_cache = "auto"',
        'block_device_driver = "virtio-scsi"' if configuration.table == "qemu" and not rust else 'block_device_driver = "virtio-blk-pci"',
        "enable_hugepages = false",
        "enable_debug = false",
        'guest_hook_path = ""',
    ]
    agent = ["enable_debug = false", "debug_console_enabled = false", "dial_timeout_ms = 10" if rust else "dial_timeout = 45"]
    tables = {f"hypervisor.{configuration.table}": hypervisor, "agent.kata": agent, "runtime": runtime}
    return "\n".join(line for name, lines in tables.items() for line in (f"[{name}]", *lines, ""))


def members(version: str, shims: tuple[str, ...], binary: Path) -> dict[str, Path | str]:
    """The files of a release that belong to these shims, and those that each archive has."""
    found: dict[str, Path | str] = {"./opt/kata/README.stub": README, "./opt/kata/VERSION": f"{version}\n"}
    for shim in shims:
        directory = "runtime-rs/" if shim == "rust" else ""
        found[f"./opt/kata/{directory}bin/containerd-shim-kata-v2"] = binary
        for configuration in configurations(version):
            if configuration.shim == shim:
                found[f"./opt/kata/{DEFAULTS}/{directory}configuration-{configuration.name}.toml"] = render(configuration, version)
    return found


def archives(version: str, binary: Path) -> dict[str, dict[str, Path | str]]:
    """The files of each archive by its name. Since 4.1 each shim has its own archive."""
    if numbers(version) < (4, 1):
        return {"kata-static": members(version, ("go", "rust"), binary)}
    return {"kata-static": members(version, ("rust",), binary), "kata-go-static": members(version, ("go",), binary)}
