#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: executor_config
short_description: Manages the executor section of a Screwdriver build cluster worker
version_added: 0.1.0
description:
  - Sets which share of the builds C(screwdriver-executor-router) sends to Kata, which images never go there, and the executor entries for it.
  - Writes integer C(weightage) values, the C(exclusions) key that the router reads, and keeps C(plugin) on the legacy executor, so that an
    excluded image has somewhere to go at every share.
  - Comments, order and keys that it does not own are kept. The result is checked against the routing rules before it is written.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.actiongroup_k8s
  - screwdriver.kata._executor_config
attributes:
  check_mode:
    support: full
    details:
      - On a ConfigMap the write is sent as a server-side dry run.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  kata_executor:
    description: Name of the executor entry that runs builds on Kata.
    type: str
    default: k8s-kata
  legacy_executor:
    description: Name of the executor entry that builds come from, and that C(plugin) stays on.
    type: str
    required: true
  kata_share:
    description:
      - Percent of the builds that no exclusion names that go to O(kata_executor), from V(0) to V(100), with at most two decimals.
      - An executor besides the two that has a weightage keeps it. A share that integers cannot express beside it is refused.
      - Left out, the weightages stay as they are.
    type: str
  exclusions:
    description:
      - Images that never go to O(kata_executor), as JavaScript regular expressions. The router looks for them anywhere in the image name,
        in either case.
      - Replaces the entry's list. Left out, the list stays as it is.
    type: list
    elements: str
  executors:
    description:
      - Executor entries by name, laid over those that are there.
      - An entry that is not there yet is written out in full from the worker's shipped values and from O(legacy_executor)'s,
        since the worker fills no entry of a name that it does not ship.
      - A new entry has weightage 0.
    type: dict
  backup:
    description: Keep a copy of the file with a time stamp in its name. Only for O(path).
    type: bool
    default: false
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
seealso:
  - module: screwdriver.kata.executor_config_info
"""

EXAMPLES = r"""
- name: Add the Kata executor, without a build on it yet
  screwdriver.kata.executor_config:
    config_map:
      namespace: sd
      name: buildcluster-queue-worker
      deployment: buildcluster-queue-worker
    legacy_executor: k8s-vm
    kata_share: 0
    exclusions:
      - rhel6
    executors:
      k8s-kata:
        pluginName: k8s
        options:
          kubernetes:
            runtimeClass: kata
            nodeSelectors:
              dedicated: screwdriver-kata

- name: Send a tenth of the builds to Kata
  screwdriver.kata.executor_config:
    config_map:
      namespace: sd
      name: buildcluster-queue-worker
      deployment: buildcluster-queue-worker
    legacy_executor: k8s-vm
    kata_share: 10
"""

RETURN = r"""
executor:
  description: The executor section as it is, or in check mode would be, after the module.
  returned: success
  type: dict
  sample:
    plugin: k8s-vm
    k8s-vm: {weightage: 90}
    k8s-kata: {pluginName: k8s, weightage: 10, exclusions: [rhel6]}
weightages:
  description: Each executor's weightage.
  returned: success
  type: dict
  sample: {k8s-vm: 90, k8s-kata: 10}
shares:
  description: Percent of the builds that no exclusion names, by executor, as the router will draw.
  returned: success
  type: dict
  sample: {k8s-vm: 90.0, k8s-kata: 10.0}
findings:
  description: What is wrong with the config, see M(screwdriver.kata.executor_config_info).
  returned: success
  type: list
  elements: dict
  sample: []
rolled:
  description: Whether the worker's Deployment was told to replace its pods.
  returned: success
  type: bool
  sample: true
backup_file:
  description: The copy of the file.
  returned: O(backup) is true and the file was changed
  type: str
  sample: /etc/sd/local.yaml.3218.2026-11-23@21:00:00~
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import document as _executor_config
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import findings as _findings
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing as _routing
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import worker as _worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import PatternError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._values import parse_share


class ExecutorConfig:
    def __init__(self, module: t.Any) -> None:
        self.module = module
        self.kata: str = module.params["kata_executor"]
        self.legacy: str = module.params["legacy_executor"]
        asked = module.params["kata_share"]
        self.share = None if asked is None else parse_share(asked, "kata_share")
        self._check_exclusions()
        self.source = _executor_config.source_of(module)

    def run(self) -> dict[str, t.Any]:
        before, after, rolled = self.source.update(self._edit, write=not self.module.check_mode)
        document = Document(after, self.source.where).plain()
        section = document["executor"]
        _executor_config.hide_tokens(self.module, section)
        result: dict[str, t.Any] = {
            "changed": after != before or rolled,
            "rolled": rolled,
            "executor": section,
            "weightages": _routing.weightages(section),
            "shares": {name: round(float(part * 100), 4) for name, part in _routing.shares(section).items()},
            "findings": _findings.find(document, self.source.environment),
            "diff": {"before_header": self.source.where, "after_header": self.source.where, "before": before, "after": after},
        }
        if self.source.backup_file:
            result["backup_file"] = self.source.backup_file
        return result

    def _check_exclusions(self) -> None:
        try:
            _javascript.matches_any(self.module.params["exclusions"] or [], "")
        except PatternError as exc:
            raise UserError(f"{exc} Nothing was changed.") from exc

    def _edit(self, text: str) -> str:
        document = Document(text, self.source.where)
        before = document.plain()
        section = before.get("executor") or {}
        if not isinstance(section, dict):
            raise UserError(f"executor in {self.source.where} is not a map. Nothing was changed.")
        changes = self._entries(section)
        wanted = _worker.merged(section, changes)
        self._check_names(wanted)
        if self.module.params["exclusions"] is not None:
            changes[self.kata] = {**changes.get(self.kata, {}), "exclusions": self.module.params["exclusions"]}
        if self.share is not None:
            for name, weight in _routing.weights_for(wanted, self.kata, self.legacy, self.share).items():
                changes[name] = {**changes.get(name, {}), "weightage": weight}
        changes["plugin"] = self.legacy
        document.merge({"executor": changes})
        if document.plain() == before:
            return text
        after = document.text()
        self._check_result(Document(after, self.source.where).plain())
        return after

    def _entries(self, section: dict[str, t.Any]) -> dict[str, t.Any]:
        """What O(executors) lays over the section; an entry that is new is completed."""
        changes = {}
        legacy = _worker.effective(self.legacy, section.get(self.legacy) or {}, self.source.environment)
        for name, entry in (self.module.params["executors"] or {}).items():
            if not isinstance(entry, dict):
                raise UserError(f"executors: {name} is {entry!r} and not a map of the entry's keys.")
            changes[name] = entry if name in section or name in _routing.SHIPPED else _worker.complete(entry, legacy)
        return changes

    def _check_names(self, section: dict[str, t.Any]) -> None:
        for option, name in (("kata_executor", self.kata), ("legacy_executor", self.legacy)):
            if name not in _routing.entries(section) and name not in _routing.SHIPPED:
                known = ", ".join(_routing.entries(section)) or "no executor"
                raise UserError(f"{option} {name} is not configured in {self.source.where}, which has {known}: add it through executors.")
        if self.kata == self.legacy:
            raise UserError(f"kata_executor and legacy_executor are both {self.kata}: name two executors.")

    def _check_result(self, document: dict[str, t.Any]) -> None:
        section = document["executor"]
        if self.share is None:
            return
        if _routing.plugin_name(self.kata, section[self.kata]) not in _routing.PLUGINS:
            raise UserError(
                f"kata_executor {self.kata} has no pluginName that the worker knows: write one of {', '.join(_routing.PLUGINS)}."
            )
        routed = _routing.shares(section).get(self.kata, 0) * 100
        if routed != self.share and not (self.share == 0 and routed == 0):
            raise UserError(f"The router would send {float(routed):g} % to {self.kata} and not {self.share} %. Nothing was changed.")
        for variable, key in _findings.overridden(section, self.source.environment):
            if key in ("plugin", f"{self.kata}.weightage", f"{self.legacy}.weightage"):
                raise UserError(
                    f"kata_share would have no effect: {variable} in the Deployment beats executor.{key} in the file: remove the variable."
                )


def main() -> None:
    module = create_module(
        {
            **_executor_config.SOURCE_OPTIONS,
            "kata_executor": {"type": "str", "default": "k8s-kata"},
            "legacy_executor": {"type": "str", "required": True},
            "kata_share": {"type": "str"},
            "exclusions": {"type": "list", "elements": "str"},
            "executors": {"type": "dict"},
            "backup": {"type": "bool", "default": False},
        }
    )
    _executor_config.check_requirements(module)
    try:
        module.exit_json(**ExecutorConfig(module).run())
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
