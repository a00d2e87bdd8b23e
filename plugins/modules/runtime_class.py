#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: runtime_class
short_description: Manages a RuntimeClass
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Creates, changes or deletes a RuntimeClass. Nothing is written if it is already as asked.
  - Entries of C(overhead), C(nodeSelector) and C(tolerations) that are not asked for are removed. Labels and annotations stay.
  - The API server refuses build pods whose RuntimeClass does not exist, and Screwdriver drops such builds. Set the share to 0 before you
    delete or recreate a RuntimeClass.
  - Needs C(get) on runtimeclasses of the API group C(node.k8s.io), C(create) to create one, C(patch) to change one, and C(delete) to delete
    one. O(recreate) needs C(create) and C(delete). Deleting and recreating also need C(list) on pods in all namespaces, unless O(force) is
    set.
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
  name:
    description: The name of the RuntimeClass.
    type: str
    required: true
  handler:
    description:
      - The handler's name in the configuration of containerd. Required if O(state=present).
      - It cannot be changed in place, see O(recreate).
    type: str
  overhead:
    description:
      - What the sandbox of a pod takes in addition to its containers, as quantities by resource.
      - An empty dictionary removes it. If omitted, it stays as it is.
    type: dict
  node_selector:
    description:
      - Labels that a node must have to run pods of this class. Booleans become V(true) and V(false).
      - An empty dictionary removes it. If omitted, it stays as it is.
    type: dict
  tolerations:
    description:
      - Tolerations that the API server adds to pods of this class.
      - An empty list removes them. If omitted, they stay as they are.
    type: list
    elements: dict
    suboptions:
      key:
        description: The key of the taint. Without it, every taint is tolerated.
        type: str
      operator:
        description: V(Equal) compares O(tolerations[].value), V(Exists) does not.
        type: str
        choices: [Equal, Exists]
        default: Equal
      value:
        description: The value of the taint. Booleans become V(true) and V(false).
        type: raw
      effect:
        description: The effect of the taint. If omitted, all effects are tolerated.
        type: str
        choices: [NoSchedule, PreferNoSchedule, NoExecute]
      toleration_seconds:
        description: How long a pod stays on a node that gets such a taint, in seconds. Only with V(NoExecute).
        type: int
        aliases: [tolerationSeconds]
  recreate:
    description:
      - What to do if the RuntimeClass has another handler. V(never) fails, V(handler_changed) deletes and creates it.
    type: str
    choices: [never, handler_changed]
    default: never
  force:
    description: Delete or recreate it even if pods use it.
    type: bool
    default: false
  state:
    description: Whether the RuntimeClass should exist.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: screwdriver.kata.node_pool
"""

EXAMPLES = r"""
- name: Create the RuntimeClass of the pool
  screwdriver.kata.runtime_class:
    name: kata
    handler: kata
    overhead:
      cpu: 250m
      memory: 320Mi
    node_selector:
      dedicated: screwdriver-kata
      kata.screwdriver.cd/ready: "true"
    tolerations:
      - key: dedicated
        value: screwdriver-kata
        effect: NoSchedule

- name: Delete it, unless pods use it
  screwdriver.kata.runtime_class:
    name: kata
    state: absent
"""

RETURN = r"""
runtime_class:
  description: The RuntimeClass after the module ran, or in check mode would have run. V(null) if it does not exist.
  returned: success
  type: dict
  sample:
    apiVersion: node.k8s.io/v1
    kind: RuntimeClass
    metadata:
      name: kata
    handler: kata
    overhead:
      podFixed:
        cpu: 250m
        memory: 320Mi
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils import _runtime_class
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._labels import TAINT_EFFECTS


class RuntimeClass:
    """Reads and writes one RuntimeClass."""

    def __init__(self, module: t.Any) -> None:
        self.params = module.params
        self.check_mode: bool = module.check_mode
        self.wanted = _runtime_class.parse(module.params)
        self.cluster = Cluster(module)
        self.name = self.wanted.name

    def run(self) -> dict[str, t.Any]:
        before = self.cluster.get("RuntimeClass", self.name, api_version=_runtime_class.API)
        after = self._absent(before) if self.params["state"] == "absent" else self._present(before)
        diff = {"before": _runtime_class.diff_view(before), "after": _runtime_class.diff_view(after)}
        return {"changed": diff["before"] != diff["after"], "runtime_class": after, "diff": diff}

    def _present(self, current: dict[str, t.Any] | None) -> dict[str, t.Any]:
        if current is None:
            return self.cluster.create(_runtime_class.new_body(self.wanted))
        if current["handler"] != self.wanted.handler:
            return self._recreate(current)
        patch = _runtime_class.patch_for(current, self.wanted)
        return self.cluster.patch("RuntimeClass", self.name, patch, api_version=_runtime_class.API) if patch else current

    def _recreate(self, current: dict[str, t.Any]) -> dict[str, t.Any]:
        if self.params["recreate"] == "never":
            raise UserError(
                f"RuntimeClass {self.name} has handler {current['handler']}, which cannot be changed to {self.wanted.handler}; set"
                " recreate to handler_changed while no build uses it."
            )
        self._require_unused("recreated")
        body = _runtime_class.recreated_body(current, self.wanted)
        # Until it is created again, the API server refuses every build: what would fail then must fail now.
        self.cluster.require_creatable(body)
        self.cluster.delete("RuntimeClass", self.name, api_version=_runtime_class.API, uid=current["metadata"]["uid"])
        if self.check_mode:
            return body
        try:
            return self.cluster.create(body)
        except ClusterError as exc:
            raise UserError(
                f"RuntimeClass {self.name} was deleted and not created again, so build pods are refused; run again. {exc}"
            ) from exc

    def _absent(self, current: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
        if current is not None:
            self._require_unused("deleted")
            self.cluster.delete("RuntimeClass", self.name, api_version=_runtime_class.API, uid=current["metadata"]["uid"])
        return None

    def _require_unused(self, action: str) -> None:
        if not self.params["force"]:
            pods, unused = self.cluster.list("Pod", field_selector="status.phase!=Succeeded,status.phase!=Failed")
            _runtime_class.require_unused(self.name, pods, action)


def main() -> None:
    module = create_module(
        {
            "name": {"type": "str", "required": True},
            "handler": {"type": "str"},
            "overhead": {"type": "dict"},
            "node_selector": {"type": "dict"},
            "tolerations": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "key": {"type": "str", "no_log": False},
                    "operator": {"type": "str", "choices": ["Equal", "Exists"], "default": "Equal"},
                    "value": {"type": "raw"},
                    "effect": {"type": "str", "choices": list(TAINT_EFFECTS)},
                    "toleration_seconds": {"type": "int", "aliases": ["tolerationSeconds"]},
                },
            },
            "recreate": {"type": "str", "choices": ["never", "handler_changed"], "default": "never"},
            "force": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["handler"])],
    )
    try:
        module.exit_json(**RuntimeClass(module).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
