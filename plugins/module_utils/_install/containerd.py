# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of containerd: a whole file of this collection's, or a drop-in beside a foreign file."""

from __future__ import annotations

import fnmatch
import os
import tomllib
import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import Table, added, extend, merge, to_toml
from ansible_collections.screwdriver.kata.plugins.module_utils._install.versions import parse

CONFIG = "/etc/containerd/config.toml"
DROP_INS = "/etc/containerd/conf.d"
DROP_IN = "screwdriver-kata.toml"
BASE_SPEC = "/etc/containerd/screwdriver-kata-base-spec.json"
ROOT = "/var/lib/containerd"
SOCKET = "/run/containerd/containerd.sock"
MARK = "Managed by the role screwdriver.kata.containerd."
CRI = "io.containerd.grpc.v1.cri"
RUNTIME = "io.containerd.cri.v1.runtime"
IMAGES = "io.containerd.cri.v1.images"
DEVMAPPER = "io.containerd.snapshotter.v1.devmapper"
# The same plugins under each name that disabled_plugins takes.
CRI_NAMES = ("cri", CRI, RUNTIME, IMAGES)
DEVMAPPER_NAMES = ("devmapper", DEVMAPPER)


def _get(table: Table, *path: str) -> t.Any:
    """The value at a path, or None."""
    value: t.Any = table
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _put(table: Table, value: t.Any, *path: str) -> None:
    *outer, last = path
    for key in outer:
        table = table.setdefault(key, {})
    table[last] = value


def _read(text: str) -> Table:
    """The tables of a file, empty where it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def is_ours(text: str, written: str) -> bool:
    """Whether a role of this collection wrote the file, also where another program has written it again and so lost its comments."""
    if any(MARK in line for line in text.splitlines()[:5]):
        return True
    runtimes = (_get(_read(text), "plugins", plugin, "containerd", "runtimes", "runc") or {} for plugin in (RUNTIME, CRI))
    return bool(written) and any(runtime.get("base_runtime_spec") == BASE_SPEC for runtime in runtimes)


def snapshotters(options: dict[str, t.Any]) -> list[str]:
    """The snapshotters in use, the default one first."""
    found = [options["snapshotter"], *(handler.get("snapshotter") or options["snapshotter"] for handler in options["handlers"])]
    return list(dict.fromkeys(found))


def _runtime(entry: dict[str, t.Any], options: dict[str, t.Any]) -> Table:
    """The table of one handler."""
    table: Table = {"runtime_type": entry["runtime_type"]}
    if entry.get("runtime_path"):
        table["runtime_path"] = entry["runtime_path"]
    table["base_runtime_spec"] = BASE_SPEC
    if (entry.get("snapshotter") or options["snapshotter"]) != options["snapshotter"]:
        table["snapshotter"] = entry["snapshotter"]
    if entry.get("privileged_without_host_devices"):
        table["privileged_without_host_devices"] = True
    if entry.get("pod_annotations"):
        table["pod_annotations"] = list(entry["pod_annotations"])
    runtime_options = {**({"ConfigPath": entry["config_path"]} if entry.get("config_path") else {}), **entry.get("options", {})}
    if runtime_options:
        table["options"] = runtime_options
    return table


def render(options: dict[str, t.Any], drop_in: bool, root: str = ROOT, registry: bool = True, sandbox: bool = True) -> Table:
    """The tables of a configuration.

    Args:
        options: What the role was asked for.
        drop_in: Leave out what the foreign file decides: the runtime runc, cgroups, the default runtime.
        root: The directory of containerd's state.
        registry: Whether to set the directory of registries.
        sandbox: Whether to set the image of sandboxes.
    """
    two = parse(options["version"]) < (2,)
    cri, images = ((CRI,), (CRI, "containerd")) if two else ((RUNTIME,), (IMAGES,))
    plugins: Table = {}
    _put(plugins, options["snapshotter"], *images, "snapshotter")
    _put(plugins, options["discard_unpacked_layers"], *images, "discard_unpacked_layers")
    if parse(options["version"]) >= (2, 1):
        # The transfer service would unpack into its own default, whatever the snapshotter is.
        _put(plugins, True, IMAGES, "use_local_image_pull")
    if sandbox:
        _put(plugins, options["sandbox_image"], *((CRI, "sandbox_image") if two else (IMAGES, "pinned_images", "sandbox")))
    if registry:
        _put(plugins, options["registry_config_path"], *((CRI,) if two else (IMAGES,)), "registry", "config_path")
    if not drop_in:
        _put(plugins, options["restrict_oom_score_adj"], *cri, "restrict_oom_score_adj")
        if options.get("cni_bin_dir"):
            # The list came with 2.1, which deprecated the single directory.
            name, value = (
                ("bin_dirs", [options["cni_bin_dir"]]) if parse(options["version"]) >= (2, 1) else ("bin_dir", options["cni_bin_dir"])
            )
            _put(plugins, value, *cri, "cni", name)
        _put(plugins, "runc", *cri, "containerd", "default_runtime_name")
        runc = _runtime({"runtime_type": "io.containerd.runc.v2"}, options)
        _put(plugins, {**runc, "options": {"SystemdCgroup": options["systemd_cgroup"]}}, *cri, "containerd", "runtimes", "runc")
    for handler in options["handlers"]:
        table = _runtime(handler, options)
        _put(plugins, table, *cri, "containerd", "runtimes", handler["name"])
        if not two and "snapshotter" in table:
            _put(plugins, {"snapshotter": table["snapshotter"]}, IMAGES, "runtime_platforms", handler["name"])
    if "devmapper" in snapshotters(options):
        plugins[DEVMAPPER] = {
            "pool_name": options["pool_name"],
            "root_path": f"{root}/{DEVMAPPER}",
            "base_image_size": options["base_image_size"],
            "fs_type": "ext4",
            "async_remove": True,
            "discard_blocks": True,
        }
    whole: Table = {"version": 2 if two else 3}
    if not drop_in and not two:
        # Handlers that others drop in, such as a GPU's. containerd 1.7 would replace whole sections by theirs.
        whole["imports"] = [f"{DROP_INS}/*.toml"]
    return merge({**whole, "plugins": plugins}, options["extra_config"])


def _additions(current: str, written: str, version: int) -> Table:
    """What others have added to a file of ours since it was written, in the names of our version."""
    now = _read(current)
    extra = added(now, _read(written)) or {} if written else {}
    extra.pop("version", None)
    if now.get("version") != version:
        # Another containerd than the one that the file was for: its plugins have other names.
        runtimes = [_get(extra, "plugins", plugin, "containerd", "runtimes") for plugin in (CRI, RUNTIME)]
        kept: Table = {name: extra[name] for name in ("imports",) if name in extra and version > 2}
        for runtime in filter(None, runtimes):
            _put(kept, runtime, "plugins", RUNTIME if version > 2 else CRI, "containerd", "runtimes")
        return kept
    return extra


def _import_directory(table: Table, config: str) -> str | None:
    """The directory that a file of ours would be imported from."""
    for pattern in table.get("imports") or []:
        directory, name = os.path.split(os.path.join(os.path.dirname(config), str(pattern)))
        if fnmatch.fnmatchcase(DROP_IN, name) and not any(character in directory for character in "*?["):
            return directory
    return None


def _import_problem(table: Table) -> str:
    entry = f'"{DROP_INS}/*.toml"'
    if "imports" not in table:
        return f"it imports no drop-ins: add this line above its first table: imports = [{entry}]"
    if table["imports"]:
        return f"its list imports has no directory for drop-ins: add {entry} to it"
    return f"its list imports is empty: put {entry} into it"


def _managed_problems(table: Table, options: dict[str, t.Any], installer: dict[str, t.Any]) -> list[str]:
    """What keeps a drop-in from working beside a configuration that an installer generates at each start."""
    name, directory = installer["name"], os.path.dirname(installer["config"])
    if not table:
        return [f"{name} has not written it yet: start {installer['unit']} once"]
    problems = []
    if parse(options["version"]) < (2,):
        problems.append(
            f"{name} runs containerd {options['version']}, which merges no drop-in: update {name} to a release with containerd 2"
        )
    elif table.get("version", 1) < 3:
        problems.append(
            f"it has version {table.get('version', 1)}: replace the template config.toml.tmpl in {directory} by config-v3.toml.tmpl"
        )
    elif _import_directory(table, installer["config"]) is None:
        entry = f'imports = ["{directory}/config-v3.toml.d/*.toml"]'
        problems.append(f"it imports no drop-ins: update {name}, or add this line to config-v3.toml.tmpl in {directory}: {entry}")
    if options["mirrors"]:
        problems.append(
            f"{name} writes what it knows of registries: move containerd_registry_mirrors to /etc/rancher/{name}/registries.yaml"
        )
    return problems


def _foreign_problems(table: Table, options: dict[str, t.Any], migrate: str) -> list[str]:
    """What keeps a drop-in from working beside a foreign file, each with what to do."""
    problems = []
    version = table.get("version", 1)
    if parse(options["version"]) < (2,):
        advice = "use containerd 2.x with containerd_source archive" if options["source"] == "package" else "set containerd_version to 2.x"
        problems.append(f"containerd {options['version']} would replace whole sections of it by a drop-in's: move it away, or {advice}")
    elif version < 3:
        problems.append(
            f"it has version {version}, under which containerd loses settings of a drop-in: convert it with "
            f"'{migrate} --config {CONFIG} config migrate >{CONFIG}.new && mv {CONFIG}.new {CONFIG}'"
        )
    if _import_directory(table, CONFIG) is None:
        problems.append(_import_problem(table))
    mirrors = _get(table, "plugins", IMAGES, "registry", "mirrors") or _get(table, "plugins", CRI, "registry", "mirrors")
    if options["mirrors"] and mirrors:
        problems.append(
            f"it lists registry.mirrors for {' and '.join(mirrors)}, beside which containerd reads no hosts.toml: move them to "
            "containerd_registry_mirrors"
        )
    return problems


def _plugin_problems(table: Table, options: dict[str, t.Any], socket: str) -> list[str]:
    """What keeps any configuration of this collection's from working in a foreign containerd, each with what to do."""
    problems = []
    disabled = table.get("disabled_plugins") or []
    wanted = [*CRI_NAMES, *(DEVMAPPER_NAMES if "devmapper" in snapshotters(options) else ())]
    for plugin in [name for name in disabled if name in wanted]:
        problems.append(f"its disabled_plugins turns off {plugin}, without which no pod can run: remove {plugin} from that list")
    address = _get(table, "grpc", "address") or _get(table, "plugins", "io.containerd.server.v1.grpc", "address") or SOCKET
    if address != socket:
        problems.append(f"containerd listens on {address}, where kubelet and crictl expect {socket}: change the address")
    return problems


def _taken(table: Table, others: list[str], options: dict[str, t.Any], config: str) -> list[dict[str, str]]:
    """The handlers that a foreign file has under a name of ours: containerd would mix the two, annotations and all."""
    found = {name: config for plugin in (RUNTIME, CRI) for name in _get(table, "plugins", plugin, "containerd", "runtimes") or {}}
    for entry in others:
        file, name = entry.rsplit(" ", 1)
        found.setdefault(name, file)
    return [{"name": handler["name"], "file": found[handler["name"]]} for handler in options["handlers"] if handler["name"] in found]


def _pool_problems(table: Table, drop_ins: list[str], ours: Table, config: str) -> list[str]:
    """What others set of devmapper that we would replace: containerd finds its snapshots by the pool and the database alone."""
    wanted = _get(ours, "plugins", DEVMAPPER)
    if not wanted:
        return []
    theirs: Table = next(filter(None, (_get(table, "plugins", name) for name in DEVMAPPER_NAMES)), {})
    found = {key: (config, theirs[key]) for key in ("pool_name", "root_path") if theirs.get(key)}
    for entry in drop_ins:
        file, key, value = entry.rsplit(" ", 2)
        found[key] = (file, value)
    if "pool_name" not in found:
        return []
    advice = {
        "pool_name": "use that pool (containerd_pool_name, or thin_pool_volume_group and thin_pool_name with the playbook site)",
        "root_path": f"set root_path of {DEVMAPPER} in containerd_extra_config to it",
    }
    return [
        f"{file} sets {key} of devmapper to {value}, and with {wanted[key]} containerd would lose its snapshots: {advice[key]}, or remove "
        "the setting if they are not needed"
        for key, (file, value) in found.items()
        if value != wanted[key]
    ]


def plan(host: dict[str, t.Any], options: dict[str, t.Any], migrate: str) -> dict[str, t.Any]:
    """What to write and where, or what is in the way.

    Args:
        host: What the probe has found: ``config`` and ``written``, the texts of the present file and of the one that the role wrote last,
            ``others``, the handlers in drop-ins of others, each with its file, ``pools``, what these set of devmapper, and ``installer``,
            who made the node.
        options: What the role was asked for.
        migrate: The path of the containerd that converts a foreign file.

    Returns:
        ``drop_in``, ``path``, ``content``, ``written`` (what of the content is ours), ``registry`` (the directory for hosts.toml),
        ``root``, ``problems`` (one sentence each), ``taken`` (handlers that a foreign file has too) and ``old_format`` (whether a foreign
        file has to be converted).
    """
    text, first_registry = host["config"], options["registry_config_path"].split(":")[0]
    installer = host.get("installer") or {"managed": False, "config": CONFIG, "socket": SOCKET, "state": ROOT}
    # A file that the distribution's package brought and nobody changed decides nothing.
    drop_in = installer["managed"] or bool(text.strip()) and not is_ours(text, host["written"]) and not options["replace_packaged"]
    if not drop_in:
        ours = render(options, drop_in=False, root=options["extra_config"].get("root") or ROOT)
        whole = extend(ours, _additions(text, host["written"], ours["version"]) if is_ours(text, host["written"]) else {})
        found: dict[str, t.Any] = {"path": CONFIG, "content": to_toml(whole), "written": to_toml(ours), "root": whole.get("root", ROOT)}
        found["taken"] = _taken({}, host.get("others", []), options, CONFIG)
        found["problems"] = _pool_problems({}, host.get("pools", []), ours, CONFIG)
        return {**found, "drop_in": False, "registry": first_registry, "old_format": False}
    try:
        table, problems = tomllib.loads(text), []
    except tomllib.TOMLDecodeError as error:
        table, problems = {}, [f"it is not valid TOML ({error}): correct it"]
    else:
        problems = _managed_problems(table, options, installer) if installer["managed"] else _foreign_problems(table, options, migrate)
        problems += _plugin_problems(table, options, installer["socket"]) if table else []
    root = table.get("root") or installer["state"]
    # What the foreign file decides stays, unless the role was asked for something else.
    theirs = _get(table, "plugins", IMAGES, "registry", "config_path")
    registry = str(theirs).split(":", 1)[0] if theirs and options["registry_config_path"] == options["default_registry_config_path"] else ""
    image = options["sandbox_image"] != options["default_sandbox_image"] or not _get(table, "plugins", IMAGES, "pinned_images", "sandbox")
    ours = render(options, drop_in=True, root=root, registry=not registry, sandbox=image)
    problems += _pool_problems(table, host.get("pools", []), ours, installer["config"])
    return {
        "drop_in": True,
        "path": f"{_import_directory(table, installer['config']) or DROP_INS}/{DROP_IN}",
        "content": to_toml(ours),
        "written": "",
        "registry": registry or first_registry,
        "root": root,
        "problems": problems,
        "taken": _taken(table, host.get("others", []), options, installer["config"]),
        "old_format": bool(table) and not installer["managed"] and table.get("version", 1) < 3,
    }


def hosts(mirrors: list[t.Any]) -> str:
    """The hosts.toml of one registry. Without a server line containerd asks the registry itself after its mirrors."""
    table: Table = {}
    for mirror in mirrors:
        entry = {"url": mirror} if isinstance(mirror, str) else dict(mirror)
        url = entry.pop("url")
        table[url] = {"capabilities": ["pull", "resolve"], **{name: value for name, value in entry.items() if value is not None}}
    return to_toml({"host": table})
