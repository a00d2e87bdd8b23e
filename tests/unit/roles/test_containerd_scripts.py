# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe of the role containerd finds in drop-ins of others."""

from __future__ import annotations

import subprocess
import typing as t

from ...helpers import TOP

if t.TYPE_CHECKING:
    from pathlib import Path

DROP_IN = """version = 3
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.snapshotter.v1.blockfile"]
root_path = "/data/blockfile"
[plugins.'io.containerd.snapshotter.v1.devmapper']
  root_path = '/data/devmapper' # a disk of its own
  pool_name = "containerd-pool"
  base_image_size = "10GB"
[plugins.'io.containerd.snapshotter.v1.zfs']
root_path = "/data/zfs"
"""


def test_drop_ins_of_others(tmp_path: Path) -> None:
    (tmp_path / "99-gpu.toml").write_text(DROP_IN)
    (tmp_path / "empty.toml").write_text('[plugins."io.containerd.snapshotter.v1.devmapper"]\npool_name = ""\n')
    (tmp_path / "screwdriver-kata.toml").write_text(DROP_IN)
    probe = (TOP / "roles/containerd/files/probe_containerd.sh").read_text()
    functions = probe[probe.index("# Each line that a script of sed") : probe.index("plugins() {")]
    script = f"imports() {{ echo {tmp_path}; }}\n{functions}\nothers\npools\n"
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/99-gpu.toml nvidia",
        f"{tmp_path}/99-gpu.toml root_path /data/devmapper",
        f"{tmp_path}/99-gpu.toml pool_name containerd-pool",
    ]
