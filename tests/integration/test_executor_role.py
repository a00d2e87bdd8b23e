"""The role executor where its config is managed by another tool, and what a rollout says to that."""

from __future__ import annotations

import pytest

from lab.cluster.lab import Lab

from ..helpers import FAST_ROLLOUT, Playbook

pytestmark = pytest.mark.usefixtures("no_rollout")
SHARE = {"ansible.builtin.include_role": {"name": "screwdriver.kata.executor", "tasks_from": "share"}}


def test_a_share_is_printed_and_not_written(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    done = playbook([{**SHARE, "vars": {"executor_share": "10"}}], executor_print_patch=True, **FAST_ROLLOUT)
    assert done.returncode != 0
    assert "Kata's share was not set to 10 %, because executor_print_patch is true: make this change where the config is" in done.stdout
    assert "+    weightage: 10" in done.stdout
    assert lab.worker_config() == before
    done = playbook([{**SHARE, "vars": {"executor_share": "0"}}], executor_print_patch=True, **FAST_ROLLOUT)
    assert done.returncode == 0, done.stdout


def test_a_rollout_refuses_shares_that_are_only_printed(lab: Lab, playbook: Playbook) -> None:
    before = lab.worker_config()
    done = playbook("playbooks/rollout.yml", executor_print_patch="true", **FAST_ROLLOUT)
    assert done.returncode != 0
    assert (
        "executor_print_patch is true, and a rollout writes a share at each step: set it to false, and let the tool that manages ConfigMap "
        "sd/buildcluster-queue-worker ignore key local.yaml. Nothing was changed."
    ) in done.stdout
    assert (lab.worker_config(), lab.record()) == (before, {})
