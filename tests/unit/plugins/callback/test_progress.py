"""The stdout callback progress, run by ansible-playbook: nothing that the default callback shows is lost."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from pathlib import Path

FAILING = {"ansible.builtin.command": {"argv": ["sh", "-c", "echo out; echo oops >&2; exit 3"]}, "ignore_errors": True}


def run(tmp_path: Path, tasks: list[dict[str, t.Any]], *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "play.yml"
    path.write_text(json.dumps([{"name": "Play", "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    env = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "screwdriver.kata.progress", "ANSIBLE_NOCOLOR": "1", **environment}
    return subprocess.run(["ansible-playbook", *options, str(path)], capture_output=True, text=True, env=env, check=False)


def test_prints_messages_lists_variables_items_and_streams(tmp_path: Path) -> None:
    tasks: list[dict[str, t.Any]] = [
        {"ansible.builtin.debug": {"msg": ["one", "two"]}},
        {"ansible.builtin.debug": {"var": "1 + 1"}},
        {"ansible.builtin.debug": {"msg": "number {{ item }}"}, "loop": [7, 8]},
        {"name": "Change", "ansible.builtin.command": {"argv": ["true"]}, "loop": ["a", "b"]},
        FAILING,
        {"name": "Fail an item", **FAILING, "loop": ["x"]},
    ]
    done = run(tmp_path, tasks)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for line in ("Play", "one", "two", "1 + 1: 2", "number 7", "number 8", "  changed: Change (item=a)", "  changed: Change (item=b)"):
        assert line in lines, done.stdout
    assert "stderr: oops" in lines, done.stdout
    assert "stdout: out" in lines, done.stdout
    assert any(line.startswith("FAILED: Fail an item (item=x): ") for line in lines), done.stdout


def test_warnings_and_deprecations_are_not_lost(tmp_path: Path) -> None:
    lines = ("from ansible.module_utils.basic import AnsibleModule", "module = AnsibleModule({})", "module.warn('careful')")
    (tmp_path / "warns.py").write_text("\n".join([*lines, "module.deprecate('outdated', version='9.0')", "module.exit_json()"]))
    done = run(tmp_path, [{"warns": {}}], ANSIBLE_LIBRARY=str(tmp_path), ANSIBLE_DEPRECATION_WARNINGS="true")
    assert "careful" in done.stderr, done.stdout + done.stderr
    assert "outdated" in done.stderr, done.stdout + done.stderr


def test_check_mode_is_marked_and_verbose_output_is_the_default_one(tmp_path: Path) -> None:
    tasks = [{"name": "Create", "ansible.builtin.file": {"path": str(tmp_path / "x"), "state": "directory", "mode": "0755"}}]
    done = run(tmp_path, tasks, "--check", ANSIBLE_CHECK_MODE_MARKERS="1")
    assert "Play [CHECK MODE]" in done.stdout
    assert "  changed: Create [CHECK MODE]" in done.stdout
    assert "DRY RUN" in done.stdout
    verbose = run(tmp_path, tasks, "--check", "-v")
    assert "TASK [Create]" in verbose.stdout, verbose.stdout
    assert 'changed: [localhost] => {"changed": true' in verbose.stdout, verbose.stdout


def test_a_task_that_waits_is_no_failure(tmp_path: Path) -> None:
    wait = {"name": "Wait", "ansible.builtin.command": {"argv": ["true"]}, "register": "done", "retries": 2, "delay": 0}
    tasks = [{**wait, "until": "done.attempts == 2"}]
    done = run(tmp_path, tasks)
    assert "RETRYING" not in done.stdout + done.stderr, done.stdout
    assert "  changed: Wait" in done.stdout, done.stdout
    # Releases of ansible-core count the retries left differently.
    assert "FAILED - RETRYING: [localhost]: Wait (" in run(tmp_path, tasks, "-v").stdout


def test_failures_go_to_stderr_where_asked(tmp_path: Path) -> None:
    done = run(tmp_path, [{"name": "Stop", "ansible.builtin.fail": {"msg": "last words"}}], ANSIBLE_DISPLAY_FAILED_STDERR="1")
    assert "FAILED: Stop: last words" in done.stderr
    assert "last words" not in done.stdout


def test_custom_stats_are_printed(tmp_path: Path) -> None:
    done = run(tmp_path, [{"ansible.builtin.set_stats": {"data": {"phase": "paused"}}}], ANSIBLE_SHOW_CUSTOM_STATS="1")
    assert '"phase": "paused"' in done.stdout, done.stdout
