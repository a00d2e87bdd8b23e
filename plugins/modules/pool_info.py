#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pool_info
short_description: Checks whether the pool of Kata nodes can take a share of the builds
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Checks what builds on Kata need before a share is set. The RuntimeClass must exist, the API server must accept the pod that the executor
    would post, and nodes of the pool must be ready, not cordoned, and fit for that pod.
  - The pod is sent as a server-side dry run, so that RuntimeClass, LimitRange, ResourceQuota, Pod Security and all webhooks judge it. Its
    labels, node affinity and tolerations as the API server returns them are compared with the nodes.
  - The room is what the kubelets of these nodes offer (C(allocatable)), less the requests of all other pods on them. What builds on Kata
    use is not subtracted, because it is part of what the share needs. Requests are counted as the scheduler does, with init containers,
    sidecars and overhead.
  - QEMU maps the memory of guests from the node's C(/dev/shm). Sandboxes fail when it is full, whatever the scheduler reserved, so it is
    counted too. See O(shm_percent).
  - Needs C(list) on nodes and on pods in all namespaces, C(get) on runtimeclasses of the API group C(node.k8s.io), and C(create) on pods in
    O(namespace) for the dry run.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.info_module
  - screwdriver.kata._attributes.actiongroup_k8s
options:
  node_labels:
    description: The labels of the pool's verified nodes. Booleans become V(true) and V(false).
    type: dict
    default:
      dedicated: screwdriver-kata
      kata.screwdriver.cd/ready: "true"
  runtime_class:
    description: The RuntimeClass of builds on Kata.
    type: str
    default: kata
  namespace:
    description: The namespace of the build pods.
    type: str
    required: true
  build_selector:
    description: The label selector of build pods.
    type: str
    default: tier=builds
  executor:
    description:
      - The entry of Kata's executor, as RV(screwdriver.kata.executor_config_info#module:effective) has it. The pod is built from its
        C(options), as C(executor-k8s) 17 builds it for a job that asks for no more than the default CPU and memory.
      - An option whose value cannot be read is a problem, because the pod depends on it.
      - Without it, the pod has the defaults of C(executor-k8s), the RuntimeClass, and no node selectors.
    type: dict
  image:
    description: The image of the build container, for webhooks that judge images.
    type: str
    default: node:22
  share:
    description: The share that the pool should take, in percent of all builds.
    type: float
    required: true
  shares:
    description: More shares to report the need of, such as all steps of a rollout. They cause no problems.
    type: list
    elements: float
    default: []
  shm_percent:
    description:
      - How large C(/dev/shm) is on the nodes, in percent of their memory. V(50) is the default of Linux.
      - V(0) does not count it, for hypervisors that keep the memory of guests elsewhere.
    type: float
    default: 50
requirements:
  - regress >= 2026.9.1
seealso:
  - module: screwdriver.kata.node_pool
  - module: screwdriver.kata.runtime_class
  - module: screwdriver.kata.executor_config_info
"""

EXAMPLES = r"""
- name: Check whether a quarter of the builds can run on Kata
  screwdriver.kata.pool_info:
    namespace: sd-builds
    share: 25
  register: pool

- name: Assert that the pool can take it
  ansible.builtin.assert:
    that: pool.problems | length == 0
    fail_msg: "{{ pool.problems | join(' ') }}"
"""

RETURN = r"""
nodes:
  description: The nodes of the pool that are ready, not cordoned, and fit for the build pod.
  returned: success
  type: list
  elements: str
  sample: [build-1, build-2]
excluded:
  description: The other nodes of the pool, each with C(name) and C(reason).
  returned: success
  type: list
  elements: dict
  sample:
    - name: build-3
      reason: it is cordoned
builds:
  description: How many builds there are now.
  returned: success
  type: int
  sample: 112
room:
  description: What the nodes have left for builds on Kata, in cores, GiB of memory, GiB of C(/dev/shm), and pods.
  returned: success
  type: dict
  sample: {cpu: 128.0, memory_gib: 512.0, shm_gib: 256.0, pods: 500}
need:
  description: What O(share) percent of the builds ask for, with the RuntimeClass's overhead, in the same units.
  returned: success
  type: dict
  sample: {cpu: 30.5, memory_gib: 28.0, shm_gib: 28.0, pods: 14}
plan:
  description: The need of each of O(shares), with C(share), C(need), and C(lacking), the resources that RV(room) does not have.
  returned: success
  type: list
  elements: dict
  sample:
    - share: 100
      need: {cpu: 244.0, memory_gib: 224.0, shm_gib: 224.0, pods: 112}
      lacking: [cpu]
problems:
  description: Why the share cannot be taken, one sentence each. Empty if it can.
  returned: success
  type: list
  elements: str
  sample:
    - 'RuntimeClass kata does not exist; run the playbook screwdriver.kata.site first.'
"""

import typing as t
from decimal import Decimal

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.pod import IMAGE, build_pod
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._labels import parse_labels
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import capacity as _capacity
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import scheduling as _scheduling
from ansible_collections.screwdriver.kata.plugins.module_utils._values import parse_share

NODE_API = "node.k8s.io/v1"
# How executor_config_info shows a value that it cannot read.
UNKNOWN = "(unknown, from "
NOT_IN_THE_POD = frozenset({"host", "token", "fusebox", "requestretry", "buildTimeout", "maxBuildTimeout", "baseImage"})
LIVE = "status.phase!=Succeeded,status.phase!=Failed"


class PoolInfo:
    """Reads the pool and the builds, and judges one share."""

    def __init__(self, params: dict[str, t.Any], cluster: Cluster) -> None:
        self.params = params
        self.cluster = cluster
        self.runtime_class: str = params["runtime_class"]
        self.namespace: str = params["namespace"]
        labels = parse_labels("node_labels", params["node_labels"])
        if not labels:
            raise UserError("node_labels is empty, which would make every node part of the pool; name the labels of the pool.")
        self.selector = ",".join(f"{key}={value}" for key, value in labels.items())
        self.share = parse_share(params["share"], "share")
        self.shares = [parse_share(share, "shares") for share in params["shares"]]
        if not 0 <= params["shm_percent"] <= 100:
            raise UserError(f"shm_percent is {params['shm_percent']:g}; use a percentage from 0 to 100.")
        self.problems: list[str] = []

    def run(self) -> dict[str, t.Any]:
        labelled, unused = self.cluster.list("Node", label_selector=self.selector)
        runtime_class = self.cluster.get("RuntimeClass", self.runtime_class, api_version=NODE_API)
        builds, unused = self.cluster.list(
            "Pod", namespace=self.namespace, label_selector=self.params["build_selector"], field_selector=LIVE
        )
        others = self._others({build["metadata"]["uid"] for build in builds if build["spec"].get("runtimeClassName") == self.runtime_class})
        overhead = ((runtime_class or {}).get("overhead") or {}).get("podFixed") or {}
        nodes, excluded = self._fit(labelled, self._admitted() if runtime_class else None)
        names = [node["metadata"]["name"] for node in nodes]
        room = _capacity.room(nodes, others, self.runtime_class, Decimal(str(self.params["shm_percent"])))
        need = _capacity.need(builds, overhead, self.share)
        if not runtime_class:
            self.problems.append(f"RuntimeClass {self.runtime_class} does not exist; run the playbook screwdriver.kata.site first.")
        elif nodes:
            self.problems += _capacity.room_sentences(need, room, self.share, len(builds), names)
            self.problems += _capacity.too_large_sentences(builds if self.share else [], overhead, nodes)
        return {
            "nodes": names,
            "excluded": excluded,
            "builds": len(builds),
            "room": _capacity.rounded(room),
            "need": _capacity.rounded(need),
            "plan": [self._step(_capacity.need(builds, overhead, share), room, share) for share in self.shares],
            "problems": self.problems,
        }

    def _others(self, counted: set[str]) -> list[dict[str, t.Any]]:
        """The live pods of all namespaces that run on a node, without these."""
        pods, unused = self.cluster.list("Pod", field_selector=f"{LIVE},spec.nodeName!=")
        return [pod for pod in pods if pod["metadata"]["uid"] not in counted]

    def _step(self, need: _capacity.Amounts, room: _capacity.Amounts, share: Decimal) -> dict[str, t.Any]:
        return {"share": float(share), "need": _capacity.rounded(need), "lacking": _capacity.lacking(need, room)}

    def _fit(self, labelled: list[dict[str, t.Any]], pod: dict[str, t.Any] | None) -> tuple[list[dict[str, t.Any]], list[dict[str, str]]]:
        """The nodes that can run the pod, and why the others cannot."""
        if not labelled:
            self.problems.append(f"No node has the labels {self.selector}; run the playbook screwdriver.kata.site first.")
        usable = [node for node in labelled if _capacity.is_usable(node)]
        if labelled and not usable:
            self.problems.append(
                f"None of the {len(labelled)} nodes with the labels {self.selector} is ready and not cordoned; repair or uncordon one."
            )
        reasons = {node["metadata"]["name"]: _why_not(node, pod) for node in labelled}
        nodes = [node for node in usable if not reasons[node["metadata"]["name"]]]
        if usable and not nodes:
            self.problems.append(
                _scheduling.pending_sentence(
                    {node["metadata"]["name"]: reasons[node["metadata"]["name"]] for node in usable}, self.runtime_class
                )
            )
        return nodes, [{"name": name, "reason": reason} for name, reason in reasons.items() if reason]

    def _admitted(self) -> dict[str, t.Any] | None:
        """The executor's pod as the API server would store it, or None where it refuses it."""
        pod = build_pod(self._options(), self.params["image"])
        pod["metadata"] = {**pod["metadata"], "name": None, "generateName": "kata-dry-run-", "namespace": self.namespace}
        try:
            return self.cluster.create(pod)
        except ClusterError as exc:
            if not exc.reason:
                raise
            self.problems.append(
                f"The API server refuses build pods with RuntimeClass {self.runtime_class} in namespace {self.namespace}: {exc.reason}."
            )
        return None

    def _options(self) -> dict[str, t.Any]:
        """The options that the executor gets; what contradicts the other parameters is a problem."""
        if self.params["executor"] is None:
            return {"kubernetes": {"runtimeClass": self.runtime_class}}
        options = dict(self.params["executor"].get("options") or {})
        for path, source in _unread(options, "options"):
            self.problems.append(
                f"The executor's {path} comes from {source}, which cannot be read, so its pod cannot be judged; grant the permission to"
                " read it."
            )
        kubernetes = options.get("kubernetes") or {}
        if kubernetes.get("runtimeClass") != self.runtime_class:
            self.problems.append(
                f"The executor's runtimeClass is {kubernetes.get('runtimeClass') or ''!r} and not {self.runtime_class}; correct it, or "
                "runtime_class."
            )
        if (kubernetes.get("jobsNamespace") or "default") != self.namespace:
            self.problems.append(
                f"The executor posts builds to namespace {kubernetes.get('jobsNamespace') or 'default'} and not {self.namespace}; correct"
                " its jobsNamespace, or namespace."
            )
        return options


def _unread(value: t.Any, path: str) -> t.Iterator[tuple[str, str]]:
    """The options that the pod depends on and that cannot be read, each with its source."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in NOT_IN_THE_POD:
                yield from _unread(item, f"{path}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unread(item, f"{path}[{number}]")
    elif isinstance(value, str) and value.startswith(UNKNOWN):
        yield path, value.removeprefix(UNKNOWN).removesuffix(")")


def _why_not(node: dict[str, t.Any], pod: dict[str, t.Any] | None) -> str:
    if node["spec"].get("unschedulable"):
        return "it is cordoned"
    if not _capacity.is_usable(node):
        return "it is not ready"
    if pod is None:
        return ""
    return _scheduling.misfit(node, pod) or _capacity.too_small(node, _capacity.requests(pod))


def main() -> None:
    module = create_module(
        {
            "node_labels": {"type": "dict", "default": {"dedicated": "screwdriver-kata", "kata.screwdriver.cd/ready": "true"}},
            "runtime_class": {"type": "str", "default": "kata"},
            "namespace": {"type": "str", "required": True},
            "build_selector": {"type": "str", "default": "tier=builds"},
            "executor": {"type": "dict"},
            "image": {"type": "str", "default": IMAGE},
            "share": {"type": "float", "required": True},
            "shares": {"type": "list", "elements": "float", "default": []},
            "shm_percent": {"type": "float", "default": 50},
        }
    )
    try:
        module.exit_json(changed=False, **PoolInfo(module.params, Cluster(module, dry_run=True)).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
