"""What the role containerd renders, read by the real containerd 1.7 and 2.x. No service is started here."""

from __future__ import annotations

import itertools
import json
import subprocess
import tomllib
import typing as t
from pathlib import Path

import pytest

from lab.programs.go import NODE_PARTS, compile_part

TOP = Path(__file__).resolve().parents[2]
ROLE = TOP / "roles" / "containerd"
KATA = {
    "name": "kata",
    "runtime_type": "io.containerd.kata.v2",
    "runtime_path": "/opt/kata/bin/containerd-shim-kata-v2",
    "config_path": "/etc/kata-containers/configuration.toml",
    "privileged_without_host_devices": True,
    "pod_annotations": ["io.katacontainers.*"],
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
    """The role's own template, rendered by Ansible with the role's own defaults and vars, once for each combination."""
    work = tmp_path_factory.mktemp("rendered")
    template = {"ansible.builtin.template": {"src": str(ROLE / "templates" / "config.toml.j2"), "dest": "{{ item.dest }}", "mode": "0644"}}
    items = [
        {**combination, "dest": str(work / f"{number}.toml"), "version": PARTS[combination["line"]].version.removeprefix("v")}
        for number, combination in enumerate(COMBINATIONS)
    ]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
        "tasks": [
            {
                **template,
                "loop": items,
                "vars": {
                    "containerd_version": "{{ item.version }}",
                    "containerd_snapshotter": "{{ item.snapshotter }}",
                    "containerd_handlers": "{{ item.handlers }}",
                    "containerd_discard_unpacked_layers": "{{ item.discard }}",
                    "__containerd_drop_in": "{{ item.drop_in }}",
                },
            }
        ],
    }
    (work / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(["ansible-playbook", str(work / "play.yml")], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [Path(str(item["dest"])) for item in items]


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
    return subprocess.run(["/bin/sh", ROLE / "files" / "accepts", containerd, root, candidate], capture_output=True, text=True, check=False)


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


# containerd 1.7 says nothing about an unknown key in a plugin's table: what is broken there is the TOML.
@pytest.mark.parametrize(("line", "broken"), [("1.7", "nonsense ="), ("2", "nonsense ="), ("2", "nonsense = 1")])
def test_a_broken_configuration_is_refused(containerd: dict[str, Path], tmp_path: Path, line: str, broken: str) -> None:
    candidate = tmp_path / "candidate.toml"
    candidate.write_text(f"version = {2 if line == '1.7' else 3}\n[plugins.'{CRI[line]}']\n  {broken}\n")
    done = accepts(containerd[line], "-", candidate)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{containerd[line]} refuses the new configuration, and the old one stays: ")
