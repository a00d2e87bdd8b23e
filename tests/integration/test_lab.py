"""The lab itself: seen from outside, with kubectl and the process table."""

from __future__ import annotations

import json
import typing as t

from lab.cluster import Lab

from .conftest import NODES


def test_nodes_are_ready(lab: Lab) -> None:
    nodes = json.loads(lab.kubectl("get", "nodes", "-o", "json"))["items"]
    ready = [node for node in nodes if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])]
    assert len(ready) == NODES


def test_writes_are_counted(lab: Lab, writes: t.Callable[[], list[dict[str, t.Any]]]) -> None:
    lab.kubectl("create", "configmap", "seen", "-n", "sd", "--from-literal=a=b")
    lab.kubectl("get", "configmap", "seen", "-n", "sd")
    lab.kubectl("delete", "configmap", "seen", "-n", "sd")
    assert [event["verb"] for event in writes()] == ["create", "delete"]
