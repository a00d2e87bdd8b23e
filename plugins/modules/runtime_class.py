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
  - Creates, changes or deletes a RuntimeClass. What is equal already is not written.
  - Entries of C(overhead), C(nodeSelector) and C(tolerations) that are not asked for are removed. Labels and annotations are left alone.
  - The API server refuses build pods whose RuntimeClass does not exist, and Screwdriver drops such builds. Set the share to 0 before a
    RuntimeClass is deleted or recreated.
  - Needs the verbs C(get), C(create), C(patch) and C(delete) on runtimeclasses, and for the last one C(list) on pods in all namespaces.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
attributes:
  check_mode:
    support: full
    details:
      - The write is sent as a server-side dry run. A recreation is not sent, since its second half would meet what the first half left.
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
      - The handler's name in the configuration of containerd. Required by O(state=present).
      - The API server lets nobody change it, see O(recreate).
    type: str
  overhead:
    description:
      - What a pod takes besides its containers, as quantities by resource. An empty dictionary removes it, left out it stays.
    type: dict
  node_selector:
    description: Labels that pods of this class want of their node. An empty dictionary removes it, left out it stays.
    type: dict
  tolerations:
    description: Tolerations that pods of this class get. An empty list removes them, left out they stay.
    type: list
    elements: dict
  recreate:
    description:
      - What to do where the handler is another one. V(never) fails, V(handler_changed) deletes the RuntimeClass and creates it anew.
    type: str
    choices: [never, handler_changed]
    default: never
  force:
    description: Delete or recreate it also while pods use it.
    type: bool
    default: false
  state:
    description: Whether the RuntimeClass is there.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: screwdriver.kata.node_pool
"""

EXAMPLES = r"""
- name: Send pods of class kata to the pool
  screwdriver.kata.runtime_class:
    name: kata
    handler: kata
    overhead:
      cpu: 250m
      memory: 160Mi
    node_selector:
      dedicated: screwdriver-kata
      kata.screwdriver.cd/ready: "true"
    tolerations:
      - key: dedicated
        value: screwdriver-kata
        effect: NoSchedule

- name: Remove it, unless pods use it
  screwdriver.kata.runtime_class:
    name: kata
    state: absent
"""

RETURN = r"""
runtime_class:
  description: The RuntimeClass as it is, or in check mode would be, after the module. V(null) where there is none.
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
        memory: 160Mi
"""

import typing as t
from contextlib import suppress

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

# AnsibleK8SModule reports the missing library.
with suppress(ImportError):
    from kubernetes.utils.quantity import parse_quantity

API = "node.k8s.io/v1"


def check_quantities(overhead: dict[str, t.Any]) -> None:
    for resource, amount in overhead.items():
        try:
            parse_quantity(amount)
        except ValueError as exc:
            raise UserError(f"overhead: {amount!r} is no quantity of {resource}: write one such as 250m, 2 or 160Mi.") from exc


def same_quantities(one: dict[str, t.Any], two: dict[str, t.Any]) -> bool:
    return one.keys() == two.keys() and all(parse_quantity(one[key]) == parse_quantity(two[key]) for key in one)


def same_tolerations(one: list[dict[str, t.Any]], two: list[dict[str, t.Any]]) -> bool:
    """Operator Equal is what the API server takes where none is given; the order means nothing."""

    def plain(items: list[dict[str, t.Any]]) -> list[list[tuple[str, str]]]:
        return sorted(
            sorted((key, str(value)) for key, value in {"operator": "Equal", **item}.items() if value not in (None, "")) for item in items
        )

    return plain(one) == plain(two)


def replacing(current: dict[str, t.Any], wanted: dict[str, t.Any]) -> dict[str, t.Any]:
    """A merge patch that leaves nothing of ``current`` that is not wanted."""
    return {**dict.fromkeys(current.keys() - wanted.keys()), **wanted}


def patch_for(current: dict[str, t.Any], params: dict[str, t.Any]) -> dict[str, t.Any]:
    """The JSON merge patch from a RuntimeClass to what the parameters ask for; empty where nothing differs."""
    patch: dict[str, t.Any] = {}
    overhead = (current.get("overhead") or {}).get("podFixed") or {}
    if params["overhead"] is not None and not same_quantities(overhead, params["overhead"]):
        patch["overhead"] = {"podFixed": replacing(overhead, params["overhead"])} if params["overhead"] else None
    scheduling: dict[str, t.Any] = {}
    selector = (current.get("scheduling") or {}).get("nodeSelector") or {}
    if params["node_selector"] is not None and selector != params["node_selector"]:
        scheduling["nodeSelector"] = replacing(selector, params["node_selector"]) if params["node_selector"] else None
    tolerations = (current.get("scheduling") or {}).get("tolerations") or []
    if params["tolerations"] is not None and not same_tolerations(tolerations, params["tolerations"]):
        scheduling["tolerations"] = params["tolerations"] or None
    if scheduling:
        patch["scheduling"] = scheduling
    return patch


def diff_view(body: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """What the module manages of a RuntimeClass."""
    return {key: body[key] for key in ("handler", "overhead", "scheduling") if key in body} if body else {}


def new_body(params: dict[str, t.Any], metadata: dict[str, t.Any]) -> dict[str, t.Any]:
    body: dict[str, t.Any] = {
        "apiVersion": API,
        "kind": "RuntimeClass",
        "metadata": {"name": params["name"], **metadata},
        "handler": params["handler"],
    }
    if params["overhead"]:
        body["overhead"] = {"podFixed": params["overhead"]}
    scheduling = {"nodeSelector": params["node_selector"], "tolerations": params["tolerations"]}
    if scheduling := {key: value for key, value in scheduling.items() if value}:
        body["scheduling"] = scheduling
    return body


class RuntimeClass:
    def __init__(self, module: t.Any) -> None:
        self.params = module.params
        self.check_mode: bool = module.check_mode
        self.cluster = Cluster(module)
        self.name: str = self.params["name"]
        check_quantities(self.params["overhead"] or {})

    def run(self) -> dict[str, t.Any]:
        before = self.cluster.get("RuntimeClass", self.name, api_version=API)
        after = self._absent(before) if self.params["state"] == "absent" else self._present(before)
        diff = {"before": diff_view(before), "after": diff_view(after)}
        return {"changed": diff["before"] != diff["after"], "runtime_class": after, "diff": diff}

    def _present(self, current: dict[str, t.Any] | None) -> dict[str, t.Any]:
        if current is None:
            return self.cluster.create(new_body(self.params, {}))
        if current["handler"] != self.params["handler"]:
            return self._recreate(current)
        patch = patch_for(current, self.params)
        return self.cluster.patch("RuntimeClass", self.name, patch, api_version=API) if patch else current

    def _recreate(self, current: dict[str, t.Any]) -> dict[str, t.Any]:
        if self.params["recreate"] == "never":
            raise UserError(
                f"RuntimeClass {self.name} has the handler {current['handler']}, which cannot be changed to {self.params['handler']}: "
                "set recreate to handler_changed, while no build uses it."
            )
        self._refuse_while_used("recreated")
        # What was left out stays as it is, here as well.
        scheduling = current.get("scheduling") or {}
        kept = {
            "overhead": (current.get("overhead") or {}).get("podFixed"),
            "node_selector": scheduling.get("nodeSelector"),
            "tolerations": scheduling.get("tolerations"),
        }
        params = {**self.params, **{key: value for key, value in kept.items() if self.params[key] is None}}
        body = new_body(params, {key: current["metadata"][key] for key in ("labels", "annotations") if key in current["metadata"]})
        if self.check_mode:
            return body
        self.cluster.delete("RuntimeClass", self.name, api_version=API, uid=current["metadata"]["uid"])
        return self.cluster.create(body)

    def _absent(self, current: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
        if current is not None:
            self._refuse_while_used("deleted")
            self.cluster.delete("RuntimeClass", self.name, api_version=API, uid=current["metadata"]["uid"])
        return None

    def _refuse_while_used(self, what: str) -> None:
        if self.params["force"]:
            return
        pods, unused = self.cluster.list("Pod", field_selector="status.phase!=Succeeded,status.phase!=Failed")
        using = [
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods if pod["spec"].get("runtimeClassName") == self.name
        ]
        if using:
            raise UserError(
                f"RuntimeClass {self.name} cannot be {what} while pods use it ({join_names(using)}): wait until they have ended, or set force."
            )


def main() -> None:
    module = create_module(
        {
            "name": {"type": "str", "required": True},
            "handler": {"type": "str"},
            "overhead": {"type": "dict"},
            "node_selector": {"type": "dict"},
            "tolerations": {"type": "list", "elements": "dict"},
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
