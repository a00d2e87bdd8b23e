# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration of containerd of our own, a drop-in beside a foreign one, and what keeps a drop-in from working."""

from __future__ import annotations

import tomllib
import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.filter.toml_file import toml_file
from ansible_collections.screwdriver.kata.plugins.module_utils._install.containerd import BASE_SPEC, MARK, hosts, plan
from ansible_collections.screwdriver.kata.plugins.module_utils._install.toml import to_toml

RUNTIME, IMAGES = "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"
OPTIONS: dict[str, t.Any] = {
    "source": "archive",
    "replace_packaged": False,
    "version": "2.3.6",
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
    "handlers": [{"name": "kata", "runtime_type": "io.containerd.kata.v2", "snapshotter": "devmapper", "config_path": "/opt/kata/c.toml"}],
    "extra_config": {},
}
MIGRATE = "/opt/containerd-releases/x/bin/containerd"
CONVERT = (
    "it has version {}, under which containerd loses settings of a drop-in: convert it with '/opt/containerd-releases/x/bin/containerd "
    "--config /etc/containerd/config.toml config migrate >/etc/containerd/config.toml.new && mv /etc/containerd/config.toml.new "
    "/etc/containerd/config.toml'"
)
ABSENT = 'it imports no drop-ins: add this line above its first table: imports = ["/etc/containerd/conf.d/*.toml"]'
EMPTY = 'its list imports is empty: put "/etc/containerd/conf.d/*.toml" into it'
OTHER = 'its list imports has no directory for drop-ins: add "/etc/containerd/conf.d/*.toml" to it'
IMPORTS = 'imports = ["/etc/containerd/conf.d/*.toml"]\n'
DISABLED = "its disabled_plugins turns off {0}, without which no pod can run: remove {0} from that list"


def planned(config: str = "", written: str = "", **options: t.Any) -> dict[str, t.Any]:
    return plan({"config": config, "written": written}, {**OPTIONS, **options}, MIGRATE)


def tables(config: str = "", written: str = "", **options: t.Any) -> dict[str, t.Any]:
    return tomllib.loads(planned(config, written, **options)["content"])


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        # The list of imports: missing, empty, over several lines, of another directory, of files.
        ("version = 3\n", [ABSENT]),
        ("version = 3\nimports = []\n", [EMPTY]),
        ('version = 3\nimports = ["/etc/containerd/gpu.toml"]\n', [OTHER]),
        ('version = 3\nimports = ["/etc/*/drop-in.toml"]\n', [OTHER]),
        ('version = 3\nimports = ["/etc/containerd/conf*/*.toml"]\n', [OTHER]),
        ('version = 3\nimports = [\n  "/etc/containerd/config.d/*.toml", # drop-ins\n]\n', []),
        # Docker's, over several lines as well, and names of the new plugins.
        ('disabled_plugins = ["cri"]\n', [CONVERT.format(1), ABSENT, DISABLED.format("cri")]),
        (
            f'version = 3\n{IMPORTS}disabled_plugins = [\n  "zfs",\n  "io.containerd.grpc.v1.cri",\n]\n',
            [DISABLED.format("io.containerd.grpc.v1.cri")],
        ),
        (f"version = 3\n{IMPORTS}disabled_plugins = ['{RUNTIME}']\n", [DISABLED.format(RUNTIME)]),
        (f"version = 3\n{IMPORTS}disabled_plugins = ['devmapper']\n", [DISABLED.format("devmapper")]),
        (f"version = 3\n{IMPORTS}disabled_plugins = ['zfs']\n", []),
        ("version = 2\nimports = []\n", [CONVERT.format(2), EMPTY]),
        (
            f"version = 3\n{IMPORTS}[grpc]\naddress = '/run/other.sock'\n",
            ["containerd listens on /run/other.sock, where kubelet and crictl expect /run/containerd/containerd.sock: change the address"],
        ),
        ("version = 3\nversion = 3\n", ["it is not valid TOML (Cannot overwrite a value (at line 2, column 12)): correct it"]),
    ],
)
def test_all_problems_of_a_foreign_file(config: str, problems: list[str]) -> None:
    found = planned(config)
    assert found["drop_in"]
    assert found["problems"] == problems


@pytest.mark.parametrize(
    ("source", "advice"),
    [("archive", "set containerd_version to 2.x"), ("package", "use containerd 2.x with containerd_source archive")],
)
def test_old_containerd_beside_a_foreign_file(source: str, advice: str) -> None:
    assert planned(f"version = 2\n{IMPORTS}", version="1.7.34", source=source)["problems"] == [
        f"containerd 1.7.34 would replace whole sections of it by a drop-in's: move it away, or {advice}"
    ]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/etc/containerd/conf.d/*.toml", "/etc/containerd/conf.d/screwdriver-kata.toml"),
        ("/etc/containerd/config.d/*.toml", "/etc/containerd/config.d/screwdriver-kata.toml"),
        ("conf.d/*", "/etc/containerd/conf.d/screwdriver-kata.toml"),
        ("/srv/containerd/*-kata.toml", "/srv/containerd/screwdriver-kata.toml"),
    ],
)
def test_drop_in_goes_where_the_file_imports_from(pattern: str, path: str) -> None:
    assert planned(f'version = 3\nimports = ["/etc/gpu.toml", "{pattern}"]\n')["path"] == path


def test_drop_in_leaves_the_foreign_decisions() -> None:
    config = f"""version = 3
root = "/data/containerd"
{IMPORTS}
[plugins.'{IMAGES}'.pinned_images]
sandbox = "registry.example.com/pause:3.10"
[plugins.'{IMAGES}'.registry]
config_path = "/srv/certs.d:/etc/docker/certs.d"
"""
    found = planned(config, mirrors=True)
    content = tomllib.loads(found["content"])
    assert found["root"] == "/data/containerd"
    assert found["registry"] == "/srv/certs.d"
    assert content["plugins"]["io.containerd.snapshotter.v1.devmapper"]["root_path"].startswith("/data/containerd/")
    assert content["plugins"][IMAGES].keys() == {"snapshotter", "discard_unpacked_layers", "use_local_image_pull", "runtime_platforms"}
    assert content["plugins"][RUNTIME]["containerd"]["runtimes"].keys() == {"kata"}
    # What the role is asked for goes into the drop-in.
    asked = tables(config, sandbox_image="mirror.example.com/pause:3.10", registry_config_path="/etc/own/certs.d")["plugins"][IMAGES]
    assert asked["pinned_images"]["sandbox"] == "mirror.example.com/pause:3.10"
    assert asked["registry"]["config_path"] == "/etc/own/certs.d"
    # So does what the foreign file lacks.
    bare = tables(f"version = 3\n{IMPORTS}")["plugins"][IMAGES]
    assert bare["registry"]["config_path"] == "/etc/containerd/certs.d"
    assert bare["pinned_images"]["sandbox"] == "registry.k8s.io/pause:3.10.1"


def test_mirrors_that_the_foreign_file_would_hide() -> None:
    config = f"version = 3\n{IMPORTS}[plugins.'{IMAGES}'.registry.mirrors.'docker.io']\nendpoint = ['https://mirror.example.com']\n"
    assert planned(config)["problems"] == []
    assert planned(config, mirrors=True)["problems"] == [
        "it lists registry.mirrors for docker.io, beside which containerd reads no hosts.toml: move them to containerd_registry_mirrors"
    ]


def test_file_of_the_package() -> None:
    config = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"\n'
    assert planned(config, source="package", version="1.6.20")["drop_in"] is True
    found = planned(config, source="package", version="1.6.20", replace_packaged=True, cni_bin_dir="/usr/lib/cni")
    assert not found["drop_in"]
    assert found["path"] == "/etc/containerd/config.toml"
    assert found["problems"] == []


def test_own_configuration() -> None:
    content = tables()
    assert content["version"] == 3
    assert content["imports"] == ["/etc/containerd/conf.d/*.toml"]
    runtimes = content["plugins"][RUNTIME]["containerd"]["runtimes"]
    assert runtimes["runc"] == {
        "runtime_type": "io.containerd.runc.v2",
        "base_runtime_spec": BASE_SPEC,
        "options": {"SystemdCgroup": True},
    }
    assert "pod_annotations" not in runtimes["kata"]
    assert content["plugins"][IMAGES]["runtime_platforms"] == {"kata": {"snapshotter": "devmapper"}}
    old = tables(version="1.7.34", cni_bin_dir="/usr/lib/cni")
    assert old["version"] == 2
    assert "imports" not in old
    assert old["plugins"].keys() == {"io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper"}
    assert old["plugins"]["io.containerd.grpc.v1.cri"]["cni"] == {"bin_dir": "/usr/lib/cni"}
    assert tables(cni_bin_dir="/usr/lib/cni")["plugins"][RUNTIME]["cni"] == {"bin_dirs": ["/usr/lib/cni"]}


def test_moved_root_of_our_own_configuration() -> None:
    found = planned(snapshotter="devmapper", extra_config={"root": "/data/containerd"})
    assert found["root"] == "/data/containerd"
    devmapper = tomllib.loads(found["content"])["plugins"]["io.containerd.snapshotter.v1.devmapper"]
    assert devmapper["root_path"] == "/data/containerd/io.containerd.snapshotter.v1.devmapper"


def test_more_configuration_is_merged() -> None:
    extra = {"plugins": {RUNTIME: {"max_container_log_line_size": 65536}}, "debug": {"level": "debug"}}
    content = tables(extra_config=extra)
    assert content["debug"] == {"level": "debug"}
    assert content["plugins"][RUNTIME]["max_container_log_line_size"] == 65536
    assert "runc" in content["plugins"][RUNTIME]["containerd"]["runtimes"]
    assert tables(f"version = 3\n{IMPORTS}", extra_config=extra)["debug"] == {"level": "debug"}


NVIDIA = f"""
[plugins."{RUNTIME}".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{BASE_SPEC}"
"""


@pytest.mark.parametrize("heading", [f"# {MARK}\n", ""], ids=["edited", "written by a program"])
def test_foreign_handlers_in_our_own_file_stay(heading: str) -> None:
    first = planned()
    changed = heading + first["content"].replace('/conf.d/*.toml",', '/conf.d/*.toml", "/etc/gpu/*.toml",') + NVIDIA
    second = planned(changed, first["written"])
    content = tomllib.loads(second["content"])
    assert second["drop_in"] is False
    assert content["imports"] == ["/etc/containerd/conf.d/*.toml", "/etc/gpu/*.toml"]
    assert content["plugins"][RUNTIME]["containerd"]["runtimes"].keys() == {"runc", "kata", "nvidia"}
    # Again it is the same, and a handler of ours that is not asked for any more goes.
    assert planned(f"# {MARK}\n{second['content']}", second["written"])["content"] == second["content"]
    fewer = tables(f"# {MARK}\n{second['content']}", second["written"], handlers=[])
    assert fewer["plugins"][RUNTIME]["containerd"]["runtimes"].keys() == {"runc", "nvidia"}


def test_foreign_handlers_stay_across_versions() -> None:
    first = planned(version="1.7.34")
    changed = f"# {MARK}\n{first['content']}" + NVIDIA.replace(RUNTIME, "io.containerd.grpc.v1.cri")
    content = tables(changed, first["written"])
    assert content["version"] == 3
    assert content["plugins"][RUNTIME]["containerd"]["runtimes"].keys() == {"runc", "kata", "nvidia"}
    assert "io.containerd.grpc.v1.cri" not in content["plugins"]


WILDCARD = """
[plugins."{0}".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
pod_annotations = ["io.katacontainers.*"]
"""


@pytest.mark.parametrize(
    ("config", "others", "taken"),
    [
        ("", [], []),
        ("", ["/etc/containerd/conf.d/nvidia.toml nvidia"], []),
        ("", ["/etc/containerd/conf.d/a file.toml kata"], [{"name": "kata", "file": "/etc/containerd/conf.d/a file.toml"}]),
        (f"version = 3\n{IMPORTS}{WILDCARD.format(RUNTIME)}", [], [{"name": "kata", "file": "/etc/containerd/config.toml"}]),
        (f"version = 3\n{IMPORTS}{WILDCARD.format(RUNTIME).replace('kata]', 'kata-qemu]')}", [], []),
        (
            f"version = 2\n{IMPORTS}{WILDCARD.format('io.containerd.grpc.v1.cri')}",
            [],
            [{"name": "kata", "file": "/etc/containerd/config.toml"}],
        ),
    ],
)
def test_handler_that_a_foreign_file_has_too(config: str, others: list[str], taken: list[dict[str, str]]) -> None:
    """containerd would mix the two: the foreign one's annotations would pass, whatever the role's list says."""
    assert plan({"config": config, "written": "", "others": others}, OPTIONS, MIGRATE)["taken"] == taken


POOL = """
[plugins.'io.containerd.snapshotter.v1.devmapper']
pool_name = "{0}"
root_path = "{1}"
"""
OWN_ROOT = "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper"
LOST_POOL = (
    "{} sets pool_name of devmapper to containerd-pool, and with kata-pool containerd would lose its snapshots: use that pool "
    "(containerd_pool_name, or thin_pool_volume_group and thin_pool_name with the playbook site), or remove the setting if they are not "
    "needed"
)
LOST_ROOT = (
    "{} sets root_path of devmapper to /var/lib/containerd/devmapper, and with "
    "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper containerd would lose its snapshots: set root_path of "
    "io.containerd.snapshotter.v1.devmapper in containerd_extra_config to it, or remove the setting if they are not needed"
)


@pytest.mark.parametrize(
    ("pool", "root", "problems"),
    [
        ("containerd-pool", "", [LOST_POOL]),
        ("containerd-pool", OWN_ROOT, [LOST_POOL]),
        ("containerd-pool", "/var/lib/containerd/devmapper", [LOST_POOL, LOST_ROOT]),
        ("kata-pool", "/var/lib/containerd/devmapper", [LOST_ROOT]),
        ("kata-pool", "", []),
        # As 'containerd config default' has it: no pool, no snapshots.
        ("", "", []),
        ("", "/var/lib/containerd/devmapper", []),
    ],
)
def test_the_pool_of_a_foreign_devmapper(pool: str, root: str, problems: list[str]) -> None:
    config = f"version = 3\n{IMPORTS}{POOL.format(pool, root)}"
    assert planned(config)["problems"] == [problem.format("/etc/containerd/config.toml") for problem in problems]
    # Nothing of it is replaced where no handler uses devmapper.
    assert planned(config, handlers=[])["problems"] == []


def test_the_pool_of_a_foreign_devmapper_is_used() -> None:
    config = f"version = 3\n{IMPORTS}{POOL.format('containerd-pool', '/data/devmapper')}"
    extra = {"plugins": {"io.containerd.snapshotter.v1.devmapper": {"root_path": "/data/devmapper"}}}
    assert planned(config, pool_name="containerd-pool", extra_config=extra)["problems"] == []


@pytest.mark.parametrize("config", ["", f"version = 3\n{IMPORTS}"])
def test_the_pool_in_a_drop_in_of_others(config: str) -> None:
    drop_in = "/etc/containerd/conf.d/a file.toml"
    host = {"config": config, "written": "", "pools": [f"{drop_in} pool_name containerd-pool", f"{drop_in} root_path {OWN_ROOT}"]}
    assert plan(host, OPTIONS, MIGRATE)["problems"] == [LOST_POOL.format(drop_in)]


def test_own_handler_is_not_a_foreign_one() -> None:
    first = planned()
    assert planned(f"# {MARK}\n{first['content']}", first["written"])["taken"] == []


def test_hosts() -> None:
    content = hosts(
        [
            "https://mirror.example.com",
            {"url": "https://registry.example.com", "ca": "/etc/own.crt", "header": {"Authorization": "Basic eA=="}, "client": None},
        ]
    )
    assert tomllib.loads(content) == {
        "host": {
            "https://mirror.example.com": {"capabilities": ["pull", "resolve"]},
            "https://registry.example.com": {
                "capabilities": ["pull", "resolve"],
                "ca": "/etc/own.crt",
                "header": {"Authorization": "Basic eA=="},
            },
        }
    }


K3S = {
    "name": "k3s",
    "managed": True,
    "unit": "k3s-agent",
    "config": "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "socket": "/run/k3s/containerd/containerd.sock",
    "state": "/var/lib/rancher/k3s/agent/containerd",
}
K3S_FILE = """version = {0}
imports = ["/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/*.toml"]
[grpc]
address = "/run/k3s/containerd/containerd.sock"
"""


def managed(config: str, **options: t.Any) -> dict[str, t.Any]:
    return plan({"config": config, "written": "", "installer": K3S}, {**OPTIONS, **options}, MIGRATE)


def test_a_containerd_that_an_installer_manages_gets_a_drop_in() -> None:
    found = managed(K3S_FILE.format(3))
    assert found["problems"] == []
    assert found["drop_in"]
    assert not found["old_format"]
    assert found["path"] == "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/screwdriver-kata.toml"
    plugins = tomllib.loads(managed(K3S_FILE.format(3), snapshotter="devmapper")["content"])["plugins"]
    state = "/var/lib/rancher/k3s/agent/containerd/io.containerd.snapshotter.v1.devmapper"
    assert plugins["io.containerd.snapshotter.v1.devmapper"]["root_path"] == state


@pytest.mark.parametrize(
    ("config", "options", "problem"),
    [
        ("", {}, "k3s has not written it yet: start k3s-agent once"),
        (
            K3S_FILE.format(2),
            {"version": "1.7.27-k3s1"},
            "k3s runs containerd 1.7.27-k3s1, which merges no drop-in: update k3s to a release with containerd 2",
        ),
        (
            K3S_FILE.format(2),
            {},
            "it has version 2: replace the template config.toml.tmpl in /var/lib/rancher/k3s/agent/etc/containerd by config-v3.toml.tmpl",
        ),
        (
            K3S_FILE.format(3),
            {"mirrors": True},
            "k3s writes what it knows of registries: move containerd_registry_mirrors to /etc/rancher/k3s/registries.yaml",
        ),
        (
            K3S_FILE.format(3) + "[plugins]\n",
            {},
            "",
        ),
        ('disabled_plugins = ["cri"]\n' + K3S_FILE.format(3), {}, DISABLED.format("cri")),
    ],
)
def test_what_an_installer_leaves_in_the_way_is_one_sentence(config: str, options: dict[str, t.Any], problem: str) -> None:
    assert managed(config, **options)["problems"] == ([problem] if problem else [])


def registry(**auth: t.Any) -> dict[str, t.Any]:
    return {"plugins": {"io.containerd.cri.v1.images": {"registry": {"configs": {"registry.example.com": {"auth": auth}}}}}}


@pytest.mark.parametrize(
    "table",
    [
        registry(username="deploy", password="S3CRET"),
        registry(identitytoken="S3CRET"),
        registry(auth="ZGVwbG95OlMzQ1JFVA=="),
        {"headers": {"Authorization": ["Bearer S3CRET"]}},
        {"registry": {"mirrors": {"docker.io": {"endpoint": ["https://deploy:S3CRET@mirror.example.com"]}}}},
    ],
)
def test_a_file_with_a_secret_is_for_root_alone(table: dict[str, t.Any]) -> None:
    text = to_toml(table)
    assert toml_file(text) == {"mode": "0600", "secret_content": text}


@pytest.mark.parametrize(
    "mirror", ["https://deploy:S3CRET@mirror.example.com", {"url": "https://m.example.com", "header": {"x-a": "S3CRET"}}]
)
def test_mirrors_with_a_secret(mirror: t.Any) -> None:
    assert toml_file(hosts([mirror]))["mode"] == "0600"


def test_all_others_can_be_read() -> None:
    handlers = [{**OPTIONS["handlers"][0], "pod_annotations": ["io.katacontainers.config.hypervisor.kernel_params"]}]
    for text in (
        planned(snapshotter="devmapper", handlers=handlers)["content"],
        planned(extra_config=registry(password=""))["content"],
        hosts(["https://mirror.example.com", {"url": "https://m.example.com", "ca": "/etc/own.crt", "client": [["/a.crt", "/a.key"]]}]),
        "",
    ):
        assert toml_file(text) == {"mode": "0644", "content": text}


def test_what_another_program_adds() -> None:
    first = planned()
    found = planned(first["content"] + to_toml(registry(password="S3CRET")), first["written"])
    assert toml_file(found["content"])["mode"] == "0600"
    assert toml_file(found["written"])["mode"] == "0644"
