# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""What is wrong, or will go wrong, with an executor config: each finding has a code, a severity, a place and what to do."""

from __future__ import annotations

import math
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import entry as entry_rules
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing, worker
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import Environment, Unknown
from ansible_collections.screwdriver.kata.plugins.module_utils._javascript import PatternError, integer, matches, number, text_of, truth

# Methods of the router's class: a build that is pinned to such a name by annotation crashes.
ROUTER_METHODS = ("start", "stop", "verify", "getExecutor", "getWeightedExecutor", "checkExclusions", "parseAnnotations", "constructor")
# Options that the executor reads by truthiness: the string "false" is true.
SWITCHES = ("dockerFeatureEnabled", "rootlessBuildkitFeatureEnabled")
# Entries of one cluster must agree on these: stop and verify are routed again, and find a build's pod by them.
SHARED = ("options.kubernetes.host", "options.kubernetes.jobsNamespace", "options.prefix")
# What the executors take where a key is not set.
_FALLBACK = {"options.kubernetes.host": "kubernetes.default", "options.kubernetes.jobsNamespace": "default", "options.prefix": ""}
# Names that have nothing in common: a pattern that matches each of them excludes everything.
PROBES = ("node:22", "registry.example/team/x@sha256:0", "q")
# Words that the worker's lib/config.js takes for true.
_TRUE = ("on", "true", "yes", "y")


class Finding(t.TypedDict):
    """code: stable name. severity: error (builds go astray), warning (they can). path: where. message: what, and what to do."""

    code: str
    severity: str
    path: str
    message: str


def find(
    document: t.Mapping[str, t.Any],
    environment: Environment | None = None,
    shipped: bool = True,
    kata: str | None = None,
    legacy: str | None = None,
) -> list[Finding]:
    """All findings of a worker config and of the worker's variables, in the order of the file.

    Args:
        document: The whole file.
        environment: The variables of the worker's container.
        shipped: Whether the worker has its own default.yaml below the file.
        kata: The Kata executor's name, where it is known.
        legacy: The legacy executor's name, where it is known.
    """
    return list(_find(document, environment or Environment(), shipped, kata, legacy))


def _error(code: str, path: str, message: str) -> Finding:
    return {"code": code, "severity": "error", "path": path, "message": message}


def _warning(code: str, path: str, message: str) -> Finding:
    return {"code": code, "severity": "warning", "path": path, "message": message}


def _find(
    document: t.Mapping[str, t.Any], environment: Environment, shipped: bool, kata: str | None, legacy: str | None
) -> t.Iterator[Finding]:
    section = document.get("executor")
    over = worker.node_config(environment)
    over_section = over.get("executor") if isinstance(over, dict) else None
    over_section = over_section if isinstance(over_section, dict) else {}
    if not isinstance(section, t.Mapping):
        if not over_section:
            yield _error(
                "executor_missing", "executor", "There is no executor section: the worker's shipped one sends every build to k8s-vm."
            )
            yield from _environment({}, environment)
            return
        section = {}
    written = worker.merged(section, over_section)
    try:
        effective = worker.effective(section, environment, shipped)
    except UserError as exc:
        yield _error("environment_invalid", "executor", str(exc))
        effective = worker.effective(section, Environment({}), shipped)
    for name, entry in written.items():
        if name == "plugin":
            yield from _default(effective, text_of(entry))
        elif isinstance(entry, t.Mapping):
            yield from _entry(str(name), entry, effective[name])
        elif name in routing.loaded(effective):
            yield _error("entry_not_a_map", f"executor.{name}", f"{name} is {entry!r} and not a map: remove it or write its options.")
        else:
            yield _warning("entry_not_a_map", f"executor.{name}", f"{name} is {entry!r} and not a map, and the router drops it: remove it.")
    if "plugin" not in written and environment.get(worker.DEFAULT_EXECUTOR_VARIABLE) is None:
        yield _warning(
            "plugin_missing",
            "executor.plugin",
            "No plugin is named, so the worker's shipped k8s-vm is the default: name the legacy executor.",
        )
    yield from _together(effective, written, [name for name in (kata, legacy) if name])
    yield from _environment(section, environment)
    if kata and legacy and kata in routing.loaded(effective) and legacy in routing.loaded(effective):
        yield from _left_out(effective, kata, legacy)
        if kata != legacy:
            yield from _runtime_classes(effective, kata, legacy, environment)
    yield from _retry_queue(document, over, environment)


def _left_out(effective: t.Mapping[str, t.Any], kata: str, legacy: str) -> t.Iterator[Finding]:
    entries = routing.entries(effective)
    plugin = routing.plugin_name(legacy, entries[legacy])
    for item in entry_rules.left_out(entries[legacy], entries[kata], plugin):
        option = item.path.removeprefix("options.").removeprefix("kubernetes.")
        yield _warning(item.code, f"executor.{kata}.{item.path}", f"{kata} lacks {option} of {legacy}: {item.why}.")


def _runtime_classes(effective: t.Mapping[str, t.Any], kata: str, legacy: str, environment: Environment) -> t.Iterator[Finding]:
    entries = routing.entries(effective)
    key = "options.kubernetes.runtimeClass"
    own, other = (worker.lookup(entries[name], key) for name in (kata, legacy))
    if not truth(own):
        yield _error(
            "kata_without_runtime_class",
            f"executor.{kata}.{key}",
            f"{kata} has no runtimeClass, so its builds do not run in Kata: write the name of the RuntimeClass.",
        )
    # Executor k8s-vm does not read it.
    elif not isinstance(own, Unknown) and own == other and routing.plugin_name(legacy, entries[legacy]) == "k8s":
        by_variable = ("K8S_RUNTIME_CLASS", f"{legacy}.{key}") in worker.variables() and environment.get("K8S_RUNTIME_CLASS") is not None
        remedy = "remove K8S_RUNTIME_CLASS from the worker" if by_variable else f"remove runtimeClass from {legacy}"
        yield _error(
            "legacy_runs_kata",
            f"executor.{legacy}.{key}",
            f"{legacy} has runtimeClass {own} as {kata} has, so its builds run in Kata at every share, and a rollback has no effect: "
            f"{remedy}.",
        )


def _retry_queue(document: t.Mapping[str, t.Any], over: t.Any, environment: Environment) -> t.Iterator[Finding]:
    queue = environment.get(worker.RETRY_QUEUE_VARIABLE)
    for source in (over, document):
        if queue is None:
            queue = worker.lookup(source, "rabbitmq.retryQueueEnabled")
    if not isinstance(queue, Unknown) and text_of(queue).lower() in _TRUE:
        yield _warning(
            "retry_queue_fails_slow_starts",
            worker.RETRY_QUEUE_VARIABLE,
            "With the retry queue on, a build whose pod is still starting after the init timeout fails with 'initializing' or 'waiting': "
            "turn it off, or raise RABBITMQ_BUILD_INIT_TIMEOUT above the slowest start.",
        )


def _default(effective: t.Mapping[str, t.Any], written: str) -> t.Iterator[Finding]:
    if isinstance(effective["plugin"], Unknown):
        return
    loaded = routing.loaded(effective)
    # What the file names is judged even where a variable wins: that is a finding of its own.
    if written not in loaded:
        yield _error(
            "plugin_unknown",
            "executor.plugin",
            f"plugin names {written}, which is not an executor here: every build that no weightage routes fails.",
        )
    elif exclusions := loaded[written].get("exclusions"):
        yield _error(
            "plugin_excluded",
            "executor.plugin",
            f"plugin is {written}, which excludes {exclusions}; the default ignores exclusions, so such builds reach it whenever no other "
            "executor has a weightage: name the legacy executor.",
        )


def _entry(name: str, written: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    path = f"executor.{name}"
    if name in ROUTER_METHODS:
        yield _error("name_is_method", path, f"{name} is a method of the router: a build pinned to it crashes. Choose another name.")
    plugin = routing.plugin_name(name, effective)
    if plugin not in routing.PLUGINS:
        code = "plugin_name_unknown" if effective.get("pluginName") else "plugin_name_missing"
        yield _warning(
            code,
            f"{path}.pluginName",
            f"The router looks for npm module screwdriver-executor-{plugin}, which the worker does not have, and drops {name}: "
            f"write pluginName: {' or '.join(routing.PLUGINS)}.",
        )
    if "exclusion" in written:
        yield _error(
            "exclusion_ignored",
            f"{path}.exclusion",
            f"The key exclusion of {name} is ignored by every version of the router, so {written['exclusion']} excludes nothing: "
            "write exclusions.",
        )
    yield from _exclusions(path, name, effective.get("exclusions"))
    yield from _weightage(path, name, effective)
    yield from _options(path, name, plugin, written, effective)


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
                f"The pattern {item!r} of {name} is not a JavaScript regular expression ({exc}): "
                "the router's rule throws and all builds go to plugin.",
            )


def _weightage(path: str, name: str, entry: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    if "weightage" not in entry:
        return
    weight, path = entry["weightage"], f"{path}.weightage"
    if isinstance(weight, Unknown):
        return
    if math.isinf(number(weight)) or (number(weight) == 0 and integer(weight) != 0) or _is_no_number(weight):
        meaning = "is endless" if math.isinf(number(weight)) else "counts as 0"
        yield _error("weightage_not_a_number", path, f"The weightage {weight!r} of {name} {meaning}: write a whole number without a unit.")
    elif number(weight) != integer(weight):
        yield _error(
            "weightage_fraction",
            path,
            f"The weightage {weight!r} of {name} is added up as {number(weight):g} and drawn as {integer(weight)}, so the shares are "
            "others than they look: write a whole number.",
        )
    elif number(weight) < 0:
        yield _error(
            "weightage_negative", path, f"The weightage {weight!r} of {name} is negative and distorts all shares: write 0 or more."
        )


def _is_no_number(weight: t.Any) -> bool:
    return number(weight) == 0 and weight not in (0, None, "", False) and text_of(weight).strip() not in ("0", "+0", "-0", "0.0")


def _options(path: str, name: str, plugin: str, written: t.Mapping[str, t.Any], effective: t.Mapping[str, t.Any]) -> t.Iterator[Finding]:
    kubernetes = worker.lookup(effective, "options.kubernetes")
    kubernetes = kubernetes if isinstance(kubernetes, t.Mapping) else {}
    own = worker.lookup(written, "options.kubernetes")
    own = own if isinstance(own, t.Mapping) else {}
    here = f"{path}.options.kubernetes"
    for switch in SWITCHES:
        if isinstance(own.get(switch), str) and own[switch]:
            yield _error(
                "switch_is_a_string",
                f"{here}.{switch}",
                f"{switch} of {name} is the string {own[switch]!r}, which the executor takes as true: write true or false.",
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
            f"rootlessBuildkitFeatureEnabled of {name} is not set and on by default: any build may ask for a privileged sidecar. "
            "Write false.",
        )
    if plugin == "k8s-vm" and not truth(kubernetes.get("baseImage")):
        yield _warning(
            "base_image_missing",
            f"{here}.baseImage",
            f"baseImage of {name} is not set here: unless K8S_BASE_IMAGE is, every start throws \"'base_image' not found\".",
        )
    if "buildSecretFile" in own:
        yield _warning(
            "build_secret_file_ignored", f"{here}.buildSecretFile", f"buildSecretFile of {name} is ignored: write buildSecretsFile."
        )
    if name not in routing.SHIPPED and plugin in routing.PLUGINS:
        wanted = (*SHARED[:2], "options.prefix", "options.kubernetes.terminationGracePeriodSeconds")
        if missing := [key for key in wanted if worker.lookup(effective, key) is None]:
            yield _warning(
                "custom_entry_incomplete",
                path,
                f"{name} is not a shipped name, so neither default.yaml nor a variable fills it, and it lacks {', '.join(missing)}: "
                "write them out.",
            )


def reachable(effective: t.Mapping[str, t.Any], names: t.Sequence[str] = ()) -> list[str]:
    """The executors that a build can be on, or that its stop can be routed to: by draw, by ``plugin``, or by a pin to an entry made for it.

    Args:
        effective: The executor section that the worker acts on.
        names: Executors that are in use in any case.
    """
    result = []
    for name, entry in routing.loaded(effective).items():
        weight = entry.get("weightage")
        drawn = isinstance(weight, Unknown) or number(weight) != 0
        default = effective.get("plugin")
        if drawn or name in names or name == default or isinstance(default, Unknown) or name not in routing.SHIPPED:
            result.append(name)
    return result


def _together(effective: t.Mapping[str, t.Any], written: t.Mapping[str, t.Any], names: t.Sequence[str]) -> t.Iterator[Finding]:
    loaded = routing.loaded(effective)
    used = {name: loaded[name] for name in reachable(effective, names)}
    for key in SHARED:
        values = {name: worker.lookup(entry, key) for name, entry in used.items()}
        known = {name: value if truth(value) else _FALLBACK[key] for name, value in values.items() if not isinstance(value, Unknown)}
        if len(set(map(text_of, known.values()))) > 1:
            listed = ", ".join(f"{name}: {value!r}" for name, value in known.items())
            yield _error(
                "entries_apart",
                f"executor.*.{key}",
                f"The executors differ in {key.rsplit('.', 1)[1]} ({listed}); stop and verify are routed again and miss the build's pod "
                "where they pick the other executor. Give all entries the same value.",
            )
    weights = [entry.get("weightage") for entry in loaded.values()]
    if not any(isinstance(weight, Unknown) or number(weight) for weight in weights) and len(loaded.keys() & written.keys()) > 1:
        yield _warning(
            "weightage_all_zero",
            "executor.*.weightage",
            "No executor has a weightage, so every build goes to plugin and no exclusion counts.",
        )


def overriding(section: t.Mapping[str, t.Any], environment: Environment) -> list[tuple[str, str]]:
    """(variable, key) of each key that a variable sets over the file, such as ("WEIGHT_K8S", "k8s.weightage")."""
    pairs = [
        (variable, key) for variable, key in worker.variables() if variable in environment.values and environment.get(variable) is not None
    ]
    over = worker.node_config(environment)
    if isinstance(over, dict) and isinstance(over.get("executor"), dict):
        pairs += [(worker.NODE_CONFIG, key) for key in leaves(over["executor"])]
    return pairs


def routes(key: str) -> bool:
    """Whether the router reads a key of the executor section."""
    return key == "plugin" or key.rsplit(".", 1)[-1] in ("weightage", "pluginName") or ".exclusions" in key


def overrides(key: str, section: t.Mapping[str, t.Any]) -> bool:
    """Whether what sets a key of the executor section wins over this section."""
    if worker.lookup(section, key) is not None or key == "plugin":
        return True
    return routes(key) and key.split(".", 1)[0] in section


def leaves(value: t.Mapping[str, t.Any], path: str = "") -> t.Iterator[str]:
    """The dotted path of each value of a map."""
    for key, item in value.items():
        if isinstance(item, t.Mapping) and item:
            yield from leaves(item, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def _environment(section: t.Mapping[str, t.Any], environment: Environment) -> t.Iterator[Finding]:
    for source in environment.unread:
        yield _error(
            "environment_unknown",
            source,
            f"The worker takes variables from {source}, which cannot be read, and each can override the file: grant get on it.",
        )
    if worker.is_malformed(environment):
        yield _error("node_config_malformed", worker.NODE_CONFIG, "NODE_CONFIG is not a JSON object, and the worker ignores it: repair it.")
    over = environment.get(worker.NODE_CONFIG)
    if isinstance(over, Unknown) and worker.NODE_CONFIG in environment.values:
        yield _error(
            "environment_unknown",
            worker.NODE_CONFIG,
            f"NODE_CONFIG comes from {over.source} and cannot be read here, and it overrides the file: remove its executor section.",
        )
    if environment.values.get(worker.DEAD_EXCLUSION_VARIABLE, "") != "":
        yield _error(
            "exclusion_ignored",
            worker.DEAD_EXCLUSION_VARIABLE,
            f"{worker.DEAD_EXCLUSION_VARIABLE} sets a key that no router reads: write exclusions into the file.",
        )
    named: set[tuple[str, str]] = set()
    for variable, key in overriding(section, environment):
        value = environment.get(variable)
        report = _error if routes(key) else _warning
        if isinstance(value, Unknown):
            if (variable, "unknown") not in named:
                named.add((variable, "unknown"))
                yield report(
                    "environment_unknown",
                    variable,
                    f"{variable} comes from {value.source} and cannot be read here, and it overrides executor.{key}: "
                    "remove it there, or make it readable.",
                )
        elif worker.lookup(section, key) is not None or (routes(key) and key != "plugin" and key.split(".", 1)[0] in section):
            if (variable, key) in named:
                continue
            named.add((variable, key))
            if variable == worker.NODE_CONFIG:
                value = worker.lookup(worker.node_config(environment), f"executor.{key}")
            if key == "plugin" and value == worker.lookup(section, key):
                # It agrees with the file, and a share does not change it.
                report = _warning
            yield report(
                "environment_wins", variable, f"{variable} of the worker overrides executor.{key} in the file: remove the variable."
            )
        elif key == "plugin":
            yield report("environment_wins", variable, f"{variable} of the worker sets executor.{key} over the file: remove the variable.")
    if truth(environment.values.get("K8S_RUNTIME_CLASS", "")):
        yield _warning(
            "runtime_class_on_both",
            "K8S_RUNTIME_CLASS",
            "K8S_RUNTIME_CLASS of the worker sets the class on k8s and k8s-sandbox together.",
        )
    docker = environment.values.get("DOCKER_FEATURE_ENABLED", "")
    if isinstance(docker, str) and docker not in ("", "true"):
        yield _error(
            "switch_is_a_string",
            "DOCKER_FEATURE_ENABLED",
            f"DOCKER_FEATURE_ENABLED={docker} of the worker is a string, which is true to the executor: remove it.",
        )
