# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables of the role executor decide, as Ansible evaluates them."""

from __future__ import annotations

import os

import pytest

from ...helpers import evaluate

HERE = os.path.realpath(".")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("", ""),
        ("/etc/sd/local.yaml", "/etc/sd/local.yaml"),
        ("~/sd/local.yaml", "~/sd/local.yaml"),
        ("local.yaml", f"{HERE}/local.yaml"),
        ("../sd/local.yaml", f"{os.path.dirname(HERE)}/sd/local.yaml"),
    ],
)
def test_a_relative_path_is_one_of_the_directory_that_ansible_playbook_runs_in(given: str, taken: str) -> None:
    assert evaluate("{{ __executor_path }}", "executor", executor_path=given) == taken
