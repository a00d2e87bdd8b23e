"""The Event of a thin pool, created by the real kubectl with a node's own identity. lvs is a stub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from lab.machines import join

from ..helpers import TOP

if t.TYPE_CHECKING:
    from lab.cluster.lab import Lab

NODE = "pool-node"
PROGRAM = TOP / "roles" / "thin_pool" / "files" / "watch_pool.py"


@pytest.fixture
def node(lab: Lab) -> t.Iterator[str]:
    lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}))
    yield NODE
    lab.kubectl("delete", "node", NODE)
    lab.kubectl("delete", "events", "-n", "default", "--field-selector", f"involvedObject.name={NODE}")


def test_the_node_itself_may_create_it(lab: Lab, node: str, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubelet.conf"
    kubeconfig.write_bytes(join.kubeconfig(lab, node))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(lab.settings["programs"]["kubectl"])
    lvs = programs / "lvs"

    def check(percent: str) -> subprocess.CompletedProcess[str]:
        row = {"data_percent": percent, "metadata_percent": "1.00", "lv_health_status": "", "lv_check_needed": ""}
        lvs.write_text(f"#!/bin/sh\necho '{json.dumps({'report': [{'lv': [row]}]})}'\n")
        lvs.chmod(0o755)
        options = [f"--kubeconfig={kubeconfig}", f"--node={node}", "--pool=kata/pool", "--percent=80", f"--state={tmp_path}/state.json"]
        env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        return subprocess.run([sys.executable, str(PROGRAM), *options], capture_output=True, text=True, env=env, check=True)

    assert check("12.00").stdout == ""
    assert "No Event" not in check("91.00").stdout
    check("92.00")
    check("10.00")
    listed = json.loads(lab.kubectl("get", "events", "-n", "default", "--field-selector", f"involvedObject.name={node}", "-o", "json"))
    found = [event for event in listed["items"] if event["source"].get("component") == "screwdriver.kata"]
    assert sorted((event["type"], event["reason"], event["involvedObject"]["kind"]) for event in found) == [
        ("Normal", "ThinPoolFine", "Node"),
        ("Warning", "ThinPoolFillingUp", "Node"),
    ]
    assert "Thin pool kata/pool uses 91.0 % of its data" in lab.kubectl("describe", "node", node)
