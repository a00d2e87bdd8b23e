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
  - Sets which share of the builds C(screwdriver-executor-router) sends to Kata, which images never go there, and the executor entries for
    it.
  - Writes integer C(weightage) values, the C(exclusions) key that the router reads, and keeps C(plugin) on the legacy executor, so that an
    excluded image has somewhere to go at every share.
  - Judges the config that the worker acts on, which is its shipped values, under the file, under C(NODE_CONFIG), under its environment
    variables. A share that the worker would not act on is refused, with what overrides it.
  - Changes only the lines that it must. Comments, order, indentation and line ends stay; entries that share text with a change by anchor,
    alias or merge key are written out first, and a change that would alter another key is refused.
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
    description: Name of the current executor's entry, which C(plugin) stays on.
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
      - Images that never go to O(kata_executor), as JavaScript regular expressions. They match anywhere in the image name,
        in either case.
      - Replaces the entry's list. Left out, the list stays as it is.
    type: list
    elements: str
  executors:
    description:
      - Executor entries by name, laid over those that are there.
      - An entry that is not there yet is written out in full, since the worker fills no entry of a name that it does not ship. It gets
        the options of O(legacy_executor) as the worker acts on them, variables included, except those that are unsafe or without meaning
        for it. Each one that is left out is a finding.
      - A new entry has weightage 0.
    type: dict
  remove_legacy:
    description:
      - Stop routing to O(legacy_executor) by naming O(kata_executor) as C(plugin), which gets what no weightage routes. The
        legacy entry stays in the text, without a build.
      - Refused while anything still routes to another executor. That is an exclusion of O(kata_executor), a share below 100 %, or a
        variable of the worker.
      - A later call without it names O(legacy_executor) again, so that a rollback works as before.
    type: bool
    default: false
  override_environment:
    description:
      - What to do about variables of the worker that route builds, such as C(WEIGHT_K8S), C(EXECUTOR_PLUGIN) or keys of C(NODE_CONFIG),
        when they override O(kata_share), or above 0 % the exclusions.
      - With V(fail), the module fails and names them. With V(remove), they are removed from the workload O(config_map.deployment).
        Of C(NODE_CONFIG), only these keys are. Exclusions that the config does not have are not removed, and the module fails.
    type: str
    choices: [fail, remove]
    default: fail
  print_patch:
    description:
      - Write nothing, and return the change as RV(patch), for a config that a GitOps tool owns.
    type: bool
    default: false
  backup:
    description: Keep a copy of the file with a time stamp in its name. Only for O(path).
    type: bool
    default: false
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
requirements:
  - PyYAML >= 6.0
  - regress >= 2026.9.1
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
  description: The executor section of the file as it is, or in check mode would be, after the module. Secrets are masked.
  returned: success
  type: dict
  sample:
    plugin: k8s-vm
    k8s-vm: {weightage: 90}
    k8s-kata: {pluginName: k8s, weightage: 10, exclusions: [rhel6]}
effective:
  description: The executor section that the worker acts on. Secrets are masked; a value that cannot be read names where it comes from.
  returned: success
  type: dict
  sample:
    plugin: k8s-vm
    k8s-vm: {weightage: 90}
    k8s-kata: {pluginName: k8s, weightage: 10, exclusions: [rhel6]}
weightages:
  description: Each executor's weightage as the worker acts on it.
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
patch:
  description: The change as a unified diff without context. Secrets are masked.
  returned: O(print_patch) is true
  type: str
  sample: "--- key local.yaml of ConfigMap sd/worker"
removed_variables:
  description: The variables that were removed from the worker.
  returned: success
  type: list
  elements: str
  sample: []
rolled:
  description: Whether the pods of the worker's workload are replaced.
  returned: success
  type: bool
  sample: true
workers:
  description:
    - The workloads that read the config and whose pods are replaced when it changes, each with C(kind) and C(name), that of
      O(config_map.deployment) first. Empty without it.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: Deployment
      name: buildcluster-queue-worker
backup_file:
  description: The copy of the file.
  returned: O(backup) is true and the file was changed
  type: str
  sample: /etc/sd/local.yaml.3218.2026-11-23@21:00:00~
"""

import difflib
import re
import typing as t
from decimal import Decimal

from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils import _secrets as secrets
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import entry, findings, report, routing, worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.source import SOURCE_OPTIONS, Source, source_of
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import PatternError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import create_module
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names, parse_share

_HUNK = re.compile(r"@@ -([0-9]+)(?:,[0-9]+)? \+([0-9]+)(?:,[0-9]+)? @@")
REMOVE = "Remove the variables from the worker, or set override_environment to remove. Nothing was changed."


class ExecutorConfig:
    def __init__(self, module: t.Any) -> None:
        self.module = module
        self.kata: str = module.params["kata_executor"]
        self.legacy: str = module.params["legacy_executor"]
        asked = module.params["kata_share"]
        self.share = None if asked is None else parse_share(asked, "kata_share")
        self.plugin = self.kata if module.params["remove_legacy"] else self.legacy
        report.hide(module, module.params["executors"])
        self._check_exclusions()
        self.source = source_of(module)
        # Each worker that reads the config, with the variables that it is to have. The first one is the one that is named.
        self.environments: dict[Source, worker.Environment] = {each: each.environment for each in (self.source, *self.source.peers)}
        self.removed: dict[Source, dict[str, set[str]]] = {each: {} for each in self.environments}

    @property
    def environment(self) -> worker.Environment:
        return self.environments[self.source]

    def run(self) -> dict[str, t.Any]:
        for environment in self.environments.values():
            report.hide(self.module, environment.values)
        if self.module.params["print_patch"]:
            before = self.source.read()
            after, rolled = self._edit(before), False
        else:
            before, after, rolled = self._update()
            if rolled:
                self.source.notices = [notice for notice in self.source.notices if notice.code not in ("pods_outdated", "pods_unknown")]
        written = not self.module.params["print_patch"]
        result: dict[str, t.Any] = {
            "changed": written and (after != before or rolled),
            "rolled": rolled,
            "workers": report.workers(self.source),
            "removed_variables": sorted({name for names in self.removed.values() for name in names}),
            **self._report(Document(after, self.source.where, self.source.is_json).plain()),
            "diff": report.diff(self.source, before, after),
        }
        if self.module.params["print_patch"]:
            result["patch"] = _patch(before, after, self.source)
        if self.source.backup_file:
            result["backup_file"] = self.source.backup_file
        return result

    def _report(self, document: dict[str, t.Any]) -> dict[str, t.Any]:
        """What the result says of the config."""
        as_if_read = not self.module.params["print_patch"] and self.source.read_after
        effective = self.source.effective(document, self.environment, as_if_read=as_if_read)
        return {
            **report.sections(document, effective),
            "weightages": report.weightages(document, effective),
            "shares": report.percentages(document, effective),
            "findings": report.findings(self.source, document, self.environments, self.kata, self.legacy),
        }

    def _update(self) -> tuple[str, str, bool]:
        # What is removed depends on what overrides the share, so the content is read first.
        if self.share is not None and self.module.params["override_environment"] == "remove":
            self._edit(self.source.read())
        write = not self.module.check_mode
        peers = self.source.peers if (self.module.params["config_map"] or {}).get("deployment") else ()
        # A rollback brings those workers to 0 % that it may.
        for peer in peers if self.share != 0 else ():
            peer.require_permission()
        before, after, rolled = self.source.update(self._edit, write, self.removed[self.source])
        for peer in peers:
            rolled |= peer.update(self._edit, write, self.removed[peer])[2]
        return before, after, rolled

    def _check_exclusions(self) -> None:
        try:
            _javascript.matches_any(self.module.params["exclusions"] or [], "")
        except PatternError as exc:
            raise UserError(f"{exc} Nothing was changed.") from exc

    def _edit(self, text: str) -> str:
        document = Document(text, self.source.where, self.source.is_json)
        report.hide(self.module, document.plain())
        section = document.plain().get("executor") or {}
        if not isinstance(section, dict):
            raise UserError(f"executor in {self.source.where} is not a map. Nothing was changed.")
        changes = self._entries(section)
        self._check_names(worker.merged(section, changes))
        if self.module.params["exclusions"] is not None:
            changes[self.kata] = {**changes.get(self.kata, {}), "exclusions": self.module.params["exclusions"]}
        if self.share is not None:
            self._require_environment()
            for name, weight in self._weights(worker.merged(section, changes), self.share).items():
                changes[name] = {**changes.get(name, {}), "weightage": weight}
        changes["plugin"] = self.plugin
        document.merge({"executor": changes})
        if self.share is not None:
            self._check_share(document.plain())
        if self.module.params["remove_legacy"]:
            self._require_environment("remove_legacy")
            for source in self.environments:
                self._require_unused(source, document.plain())
        # What cannot be reported is not written, unless it is a rollback.
        if self.share != 0:
            self._report(document.plain())
        return document.text()

    def _require_unused(self, source: Source, document: dict[str, t.Any]) -> None:
        """Whether a worker sends each build to Kata."""
        if not source.read_after:
            raise UserError(f"{self.legacy} cannot be removed: {source.worker} does not read {source.where}. Nothing was changed.")
        effective = source.effective(document, self.environments[source], as_if_read=True)
        excluded = routing.entries(effective).get(self.kata, {}).get("exclusions")
        if excluded:
            raise UserError(
                f"{self.legacy} cannot be removed: the exclusions of {self.kata}, {excluded}, still send builds to it. Move these images "
                "to Kata, and empty exclusions. Nothing was changed."
            )
        others = [f"{name} {float(part * 100):g} %" for name, part in routing.shares(effective).items() if part and name != self.kata]
        overriding = self._overriding(source, document)
        reason = _named(overriding) or _reading(source, document)
        why = f", because {reason}" if reason else ""
        if others:
            raise UserError(
                f"{self.legacy} cannot be removed: {source.worker} sends {join_names(others)} of the builds{why}. "
                "Finish the rollout first. Nothing was changed."
            )
        if effective["plugin"] != self.kata:
            raise UserError(
                f"{self.legacy} cannot be removed: {source.worker} sends builds that no weightage routes to {effective['plugin']}{why}. "
                "Remove that first. Nothing was changed."
            )

    def _require_environment(self, option: str = "kata_share") -> None:
        for source, environment in self.environments.items():
            if environment.unread:
                raise UserError(
                    f"{option} cannot be kept: {source.worker} takes variables from {join_names(environment.unread)}, which may not be "
                    "read, and each can override the file. Grant get on it. Nothing was changed."
                )
            for title, advice in source.layers.unknown:
                raise UserError(
                    f"{option} cannot be kept: {source.worker} also reads {title}, and its executor section cannot be known here: "
                    f"{advice}. Nothing was changed."
                )
            if isinstance(over := worker.node_config(environment), worker.Unknown):
                raise UserError(
                    f"{option} cannot be kept: NODE_CONFIG of {source.worker} comes from {over.source} and cannot be read, and it "
                    "overrides the file. Remove its executor section. Nothing was changed."
                )

    def _weights(self, section: dict[str, t.Any], share: Decimal) -> dict[str, int]:
        """The weightages for the share, beside those that variables set."""
        document = {"executor": section}
        try:
            return routing.weights_for(self.source.effective(document, self.environment, as_if_read=True), self.kata, self.legacy, share)
        except UserError as exc:
            overriding = self._overriding(self.source, document)
            if not overriding:
                raise
            if self.module.params["override_environment"] == "remove":
                self._remove(self.source, overriding, document)
                return self._weights(section, share)
            raise UserError(f"kata_share {share} cannot be set beside variables of the worker: {_named(overriding)}. {REMOVE}") from exc

    def _entries(self, section: dict[str, t.Any]) -> dict[str, t.Any]:
        """What O(executors) lays over the section; an entry that is new is completed."""
        changes = {}
        for name, given in (self.module.params["executors"] or {}).items():
            if not isinstance(given, dict):
                raise UserError(f"executors: {name} is {given!r} and not a map of the entry's keys.")
            if name in section or name in routing.SHIPPED:
                changes[name] = given
                continue
            if self.environment.unread:
                raise UserError(
                    f"executors: {name} cannot be completed from {self.legacy}: the worker takes variables from "
                    f"{join_names(self.environment.unread)}, which may not be read. Grant get on it. Nothing was changed."
                )
            legacy = self.source.effective({"executor": section}, self.environment, as_if_read=True).get(self.legacy)
            changes[name] = entry.complete(name, given, legacy if isinstance(legacy, dict) else {})
        return changes

    def _check_names(self, section: dict[str, t.Any]) -> None:
        for option, name in (("kata_executor", self.kata), ("legacy_executor", self.legacy)):
            if name not in routing.entries(section) and name not in routing.SHIPPED:
                known = ", ".join(routing.entries(section)) or "no executor"
                raise UserError(f"{option} {name} is not configured in {self.source.where}, which has {known}: add it through executors.")
        if self.kata == self.legacy:
            raise UserError(f"kata_executor and legacy_executor are both {self.kata}: name two executors.")

    def _check_share(self, document: dict[str, t.Any]) -> None:
        for source in self.environments:
            self._check_share_of(source, document)

    def _check_share_of(self, source: Source, document: dict[str, t.Any]) -> None:
        """Whether a worker will draw the share, with all that overrides the file."""
        effective = source.effective(document, self.environments[source], as_if_read=source.read_after)
        loaded = routing.loaded(effective)
        if self.kata not in loaded and source.read_after:
            raise UserError(
                f"kata_executor {self.kata} has no pluginName that the worker knows: write one of {', '.join(routing.PLUGINS)}."
            )
        try:
            routed = routing.shares(effective).get(self.kata, 0) * 100
            wrong = "" if routed == self.share else f"{source.worker} would send {float(routed):g} % of the builds to {self.kata}"
            if effective.get("plugin") != self.plugin:
                wrong = wrong or f"{source.worker} would send builds that no weightage routes to {effective.get('plugin')}"
            wrong = wrong or self._other_exclusions(source, document, effective)
        except UserError:
            wrong = f"what {source.worker} would do is not known"
        if not wrong:
            return
        overriding = self._overriding(source, document)
        if overriding and self.module.params["override_environment"] == "remove":
            self._remove(source, overriding, document)
            self._check_share_of(source, document)
            return
        if overriding:
            raise UserError(f"kata_share {self.share} has no effect: {wrong}, because {_named(overriding)}. {REMOVE}")
        if source.read_after and (reads := _reading(source, document)):
            raise UserError(
                f"kata_share {self.share} has no effect: {wrong}, because {reads}: remove its executor section. Nothing was changed."
            )
        if not source.read_after:
            if routed == 0 and self.share == 0:
                return
            raise UserError(
                f"kata_share {self.share} has no effect: {wrong}, because it does not read {source.where}. Nothing was changed."
            )
        raise UserError(f"kata_share {self.share} has no effect: {wrong}{_invalid_pattern(loaded)}. Nothing was changed.")

    def _other_exclusions(self, source: Source, document: dict[str, t.Any], effective: dict[str, t.Any]) -> str:
        """Where the exclusions of a worker are not those of the file and of what it overrides, as a clause. At 0 % none is needed."""
        written, own = routing.entries(source.layers.below(document["executor"])), routing.entries(effective)
        for name in (self.kata, self.legacy) if self.share and source.read_after else ():
            acted_on, asked = (entries.get(name, {}).get("exclusions") or [] for entries in (own, written))
            if acted_on != asked:
                return f"{source.worker} would exclude {acted_on} and not {asked} from {name}"
        return ""

    def _overriding(self, source: Source, document: dict[str, t.Any]) -> list[tuple[str, str]]:
        """The variables that keep the file's routing from taking effect."""
        section = document["executor"]
        known = worker.merged(worker.SHIPPED, section)
        found = []
        for variable, key in findings.overriding(section, self.environments[source]):
            name, option = [*key.split("."), ""][:2]
            if not findings.routes(key) or (key != "plugin" and name not in known):
                continue
            # An entry that has its pluginName from nowhere else is lost without it, and no exclusion keeps a share from being 0.
            if (option == "pluginName" and worker.lookup(known, key) is None) or (option == "exclusions" and self.share == 0):
                continue
            found.append((variable, key))
        return found

    def _remove(self, source: Source, overriding: list[tuple[str, str]], document: dict[str, t.Any]) -> None:
        names = sorted({variable for variable, unused in overriding})
        if not (self.module.params["config_map"] or {}).get("deployment"):
            raise UserError("override_environment: remove needs config_map.deployment.")
        if self.module.params["print_patch"]:
            raise UserError(f"print_patch writes nothing, and {join_names(names)} would override the patch: remove them at their source.")
        removed = self.removed[source]
        for variable, key in overriding:
            removed.setdefault(variable, set()).add(".".join(key.split(".")[:2]))
        source.require_removable(removed)
        known = self.environments[source]
        values = {name: value for name, value in known.values.items() if name not in names}
        over = worker.node_config(known)
        if worker.NODE_CONFIG in names and isinstance(over, dict):
            values[worker.NODE_CONFIG] = worker.without_keys(over, removed[worker.NODE_CONFIG])
        self.environments[source] = worker.Environment(values, known.sources, known.unread)
        self._require_exclusions(source, document, known)

    def _require_exclusions(self, source: Source, document: dict[str, t.Any], before: worker.Environment) -> None:
        """Whether each pattern that a worker excludes is still excluded without the variables that are removed."""
        had, has = (
            routing.entries(source.effective(document, environment, as_if_read=True)) for environment in (before, self.environments[source])
        )
        for name, own in had.items():
            if name == self.kata and self.module.params["exclusions"] is not None:
                continue
            patterns, kept = (
                value if isinstance(value, list) else [] for value in (own.get("exclusions"), has.get(name, {}).get("exclusions"))
            )
            if lost := [pattern for pattern in patterns if pattern not in kept]:
                add = "exclusions" if name == self.kata else f"executors, as exclusions of {name}"
                raise UserError(
                    f"override_environment: remove would remove the exclusions {lost} of {name} from {worker.NODE_CONFIG} of "
                    f"{source.worker}, and the config does not have them: add them to {add}. Nothing was changed."
                )


def _named(overriding: list[tuple[str, str]]) -> str:
    return ", ".join(f"{variable} overrides executor.{key}" for variable, key in overriding)


def _reading(source: Source, document: dict[str, t.Any]) -> str:
    """The first other file of the worker that keeps the file's routing from taking effect, as a clause."""
    for title, keys in source.overriding(document):
        if routed := [f"executor.{key}" for key in keys if findings.routes(key)]:
            return f"it also reads {title}, which overrides {join_names(routed)}"
    return ""


def _invalid_pattern(loaded: routing.Entries) -> str:
    """Why the router's rule throws, as the end of a sentence."""
    for name, own in loaded.items():
        try:
            routing.is_excluded(own, None)
        except PatternError as exc:
            return f", because it cannot use the exclusions of {name}: {exc}"
    return ""


def _patch(before: str, after: str, source: Source) -> str:
    """The lines that differ, as the masked texts have them."""
    old, new = (Document(text, source.where, source.is_json).masked().split("\n") for text in (before, after))
    shown, at = {"-": old, "+": new}, {"-": 0, "+": 0}
    result: list[str] = []
    for line in difflib.unified_diff(before.split("\n"), after.split("\n"), source.where, source.where, n=0, lineterm=""):
        if found := _HUNK.match(line):
            at = {"-": int(found[1]) - 1, "+": int(found[2]) - 1}
        if found or len(result) < 2:
            result.append(line)
            continue
        sign = line[0]
        result.append(sign + shown[sign][at[sign]])
        at[sign] += 1
    return "".join(f"{line}\n" for line in result)


def main() -> None:
    module = create_module(
        {
            **SOURCE_OPTIONS,
            "kata_executor": {"type": "str", "default": "k8s-kata"},
            "legacy_executor": {"type": "str", "required": True},
            "kata_share": {"type": "str"},
            "exclusions": {"type": "list", "elements": "str"},
            "executors": {"type": "dict"},
            "remove_legacy": {"type": "bool", "default": False},
            "override_environment": {"type": "str", "choices": ["fail", "remove"], "default": "fail"},
            "print_patch": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
        }
    )
    report.check_requirements(module)
    try:
        module.exit_json(**ExecutorConfig(module).run())
    except UserError as exc:
        module.fail_json(msg=secrets.mask_text(str(exc)))


if __name__ == "__main__":
    main()
