#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proof_pod
short_description: Runs a pod on one node that proves a handler
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Creates a pod that takes the path of a build through the API server, the kubelet and a RuntimeClass, and waits until its container runs.
    The pod is bound to the node by name, so neither a cordon nor a taint keeps it from there.
  - The RuntimeClass of the builds is used if it has the handler and its node selector matches the node. Before a node has its labels, and
    before there is a RuntimeClass, one that belongs to this node alone is created with the handler and the overhead of the builds' one, and
    deleted with the pod.
  - Pods that an interrupted run left on the node are deleted first.
  - The pod does nothing. The role P(screwdriver.kata.node_proof#role) inspects it on the node.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
attributes:
  action_group:
    support: full
  check_mode:
    support: full
    details: In check mode the API server only judges whether it would accept the pod.
  diff_mode:
    support: none
    details: The pod exists for the time of a proof.
  idempotent:
    support: none
    details: Every run proves again.
options:
  node:
    description: The name of the node in the cluster.
    type: str
    required: true
  handler:
    description: The handler, as containerd and the kubelet name it.
    type: str
    default: kata
  runtime_class:
    description: The RuntimeClass of the builds. It need not exist.
    type: str
    default: kata
  namespace:
    description: The namespace of the pod, usually that of the builds.
    type: str
    required: true
  image:
    description: An image with C(sh) and C(sleep). Required with O(state=present).
    type: str
  host_network:
    description: Whether the pod uses the node's network.
    type: bool
    default: false
  ready_label:
    description: The label of verified nodes, for RV(in_service).
    type: str
    default: kata.screwdriver.cd/ready
  require_node:
    description: Whether a node that is not in the cluster is an error. If not, nothing is done for it.
    type: bool
    default: true
  timeout:
    description:
      - Seconds until the container has to run, and until a deleted pod has to be gone.
      - A sandbox that the kubelet failed to create three times is not waited for.
      - A node that has no room for the pod is asked again until then, since builds that end make room.
    type: int
    default: 240
  state:
    description: V(absent) deletes the pods of proofs on the node, and the node's own RuntimeClass, and waits until they are gone.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: screwdriver.kata.runtime_class
"""

EXAMPLES = r"""
- name: Run a pod on a node
  screwdriver.kata.proof_pod:
    node: build-1
    namespace: sd-builds
    image: docker.io/library/busybox:1.37.0
  register: result

- name: Delete it
  screwdriver.kata.proof_pod:
    node: build-1
    namespace: sd-builds
    state: absent
"""

RETURN = r"""
in_cluster:
  description: Whether the node is in the cluster.
  returned: O(state=present)
  type: bool
pod:
  description: The name of the pod. Empty in check mode.
  returned: O(state=present)
  type: str
  sample: kata-proof-7x2lq
container_id:
  description: The ID of its container on the node. Empty in check mode.
  returned: O(state=present)
  type: str
runtime_class:
  description: The RuntimeClass that it has.
  returned: O(state=present)
  type: str
  sample: kata
setup_seconds:
  description: Seconds from the request until its container runs.
  returned: O(state=present)
  type: float
  sample: 2.7
no_room:
  description: Why the node had no room for the pod until O(timeout), so that nothing is proven. Else empty.
  returned: O(state=present)
  type: str
  sample: "OutOfmemory: Pod was rejected: Node didn't have enough resource: memory, requested: 67, used: 950, capacity: 1000"
in_service:
  description: Whether the node has O(ready_label) and is not cordoned, so that an earlier proof has verified it as it is.
  returned: O(state=present)
  type: bool
deleted:
  description: The names of the pods that were deleted.
  returned: success
  type: list
  elements: str
"""

import time
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils import _proof_pod
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._proof_pod import NODE_API
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

# How long a watch runs before the events are read.
WATCH_SECONDS = 5
# Builds that end make room.
ROOM_SECONDS = 5


# What a call returns that has run no pod.
NO_POD = {"pod": "", "container_id": "", "setup_seconds": 0.0, "no_room": ""}


class NoRoomError(UserError):
    """The node has no room for the pod."""


class ProofPod:
    """Runs and deletes the pods of proofs on one node."""

    def __init__(self, params: dict[str, t.Any], cluster: Cluster, check_mode: bool) -> None:
        self.params = params
        self.cluster = cluster
        self.check_mode = check_mode
        self.namespace: str = params["namespace"]

    def run(self) -> dict[str, t.Any]:
        if self.params["state"] == "absent":
            deleted = self._delete()
            return {"changed": bool(deleted), "deleted": deleted}
        node = self.cluster.get("Node", self.params["node"])
        if node is None and not self.params["require_node"]:
            return {**NO_POD, "changed": False, "in_cluster": False, "in_service": False, "runtime_class": "", "deleted": []}
        if node is None:
            raise UserError(f"Node {self.params['node']} is not in the cluster; start its kubelet, or give its name in the cluster.")
        deleted = self._delete()
        runtime_class = self._runtime_class(node)
        about = {"changed": True, "in_cluster": True, "in_service": _proof_pod.in_service(node, self.params["ready_label"])}
        return {**NO_POD, **about, "runtime_class": runtime_class, "deleted": deleted, **self._start(runtime_class)}

    def _runtime_class(self, node: dict[str, t.Any]) -> str:
        """Returns the RuntimeClass that the pod can have on the node; creates one where there is none."""
        current = self.cluster.get("RuntimeClass", self.params["runtime_class"], api_version=NODE_API)
        if _proof_pod.fits(current, node, self.params["handler"]):
            return self.params["runtime_class"]
        body = _proof_pod.own_runtime_class(self.params["node"], self.params["handler"], current)
        self.cluster.create(body)
        return body["metadata"]["name"]

    def _start(self, runtime_class: str) -> dict[str, t.Any]:
        body = _proof_pod.pod_body(self.params, runtime_class)
        if self.check_mode:
            # A dry run of the RuntimeClass has left none that the pod could have.
            if not runtime_class.startswith("kata-proof-"):
                self.cluster.create(body)
            return {}
        deadline = time.monotonic() + self.params["timeout"]
        while True:
            started = time.monotonic()
            pod = self.cluster.create(body)
            name = pod["metadata"]["name"]
            try:
                container = self._wait(pod, deadline)
            except NoRoomError as exc:
                if time.monotonic() + ROOM_SECONDS > deadline:
                    return {"pod": name, "no_room": str(exc)}
            else:
                return {"pod": name, "container_id": container, "setup_seconds": round(time.monotonic() - started, 3)}
            self.cluster.delete("Pod", name, self.namespace, uid=pod["metadata"]["uid"])
            time.sleep(ROOM_SECONDS)

    def _wait(self, pod: dict[str, t.Any], deadline: float) -> str:
        """Waits until the container runs, and returns its ID.

        Raises:
            NoRoomError: The node has no room for it.
            UserError: It cannot run any more, or the time is over.
        """
        name, version = pod["metadata"]["name"], pod["metadata"]["resourceVersion"]
        while True:
            left = max(1, min(WATCH_SECONDS, round(deadline - time.monotonic())))
            for change in self.cluster.follow("Pod", version, left, namespace=self.namespace, field_selector=f"metadata.name={name}"):
                version = change.resource_version
                for pod in change.objects:
                    if container := _proof_pod.container_id(pod):
                        return container
                    if reason := _proof_pod.lacks_room(pod):
                        raise NoRoomError(reason)
                    if reason := _proof_pod.failure(pod):
                        raise self._error(pod, f"cannot run: {reason}")
            events = self._events(pod)
            if (count := _proof_pod.sandbox_failures(events)) >= _proof_pod.MAX_SANDBOX_FAILURES:
                raise self._error(pod, f"got no sandbox in {count} attempts")
            if time.monotonic() >= deadline:
                reason = ": ".join(filter(None, _proof_pod.waiting(pod))) or "its kubelet has not reported on it"
                raise self._error(pod, f"does not run after {self.params['timeout']} s ({reason})")

    def _events(self, pod: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        try:
            return self.cluster.list("Event", namespace=self.namespace, field_selector=f"involvedObject.uid={pod['metadata']['uid']}")[0]
        except ClusterError:
            # They only explain.
            return []

    def _error(self, pod: dict[str, t.Any], what: str) -> UserError:
        warning = _proof_pod.last_warning(self._events(pod))
        because = f" The last event is {warning.rstrip('.')}." if warning else ""
        handler, node = self.params["handler"], self.params["node"]
        return UserError(
            f"Pod {self.namespace}/{pod['metadata']['name']} with handler {handler} on node {node} {what.rstrip('.')}.{because}"
        )

    def _delete(self) -> list[str]:
        """Deletes the pods of proofs on the node and its own RuntimeClass, and waits until the pods are gone."""
        pods = self._pods()
        for pod in pods:
            self.cluster.delete("Pod", pod["metadata"]["name"], self.namespace, uid=pod["metadata"]["uid"])
        names = [pod["metadata"]["name"] for pod in pods]
        deadline = time.monotonic() + self.params["timeout"]
        while pods and not self.check_mode and (pods := self._pods()):
            if time.monotonic() > deadline:
                raise UserError(
                    f"Pod {join_names([pod['metadata']['name'] for pod in pods])} in namespace {self.namespace} is not gone "
                    f"{self.params['timeout']} s after it was deleted; inspect the kubelet of node {self.params['node']}."
                )
            time.sleep(0.5)
        own = _proof_pod.own_runtime_class(self.params["node"], self.params["handler"], None)["metadata"]["name"]
        self.cluster.delete("RuntimeClass", own, api_version=NODE_API)
        return names

    def _pods(self) -> list[dict[str, t.Any]]:
        selector = f"{_proof_pod.LABEL}=true"
        return self.cluster.list(
            "Pod", namespace=self.namespace, label_selector=selector, field_selector=f"spec.nodeName={self.params['node']}"
        )[0]


def main() -> None:
    module = create_module(
        {
            "node": {"type": "str", "required": True},
            "handler": {"type": "str", "default": "kata"},
            "runtime_class": {"type": "str", "default": "kata"},
            "namespace": {"type": "str", "required": True},
            "image": {"type": "str"},
            "host_network": {"type": "bool", "default": False},
            "ready_label": {"type": "str", "default": "kata.screwdriver.cd/ready"},
            "require_node": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 240},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["image"])],
    )
    try:
        module.exit_json(**ProofPod(module.params, Cluster(module), module.check_mode).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
