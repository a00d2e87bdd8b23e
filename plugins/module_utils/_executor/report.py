# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What the executor modules return: the executor section alone, without its secrets."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.screwdriver.kata.plugins.module_utils import _javascript
from ansible_collections.screwdriver.kata.plugins.module_utils import _secrets as secrets
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import entry, routing, tree, worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import findings as rules
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Unknown
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import number
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

if t.TYPE_CHECKING:
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.core import AnsibleK8SModule
    from ansible_collections.screwdriver.kata.plugins.module_utils._executor.source import Source

# What of an entry decides, besides its weightage, which image it gets and whether in Kata; and what stands for none.
_DECISIVE: dict[str, t.Any] = {"exclusions": [], "pluginName": "", "options.kubernetes.runtimeClass": ""}


def check_requirements(module: AnsibleK8SModule) -> None:
    """Fails the module where a library is missing."""
    for library, trace in (("PyYAML", tree.YAML_TRACEBACK), ("regress", _javascript.REGRESS_TRACEBACK)):
        if trace:
            module.fail_json(msg=missing_required_lib(library), exception=trace)


def hide(module: AnsibleK8SModule, value: t.Any) -> None:
    """Has Ansible remove the secrets in a value from everything that the module prints."""
    module._module.no_log_values.update(secrets.find(value))


def sections(document: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The executor section of the file, and the one that the worker acts on."""
    section = document.get("executor")
    return {"executor": _shown(section) if isinstance(section, dict) else {}, "effective": _shown(effective)}


def _shown(value: t.Any) -> t.Any:
    return secrets.masked(_without_unknown(value))


def _without_unknown(value: t.Any) -> t.Any:
    if isinstance(value, Unknown):
        return str(value)
    if isinstance(value, t.Mapping):
        return {key: _without_unknown(item) for key, item in value.items()}
    return [_without_unknown(item) for item in value] if isinstance(value, list) else value


def _is_shown(document: t.Mapping[str, t.Any], name: str, weight: t.Any) -> bool:
    """Shipped entries that nobody wrote and that get no build are left out."""
    section = document.get("executor")
    return isinstance(weight, Unknown) or bool(weight) or (isinstance(section, dict) and name in section)


def weightages(document: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Each executor's weightage as the worker acts on it."""
    found = routing.weightages(effective)
    return {
        name: str(weight) if isinstance(weight, Unknown) else weight
        for name, weight in found.items()
        if _is_shown(document, name, weight if isinstance(weight, Unknown) else number(weight))
    }


def shares(document: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Any], image: str | None = None) -> dict[str, t.Any]:
    """Each executor's probability for a build of an image; none where it cannot be known."""
    try:
        found = routing.shares(effective, image)
    except UserError:
        return {}
    return {name: part for name, part in found.items() if _is_shown(document, name, part)}


def percentages(document: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Any]) -> dict[str, float]:
    return {name: round(float(part * 100), 4) for name, part in shares(document, effective).items()}


def workers(source: Source) -> list[dict[str, str]]:
    """The workloads whose pods are replaced when the config changes, the one that the user names first; none where no one is named."""
    return [each.workload for each in (source, *source.peers) if each.workload] if source.workload else []


def findings(
    source: Source, document: t.Mapping[str, t.Any], environments: t.Mapping[Source, Environment], kata: str | None, legacy: str | None
) -> list[dict[str, t.Any]]:
    """What is wrong with the place and with the config. environments: the variables of each worker that reads it."""
    judged = rules.find(source.with_files(document), environments[source], source.shipped, kata, legacy)
    found = [t.cast("dict[str, t.Any]", dict(finding)) for finding in judged]
    return [
        {**finding, "message": secrets.mask_text(finding["message"])}
        for finding in [
            *(notice._asdict() for notice in source.notices),
            *_files(source, document),
            *_apart(source, document, environments),
            *found,
        ]
    ]


def _files(source: Source, document: t.Mapping[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    """Other files of the workers that win over the config, or may."""
    for each in (source, *source.peers):
        for title, advice in each.layers.unknown:
            message = f"{each.worker} also reads {title}, and its executor section cannot be known here: {advice}."
            yield {"code": "file_unknown", "severity": "error", "path": title, "message": message}
        for title, keys in each.overriding(document):
            names = join_names([f"executor.{key}" for key in keys])
            severity = "error" if any(map(rules.routes, keys)) else "warning"
            message = f"{each.worker} also reads {title}, which overrides {names}: remove its executor section."
            yield {"code": "file_wins", "severity": severity, "path": title, "message": message}


def _apart(source: Source, document: t.Mapping[str, t.Any], environments: t.Mapping[Source, Environment]) -> t.Iterator[dict[str, t.Any]]:
    """Other workers that read the same config and route builds in another way."""
    for peer in source.peers:
        finding = {"code": "workers_apart", "severity": "error", "path": peer.worker}
        try:
            acted_on = [each.effective(document, environments[each]) for each in (peer, source)]
            theirs, ours = map(routing.shares, acted_on)
        except UserError as exc:
            yield {**finding, "message": f"{peer.worker} reads the same config. {exc}"}
            continue
        if theirs != ours:
            listed = ", ".join(f"{name} {float(part * 100):g} %" for name, part in theirs.items() if part)
            message = f"{peer.worker} reads the same config, and its variables make other shares of it ({listed}): remove them there."
            yield {**finding, "message": message}
        for name, option, value, other in _options_apart(*acted_on):
            message = (
                f"{peer.worker} reads the same config, and its variables make {option} of {name} {value!r} and not {other!r}: "
                "remove them there."
            )
            yield {**finding, "message": message}


def _options_apart(theirs: t.Mapping[str, t.Any], ours: t.Mapping[str, t.Any]) -> t.Iterator[tuple[str, str, t.Any, t.Any]]:
    """(executor, option, value of the one worker, of the other) of what decides which image runs where, and whether in Kata."""
    used = {name: None for effective in (ours, theirs) for name in rules.reachable(effective)}
    for name in used:
        for path, nothing in _DECISIVE.items():
            one, other = (worker.lookup(effective, f"{name}.{path}") or nothing for effective in (theirs, ours))
            if _without_unknown(one) != _without_unknown(other):
                yield name, path.rsplit(".", 1)[-1], one, other


def pod_diff(effective: t.Mapping[str, t.Any], kata: str, legacy: str) -> list[dict[str, t.Any]]:
    """Where the pods of the two executors differ, none where one of them is not configured."""
    loaded = routing.loaded(effective)
    if kata not in loaded or legacy not in loaded:
        return []
    return secrets.masked(entry.pod_diff(loaded[legacy], loaded[kata], routing.plugin_name(legacy, loaded[legacy])))


def diff(source: Source, before: str, after: str) -> dict[str, t.Any]:
    """The executor sections before and after, without their secrets. The rest of the file is not shown."""
    texts = []
    for text in (before, after):
        section = Document(text, source.where, source.is_json).plain().get("executor")
        texts.append(tree.dump({"executor": secrets.masked(section)}))
    return {"before_header": source.where, "after_header": source.where, "before": texts[0], "after": texts[1]}
