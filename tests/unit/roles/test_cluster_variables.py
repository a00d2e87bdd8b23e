# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The permissions that the role cluster grants, as Ansible evaluates them."""

from __future__ import annotations

import typing as t

from ...helpers import evaluate

PLAYBOOKS = {"status": "viewers", "rollback": "rollback_operators", "rollout": "operators", "site": "node_operators"}


def granted(playbook: str, **values: t.Any) -> set[tuple[str, str, str]]:
    """(verb, resource, name) in the worker's namespace, which is not that of the record; the name is empty where it holds for all."""
    values |= {"rollout_namespace": "records", f"cluster_{PLAYBOOKS[playbook]}": [{"kind": "User", "name": "operator"}]}
    objects = evaluate("{{ __cluster_wanted }}", "names", "cluster", **values)
    rules = [rule for item in objects if item["kind"] == "Role" and item["metadata"]["namespace"] == "sd" for rule in item["rules"]]
    return {(verb, rule["resources"][0], name) for rule in rules for verb in rule["verbs"] for name in rule.get("resourceNames", [""])}


def test_who_rolls_out_through_a_file_may_not_read_or_write_the_worker() -> None:
    for playbook in PLAYBOOKS:
        assert ("get", "configmaps", "buildcluster-queue-worker") in granted(playbook)
        assert granted(playbook, executor_path="local.yaml") == set()


def test_who_prepares_the_cluster_may_create_the_config_map_that_is_mounted() -> None:
    for playbook in PLAYBOOKS:
        more = {("create", "secrets", "")} if playbook == "site" else set()
        mounted = {"executor_config_kind": "Secret", "executor_mount": "true"}
        assert granted(playbook, **mounted) - granted(playbook, executor_config_kind="Secret") == more
        assert granted(playbook, executor_mount="false") == granted(playbook)
