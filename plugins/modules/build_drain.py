#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: build_drain
short_description: Cordons nodes and waits until no build runs on them
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Drains nodes without losing a build. The nodes are cordoned, so that no new build is scheduled on them, and running builds are left to
    end. The module watches, and does not poll.
  - If builds are left after O(timeout), the module fails and names them, and the nodes stay cordoned. Run it again to keep waiting.
  - Only pods that match O(build_selector) are waited for. Pods of DaemonSets and all other pods stay where they are.
  - The cordon is recorded in the node's annotation C(kata.screwdriver.cd/cordoned), a JSON object with the keys C(by) and C(reason). Only
    nodes that have it are uncordoned again. A node with a foreign cordon is drained, and stays cordoned.
  - Needs C(get) on nodes, C(patch) to cordon or uncordon one, and C(list) and C(watch) on pods in O(namespace), or in all namespaces if it
    is omitted. If O(namespace) has no build, C(get) on that namespace. With O(force), C(create) on C(pods/eviction).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
attributes:
  check_mode:
    support: full
    details:
      - The cordons are sent as server-side dry runs. The module does not wait or evict, and running builds are not a failure.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  nodes:
    description: The names of the nodes. If one of them does not exist, nothing is changed.
    type: list
    elements: str
    required: true
  namespace:
    description:
      - The namespace of the build pods.
      - If omitted, builds of all namespaces are waited for.
    type: str
  build_selector:
    description: The label selector of build pods.
    type: str
    default: tier=builds
  timeout:
    description:
      - How long to wait for the builds of all nodes to end, in seconds. V(0) does not wait, and fails if a build is left.
      - Screwdriver lets a build run for at most 120 minutes by default (C(maxBuildTimeout)).
      - A node that this call cordons counts as empty 2 seconds later at the earliest, because the scheduler may have placed a build on it
        just before.
    type: int
    default: 600
  interval:
    description:
      - Wait at most this long instead of O(timeout), in seconds, and do not fail if builds are left, so that a caller can report them and
        run the module again. V(0) does not wait.
      - O(timeout) and O(force) are not used then.
    type: int
  force:
    description:
      - Evict the builds that are left after O(timeout). These builds are lost.
      - This uses the Eviction API, which respects PodDisruptionBudgets. Builds then have their C(terminationGracePeriodSeconds) to end.
    type: bool
    default: false
  reason:
    description:
      - Why the nodes are drained. It stays on the nodes until they are uncordoned.
      - It replaces another reason that a node has. If omitted, the reason of a node stays as it is.
    type: str
  holder:
    description:
      - Who drains the nodes. It is recorded when a node is cordoned, and stays when another holder runs the module again.
      - Defaults to the user and host that run the module.
    type: str
  state:
    description:
      - V(drained) cordons the nodes and waits.
      - V(uncordoned) removes the cordon and the annotation of nodes that have the annotation, and changes no other node.
    type: str
    choices: [drained, uncordoned]
    default: drained
seealso:
  - module: screwdriver.kata.node_pool
"""

EXAMPLES = r"""
- name: Drain two nodes, and give their builds two hours to end
  screwdriver.kata.build_drain:
    nodes: [node-3, node-4]
    namespace: sd-builds
    reason: Kata is being installed
    timeout: 7200

- name: Return them to service
  screwdriver.kata.build_drain:
    nodes: [node-3, node-4]
    state: uncordoned

- name: Report the builds on a node without changing it
  screwdriver.kata.build_drain:
    nodes: [node-3]
  check_mode: true
  register: drain
"""

RETURN = r"""
nodes:
  description: The nodes, in the order of O(nodes).
  returned: when the nodes exist
  type: list
  elements: dict
  contains:
    name:
      description: The node's name.
      type: str
    changed:
      description: Whether it was, or in check mode would be, written.
      type: bool
    cordoned:
      description: Whether it is now, or in check mode would be, cordoned.
      type: bool
    builds:
      description: The number of builds that are left on it.
      type: int
    note:
      description: That its cordon is foreign, or why it could not be written. Empty otherwise.
      type: str
  sample:
    - name: node-3
      changed: true
      cordoned: true
      builds: 1
      note: ""
    - name: node-4
      changed: false
      cordoned: true
      builds: 0
      note: It has a foreign cordon, which this module does not remove.
drained:
  description: Whether no build is left on the nodes.
  returned: when the nodes exist
  type: bool
  sample: false
builds:
  description: The builds on the nodes that have not ended, the oldest first.
  returned: when the nodes exist
  type: list
  elements: dict
  contains:
    name:
      description: The pod's name.
      type: str
    namespace:
      description: The pod's namespace.
      type: str
    node:
      description: The node that it runs on.
      type: str
    age_seconds:
      description: The time since the pod was created, in seconds.
      type: int
    phase:
      description: The pod's phase, V(Pending), V(Running) or V(Unknown).
      type: str
  sample:
    - name: build-17
      namespace: sd-builds
      node: node-3
      age_seconds: 10921
      phase: Running
"""

import getpass
import math
import os
import socket
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from ansible_collections.screwdriver.kata.plugins.module_utils import _build_drain
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import LIST, Cluster, ClusterError, create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

CONCURRENCY = 10
# A silently lost connection is noticed within this time.
WATCH_SECONDS = 60
# A scheduler that does not know the cordon yet may still place a build.
SETTLE_SECONDS = 2
# How long pods may take to vanish after their grace period.
EVICTION_SECONDS = 30
FOREIGN = "It has a foreign cordon, which this module does not remove."


class BuildDrain:
    def __init__(self, module: t.Any) -> None:
        self.params = module.params
        self.check_mode: bool = module.check_mode
        self.cluster = Cluster(module)
        self.drained: bool = self.params["state"] == "drained"
        self.names: list[str] = list(dict.fromkeys(self.params["nodes"]))
        self.holder: str = self.params["holder"] or _holder()
        self.builds = _build_drain.Builds(self.names)
        self.before: list[dict[str, t.Any]] = []
        self.after: list[dict[str, t.Any]] = []
        self.failures: list[str] = []
        self.pods = {"label_selector": self.params["build_selector"], "field_selector": self._field_selector()}
        if self.params["namespace"]:
            self.pods["namespace"] = self.params["namespace"]
        self.resource_version = ""

    def run(self) -> None:
        """Does what ``state`` asks; ``result`` has the outcome, also after an error.

        Raises:
            UserError: The nodes are not as asked.
        """
        with ThreadPoolExecutor(min(CONCURRENCY, self.cluster.connections)) as threads:
            found = list(threads.map(lambda name: self.cluster.get("Node", name), self.names))
            self._require_known(found)
            self._list()
            self._require_namespace()
            self.before = [node for node in found if node]
            outcomes = list(threads.map(self._write, self.before))
        self.after = [node for node, unused in outcomes]
        self.failures = [failure for unused, failure in outcomes]
        self._require_written()
        if self.drained and not self.check_mode:
            try:
                self._drain()
            except ClusterError as exc:
                raise UserError(f"{exc} {_build_drain.stays(len(self.names))}; run again.") from exc

    def result(self) -> dict[str, t.Any]:
        if not self.after:
            return {"changed": False}
        left = self.builds.left(int(time.time()))
        pairs = list(zip(self.before, self.after, self.failures, strict=True))
        return {
            "changed": any(after is not before for before, after, unused in pairs),
            "nodes": [
                {
                    "name": name,
                    "changed": after is not before,
                    "cordoned": _build_drain.is_cordoned(after),
                    "builds": sum(build["node"] == name for build in left),
                    "note": failure or (FOREIGN if _build_drain.is_foreign(after) else ""),
                }
                for name, (before, after, failure) in zip(self.names, pairs, strict=True)
            ],
            "drained": not left,
            "builds": left,
            "diff": {
                "before": {node["metadata"]["name"]: _build_drain.diff_view(node) for node, after, unused in pairs if after is not node},
                "after": {node["metadata"]["name"]: _build_drain.diff_view(node) for before, node, unused in pairs if node is not before},
            },
        }

    def _field_selector(self) -> str:
        live = "status.phase!=Succeeded,status.phase!=Failed"
        return f"{live},spec.nodeName={self.names[0]}" if len(self.names) == 1 else live

    def _require_known(self, found: list[dict[str, t.Any] | None]) -> None:
        # A name such as node-3/status is answered with another object.
        missing = [name for name, node in zip(self.names, found, strict=True) if not node or node["metadata"].get("name") != name]
        if missing:
            are = "is not a node" if len(missing) == 1 else "are not nodes"
            raise UserError(f"{join_names(missing)} {are} of this cluster; correct nodes. Nothing was changed.")

    def _require_namespace(self) -> None:
        namespace = self.params["namespace"]
        if namespace and not self.builds and self.cluster.get("Namespace", namespace) is None:
            raise UserError(f"Namespace {namespace} does not exist; set namespace to the one that builds run in. Nothing was changed.")

    def _require_written(self) -> None:
        if failed := [(name, failure) for name, failure in zip(self.names, self.failures, strict=True) if failure]:
            done = "cordoned" if self.drained else "uncordoned"
            names = join_names([name for name, unused in failed])
            raise UserError(
                f"{len(failed)} of {len(self.names)} nodes could not be {done}: {names}. {failed[0][1]} Run again for these nodes."
            )

    def _write(self, node: dict[str, t.Any]) -> tuple[dict[str, t.Any], str]:
        """(the node afterwards, why it could not be written)."""
        try:
            # A node that was deleted meanwhile takes no builds.
            return self.cluster.reconcile("Node", node, self._patch_for) or node, ""
        except ClusterError as exc:
            return node, str(exc)

    def _patch_for(self, node: dict[str, t.Any]) -> dict[str, t.Any]:
        if self.drained:
            return _build_drain.cordon_patch(node, self.holder, self.params["reason"])
        return _build_drain.uncordon_patch(node)

    def _drain(self) -> None:
        timeout, interval, force = self.params["timeout"], self.params["interval"], self.params["force"]
        settled = time.monotonic()
        cordoned = [after for before, after in zip(self.before, self.after, strict=True) if not _build_drain.is_cordoned(before)]
        if cordoned:
            # Builds that were placed between the first list and the cordon.
            self._list()
            settled += SETTLE_SECONDS
        self._wait(time.monotonic() + (timeout if interval is None else interval), settled)
        if interval is not None:
            return
        refusal = self._evict() if self.builds and force else ""
        if self.builds:
            left = self.builds.left(int(time.time()))
            raise UserError(_build_drain.deadline_sentence(left, self.names, timeout, force, refusal))

    def _evict(self) -> str:
        """Evicts the builds, and waits for their end. Returns why the first eviction was refused, or an empty string."""
        pods = self.builds.pods
        with ThreadPoolExecutor(min(CONCURRENCY, self.cluster.connections)) as threads:
            refusals = list(filter(None, threads.map(self._evict_one, pods)))
        self._list()
        # If all were refused, none will end sooner.
        if len(refusals) < len(pods):
            self._wait(time.monotonic() + _build_drain.grace_seconds(pods) + EVICTION_SECONDS, 0)
        return refusals[0] if refusals else ""

    def _evict_one(self, pod: dict[str, t.Any]) -> str:
        try:
            self.cluster.evict(pod)
        except ClusterError as exc:
            return str(exc)
        return ""

    def _wait(self, deadline: float, settled: float) -> None:
        """Waits until no build is left, but not before ``settled`` and not after ``deadline``."""
        while (left := (deadline if self.builds else settled) - time.monotonic()) > 0:
            self._watch(min(WATCH_SECONDS, math.ceil(left)))

    def _watch(self, seconds: int) -> None:
        """Follows the builds; returns early when the last one has ended."""
        had_builds = bool(self.builds)
        with closing(self.cluster.follow("Pod", self.resource_version, seconds, **self.pods)) as changes:
            for change in changes:
                self.resource_version = change.resource_version
                if change.kind == LIST:
                    self.builds.replace(change.objects)
                for pod in change.objects if change.kind != LIST else ():
                    self.builds.event(change.kind, pod)
                if had_builds and not self.builds:
                    return

    def _list(self) -> None:
        pods, self.resource_version = self.cluster.list("Pod", **self.pods)
        self.builds.replace(pods)


def _holder() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def problem_of(params: dict[str, t.Any]) -> str | None:
    """One sentence about the first parameter that is not valid."""
    if not params["nodes"]:
        return "nodes is empty; name at least one node."
    if not all(name.strip() for name in params["nodes"]):
        return "nodes has an empty name; name each node."
    if not params["build_selector"].strip():
        return "build_selector is empty, which would match every pod; set it to the label selector of build pods, such as tier=builds."
    for name in ("timeout", "interval"):
        if params[name] is not None and params[name] < 0:
            return f"{name} is {params[name]}; set it to seconds, or to 0 to not wait."
    return None


def main() -> None:
    module = create_module(
        {
            "nodes": {"type": "list", "elements": "str", "required": True},
            "namespace": {"type": "str"},
            "build_selector": {"type": "str", "default": "tier=builds"},
            "timeout": {"type": "int", "default": 600},
            "interval": {"type": "int"},
            "force": {"type": "bool", "default": False},
            "reason": {"type": "str"},
            "holder": {"type": "str"},
            "state": {"type": "str", "choices": ["drained", "uncordoned"], "default": "drained"},
        }
    )
    if problem := problem_of(module.params):
        module.fail_json(msg=problem)
    try:
        drain = BuildDrain(module)
    except ClusterError as exc:
        module.fail_json(msg=str(exc))
    try:
        drain.run()
    except UserError as exc:
        module.fail_json(msg=str(exc), **drain.result())
    module.exit_json(**drain.result())


if __name__ == "__main__":
    main()
