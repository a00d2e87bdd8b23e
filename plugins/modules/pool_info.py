#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pool_info
short_description: Tells whether the pool of Kata nodes can take a share of the builds
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Looks at what builds on Kata need before a share is set. The RuntimeClass, proven nodes that are ready and not cordoned, their room
    for the share of the builds that there are now, and the API server's answer to a build pod that is sent as a dry run.
  - The room is what the nodes offer to pods in total. Pods that are no builds are not looked at.
  - Needs the verbs C(list) on nodes, C(get) on runtimeclasses, and C(list) and C(create) on pods in the namespace of the builds.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.info_module
  - screwdriver.kata._attributes.actiongroup_k8s
options:
  node_labels:
    description: The labels of the pool's proven nodes.
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
  share:
    description: The share that the pool shall take, in percent of all builds.
    type: float
    required: true
seealso:
  - module: screwdriver.kata.node_pool
  - module: screwdriver.kata.runtime_class
"""

EXAMPLES = r"""
- name: Ask whether a quarter of the builds can run on Kata
  screwdriver.kata.pool_info:
    namespace: sd-builds
    share: 25
  register: pool

- name: Stop if not
  ansible.builtin.assert:
    that: pool.problems | length == 0
    fail_msg: "{{ pool.problems | join(' ') }}"
"""

RETURN = r"""
nodes:
  description: The pool's nodes that are ready and not cordoned.
  returned: success
  type: list
  elements: str
  sample: [build-1, build-2]
room:
  description: What these nodes offer to pods, in cores, GiB and pods.
  returned: success
  type: dict
  sample: {cpu: 128.0, memory_gib: 512.0, pods: 500}
need:
  description: What the share of the present builds asks for, with the RuntimeClass's overhead.
  returned: success
  type: dict
  sample: {cpu: 30.5, memory_gib: 28.0, pods: 14}
problems:
  description: Why the share cannot be taken, one sentence each. Empty if it can.
  returned: success
  type: list
  elements: str
  sample:
    - 'RuntimeClass kata does not exist: run the playbook screwdriver.kata.site first.'
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import capacity as _capacity
from ansible_collections.screwdriver.kata.plugins.module_utils._values import parse_share

NODE_API = "node.k8s.io/v1"


class PoolInfo:
    def __init__(self, params: dict[str, t.Any], cluster: Cluster) -> None:
        self.params = params
        self.cluster = cluster

    def run(self) -> dict[str, t.Any]:
        selector = ",".join(f"{key}={value}" for key, value in self.params["node_labels"].items())
        labelled, unused = self.cluster.list("Node", label_selector=selector)
        nodes = [node for node in labelled if _capacity.is_usable(node)]
        runtime_class = self.cluster.get("RuntimeClass", self.params["runtime_class"], api_version=NODE_API)
        pods, unused = self.cluster.list("Pod", namespace=self.params["namespace"], label_selector=self.params["build_selector"])
        live = [pod for pod in pods if _capacity.is_live(pod)]
        room = _capacity.room(nodes)
        overhead = ((runtime_class or {}).get("overhead") or {}).get("podFixed") or {}
        need = _capacity.need(live, overhead, parse_share(self.params["share"], "share"))
        problems = [
            *self._about_nodes(selector, len(labelled), len(nodes)),
            *(self._about_room(room, need, len(nodes), len(live)) if nodes else ()),
            *(self._about_pod() if runtime_class else self._about_missing_class()),
        ]
        return {
            "nodes": [node["metadata"]["name"] for node in nodes],
            "room": _capacity.rounded(room),
            "need": _capacity.rounded(need),
            "problems": problems,
        }

    def _about_nodes(self, selector: str, labelled: int, usable: int) -> t.Iterator[str]:
        if not labelled:
            yield f"No node has the labels {selector}: run the playbook screwdriver.kata.site first."
        elif not usable:
            yield f"None of the {labelled} nodes with the labels {selector} is ready and not cordoned: mend or uncordon one."

    def _about_room(self, room: _capacity.Amounts, need: _capacity.Amounts, nodes: int, builds: int) -> t.Iterator[str]:
        has, wants = _capacity.rounded(room), _capacity.rounded(need)
        for key, unit in (("cpu", "cores"), ("memory", "GiB of memory"), ("pods", "pods")):
            if need[key] > room[key]:
                shown = "memory_gib" if key == "memory" else key
                yield (
                    f"{self.params['share']:g} % of the {builds} builds need {wants[shown]:g} {unit}, and the pool's {nodes} nodes have "
                    f"{has[shown]:g}: add nodes, or take a smaller step."
                )

    def _about_missing_class(self) -> t.Iterator[str]:
        yield f"RuntimeClass {self.params['runtime_class']} does not exist: run the playbook screwdriver.kata.site first."

    def _about_pod(self) -> t.Iterator[str]:
        name, namespace = self.params["runtime_class"], self.params["namespace"]
        meta = {"generateName": "kata-dry-run-", "namespace": namespace}
        spec = {"runtimeClassName": name, "restartPolicy": "Never", "containers": [{"name": "build", "image": "build"}]}
        try:
            self.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        except ClusterError as exc:
            yield f"The API server refuses a build pod with RuntimeClass {name} in namespace {namespace}: {exc}"


def main() -> None:
    module = create_module(
        {
            "node_labels": {"type": "dict", "default": {"dedicated": "screwdriver-kata", "kata.screwdriver.cd/ready": "true"}},
            "runtime_class": {"type": "str", "default": "kata"},
            "namespace": {"type": "str", "required": True},
            "build_selector": {"type": "str", "default": "tier=builds"},
            "share": {"type": "float", "required": True},
        }
    )
    try:
        module.exit_json(changed=False, **PoolInfo(module.params, Cluster(module, dry_run=True)).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
