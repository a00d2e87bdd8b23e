"""Virtual machines of Vagrant and libvirt on this host: our box, an accelerator that works, and a libvirt with its own storage pool.

``python -m lab.machines.vm up DIRECTORY`` prints the environment in which `vagrant up` and `molecule create` use them, as lines of a shell;
``down DIRECTORY`` removes what a crash has left too.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from lab.common import CACHE, LabError

SCRIPTS = Path(__file__).parent / "libvirt"
BOX = "kata-node"
# Vagrant reads it before the Vagrantfile of a project. The emulated CPU has AMD's virtualization, so that /dev/kvm works in the machine.
VAGRANTFILE = """Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 900
  config.vm.provider "libvirt" do |v|
    v.default_prefix = "{name}-"
    v.storage_pool_name = "{name}"
    v.machine_type = "q35"
    v.graphics_type = "none"
    v.video_type = "none"
    v.driver = "{accelerator}"
{cpu}{boot}  end
{box}end
"""
CPU = {
    "kvm": '    v.cpu_mode = "host-passthrough"\n',
    "qemu": """    v.cpu_mode = "custom"
    v.cpu_model = "qemu64"
    v.cpu_feature :name => "svm", :policy => "require"
    v.cpu_feature :name => "npt", :policy => "require"
""",
}


def _script(name: str, *arguments: str | Path) -> str:
    done = subprocess.run([SCRIPTS / f"{name}.sh", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise LabError(f"{name}.sh {shlex.join(map(str, arguments))} failed with exit code {done.returncode}: see its message above.")
    return done.stdout.strip()


def _name(directory: Path) -> str:
    return f"kata-{hashlib.sha1(str(directory).encode()).hexdigest()[:8]}"


def up(directory: Path) -> dict[str, str]:
    """Prepares a place for machines.

    Args:
        directory: Keeps what ``down`` has to know.

    Returns:
        The environment for vagrant and molecule. MOLECULE_BOX names another box than ours.

    Raises:
        LabError: A script failed; it has printed why.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name, other = _name(directory), os.environ.get("MOLECULE_BOX")
    box = None if other else Path(_script("box", CACHE / "boxes"))
    files = [] if box is None else [box / "vmlinuz", box / "initrd"]
    accelerator = _script("accelerator", *files[:1])
    pool = _script("libvirt", "up", name, directory, *files)
    ours = boot = ""
    if box:
        ours = f'  config.vm.box_url = "file://{box}/package.box"\n  config.ssh.private_key_path = "{box}/key"\n'
        # The box has no boot loader. Mitigations cost an emulated CPU a lot.
        mitigations = " mitigations=off" if accelerator == "qemu" else ""
        command_line = f"root=/dev/vda rw console=ttyS0{mitigations}"
        boot = f'    v.kernel = "{pool}/vmlinuz"\n    v.initrd = "{pool}/initrd"\n    v.cmd_line = "{command_line}"\n'
    home = directory / "vagrant"
    home.mkdir(exist_ok=True)
    text = VAGRANTFILE.format(name=name, accelerator=accelerator, cpu=CPU[accelerator], boot=boot, box=ours)
    (home / "Vagrantfile").write_text(text)
    return {"VAGRANT_HOME": str(home), "VAGRANT_DEFAULT_PROVIDER": "libvirt", "MOLECULE_PROVIDER": "libvirt", "MOLECULE_BOX": other or BOX}


def down(directory: Path) -> None:
    """Removes the machines, the storage pool, and the libvirt that ``up`` started."""
    _script("libvirt", "down", _name(directory), directory)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.machines.vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    try:
        if options.action == "down":
            down(options.directory)
        else:
            print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in up(options.directory).items()))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
