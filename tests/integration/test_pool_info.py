"""pool_info on the lab's API server: what is missing is said, and nothing is written."""

from __future__ import annotations

import json
import typing as t

import pytest

from lab.cluster.lab import Lab

from ..helpers import RUNTIME_CLASS

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

ASKED: dict[str, t.Any] = {"namespace": "pool-info", "share": 25}


@pytest.fixture
def namespace(lab: Lab) -> t.Iterator[None]:
    lab.kubectl("create", "namespace", "pool-info")
    yield
    lab.kubectl("delete", "namespace", "pool-info", "--wait=false")
    lab.kubectl("delete", "runtimeclass", "kata", "--ignore-not-found")
    lab.revert_nodes(2)


def builds(count: int, cores: int) -> str:
    spec = {
        "containers": [{"name": "build", "image": "node:22", "resources": {"limits": {"cpu": str(cores), "memory": "1Gi"}}}],
        "nodeSelector": {"no": "node"},
    }
    items = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"build-{n}", "namespace": "pool-info", "labels": {"tier": "builds"}},
            "spec": spec,
        }
        for n in range(count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


@pytest.mark.usefixtures("namespace")
def test_what_is_missing_is_said(lab: Lab, module: ModuleRunner, writes: t.Callable[[], list[dict[str, t.Any]]]) -> None:
    writes()
    selector = "dedicated=screwdriver-kata,kata.screwdriver.cd/ready=true"
    assert module("pool_info", **ASKED)["problems"] == [
        f"No node has the labels {selector}: run the playbook screwdriver.kata.site first.",
        "RuntimeClass kata does not exist: run the playbook screwdriver.kata.site first.",
    ]
    lab.kubectl("apply", "-f", "-", stdin=json.dumps({**RUNTIME_CLASS, "overhead": {"podFixed": {"cpu": "1", "memory": "1Gi"}}}))
    for name in lab.convert_nodes(2):
        lab.kubectl("label", "node", name, "dedicated=screwdriver-kata")
    lab.kubectl("create", "-f", "-", stdin=builds(10, 63))
    writes()
    found = module("pool_info", **ASKED)
    assert found["nodes"] == ["build-1", "build-2"]
    assert found["room"] == {"cpu": 128.0, "memory_gib": 512.0, "pods": 500}
    assert found["need"] == {"cpu": 160.0, "memory_gib": 5.0, "pods": 2}
    assert found["problems"] == [
        "25 % of the 10 builds need 160 cores, and the pool's 2 nodes have 128: add nodes, or take a smaller step."
    ]
    assert module("pool_info", **{**ASKED, "share": 20})["problems"] == []
    assert [event for event in writes() if event["user"]["username"] == "admin"] == []

    lab.kubectl("label", "namespace", "pool-info", "pod-security.kubernetes.io/enforce=restricted")
    refused = module("pool_info", **{**ASKED, "share": 20})["problems"]
    assert len(refused) == 1
    assert refused[0].startswith("The API server refuses a build pod with RuntimeClass kata in namespace pool-info: Cannot create Pod")
    for name in ("build-1", "build-2"):
        lab.kubectl("cordon", name)
    assert (
        module("pool_info", **ASKED)["problems"][0]
        == f"None of the 2 nodes with the labels {selector} is ready and not cordoned: mend or uncordon one."
    )
