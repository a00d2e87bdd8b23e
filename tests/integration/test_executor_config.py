"""executor_config and executor_config_info on files and on the lab's ConfigMap, checked with kubectl and PyYAML."""

from __future__ import annotations

import json
import random
import shutil
import socket
import threading
import time
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.cluster.lab import Lab

if t.TYPE_CHECKING:
    from ..helpers import ModuleRunner, Writes

FILES = Path(__file__).parent / "files"
ROUNDS = 15
MAP = {"namespace": "sd", "name": "worker-config", "deployment": "worker"}
ENTRY = {"pluginName": "k8s", "options": {"kubernetes": {"runtimeClass": "kata", "nodeSelectors": {"dedicated": "screwdriver-kata"}}}}
CONFIG = """# build cluster one
executor:
  plugin: k8s-vm  # the default
  k8s-vm:
    weightage: 100
    options:
      kubernetes: {host: kubernetes.default, token: s3cr3t-t0ken, jobsNamespace: builds, baseImage: hyperctl}
      prefix: one-
# read by the worker alone
rabbitmq:
  prefetchCount: 20
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "local.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def config_map(lab: Lab) -> t.Iterator[t.Callable[[], str]]:
    """A ConfigMap and a Deployment of the test's own; gives the config that is there."""
    template = {
        "metadata": {"labels": {"app": "worker"}},
        "spec": {
            "containers": [
                {
                    "name": "worker",
                    "image": "worker",
                    "env": [{"name": "RABBITMQ_HOST", "value": "rabbitmq"}],
                    "volumeMounts": [{"name": "config", "mountPath": "/app/config/local.yaml", "subPath": "local.yaml"}],
                }
            ],
            "volumes": [{"name": "config", "configMap": {"name": "worker-config"}}],
        },
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "worker"}}, "template": template}
    objects = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "worker-config", "namespace": "sd"},
            "data": {"local.yaml": CONFIG, "other": "kept"},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker", "namespace": "sd"}, "spec": spec},
    ]
    lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    yield lambda: lab.kubectl("get", "configmap", "worker-config", "-n", "sd", "-o", "jsonpath={.data.local\\.yaml}")
    lab.kubectl("delete", "configmap/worker-config", "deployment/worker", "-n", "sd")


def generation(lab: Lab) -> int:
    return int(lab.kubectl("get", "deployment", "worker", "-n", "sd", "-o", "jsonpath={.metadata.generation}"))


def weightages(text: str) -> dict[str, int]:
    return {name: entry["weightage"] for name, entry in yaml.safe_load(text)["executor"].items() if isinstance(entry, dict)}


# Removing the legacy executor

MOVED = """executor:
  plugin: k8s-vm
  k8s-vm: {weightage: 0, options: {kubernetes: {token: t}}}
  k8s-kata: {pluginName: k8s, weightage: 100, options: {kubernetes: {runtimeClass: kata, token: t}}}
"""


def test_the_legacy_executor_is_removed_once_nothing_routes_to_it(module: ModuleRunner, tmp_path: Path) -> None:
    config = tmp_path / "local.yaml"
    config.write_text(MOVED)
    options: dict[str, t.Any] = {"path": str(config), "legacy_executor": "k8s-vm"}
    assert module("executor_config", remove_legacy=True, **options)["changed"] is True
    assert config.read_text() == MOVED.replace("plugin: k8s-vm", "plugin: k8s-kata")
    assert module("executor_config", remove_legacy=True, **options)["changed"] is False
    read = module("executor_config_info", images=["rhel6"], **options)
    assert {name: share for name, share in read["shares"]["rhel6"].items() if share} == {"k8s-kata": 1}
    module("executor_config", kata_share="0", **options)
    section = yaml.safe_load(config.read_text())["executor"]
    assert section["plugin"] == "k8s-vm"
    assert section["k8s-vm"]["weightage"] == 100


@pytest.mark.parametrize(
    ("legacy", "kata", "sentence"),
    [
        ("weightage: 40", "weightage: 60", "sends k8s-vm 40 % of the builds. Finish the rollout first."),
        ("weightage: 100", "weightage: 0", "sends k8s-vm 100 % of the builds. Finish the rollout first."),
        ("weightage: 0", "weightage: 100, exclusions: [rhel6]", "the exclusions of k8s-kata, ['rhel6'], still send builds to it."),
    ],
)
def test_the_legacy_executor_stays_while_something_routes_to_it(
    module: ModuleRunner, tmp_path: Path, legacy: str, kata: str, sentence: str
) -> None:
    config = tmp_path / "local.yaml"
    text = MOVED.replace("weightage: 100", kata).replace("weightage: 0, options", f"{legacy}, options", 1)
    config.write_text(text)
    refused = module("executor_config", path=str(config), legacy_executor="k8s-vm", remove_legacy=True)
    assert refused["msg"].startswith("k8s-vm cannot be removed: ")
    assert sentence in refused["msg"]
    assert refused["msg"].endswith("Nothing was changed.")
    assert config.read_text() == text


@pytest.mark.parametrize("variable", ["EXECUTOR_PLUGIN", "WEIGHT_K8S_VM", "NODE_CONFIG"])
def test_the_legacy_executor_stays_while_a_variable_routes_to_it(
    lab: Lab, module: ModuleRunner, config_map: t.Callable[[], str], variable: str
) -> None:
    value = {"EXECUTOR_PLUGIN": "k8s-vm", "WEIGHT_K8S_VM": "5", "NODE_CONFIG": '{"executor": {"plugin": "k8s-vm"}}'}[variable]
    lab.kubectl("patch", "configmap", "worker-config", "-n", "sd", "--type=merge", "-p", json.dumps({"data": {"local.yaml": MOVED}}))
    lab.kubectl("set", "env", "deployment/worker", "-n", "sd", f"{variable}={value}")
    refused = module("executor_config", config_map=MAP, legacy_executor="k8s-vm", remove_legacy=True)
    assert refused["msg"].startswith("k8s-vm cannot be removed: ")
    assert f"because {variable} overrides executor." in refused["msg"]
    assert config_map() == MOVED


# What is written


def test_a_new_entry_is_written_out_in_full_and_the_rest_is_kept(module: ModuleRunner, config: Path) -> None:
    result = module("executor_config", path=str(config), legacy_executor="k8s-vm", exclusions=["rhel6"], executors={"k8s-kata": ENTRY})
    assert result["changed"] is True
    assert "s3cr3t" not in json.dumps(result)
    text = config.read_text()
    assert text.startswith(CONFIG[: CONFIG.index("# read by")])
    assert text.endswith(CONFIG[CONFIG.index("# read by") :])
    kata = yaml.safe_load(text)["executor"]["k8s-kata"]
    kubernetes = kata["options"]["kubernetes"]
    assert kata["pluginName"] == "k8s"
    assert kata["weightage"] == 0
    assert kata["exclusions"] == ["rhel6"]
    assert kata["options"]["prefix"] == "one-"
    assert kubernetes["host"] == "kubernetes.default"
    assert kubernetes["jobsNamespace"] == "builds"
    assert kubernetes["token"] == "s3cr3t-t0ken"
    assert kubernetes["terminationGracePeriodSeconds"] == 60
    assert kubernetes["rootlessBuildkitFeatureEnabled"] is False
    assert result["findings"] == []


def test_second_run_check_mode_and_diff_on_a_file(module: ModuleRunner, config: Path) -> None:
    asked: dict[str, t.Any] = {"path": str(config), "legacy_executor": "k8s-vm", "kata_share": "2.5", "executors": {"k8s-kata": ENTRY}}
    tried = module("executor_config", check=True, **asked)
    assert tried["changed"] is True
    assert config.read_text() == CONFIG
    done = module("executor_config", backup=True, **asked)
    assert done["changed"] is True
    assert done["weightages"] == {"k8s-vm": 975, "k8s-kata": 25}
    assert done["diff"]["after"] == tried["diff"]["after"]
    assert Path(done["backup_file"]).read_text() == CONFIG
    stamp = config.stat()
    again = module("executor_config", backup=True, **asked)
    assert again["changed"] is False
    assert "backup_file" not in again
    assert config.stat().st_mtime_ns == stamp.st_mtime_ns
    assert config.stat().st_ino == stamp.st_ino


def test_on_a_config_map_the_worker_is_rolled_once_and_only_for_a_change(
    lab: Lab, module: ModuleRunner, config_map: t.Callable[[], str], writes: Writes
) -> None:
    asked: dict[str, t.Any] = {"config_map": MAP, "legacy_executor": "k8s-vm", "kata_share": "10", "executors": {"k8s-kata": ENTRY}}
    tried = module("executor_config", check=True, **asked)
    assert tried["changed"] is True
    assert tried["rolled"] is True
    assert config_map() == CONFIG
    assert generation(lab) == 1
    writes()
    done = module("executor_config", **asked)
    assert done["changed"] is True
    assert done["rolled"] is True
    assert weightages(config_map()) == {"k8s-vm": 90, "k8s-kata": 10}
    assert generation(lab) == 2
    assert len([event for event in writes() if event["user"]["username"] == "admin"]) == 2
    again = module("executor_config", **asked)
    assert again["changed"] is False
    assert again["rolled"] is False
    assert again["diff"]["before"] == again["diff"]["after"]
    module("executor_config_info", config_map=MAP)
    assert [event for event in writes() if event["user"]["username"] == "admin"] == []
    assert lab.kubectl("get", "configmap", "worker-config", "-n", "sd", "-o", "jsonpath={.data.other}") == "kept"


def test_a_run_that_was_killed_before_the_roll_is_made_good(lab: Lab, module: ModuleRunner, config_map: t.Callable[[], str]) -> None:
    asked: dict[str, t.Any] = {"config_map": MAP, "legacy_executor": "k8s-vm", "executors": {"k8s-kata": ENTRY}}
    seen: set[tuple[bool, bool]] = set()
    for number in range(1, 16):
        before, generation_before = config_map(), generation(lab)
        process = module.start("executor_config", kata_share=str(number), **asked)
        time.sleep(random.Random(number).uniform(0, 0.3))
        process.kill()
        process.communicate()
        seen.add((config_map() != before, generation(lab) != generation_before))
        done = module("executor_config", kata_share=str(number), **asked)
        assert not done.get("failed"), done
        assert weightages(config_map())["k8s-kata"] == number
        assert generation(lab) == generation_before + 1
    assert (False, True) not in seen


# Findings


def test_findings_name_what_is_wrong_with_the_config_of_2020(module: ModuleRunner) -> None:
    found = module("executor_config_info", path=str(FILES / "config-2020.yaml"), images=["node:22", "rhel6"])
    assert [(finding["code"], finding["path"]) for finding in found["findings"]] == [
        ("exclusion_ignored", "executor.k8s.exclusion"),
        ("switch_is_a_string", "executor.k8s.options.kubernetes.dockerFeatureEnabled"),
        ("rootless_buildkit_on", "executor.k8s.options.kubernetes.rootlessBuildkitFeatureEnabled"),
        ("weightage_all_zero", "executor.*.weightage"),
    ]
    assert found["shares"] == {"node:22": {"k8s": 1.0, "k8s-vm": 0.0}, "rhel6": {"k8s": 1.0, "k8s-vm": 0.0}}


def test_findings_name_what_is_wrong_with_the_config_of_today(module: ModuleRunner) -> None:
    found = module("executor_config_info", path=str(FILES / "config-today.yaml"))
    assert [(finding["code"], finding["path"]) for finding in found["findings"]] == [
        ("plugin_unknown", "executor.plugin"),
        ("weightage_not_a_number", "executor.k8s.weightage"),
        ("rootless_buildkit_on", "executor.k8s.options.kubernetes.rootlessBuildkitFeatureEnabled"),
        ("exclusions_not_a_list", "executor.k8s-vm.exclusions"),
        ("weightage_fraction", "executor.k8s-vm.weightage"),
        ("base_image_missing", "executor.k8s-vm.options.kubernetes.baseImage"),
        ("plugin_name_missing", "executor.k8s-kata.pluginName"),
        ("exclusion_invalid", "executor.k8s-kata.exclusions[0]"),
        ("exclusion_matches_all", "executor.k8s-kata.exclusions[1]"),
        ("build_secret_file_ignored", "executor.k8s-kata.options.kubernetes.buildSecretFile"),
        ("retry_queue_fails_slow_starts", "RABBITMQ_RETRYQUEUE_ENABLED"),
    ]


def test_what_comes_out_of_todays_config_is_clean_where_it_was_told_what_to_do(module: ModuleRunner, tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    shutil.copy(FILES / "config-today.yaml", path)
    entry = {"pluginName": "k8s", "options": {"kubernetes": {"rootlessBuildkitFeatureEnabled": False}}}
    legacy = {"weightage": 90, "exclusions": [], "options": {"kubernetes": {"jobsNamespace": "builds", "baseImage": "hyperctl"}}}
    plain = {"weightage": 0, "options": {"kubernetes": {"privileged": False, "rootlessBuildkitFeatureEnabled": False}}}
    executors = {"k8s-kata": entry, "k8s-vm": legacy, "k8s": plain}
    done = module("executor_config", path=str(path), legacy_executor="k8s-vm", kata_share="25", exclusions=["rhel6"], executors=executors)
    assert not done.get("failed"), done
    assert done["shares"] == {"k8s": 0.0, "k8s-vm": 75.0, "k8s-kata": 25.0}
    left = {finding["code"] for finding in done["findings"]}
    assert left == {"build_secret_file_ignored", "custom_entry_incomplete", "option_not_carried", "retry_queue_fails_slow_starts"}
    assert "# Three entries of today's worker" in path.read_text()


def test_the_deployments_environment_is_part_of_the_config(lab: Lab, module: ModuleRunner, config_map: t.Callable[[], str]) -> None:
    environment = [
        {"name": "WEIGHT_K8S_VM", "value": "7"},
        {"name": "EXECUTOR_PLUGIN", "value": "k8s"},
        {"name": "K8S_EXECUTOR_EXCLUSION", "value": '["rhel6"]'},
    ]
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "worker", "env": environment}]}}}}
    lab.kubectl("patch", "deployment", "worker", "-n", "sd", "-p", json.dumps(patch))
    found = module("executor_config_info", config_map=MAP)["findings"]
    assert [(finding["code"], finding["path"]) for finding in found] == [
        ("entries_apart", "executor.*.options.kubernetes.jobsNamespace"),
        ("entries_apart", "executor.*.options.prefix"),
        ("exclusion_ignored", "K8S_EXECUTOR_EXCLUSION"),
        ("environment_wins", "EXECUTOR_PLUGIN"),
        ("environment_wins", "WEIGHT_K8S_VM"),
    ]
    refused = module("executor_config", config_map=MAP, legacy_executor="k8s-vm", kata_share="10", executors={"k8s-kata": ENTRY})
    assert refused["msg"] == (
        "kata_share 10 has no effect: the worker would send 58.8235 % of the builds to k8s-kata, because EXECUTOR_PLUGIN overrides "
        "executor.plugin, "
        "WEIGHT_K8S_VM overrides executor.k8s-vm.weightage. Remove the variables from the worker, or set override_environment to remove. "
        "Nothing was changed."
    )
    assert config_map() == CONFIG


# Two writers


def test_two_writers_of_a_file_lose_nothing(module: ModuleRunner, config: Path) -> None:
    module("executor_config", path=str(config), legacy_executor="k8s-vm", executors={"k8s-kata": ENTRY})
    torn: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                assert yaml.safe_load(config.read_text())["rabbitmq"] == {"prefetchCount": 20}
            except Exception as exc:
                torn.append(repr(exc))
            time.sleep(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, ROUNDS + 1):
        pair = [
            module.start("executor_config", path=str(config), legacy_executor="k8s-vm", exclusions=[f"image-{number}"]),
            module.start(
                "executor_config", path=str(config), legacy_executor="k8s-vm", executors={"k8s-vm": {"options": {"prefix": f"p{number}-"}}}
            ),
        ]
        assert [module.result(process).get("changed") for process in pair] == [True, True]
        section = yaml.safe_load(config.read_text())["executor"]
        assert section["k8s-kata"]["exclusions"] == [f"image-{number}"]
        assert section["k8s-vm"]["options"]["prefix"] == f"p{number}-"
    over.set()
    reader.join()
    assert torn == []
    assert [path.name for path in config.parent.iterdir()] == ["local.yaml"]


def test_two_writers_of_a_config_map_lose_nothing_and_roll_no_more_than_needed(
    lab: Lab, module: ModuleRunner, config_map: t.Callable[[], str]
) -> None:
    module("executor_config", config_map=MAP, legacy_executor="k8s-vm", executors={"k8s-kata": ENTRY})
    for number in range(1, ROUNDS + 1):
        before = generation(lab)
        pair = [
            module.start("executor_config", config_map=MAP, legacy_executor="k8s-vm", exclusions=[f"image-{number}"]),
            module.start(
                "executor_config", config_map=MAP, legacy_executor="k8s-vm", executors={"k8s-vm": {"options": {"prefix": f"p{number}-"}}}
            ),
        ]
        assert [module.result(process).get("changed") for process in pair] == [True, True]
        section = yaml.safe_load(config_map())["executor"]
        assert section["k8s-kata"]["exclusions"] == [f"image-{number}"]
        assert section["k8s-vm"]["options"]["prefix"] == f"p{number}-"
        assert 1 <= generation(lab) - before <= 2
        annotations = [
            json.loads(lab.kubectl("get", kind, name, "-n", "sd", "-o", f"jsonpath={{{path}}}"))["kata.screwdriver.cd/config-digest"]
            for kind, name, path in (
                ("configmap", "worker-config", ".metadata.annotations"),
                ("deployment", "worker", ".spec.template.metadata.annotations"),
            )
        ]
        assert annotations[0] == annotations[1]


# Bad input: one clear sentence, and nothing is written


REFUSED: dict[str, tuple[dict[str, t.Any], str]] = {
    "share above 100": ({"kata_share": "101"}, "kata_share must be a percentage from 0 to 100 with at most two decimals, not '101'."),
    "share below 0": ({"kata_share": "-1"}, "kata_share must be a percentage from 0 to 100 with at most two decimals, not '-1'."),
    "share as a word": ({"kata_share": "ten"}, "kata_share must be a percentage from 0 to 100 with at most two decimals, not 'ten'."),
    "share with three decimals": (
        {"kata_share": "33.333"},
        "kata_share must be a percentage from 0 to 100 with at most two decimals, not '33.333'.",
    ),
    "unknown Kata executor": (
        {"executors": {}, "kata_share": "1"},
        "kata_executor k8s-kata is not configured in path {path}, which has k8s-vm: add it through executors.",
    ),
    "unknown legacy executor": (
        {"legacy_executor": "jenkins"},
        "legacy_executor jenkins is not configured in path {path}, which has k8s-vm, k8s-kata: add it through executors.",
    ),
    "one executor twice": ({"kata_executor": "k8s-vm"}, "kata_executor and legacy_executor are both k8s-vm: name two executors."),
    "both sources": ({"config_map": MAP}, "Give exactly one of path and config_map: both are given."),
    "no source": ({"path": None}, "Give exactly one of path and config_map: neither is given."),
    "an entry that is not a map": ({"executors": {"k8s-kata": "on"}}, "executors: k8s-kata is 'on' and not a map of the entry's keys."),
    "a pattern that is none": (
        {"exclusions": ["*rhel6"]},
        "exclusions: '*rhel6' is not a JavaScript regular expression (Invalid regular expression: /*rhel6/gi: Nothing to repeat). "
        "Nothing was changed.",
    ),
    "a pattern of before that Node 22 has not": (
        {"executors": {"k8s-kata": {**ENTRY, "exclusions": ["(?i:rhel6)"]}}, "kata_share": "10"},
        "kata_share 10 has no effect: the worker would send 0 % of the builds to k8s-kata, because it cannot use the exclusions of "
        "k8s-kata: Invalid regular expression: /(?i:rhel6)/gi: Invalid group. Nothing was changed.",
    ),
    "weights that cannot express it": (
        {"kata_share": "33.33", "executors": {"k8s-kata": ENTRY, "k8s": {"weightage": 10}}},
        "kata_share 33.33 cannot be expressed: of weightages that sum to 110, k8s has 10. "
        "Set that weightage to 0, or give k8s-vm a weightage that makes the share a whole number.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_on_a_file(module: ModuleRunner, config: Path, case: str) -> None:
    given, message = REFUSED[case]
    result = module("executor_config", **{"path": str(config), "legacy_executor": "k8s-vm", "executors": {"k8s-kata": ENTRY}, **given})
    assert result["failed"] is True
    assert result["msg"] == message.replace("{path}", str(config))
    assert config.read_text() == CONFIG


BROKEN = {
    "executor:\n  k8s: {weightage: 1\n  k8s-vm: 2\n": (
        "is not valid YAML: expected ',' or '}', but got ':' (line 3, column 9). Nothing was changed."
    ),
    "- executor\n": "holds a list and not a map with the key executor. Nothing was changed.",
    "executor: k8s-vm\n": "executor in {where} is not a map. Nothing was changed.",
}


@pytest.mark.parametrize("text", BROKEN)
def test_refused_config(module: ModuleRunner, config: Path, text: str) -> None:
    config.write_text(text)
    result = module("executor_config", path=str(config), legacy_executor="k8s-vm", kata_share="1", executors={"k8s-kata": ENTRY})
    assert BROKEN[text].replace("{where}", f"path {config}") in result["msg"]
    assert config.read_text() == text


ENCODED = {
    "Latin-1 in a comment": ("executor:\n  plugin: k8s-vm\n  # Kommentar: \xe4\n".encode("latin-1"), "byte 0xe4 in line 3"),
    "Latin-1 in a value": ('executor:\n  plugin: k8s-vm\nname: "Z\xfcrich"\n'.encode("latin-1"), "byte 0xfc in line 3"),
    "Windows-1252": ("# \u201cquoted\u201d\nexecutor: {}\n".encode("cp1252"), "byte 0x93 in line 1"),
    "UTF-16": ("executor: {}\n".encode("utf-16"), "byte 0xff in line 1"),
    "a cut character": ("executor: {}\n# \xe4".encode()[:-1], "byte 0xc3 in line 2"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_refused_encoding(module: ModuleRunner, config: Path, name: str) -> None:
    content, place = ENCODED[name]
    config.write_bytes(content)
    for asked in ({"legacy_executor": "k8s-vm", "kata_share": "1", "executors": {"k8s-kata": ENTRY}}, {}):
        result = module(
            "executor_config" if asked else "executor_config_info", **t.cast("dict[str, t.Any]", {"path": str(config), **asked})
        )
        assert result["msg"] == f"path {config} is not UTF-8 ({place}): save it as UTF-8. Nothing was changed."
    assert config.read_bytes() == content


def test_refused_places(module: ModuleRunner, config_map: t.Callable[[], str], tmp_path: Path, writes: Writes) -> None:
    writes()
    asked: dict[str, t.Any] = {"legacy_executor": "k8s-vm", "kata_share": "1", "executors": {"k8s-kata": ENTRY}}
    messages: dict[str, dict[str, t.Any]] = {
        "ConfigMap sd/nowhere does not exist: name the one that the worker mounts.": {"config_map": {**MAP, "name": "nowhere"}},
        "ConfigMap sd/worker-config has no key config.yaml: it has local.yaml, other.": {"config_map": {**MAP, "key": "config.yaml"}},
        "Deployment sd/nobody does not exist: name the worker's, or leave deployment out.": {"config_map": {**MAP, "deployment": "nobody"}},
        f"path {tmp_path} is not a file: name the worker's YAML file, for example its local.yaml.": {"path": str(tmp_path)},
        f"path {tmp_path}/no.yaml is not a file: name the worker's YAML file, for example its local.yaml.": {"path": f"{tmp_path}/no.yaml"},
    }
    for message, source in messages.items():
        assert module("executor_config", **source, **asked)["msg"] == message
        assert module("executor_config_info", **source)["msg"] == message
    assert [event for event in writes() if event["user"]["username"] == "admin"] == []


def test_refused_by_the_api_server(lab: Lab, module_as: t.Any, config_map: t.Callable[[], str], tmp_path: Path) -> None:
    asked: dict[str, t.Any] = {"config_map": MAP, "legacy_executor": "k8s-vm", "kata_share": "1", "executors": {"k8s-kata": ENTRY}}
    expired = module_as(lab.write_kubeconfig(tmp_path / "expired", "a-token-of-yesterday"))("executor_config", **asked)
    assert expired["msg"] == (
        "Cannot read Deployment sd/worker: the API server does not accept the credentials (401). They are wrong or have expired: "
        "renew the kubeconfig or token."
    )
    limited = module_as(lab.directory / "limited.kubeconfig")("executor_config", **asked)
    assert limited["msg"].startswith(
        "Cannot read Deployment sd/worker: not allowed (403). Grant the permission or use other credentials: deployments.apps"
    )
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    down = tmp_path / "down"
    down.write_text(Path(lab.kubeconfig).read_text().replace(lab.server, f"127.0.0.1:{port}"))
    silent = module_as(down)("executor_config", **asked)
    assert silent["msg"] == (
        f"Cannot reach the Kubernetes API: no answer from the API server at https://127.0.0.1:{port}. "
        "Check that it runs and can be reached."
    )
    assert config_map() == CONFIG
