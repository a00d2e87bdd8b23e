# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What is wrong, or will go wrong, with an executor config: each finding has a code, a severity, a place and what to do."""

from __future__ import annotations

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing as _routing
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import worker as _worker
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import PatternError, integer, matches, number

# Methods of the router's class: a build that is pinned to such a name by annotation crashes.
ROUTER_METHODS = ("start", "stop", "verify", "getExecutor", "getWeightedExecutor", "checkExclusions", "parseAnnotations", "constructor")
# Options that JavaScript reads by truthiness: the string "false" is true.
SWITCHES = ("privileged", "dockerFeatureEnabled", "rootlessBuildkitFeatureEnabled")
# Entries of one cluster must agree on these: stop and verify are routed anew, and find a build's pod by them.
SHARED = ("options.kubernetes.host", "options.kubernetes.jobsNamespace", "options.prefix")
# Names that have nothing in common: a pattern that matches each of them excludes everything.
PROBES = ("node:22", "registry.example/team/x@sha256:0", "q")


class Finding(t.TypedDict):
    """code: stable name. severity: error (builds go astray), warning (they can). path: where. message: what, and what to do."""

    code: str
    severity: str
    path: str
    message: str


def find(document: t.Mapping[str, t.Any], environment: t.Mapping[str, str | None] | None = None) -> list[Finding]:
    """All findings of a worker config (the whole file) and of its Deployment's environment, in the order of the file.

    environment maps a variable to its value; None where it is set from a source that cannot be read.
    """
    return list(_find(document, environment or {}))


def _error(code: str, path: str, message: str) -> Finding:
    return {"code": code, "severity": "error", "path": path, "message": message}


def _warning(code: str, path: str, message: str) -> Finding:
    return {"code": code, "severity": "warning", "path": path, "message": message}


def _find(document: t.Mapping[str, t.Any], environment: t.Mapping[str, str | None]) -> t.Iterator[Finding]:
    section = document.get("executor")
    if not isinstance(section, t.Mapping):
        yield _error("executor_missing", "executor", "There is no executor section: the worker's shipped one sends every build to k8s-vm.")
        return
    for name, entry in section.items():
        if name == "plugin":
            yield from _default(section, str(entry))
        elif isinstance(entry, t.Mapping):
            yield from _entry(str(name), entry)
        else:
            yield _error("entry_not_a_map", f"executor.{name}", f"{name} is {entry!r} and not a map: remove it or write its options.")
    if "plugin" not in section:
        yield _warning(
            "plugin_missing",
            "executor.plugin",
            "No plugin is named, so the worker's shipped k8s-vm is the default: name the legacy executor.",
        )
    yield from _together(section)
    yield from _environment(section, environment)
    queue = environment.get(_worker.RETRY_QUEUE_VARIABLE) or _worker.lookup(document, "rabbitmq.retryQueueEnabled")
    if str(queue).lower() == "true":
        yield _warning(
            "retry_queue_fails_slow_starts",
            _worker.RETRY_QUEUE_VARIABLE,
            "With the retry queue on, a build whose pod is still starting after the init timeout is failed with the word 'initializing' or "
            "'waiting': turn it off, or raise RABBITMQ_BUILD_INIT_TIMEOUT above the slowest start.",
        )


def _default(section: t.Mapping[str, t.Any], plugin: str) -> t.Iterator[Finding]:
    entries = _routing.entries(section)
    if plugin not in entries and plugin not in _routing.SHIPPED:
        yield _error(
            "plugin_unknown",
            "executor.plugin",
            f"plugin names {plugin}, which is no executor here: every build that no weightage routes fails.",
        )
    elif exclusions := entries.get(plugin, {}).get("exclusions"):
        yield _error(
            "plugin_excluded",
            "executor.plugin",
            f"plugin is {plugin}, which excludes {exclusions}; the default ignores exclusions, so such builds reach it whenever no other "
            "executor has a weightage: name the legacy executor.",
        )


def _entry(name: str, entry: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    path = f"executor.{name}"
    if name in ROUTER_METHODS:
        yield _error("name_is_method", path, f"{name} is a method of the router: a build pinned to it crashes. Choose another name.")
    plugin = _routing.plugin_name(name, entry)
    if plugin not in _routing.PLUGINS:
        code = "plugin_name_unknown" if entry.get("pluginName") else "plugin_name_missing"
        yield _error(
            code,
            f"{path}.pluginName",
            f"The router looks for npm module screwdriver-executor-{plugin}, which the worker does not have, and drops {name}: "
            f"write pluginName: {' or '.join(_routing.PLUGINS)}.",
        )
    if "exclusion" in entry:
        yield _error(
            "exclusion_ignored",
            f"{path}.exclusion",
            f"The key exclusion of {name} is ignored by every version of the router, so {entry['exclusion']} excludes nothing: write exclusions.",
        )
    yield from _exclusions(path, name, entry.get("exclusions"))
    yield from _weightage(path, name, entry)
    yield from _options(path, name, plugin, entry)


def _exclusions(path: str, name: str, exclusions: t.Any) -> t.Iterator[Finding]:
    path = f"{path}.exclusions"
    if exclusions is None:
        return
    if not isinstance(exclusions, list):
        yield _error(
            "exclusions_not_a_list",
            path,
            f"exclusions of {name} is {exclusions!r} and not a list: the router's rule throws and all builds go to plugin. Write a list.",
        )
        return
    for number_, item in enumerate(exclusions):
        try:
            if all(matches(item, probe) for probe in PROBES):
                yield _error(
                    "exclusion_matches_all", f"{path}[{number_}]", f"The pattern {item!r} of {name} matches every image: name the images."
                )
        except PatternError as exc:
            yield _error(
                "exclusion_invalid",
                f"{path}[{number_}]",
                f"The pattern {item!r} of {name} is no JavaScript regular expression ({exc}): the router's rule throws and all builds go to plugin.",
            )


def _weightage(path: str, name: str, entry: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    if "weightage" not in entry:
        return
    weight, path = entry["weightage"], f"{path}.weightage"
    if number(weight) == 0 and weight not in (0, "0", None, "", False):
        yield _error(
            "weightage_not_a_number", path, f"The weightage {weight!r} of {name} counts as 0: write a whole number without a unit."
        )
    elif number(weight) != integer(weight):
        yield _error(
            "weightage_fraction",
            path,
            f"The weightage {weight!r} of {name} is added up as {number(weight):g} and drawn as {integer(weight)}, so the shares are others than "
            "they look: write a whole number.",
        )
    elif number(weight) < 0:
        yield _error(
            "weightage_negative", path, f"The weightage {weight!r} of {name} is negative and bends every other share: write 0 or more."
        )


def _options(path: str, name: str, plugin: str, entry: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    kubernetes = _worker.lookup(entry, "options.kubernetes") or {}
    here = f"{path}.options.kubernetes"
    for switch in SWITCHES:
        if isinstance(kubernetes.get(switch), str):
            yield _error(
                "switch_is_a_string",
                f"{here}.{switch}",
                f"{switch} of {name} is the string {kubernetes[switch]!r}, which is true to the executor whatever it says: write true or false.",
            )
    if kubernetes.get("automountServiceAccountToken") is True:
        yield _warning(
            "automount_ignored",
            f"{here}.automountServiceAccountToken",
            f"automountServiceAccountToken of {name} is true, but only the string 'true' turns it on.",
        )
    if plugin == "k8s" and "rootlessBuildkitFeatureEnabled" not in kubernetes:
        yield _warning(
            "rootless_buildkit_on",
            f"{here}.rootlessBuildkitFeatureEnabled",
            f"rootlessBuildkitFeatureEnabled of {name} is not set and on by default: any build may ask for a privileged sidecar. Write false.",
        )
    if plugin == "k8s-vm" and not kubernetes.get("baseImage"):
        yield _warning(
            "base_image_missing",
            f"{here}.baseImage",
            f"baseImage of {name} is not set here: unless K8S_BASE_IMAGE is, every start throws \"'base_image' not found\".",
        )
    if "buildSecretFile" in kubernetes:
        yield _warning(
            "build_secret_file_ignored", f"{here}.buildSecretFile", f"buildSecretFile of {name} is ignored: write buildSecretsFile."
        )
    if name not in _routing.SHIPPED and plugin in _routing.PLUGINS:
        wanted = (
            "options.kubernetes.host",
            "options.kubernetes.jobsNamespace",
            "options.prefix",
            "options.kubernetes.terminationGracePeriodSeconds",
        )
        if missing := [key for key in wanted if _worker.lookup(entry, key) is None]:
            yield _warning(
                "custom_entry_incomplete",
                path,
                f"{name} is no shipped name, so neither default.yaml nor the environment fill it, and it lacks {', '.join(missing)}: write them out.",
            )


def _together(section: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    executors = _routing.loaded(section)
    defaults = {"options": _worker.DEFAULTS}
    for key in SHARED:
        # An entry that a shipped name leaves open may be filled by the environment; only what is written can differ for sure.
        written = {name: _worker.lookup(entry, key) for name, entry in executors.items()}
        values = {name: value if value is not None else _worker.lookup(defaults, key) for name, value in written.items()}
        if len(set(map(str, values.values()))) > 1 and any(value is not None for value in written.values()):
            listed = ", ".join(f"{name}: {value!r}" for name, value in values.items())
            yield _error(
                "entries_apart",
                f"executor.*.{key}",
                f"The executors differ in {key.rsplit('.', 1)[1]} ({listed}); stop and verify are routed anew and miss the build's pod where they "
                "pick the other executor. Give all entries the same value.",
            )
    if executors and not any(number(entry.get("weightage")) for entry in executors.values()) and len(executors) > 1:
        yield _warning(
            "weightage_all_zero",
            "executor.*.weightage",
            "No executor has a weightage, so every build goes to plugin and no exclusion counts.",
        )


def overridden(section: t.Mapping[str, t.Any], environment: t.Mapping[str, str | None]) -> list[tuple[str, str]]:
    """(variable, key) of each key of the section that a variable beats, such as ("WEIGHT_K8S", "k8s.weightage")."""
    # An empty variable counts as unset; one from a source that cannot be read counts as set.
    present = {name for name, value in environment.items() if value != ""}
    pairs = [(_worker.DEFAULT_EXECUTOR_VARIABLE, "plugin")]
    for name in _routing.entries(section):
        pairs += [(variable, f"{name}.{key}") for variable, key in _worker.ENVIRONMENT.get(name, {}).items()]
    return [(variable, key) for variable, key in pairs if variable in present and _worker.lookup(section, key) is not None]


def _environment(section: t.Mapping[str, t.Any], environment: t.Mapping[str, str | None]) -> t.Iterator[Finding]:
    if environment.get(_worker.DEAD_EXCLUSION_VARIABLE, "") != "":
        yield _error(
            "exclusion_ignored",
            _worker.DEAD_EXCLUSION_VARIABLE,
            f"{_worker.DEAD_EXCLUSION_VARIABLE} in the Deployment sets a key that no router reads: write exclusions into the file.",
        )
    for variable, key in overridden(section, environment):
        message = f"{variable} in the Deployment beats executor.{key} in the file: remove the variable."
        yield (_error if key == "plugin" or key.endswith(".weightage") else _warning)("environment_wins", variable, message)
    if environment.get("K8S_RUNTIME_CLASS"):
        yield _warning(
            "runtime_class_on_both",
            "K8S_RUNTIME_CLASS",
            "K8S_RUNTIME_CLASS in the Deployment sets the class on k8s and k8s-sandbox together.",
        )
    if environment.get("DOCKER_FEATURE_ENABLED", "") not in ("", None, "true"):
        yield _error(
            "switch_is_a_string",
            "DOCKER_FEATURE_ENABLED",
            f"DOCKER_FEATURE_ENABLED={environment['DOCKER_FEATURE_ENABLED']} in the Deployment is a string, which is true to the executor: remove it.",
        )
