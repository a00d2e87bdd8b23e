"""What the role containerd renders, read by the real containerd 1.7 and 2.x. No service is started here."""

from __future__ import annotations

import itertools
import re
import subprocess
import tomllib
import typing as t
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._install.containerd import IMAGES, plan

from lab.programs.go import NODE_PARTS, compile_part

from ..helpers import TOP, default

ROLE = TOP / "roles" / "containerd"
IMPORTS = 'imports = ["/etc/containerd/conf.d/*.toml"]'
OPTIONS: dict[str, t.Any] = {
    "source": "archive",
    "replace_packaged": False,
    "version": default("containerd", "containerd_version"),
    "snapshotter": "overlayfs",
    "pool_name": "kata-pool",
    "base_image_size": "20GB",
    "discard_unpacked_layers": False,
    "sandbox_image": "registry.k8s.io/pause:3.10.1",
    "default_sandbox_image": "registry.k8s.io/pause:3.10.1",
    "registry_config_path": "/etc/containerd/certs.d",
    "default_registry_config_path": "/etc/containerd/certs.d",
    "mirrors": False,
    "systemd_cgroup": True,
    "restrict_oom_score_adj": False,
    "cni_bin_dir": "",
    "handlers": [],
    "extra_config": {},
}
KATA = {
    "name": "kata",
    "runtime_type": "io.containerd.kata.v2",
    "runtime_path": "/opt/kata/bin/containerd-shim-kata-v2",
    "config_path": "/etc/kata-containers/configuration.toml",
    "privileged_without_host_devices": True,
    "pod_annotations": ["io.katacontainers.config.hypervisor.default_memory"],
}
HANDLERS: list[list[dict[str, t.Any]]] = [[], [KATA], [KATA, {**KATA, "name": "kata-clh", "snapshotter": "devmapper"}]]
CRI = {"1.7": "io.containerd.grpc.v1.cri", "2": "io.containerd.cri.v1.runtime"}
PARTS = {part.name.removeprefix("containerd-"): part for part in NODE_PARTS if part.name.startswith("containerd-")}
COMBINATIONS = [
    {
        "line": line,
        "snapshotter": snapshotter,
        "handlers": handlers,
        "drop_in": drop_in,
        # Where all unpack into one snapshotter.
        "discard": {snapshotter, *(handler.get("snapshotter", snapshotter) for handler in handlers)} == {snapshotter},
    }
    for line, snapshotter, handlers, drop_in in itertools.product(CRI, ("overlayfs", "devmapper"), HANDLERS, (False, True))
    if not (line == "1.7" and drop_in)
]


@pytest.fixture(scope="module")
def containerd() -> dict[str, Path]:
    """The programs by line of releases."""
    return {line: compile_part(part) / "containerd" for line, part in PARTS.items()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the role writes, once for each combination."""
    work = tmp_path_factory.mktemp("rendered")
    files = []
    for number, combination in enumerate(COMBINATIONS):
        options = {
            **OPTIONS,
            "version": PARTS[str(combination["line"])].version.removeprefix("v"),
            "snapshotter": combination["snapshotter"],
            "handlers": combination["handlers"],
            "discard_unpacked_layers": combination["discard"],
        }
        config = f"version = 3\n{IMPORTS}\n[plugins.'{IMAGES}'.registry]\nconfig_path = '/srv/mirrors'\n" if combination["drop_in"] else ""
        files.append(work / f"{number}.toml")
        files[-1].write_text(plan({"config": config, "written": ""}, options, "containerd")["content"])
    return files


def foreign(containerd: Path, directory: Path) -> Path:
    """An administrator's configuration, as containerd itself writes it, with a setting of their own."""
    text = subprocess.run([containerd, "config", "default"], capture_output=True, text=True, check=True).stdout
    lines = ["imports = []" if line.startswith("imports") else line for line in text.splitlines()]
    table = next(number for number, line in enumerate(lines) if line.strip() == "[plugins.'io.containerd.cri.v1.images'.registry]")
    assert lines[table + 1].strip().startswith("config_path")
    lines[table + 1] = "config_path = '/srv/mirrors'"
    root = directory / "root.toml"
    root.write_text("\n".join(lines) + "\n")
    return root


def accepts(containerd: Path, root: Path | str, candidate: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", ROLE / "files" / "accept_configuration.sh", containerd, root, candidate], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_containerd_reads_what_is_rendered(containerd: dict[str, Path], rendered: list[Path], tmp_path: Path, number: int) -> None:
    combination, candidate = COMBINATIONS[number], rendered[number]
    binary = containerd[str(combination["line"])]
    file = candidate
    if combination["drop_in"]:
        file = foreign(binary, tmp_path)
        file.write_text(file.read_text().replace("imports = []", f"imports = ['{candidate}']"))
    done = subprocess.run([binary, "--config", file, "config", "dump"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unknown key" not in done.stderr.lower()
    plugins = tomllib.loads(done.stdout)["plugins"]
    cri = plugins[CRI[str(combination["line"])]]
    images = cri["containerd"] if combination["line"] == "1.7" else plugins["io.containerd.cri.v1.images"]
    assert images["snapshotter"] == combination["snapshotter"]
    assert images["discard_unpacked_layers"] is combination["discard"]
    for handler in t.cast("list[dict[str, t.Any]]", combination["handlers"]):
        seen = cri["containerd"]["runtimes"][handler["name"]]
        assert {key: seen[key] for key in ("runtime_type", "runtime_path", "privileged_without_host_devices", "pod_annotations")} == {
            key: handler[key] for key in ("runtime_type", "runtime_path", "privileged_without_host_devices", "pod_annotations")
        }
        assert seen["base_runtime_spec"] == "/etc/containerd/screwdriver-kata-base-spec.json"
        assert seen["options"]["ConfigPath"] == handler["config_path"]
        assert (seen["snapshotter"] or combination["snapshotter"]) == handler.get("snapshotter", combination["snapshotter"])
    if combination["drop_in"]:
        assert images["registry"]["config_path"] == "/srv/mirrors"
    else:
        assert (cri if combination["line"] == "1.7" else images)["registry"]["config_path"] == "/etc/containerd/certs.d"
        assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is True
    assert accepts(binary, foreign(binary, tmp_path) if combination["drop_in"] else "-", candidate).returncode == 0


# containerd 1.7 accepts an unknown key in a plugin's table, so the TOML is broken there.
@pytest.mark.parametrize(("line", "broken"), [("1.7", "nonsense ="), ("2", "nonsense ="), ("2", "nonsense = 1")])
def test_a_broken_configuration_is_refused(containerd: dict[str, Path], tmp_path: Path, line: str, broken: str) -> None:
    candidate = tmp_path / "candidate.toml"
    candidate.write_text(f"version = {2 if line == '1.7' else 3}\n[plugins.'{CRI[line]}']\n  {broken}\n")
    done = accepts(containerd[line], "-", candidate)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{containerd[line]} refuses the new configuration, and the old one stays: ")


def shipped_configuration(containerd: Path) -> str:
    return subprocess.run([containerd, "config", "default"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2\nimports = []\nroot = '/data/containerd'\n",
        "disabled_plugins = [\n  'cri',\n  'zfs',\n]\n",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n",
    ],
    ids=["default of 1.7", "empty list", "Docker", "handler"],
)
def test_the_advice_works(containerd: dict[str, Path], tmp_path: Path, text: str) -> None:
    """The role's advice for an old foreign file works with the containerd that it names."""
    file = tmp_path / "config.toml"
    file.write_text(text or shipped_configuration(containerd["1.7"]))
    options = {**OPTIONS, "version": PARTS["2"].version.removeprefix("v"), "handlers": [KATA]}

    def planned() -> dict[str, t.Any]:
        return plan({"config": file.read_text(), "written": ""}, options, str(containerd["2"]))

    found = planned()
    [command] = [re.search(r"'(.*)'$", problem)[1] for problem in found["problems"] if "convert it with" in problem]  # type: ignore[index]
    subprocess.run(command.replace("/etc/containerd/config.toml", str(file)), shell=True, check=True, stderr=subprocess.DEVNULL)
    before = tomllib.loads(file.read_text())
    for problem in planned()["problems"]:
        lines = file.read_text()
        if "add this line above its first table" in problem:
            file.write_text(f"{problem.split('table: ')[1]}\n{lines}")
        elif "imports" in problem:
            file.write_text(re.sub(r"(?ms)^imports = \[.*?\]", IMPORTS, lines))
        else:
            name = problem.rsplit("remove ", 1)[1].split()[0]
            file.write_text(re.sub(rf"'{re.escape(name)}',? ?", "", lines))
    found = planned()
    assert found["problems"] == []
    assert found["root"] == before.get("root", "/var/lib/containerd")
    drop_in = tmp_path / "drop-in.toml"
    drop_in.write_text(found["content"])
    done = accepts(containerd["2"], file, drop_in)
    assert done.returncode == 0, done.stderr
