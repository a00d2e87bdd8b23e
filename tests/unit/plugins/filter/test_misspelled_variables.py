"""A misspelled variable is named with what was meant; those of other collections never are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.screwdriver.kata.plugins.filter.misspelled_variables import PLAYBOOK_VARIABLES, misspelled_variables

TOP = Path(__file__).parents[4]
# As inventories of these have them: kubespray, image-builder, prometheus.prometheus, lablabs.rke2, k3s-ansible, and of no collection.
FOREIGN = """
containerd_checksum containerd_registries_mirrors containerd_registry_auth containerd_use_systemd_cgroup containerd_limit_open_file_num
containerd_limit_proc_num containerd_storage_dir containerd_state_dir containerd_oom_score containerd_snapshotter containerd_extra_args
containerd_runc_runtime containerd_default_runtime containerd_download_url containerd_version crictl_version crictl_download_url
kata_containers_enabled kata_containers_version kata_containers_qemu_default_memory download_cache_dir download_run_once download_container
node_labels node_taints node_ip cluster_name cluster_id
containerd_baseurl containerd_file crictl_baseurl containerd_additional_settings
node_exporter_version node_exporter_web_listen_address node_exporter_textfile_dir node_exporter_enabled_collectors
node_names cluster_context extra_agent_args server_config_yaml
data_cache data_hosts data_state kafka_state ansible_version inventory_hostname groups
"""


def found(*names: str) -> list[str]:
    return misspelled_variables(list(names), str(TOP / "roles"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rollout_stps", "rollout_steps"),
        ("rolout_steps", "rollout_steps"),
        ("executor_exclusion", "executor_exclusions"),
        ("kata_versoin", "kata_version"),
        ("kata_host", "kata_hosts"),
        ("containerd_verison", "containerd_version"),
        ("node_drain_timeoutt", "node_drain_timeout"),
        ("node_prof_min_nofile", "node_proof_min_nofile"),
        ("cluster_pool_kex", "cluster_pool_key"),
        ("thin_pool_device", "thin_pool_devices"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert found("inventory_dir", name, meant) == [
        f"{name} is not a variable of screwdriver.kata: did you mean {meant}? Nothing was changed."
    ]


def test_two_slips_are_two_sentences() -> None:
    assert [sentence.split()[0] for sentence in found("rollout_stps", "kata_versoin", "rollout_stps")] == ["kata_versoin", "rollout_stps"]


@pytest.mark.parametrize("name", FOREIGN.split())
def test_a_name_of_another_collection_is_left_alone(name: str) -> None:
    assert found(name) == []


def test_what_plays_and_roles_set_is_left_alone() -> None:
    """Facts, results and variables of our own plays are known to a play that a user puts behind them."""
    tasks = "\n".join(path.read_text() for path in [*TOP.glob("roles/*/tasks/*.yml"), *TOP.glob("playbooks/**/*.yml")])
    registered = set(re.findall(r"register: (\w+)", tasks))
    facts = {name for block in re.findall(r"set_fact:\n((?: +\w+:.*\n| +.*\n)+)", tasks) for name in re.findall(r"^ +(\w+):", block, re.M)}
    variables = set(re.findall(r"^([a-z]\w*):", (TOP / "playbooks/vars/nodes.yml").read_text(), re.M))
    assert {"thin_pool_result"} <= registered
    assert {"download_installer", "node_failure"} <= facts
    assert variables
    assert found(*registered, *facts, *variables) == []


def test_variables_of_the_playbooks_alone() -> None:
    used = "".join(path.read_text() for path in TOP.glob("playbooks/*.yml"))
    named = set(re.findall(r"^  (?:hosts|serial): .*?(kata_\w+) \|", used, re.M))
    assert named == PLAYBOOK_VARIABLES
