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
  - Sets or removes labels, annotations and taints of nodes. The nodes are listed once, and only those that differ are written, several at
    a time.
  - Labels, annotations and taints that are not named stay as they are, even if another client changes them at the same time.
  - A node that is deleted while the module runs is reported, and is not a failure.
  - Needs C(list) on nodes, C(patch) if a node differs, and C(get) to resolve a conflict with another client.
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
    description: A label selector of nodes. An empty string selects all nodes.
    type: str
  labels:
    description: The labels, by key. Booleans become V(true) and V(false), as in a quoted manifest.
    type: dict
    default: {}
  annotations:
    description: The annotations, by key. Booleans become V(true) and V(false).
    type: dict
    default: {}
  taints:
    description: The taints. A taint of a node with the same key and effect gets this value.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: The taint's key.
        type: str
        required: true
      value:
        description: The taint's value. Booleans become V(true) and V(false).
        type: raw
        default: ""
      effect:
        description: The taint's effect. Build pods of C(executor-k8s) tolerate only V(NoSchedule).
        type: str
        choices: [NoSchedule, PreferNoSchedule, NoExecute]
        default: NoSchedule
  require_handler:
    description:
      - Leave out nodes whose kubelet does not report this handler in C(status.runtimeHandlers).
      - Kubelets report handlers since Kubernetes 1.30, with containerd 2.0 or newer.
    type: str
  concurrency:
    description: How many nodes are written at the same time, at most 5 times the number of CPUs of the machine that runs the module.
    type: int
    default: 10
  state:
    description:
      - V(present) sets them, V(absent) removes them. A label, annotation or taint with another value is never removed.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: screwdriver.kata.runtime_class
"""

EXAMPLES = r"""
- name: Add verified nodes to the pool
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
  description: The nodes that were named or selected.
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
      description: Whether the node is now as O(state) asks.
      type: bool
    reason:
      description: Why it is not. Empty otherwise.
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
from ansible_collections.screwdriver.kata.plugins.module_utils._labels import TAINT_EFFECTS
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

DELETED = "It was deleted meanwhile."


class Outcome(t.NamedTuple):
    """What became of a node.

    Attributes:
        after: The node afterwards, the same object where it was not written.
        reason: Why it is not as asked, or an empty string.
        error: Why it could not be written.
    """

    after: dict[str, t.Any]
    reason: str = ""
    error: ClusterError | None = None


class NodePool:
    """Reads and writes the nodes."""

    def __init__(self, module: t.Any) -> None:
        self.params = module.params
        self.pool = _node_pool.parse(module.params)
        self.cluster = Cluster(module)
        self.present: bool = self.params["state"] == "present"

    def run(self) -> dict[str, t.Any]:
        """The result, with ``msg`` where nodes could not be written."""
        before = self._nodes()
        with ThreadPoolExecutor(min(self.params["concurrency"], self.cluster.connections)) as threads:
            outcomes = list(threads.map(self._write, before))
        pairs = list(zip(before, outcomes, strict=True))
        changed = [(node, outcome.after) for node, outcome in pairs if outcome.after is not node]
        result: dict[str, t.Any] = {
            "changed": bool(changed),
            "nodes": [
                {
                    "name": node["metadata"]["name"],
                    "changed": outcome.after is not node,
                    "ready": not outcome.reason,
                    "reason": outcome.reason,
                }
                for node, outcome in pairs
            ],
            "diff": {
                "before": {node["metadata"]["name"]: self.pool.diff_view(node) for node, unused in changed},
                "after": {node["metadata"]["name"]: self.pool.diff_view(node) for unused, node in changed},
            },
        }
        errors = [(node["metadata"]["name"], outcome.error) for node, outcome in pairs if outcome.error]
        if errors:
            first = errors[0][1]
            result["msg"] = _node_pool.failure_sentence([name for name, unused in errors], len(before), str(first), first.status)
        return result

    def _nodes(self) -> list[dict[str, t.Any]]:
        found, unused = self.cluster.list("Node", **({"label_selector": self.params["selector"]} if self.params["selector"] else {}))
        if self.params["nodes"] is None:
            return found
        by_name = {node["metadata"]["name"]: node for node in found}
        if missing := [name for name in self.params["nodes"] if name not in by_name]:
            are = "is not a node" if len(missing) == 1 else "are not nodes"
            raise UserError(f"{join_names(missing)} {are} of this cluster; correct nodes. Nothing was changed.")
        return [by_name[name] for name in dict.fromkeys(self.params["nodes"])]

    def _write(self, node: dict[str, t.Any]) -> Outcome:
        handler = self.params["require_handler"]
        if handler and (reason := _node_pool.missing_handler(node, handler)):
            return Outcome(node, reason)
        try:
            after = self.cluster.reconcile("Node", node, self.pool.present_patch if self.present else self.pool.absent_patch)
        except ClusterError as exc:
            return Outcome(node, str(exc), exc)
        if after is None:
            return Outcome(node, DELETED if self.present else "")
        return Outcome(after)


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
                    "value": {"type": "raw", "default": ""},
                    "effect": {"type": "str", "choices": list(TAINT_EFFECTS), "default": "NoSchedule"},
                },
            },
            "require_handler": {"type": "str"},
            "concurrency": {"type": "int", "default": 10},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        mutually_exclusive=[("nodes", "selector")],
        required_one_of=[("nodes", "selector")],
    )
    try:
        result = NodePool(module).run()
    except UserError as exc:
        module.fail_json(msg=str(exc))
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
