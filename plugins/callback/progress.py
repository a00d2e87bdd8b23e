# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Prints what is told, what changed and what failed
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Prints the messages of M(ansible.builtin.debug) as plain text, a line for each task that changed something, and failures in full.
  - On a terminal, the task that runs is shown in a line that comes and goes.
extends_documentation_fragment:
  - ansible.builtin.default_callback
requirements:
  - Set as stdout callback, for example with C(ANSIBLE_STDOUT_CALLBACK=screwdriver.kata.progress).
"""

import shutil
import sys
import typing as t

from ansible import constants
from ansible.plugins.callback import CallbackBase

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task

# Its names come from the configuration, at run time.
C: t.Any = constants


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "screwdriver.kata.progress"

    def __init__(self) -> None:
        super().__init__()
        self._transient = sys.stdout.isatty()

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._print(play.get_name().strip(), C.COLOR_HIGHLIGHT)

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        if self._transient:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\033[2K\033[2m  ... {task.get_name()}"[: width + 9] + "\033[0m")
            sys.stdout.flush()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        values = result.result
        if result.task.action in C._ACTION_DEBUG and "msg" in values:
            self._print(values["msg"] if isinstance(values["msg"], str) else self._dump_results(values["msg"]))
        elif values.get("changed"):
            self._print(f"  changed{_on(result)}: {result.task.get_name().rpartition(' : ')[2]}", C.COLOR_CHANGED)

    def v2_on_file_diff(self, result: CallbackTaskResult) -> None:
        diff = result.result.get("diff")
        if diff and result.result.get("changed"):
            self._print(self._get_diff(diff).rstrip())

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        if message := result.result.get("msg"):
            self._print(f"FAILED{_on(result)}: {result.task.get_name()}: {message}", C.COLOR_ERROR)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        message = result.result.get("msg", "")
        if "results" in result.result:
            # Each of its items has told.
            return
        # One that is ignored and says nothing was waited for in vain, which a later task tells.
        if message or not ignore_errors:
            title = "ignored" if ignore_errors else "FAILED"
            self._print(f"{title}{_on(result)}: {result.task.get_name()}: {message or 'no message'}", C.COLOR_ERROR)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        self._print(f"UNREACHABLE: {result.host.get_name()}: {result.result.get('msg', 'no message')}", C.COLOR_UNREACHABLE)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        for host in sorted(stats.processed):
            summary = stats.summarize(host)
            self._print(f"{host}: " + ", ".join(f"{count} {what}" for what, count in summary.items() if count), C.COLOR_VERBOSE)

    def _print(self, text: str, color: str | None = None) -> None:
        if self._transient:
            sys.stdout.write("\r\033[2K")
            sys.stdout.flush()
        self._display.display(text, color=color)


def _on(result: CallbackTaskResult) -> str:
    """The host, where it is another one than this."""
    name = result.host.get_name()
    return "" if name == "localhost" else f" on {name}"
