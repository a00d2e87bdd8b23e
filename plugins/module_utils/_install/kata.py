# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release of Kata calls its files, and the drop-in that this collection writes beside them."""

from __future__ import annotations

import fnmatch
import re
import tomllib
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import Table, TomlError, merge, nested, to_toml
from ansible_collections.screwdriver.kata.plugins.module_utils._install.versions import affecting, parse

DEFAULTS = "share/defaults/kata-containers"
SHIMS = {"go": "bin/containerd-shim-kata-v2", "rust": "runtime-rs/bin/containerd-shim-kata-v2"}
RUNTIME_CLASS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
WILDCARDS = re.compile(r"[*?\[]")
# What a pod takes besides its containers: hypervisor, first release, memory. 4.0 on and the small hypervisors: Kata's own RuntimeClasses.
# QEMU before: 253 MB measured in the pod's cgroup with 3.32.0, where Kata's RuntimeClass has 160Mi.
OVERHEADS = (
    ("qemu", "4.0.0", "320Mi"),
    ("qemu", "0", "256Mi"),
    ("clh", "0", "130Mi"),
    ("fc", "0", "130Mi"),
    ("dragonball", "0", "130Mi"),
)
OVERHEAD_CPU = "250m"


def _names(shim: str, hypervisor: str, version: str) -> tuple[str, str]:
    """The shipped configuration below the release, and the name of the hypervisor's table in it."""
    if shim == "go":
        return f"{DEFAULTS}/configuration-{hypervisor}.toml", {"fc": "firecracker"}.get(hypervisor, hypervisor)
    flavour, table = {"qemu": ("qemu-runtime-rs", "qemu"), "clh": ("clh-runtime-rs", "clh")}.get(hypervisor, (hypervisor, hypervisor))
    if hypervisor == "clh" and parse(version) < parse("3.30.0"):
        flavour = table = "cloud-hypervisor"
    return f"{DEFAULTS}/runtime-rs/configuration-{flavour}.toml", table


def _overhead(hypervisor: str, version: str) -> dict[str, str]:
    memory = next(memory for name, first, memory in OVERHEADS if name == hypervisor and parse(version) >= parse(first))
    return {"cpu": OVERHEAD_CPU, "memory": memory}


def _default_shim(version: str) -> str:
    return "rust" if parse(version) >= parse("4.0.0") else "go"


def describe(handlers: list[dict[str, t.Any]], version: str, **defaults: t.Any) -> list[dict[str, t.Any]]:
    """Each handler with what follows from the release.

    Args:
        handlers: As the role kata takes them.
        version: The release.
        defaults: Values of handlers that do not set them, such as ``snapshotter``.

    Returns:
        The handlers with ``shim``, ``hypervisor``, ``shim_path``, ``shipped`` and ``archive`` (both below the release), ``table``,
        ``config_path`` and ``overhead``. ``managed`` is whether the role writes the handler's configuration,
        ``chosen_shim`` whether the shim is the user's choice and not the release's.
    """
    found = []
    for handler in handlers:
        given = {name: value for name, value in handler.items() if value is not None}
        shim = given.get("shim", _default_shim(version))
        hypervisor = given.get("hypervisor", "qemu")
        shipped, table = _names(shim, hypervisor, version)
        found.append(
            {
                "config_path": f"/opt/kata/handlers/{given['name']}/configuration.toml",
                "overhead": _overhead(hypervisor, version),
                **defaults,
                **given,
                "shim": shim,
                "hypervisor": hypervisor,
                "shim_path": SHIMS[shim],
                "shipped": shipped,
                "table": table,
                "managed": "config_path" not in given,
                "chosen_shim": "shim" in given,
                "archive": "kata-go-static" if shim == "go" and parse(version) >= parse("4.1.0") else "kata-static",
            }
        )
    return found


def find_problems(
    handlers: list[dict[str, t.Any]], version: str, allow_patterns: bool, advisories: list[dict[str, t.Any]], rolled_back_to: str = ""
) -> list[str]:
    """What is wrong with handlers as ``describe`` returns them, one sentence each.

    Args:
        handlers: The handlers.
        version: The release.
        allow_patterns: Whether annotations may be given as patterns.
        advisories: The known faults of releases, as ``judge`` takes them. ``annotation`` names the annotation that one needs.
        rolled_back_to: The release that is to be used instead, with what was configured for it.
    """
    names = [handler["name"] for handler in handlers]
    problems = [
        f"kata_handlers: {name} is defined twice. Give each handler a unique name."
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for handler in handlers:
        name, shim, hypervisor = handler["name"], handler["shim"], handler["hypervisor"]
        if not RUNTIME_CLASS_NAME.fullmatch(name):
            problems.append(f"kata_handlers: {name} is not a valid name of a RuntimeClass. Use lower-case letters, digits and hyphens.")
        if handler["managed"] and (shim, hypervisor) in {("go", "dragonball"), ("rust", "fc")}:
            problems.append(
                f"kata_handlers: the {shim} shim of handler {name} does not support {hypervisor}. Choose the other shim, or another "
                "hypervisor."
            )
        if rolled_back_to and not handler["chosen_shim"] and (before := _default_shim(rolled_back_to)) != shim:
            problems.append(
                f"kata_state rolled_back: handler {name} has the {before} shim in Kata {rolled_back_to} and the {shim} shim in "
                f"Kata {version}, and each has a configuration of its own. Set kata_version to {rolled_back_to} instead, with "
                "kata_state present."
            )
        problems += _find_annotations(handler, version, allow_patterns, advisories)
        try:
            settings = nested(handler.get("settings", {}))
            to_toml(settings)
            problems += [
                f"kata_handlers: settings of handler {name}: {table} is not a table. Give its settings by name."
                for table, value in {
                    **settings,
                    **{f"hypervisor.{key}": one for key, one in _table(settings, "hypervisor").items()},
                }.items()
                if not isinstance(value, dict)
            ]
        except TomlError as error:
            problems.append(f"kata_handlers: settings of handler {name}: {error}")
    return problems


def _table(table: Table, name: str) -> Table:
    value = table.get(name, {})
    return value if isinstance(value, dict) else {}


def _find_annotations(handler: dict[str, t.Any], version: str, allow_patterns: bool, advisories: list[dict[str, t.Any]]) -> t.Iterator[str]:
    known = [advisory for advisory in affecting(version, "kata", advisories, [handler]) if "annotation" in advisory]
    for pattern in handler.get("pod_annotations", []):
        passed = next((advisory for advisory in known if fnmatch.fnmatchcase(advisory["annotation"], pattern)), None)
        if passed:
            yield (
                f"pod_annotations of handler {handler['name']}: {pattern} passes {passed['annotation']}, and Kata {version} has "
                f"{passed['id']}: {passed['summary']}. List the annotations that you need, or use Kata {passed['fixed'][-1]} or newer."
            )
        elif WILDCARDS.search(pattern) and not allow_patterns:
            yield (
                f"pod_annotations of handler {handler['name']}: {pattern} passes annotations that nobody has listed. List the annotations "
                "that you need, or set kata_allow_annotation_patterns."
            )


def _shipped_keys(text: str) -> dict[str, set[str]]:
    """The keys of each table of a shipped configuration, with those that it has as comments."""
    keys: dict[str, set[str]] = {}
    table = ""
    for line in text.splitlines():
        if found := re.match(r"#?\s*\[([\w.-]+)\]\s*$", line):
            table = found[1]
            keys.setdefault(table, set())
        elif found := re.match(r"#?\s*([A-Za-z_][\w-]*)\s*=", line):
            keys.setdefault(table, set()).add(found[1])
    return keys


def _leaves(table: Table, path: tuple[str, ...] = ()) -> t.Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield ".".join(path), key


def drop_in(handler: dict[str, t.Any], shipped: str, systemd_cgroup: bool) -> dict[str, t.Any]:
    """The drop-in of one handler.

    Args:
        handler: As ``describe`` returns it.
        shipped: The text of the configuration that the release ships for it.
        systemd_cgroup: Whether systemd creates the cgroups of pods.

    Returns:
        The ``content`` of the drop-in, and ``unknown``: the settings that the shipped configuration does not have.
    """
    own: Table = {}
    hypervisor = own.setdefault("hypervisor", {}).setdefault(handler["table"], {})
    # With devmapper the root disk is a block device only with this; with another snapshotter it lets image files be plugged in as devices.
    if handler.get("snapshotter") == "devmapper":
        hypervisor["disable_block_device_use"] = False
    # Otherwise the hypervisor lies outside of the pod's cgroup, and each pod leaves empty cgroups. The Rust shim ships with it.
    if handler["shim"] == "go" and systemd_cgroup:
        own["runtime"] = {"sandbox_cgroup_only": True}
    if handler.get("kernel"):
        hypervisor["kernel"] = handler["kernel"]
    if handler.get("emptydir_mode"):
        own.setdefault("runtime", {})["emptydir_mode"] = handler["emptydir_mode"]
    whole = merge(own, nested(handler.get("settings", {})))
    # A drop-in's value replaces the shipped one, which the guest needs.
    tables = tomllib.loads(shipped)
    needed = tables.get("hypervisor", {}).get(handler["table"], {}).get("kernel_params", "")
    section = whole["hypervisor"].setdefault(handler["table"], {})
    params = [section.get("kernel_params", ""), handler.get("kernel_params") or ""]
    if any(params):
        section["kernel_params"] = " ".join(part for part in [*([] if needed in params[0] else [needed]), *params] if part)
    if not section:
        del whole["hypervisor"][handler["table"]]
    known = _shipped_keys(shipped)
    unknown = [f"{table}.{key}" for table, key in _leaves(whole) if key not in known.get(table, set())]
    return {"content": to_toml({name: table for name, table in whole.items() if table != {}}), "unknown": sorted(unknown)}
