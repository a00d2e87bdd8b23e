"""pool_info on the lab's API server, which judges the pod that the executor would post; the room is judged by what runs on the nodes."""

from __future__ import annotations

import copy
import json
import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Unknown

from lab.cluster.lab import Lab

from ..helpers import RUNTIME_CLASS, Writes, granted

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner

NAMESPACE = "pool-info"
SELECTOR = "dedicated=screwdriver-kata,kata.screwdriver.cd/ready=true"
ASKED: dict[str, t.Any] = {"namespace": NAMESPACE, "share": 25}
KATA: dict[str, t.Any] = {
    "pluginName": "k8s",
    "options": {"kubernetes": {"runtimeClass": "kata", "jobsNamespace": NAMESPACE, "nodeSelectors": {"dedicated": "screwdriver-kata"}}},
}
REFUSED = f"The API server refuses build pods with RuntimeClass kata in namespace {NAMESPACE}: "


def create(lab: Lab, *objects: dict[str, t.Any]) -> None:
    lab.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def runtime_class(**changes: t.Any) -> dict[str, t.Any]:
    return {**copy.deepcopy(RUNTIME_CLASS), "overhead": {"podFixed": {"cpu": "1", "memory": "1Gi"}}, **changes}


def pod(name: str, cores: int, memory: str = "1Gi", **spec: t.Any) -> dict[str, t.Any]:
    container = {"name": "build", "image": "node:22", "resources": {"limits": {"cpu": str(cores), "memory": memory}}}
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"tier": "builds"} if name.startswith("build") else {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}


def pods_left(lab: Lab) -> int:
    """How many pods the pool still takes, by kubectl."""
    names = lab.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].spec.nodeName}").split()
    return 2 * 250 - sum(name in ("build-1", "build-2") for name in names)


@pytest.fixture
def pool(lab: Lab, namespace: None) -> t.Iterator[None]:
    """Two nodes of the pool, the RuntimeClass, and ten builds of 62 cores that wait for a node."""
    create(lab, runtime_class())
    names = lab.convert_nodes(2)
    lab.kubectl("label", "node", *names, "dedicated=screwdriver-kata")
    lab.kubectl("taint", "node", *names, "dedicated=screwdriver-kata:NoSchedule")
    lab.kubectl("wait", "node/build-1", "node/build-2", "--for=condition=Ready", "--timeout=120s")
    create(lab, *(pod(f"build-{number}", 62, nodeSelector={"no": "node"}) for number in range(10)))
    yield
    lab.kubectl("delete", "pods,resourcequotas,limitranges", "--all", "-n", NAMESPACE, "--force", "--grace-period=0")
    lab.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce-")
    lab.kubectl("delete", "runtimeclass", "kata", "--ignore-not-found")
    lab.revert_nodes(2)


@pytest.mark.usefixtures("namespace")
def test_what_is_missing_is_reported(module: ModuleRunner) -> None:
    assert module("pool_info", **ASKED)["problems"] == [
        f"No node has the labels {SELECTOR}; run the playbook screwdriver.kata.site first.",
        "RuntimeClass kata does not exist; run the playbook screwdriver.kata.site first.",
    ]


@pytest.mark.usefixtures("pool")
def test_need_and_room(lab: Lab, module: ModuleRunner, writes: Writes) -> None:
    writes()
    found = module("pool_info", **ASKED, shares=[10, 20, 100])
    assert found["nodes"] == ["build-1", "build-2"]
    assert found["excluded"] == []
    assert found["builds"] == 10
    assert found["room"] == {"cpu": 128.0, "memory_gib": 512.0, "shm_gib": 256.0, "pods": pods_left(lab)}
    assert found["need"] == {"cpu": 157.5, "memory_gib": 5.0, "shm_gib": 5.0, "pods": 2}
    assert found["problems"] == [
        "25 % of the 10 builds need 157.5 cores, and the 2 nodes of the pool have 128 left; add nodes, or take a smaller step."
    ]
    assert found["plan"] == [
        {"share": 10.0, "need": {"cpu": 63.0, "memory_gib": 2.0, "shm_gib": 2.0, "pods": 1}, "lacking": []},
        {"share": 20.0, "need": {"cpu": 126.0, "memory_gib": 4.0, "shm_gib": 4.0, "pods": 2}, "lacking": []},
        {"share": 100.0, "need": {"cpu": 630.0, "memory_gib": 20.0, "shm_gib": 20.0, "pods": 10}, "lacking": ["cpu"]},
    ]
    assert module("pool_info", **{**ASKED, "share": 20})["problems"] == []
    assert module("pool_info", **{**ASKED, "share": 20}, executor=KATA)["problems"] == []
    small = module("pool_info", **{**ASKED, "share": 20}, shm_percent=0.5)
    assert small["problems"] == [
        "20 % of the 10 builds need 4 GiB of guest memory, and /dev/shm of the 2 nodes of the pool has 2.6 left; enlarge it and set "
        "shm_percent, add nodes, or take a smaller step."
    ]
    assert module("pool_info", **ASKED, shm_percent=0)["room"]["shm_gib"] == 512.0
    assert [event for event in writes() if event["user"]["username"] == "admin"] == []


@pytest.mark.usefixtures("pool")
def test_what_runs_on_the_nodes_counts(lab: Lab, module: ModuleRunner) -> None:
    before = pods_left(lab)
    create(lab, pod("database", 10, "100Gi", nodeName="build-1"), pod("build-on-kata", 4, nodeName="build-2", runtimeClassName="kata"))
    found = module("pool_info", **ASKED)
    # The build on Kata is part of the need, not of what others take.
    assert found["builds"] == 11
    assert found["room"] == {"cpu": 118.0, "memory_gib": 412.0, "shm_gib": 256.0, "pods": before - 1}
    create(lab, pod("build-huge", 64, nodeSelector={"no": "node"}))
    assert module("pool_info", **{**ASKED, "share": 1})["problems"] == [
        "Builds such as pool-info/build-huge fit on no node of the pool: build-1 has 64 cores, and the pod asks for 65 with its overhead;"
        " add larger nodes, or exclude the images of these builds."
    ]


ADMISSION: dict[str, tuple[dict[str, t.Any] | None, str]] = {
    # The launcher has no limits, and neither has the executor an option for them.
    "quota": (
        {"kind": "ResourceQuota", "spec": {"hard": {"limits.cpu": "1000"}}},
        "failed quota: it: must specify limits.cpu for: launcher-1",
    ),
    "used up": (
        {"kind": "ResourceQuota", "spec": {"hard": {"pods": "10"}}},
        "exceeded quota: it, requested: pods=1, used: pods=10, limited: pods=10",
    ),
    "limits": (
        {"kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
        "maximum cpu usage per Container is 1, but limit is 2",
    ),
    "hostPath": (None, 'violates PodSecurity "baseline:latest": hostPath volumes (volumes "screwdriver", "sdtemp")'),
}


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("case", ADMISSION)
def test_the_pod_that_the_executor_posts_is_refused(lab: Lab, module: ModuleRunner, case: str) -> None:
    body, message = ADMISSION[case]
    if body:
        create(lab, {"apiVersion": "v1", "metadata": {"name": "it", "namespace": NAMESPACE}, **body})
    else:
        lab.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=baseline")
    if body and body["kind"] == "ResourceQuota":
        lab.kubectl("wait", "resourcequota/it", "-n", NAMESPACE, "--for=jsonpath={.status.used}", "--timeout=120s")
    problems = module("pool_info", **{**ASKED, "share": 1}, executor=KATA)["problems"]
    assert len(problems) == 1
    assert problems[0].startswith(REFUSED)
    assert message in problems[0]


@pytest.mark.usefixtures("pool")
def test_a_service_account_that_does_not_exist(module: ModuleRunner) -> None:
    executor = copy.deepcopy(KATA)
    executor["options"]["kubernetes"]["serviceAccount"] = "nobody"
    problems = module("pool_info", **{**ASKED, "share": 1}, executor=executor)["problems"]
    assert len(problems) == 1
    assert problems[0].endswith('error looking up service account pool-info/nobody: serviceaccount "nobody" not found.')


TOLERATION = RUNTIME_CLASS["scheduling"]["tolerations"]
TAINT = "taint dedicated=screwdriver-kata:NoSchedule is not tolerated (build-1 and build-2)"
UNFIT: dict[str, tuple[dict[str, t.Any], dict[str, t.Any], str]] = {
    "selector of the class": (
        {"nodeSelector": {"disk": "ssd"}, "tolerations": TOLERATION},
        {},
        "label disk=ssd is missing (build-1 and build-2)",
    ),
    "no toleration": ({"nodeSelector": {"dedicated": "screwdriver-kata"}}, {}, TAINT),
    "toleration of another value": ({"tolerations": [{**TOLERATION[0], "value": "other"}]}, {}, TAINT),
    "selector of the executor": (
        {"tolerations": TOLERATION},
        {"dedicated": "kata"},
        "the node affinity dedicated=kata does not match (build-1 and build-2)",
    ),
}


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("case", UNFIT)
def test_pods_that_would_stay_pending(lab: Lab, module: ModuleRunner, case: str) -> None:
    scheduling, selectors, reason = UNFIT[case]
    lab.kubectl("delete", "runtimeclass", "kata")
    create(lab, runtime_class(scheduling=scheduling))
    executor = {"options": {"kubernetes": {**KATA["options"]["kubernetes"], "nodeSelectors": selectors}}}
    found = module("pool_info", **{**ASKED, "share": 1}, executor=executor)
    assert found["nodes"] == []
    assert found["problems"] == [
        f"Build pods would stay Pending, because no node of the pool fits them: {reason}; correct RuntimeClass kata, the executor's"
        " nodeSelectors, or the nodes."
    ]


@pytest.mark.usefixtures("pool")
def test_the_executor_tolerates_what_the_class_does_not(lab: Lab, module: ModuleRunner) -> None:
    lab.kubectl("delete", "runtimeclass", "kata")
    create(lab, runtime_class(scheduling=None))
    assert module("pool_info", **{**ASKED, "share": 1}, executor=KATA)["problems"] == []


@pytest.mark.usefixtures("pool")
def test_nodes_that_are_left_out(lab: Lab, module: ModuleRunner) -> None:
    lab.kubectl("taint", "node", "build-1", "gpu=yes:NoExecute")
    try:
        found = module("pool_info", **{**ASKED, "share": 1}, executor=KATA)
        assert found["nodes"] == ["build-2"]
        assert found["room"]["cpu"] == 64.0
        assert found["problems"] == []
        assert found["excluded"] == [{"name": "build-1", "reason": "taint gpu=yes:NoExecute is not tolerated"}]
        lab.kubectl("cordon", "build-2")
        found = module("pool_info", **{**ASKED, "share": 1}, executor=KATA)
        assert found["excluded"][1] == {"name": "build-2", "reason": "it is cordoned"}
        assert found["problems"][0].startswith("Build pods would stay Pending, because no node of the pool fits them: taint gpu=yes")
        lab.kubectl("cordon", "build-1")
        assert module("pool_info", **ASKED)["problems"][0] == (
            f"None of the 2 nodes with the labels {SELECTOR} is ready and not cordoned; repair or uncordon one."
        )
    finally:
        lab.kubectl("taint", "node", "build-1", "gpu-")


@pytest.mark.usefixtures("pool")
def test_an_executor_that_posts_other_pods(module: ModuleRunner) -> None:
    executor = {"options": {"kubernetes": {"nodeSelectors": {"dedicated": "screwdriver-kata"}}}}
    assert module("pool_info", **{**ASKED, "share": 1}, executor=executor)["problems"] == [
        "The executor's runtimeClass is '' and not kata; correct it, or runtime_class.",
        "The executor posts builds to namespace default and not pool-info; correct its jobsNamespace, or namespace.",
    ]


@pytest.mark.usefixtures("pool")
def test_an_option_that_cannot_be_read(module: ModuleRunner) -> None:
    executor = copy.deepcopy(KATA)
    executor["options"]["kubernetes"] |= {"token": str(Unknown("Secret sd/token")), "podLabels": str(Unknown("Secret sd/labels"))}
    assert module("pool_info", **{**ASKED, "share": 1}, executor=executor)["problems"] == [
        "The executor's options.kubernetes.podLabels comes from Secret sd/labels, which cannot be read, so its pod cannot be judged; "
        "grant the permission to read it."
    ]


BAD: list[tuple[dict[str, t.Any], str]] = [
    ({"share": 101}, "share must be a percentage from 0 to 100 with at most two decimals, not 101.0."),
    ({"shares": [1, 0.001]}, "shares must be a percentage from 0 to 100 with at most two decimals, not 0.001."),
    ({"shm_percent": -1}, "shm_percent is -1; use a percentage from 0 to 100."),
    ({"node_labels": {}}, "node_labels is empty, which would make every node part of the pool; name the labels of the pool."),
    ({"node_labels": {"ready": None}}, 'node_labels: ready is null; give it a value, or "" for none.'),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_refused(module: ModuleRunner, number: int) -> None:
    given, message = BAD[number]
    assert module("pool_info", **{**ASKED, **given})["msg"] == message


@pytest.mark.usefixtures("pool")
def test_a_boolean_is_a_label(module: ModuleRunner) -> None:
    labels = {"dedicated": "screwdriver-kata", "kata.screwdriver.cd/ready": True}
    assert module("pool_info", **{**ASKED, "share": 1}, node_labels=labels)["nodes"] == ["build-1", "build-2"]


PERMISSIONS = [("list", "nodes", ""), ("list", "pods", ""), ("get", "runtimeclasses.node.k8s.io", ""), ("create", "pods", NAMESPACE)]


@pytest.mark.usefixtures("pool")
def test_permissions(lab: Lab) -> None:
    with granted(lab, PERMISSIONS) as limited:
        assert limited("pool_info", **{**ASKED, "share": 1})["problems"] == []
    for one in PERMISSIONS:
        with granted(lab, [other for other in PERMISSIONS if other != one]) as limited:
            found = limited("pool_info", **{**ASKED, "share": 1})
            sentence = found["msg"] if found.get("failed") else found["problems"][0]
            assert "not allowed (403). Grant the permission or use other credentials: " in sentence
            assert f'cannot {one[0]} resource "{one[1].partition(".")[0]}"' in sentence
