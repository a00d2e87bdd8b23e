#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_pool
short_description: Manages labels, annotations and taints of many nodes in one call
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Gives nodes labels, annotations and taints, or takes them away. The nodes are listed once, and only those that differ are written,
    several at a time.
  - Labels, annotations and taints that are not named stay as they are, also if somebody else changes them at the same time.
  - Needs the verbs C(list), C(get) and C(patch) on nodes.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
attributes:
  check_mode:
    support: full
    details:
      - The writes are sent as server-side dry runs.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  nodes:
    description:
      - The names of the nodes. If one of them does not exist, nothing is changed.
      - Exactly one of O(nodes) and O(selector) must be given.
    type: list
    elements: str
  selector:
    description: A label selector of nodes. An empty string selects all.
    type: str
  labels:
    description: The labels, by key.
    type: dict
    default: {}
  annotations:
    description: The annotations, by key.
    type: dict
    default: {}
  taints:
    description: The taints. A node's taint of the same key and effect gets the value asked for.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: The taint's key.
        type: str
        required: true
      value:
        description: The taint's value.
        type: str
        default: ""
      effect:
        description: The taint's effect. Build pods of C(executor-k8s) tolerate V(NoSchedule) alone.
        type: str
        choices: [NoSchedule, PreferNoSchedule, NoExecute]
        default: NoSchedule
  require_handler:
    description:
      - Leave out nodes whose kubelet does not report this handler in C(status.runtimeHandlers).
      - Kubelets report handlers from Kubernetes 1.30 and containerd 2.0 on.
    type: str
  concurrency:
    description: How many nodes are written at the same time, at most 5 times the processors of the machine that runs the module.
    type: int
    default: 10
  state:
    description:
      - V(present) gives, V(absent) takes away. A label, annotation or taint of another value than the one named is never taken away.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: screwdriver.kata.runtime_class
"""

EXAMPLES = r"""
- name: Put proven nodes into the pool
  screwdriver.kata.node_pool:
    selector: kata.screwdriver.cd/ready=true
    require_handler: kata
    labels:
      dedicated: screwdriver-kata
    taints:
      - key: dedicated
        value: screwdriver-kata
        effect: NoSchedule
"""

RETURN = r"""
nodes:
  description: The nodes that were named or selected, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The node's name.
      type: str
    changed:
      description: Whether it was, or in check mode would be, written.
      type: bool
    ready:
      description: Whether it is now as O(state) asks.
      type: bool
    reason:
      description: Why it is not. Empty if it is.
      type: str
  sample:
    - name: build-1
      changed: true
      ready: true
      reason: ""
    - name: build-2
      changed: false
      ready: false
      reason: Its kubelet does not report handler kata, only runc.
"""

import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.screwdriver.kata.plugins.module_utils import _node_pool
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

GONE = "It was deleted meanwhile."


class NodePool:
    def __init__(self, module: t.Any) -> None:
        self.params = module.params
        self.cluster = Cluster(module)
        self.labels = {key: str(value) for key, value in self.params["labels"].items()}
        self.annotations = {key: str(value) for key, value in self.params["annotations"].items()}
        self.taints: list[dict[str, str]] = self.params["taints"]
        self.patch_for = _node_pool.present_patch if self.params["state"] == "present" else _node_pool.absent_patch

    def run(self) -> dict[str, t.Any]:
        before = self._nodes()
        with ThreadPoolExecutor(min(self.params["concurrency"], self.cluster.connections)) as pool:
            outcomes = list(pool.map(self._settle, before))
        nodes = [
            {"name": node["metadata"]["name"], "changed": after is not node, "ready": not reason, "reason": reason}
            for node, (after, reason, failed) in zip(before, outcomes, strict=True)
        ]
        changed = [(node, after) for node, (after, reason, failed) in zip(before, outcomes, strict=True) if after is not node]
        return {
            "changed": bool(changed),
            "nodes": nodes,
            "failed_nodes": [node for node, (after, reason, failed) in zip(nodes, outcomes, strict=True) if failed],
            "diff": {"before": self._shown(node for node, after in changed), "after": self._shown(after for node, after in changed)},
        }

    def _nodes(self) -> list[dict[str, t.Any]]:
        found, unused = self.cluster.list("Node", **({"label_selector": self.params["selector"]} if self.params["selector"] else {}))
        if self.params["nodes"] is None:
            return found
        by_name = {node["metadata"]["name"]: node for node in found}
        if missing := [name for name in self.params["nodes"] if name not in by_name]:
            raise UserError(
                f"{join_names(missing)} {'is no node' if len(missing) == 1 else 'are no nodes'} of this cluster: correct nodes. Nothing was changed."
            )
        return [by_name[name] for name in dict.fromkeys(self.params["nodes"])]

    def _settle(self, node: dict[str, t.Any]) -> tuple[dict[str, t.Any], str, bool]:
        """(the node afterwards, why it is not as asked, whether that is an error)."""
        handler = self.params["require_handler"]
        if handler and (reason := _node_pool.missing_handler(node, handler)):
            return node, reason, False
        try:
            after = self.cluster.reconcile(
                "Node", node, lambda current: self.patch_for(current, self.labels, self.annotations, self.taints)
            )
            return (after, "", False) if after else (node, GONE, False)
        except ClusterError as exc:
            return node, str(exc), True

    def _shown(self, nodes: t.Iterable[dict[str, t.Any]]) -> dict[str, t.Any]:
        return {node["metadata"]["name"]: _node_pool.diff_view(node, self.labels, self.annotations, self.taints) for node in nodes}


def main() -> None:
    module = create_module(
        {
            "nodes": {"type": "list", "elements": "str"},
            "selector": {"type": "str"},
            "labels": {"type": "dict", "default": {}},
            "annotations": {"type": "dict", "default": {}},
            "taints": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "key": {"type": "str", "required": True, "no_log": False},
                    "value": {"type": "str", "default": ""},
                    "effect": {"type": "str", "choices": ["NoSchedule", "PreferNoSchedule", "NoExecute"], "default": "NoSchedule"},
                },
            },
            "require_handler": {"type": "str"},
            "concurrency": {"type": "int", "default": 10},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        mutually_exclusive=[("nodes", "selector")],
        required_one_of=[("nodes", "selector")],
    )
    if module.params["concurrency"] < 1:
        module.fail_json(msg=f"concurrency is {module.params['concurrency']}: give at least 1.")
    try:
        result = NodePool(module).run()
    except UserError as exc:
        module.fail_json(msg=str(exc))
    if failed := result.pop("failed_nodes"):
        names = join_names([node["name"] for node in failed])
        msg = f"{len(failed)} of {len(result['nodes'])} nodes could not be written: {names}. {failed[0]['reason']} Run it again for these."
        module.fail_json(msg=msg, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
