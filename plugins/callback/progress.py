# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Readable progress output
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Prints the messages of M(ansible.builtin.debug) as plain text, a line for each task and loop item that changed something, and failures
    in full. Tasks that changed nothing print nothing but their warnings.
  - On a terminal, the running task is shown in a line that is overwritten.
  - From C(-v) on, the output is that of P(ansible.builtin.default#callback), whose options hold here as well.
extends_documentation_fragment:
  - ansible.builtin.default_callback
  - ansible.builtin.result_format_callback
requirements:
  - Set as stdout callback, for example with C(ANSIBLE_STDOUT_CALLBACK=screwdriver.kata.progress).
"""

import json
import shutil
import sys
import typing as t

from ansible import constants, context
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as DefaultCallback

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook.included_file import IncludedFile
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task

# Its names come from the configuration, at run time.
C: t.Any = constants
# What a result of debug has besides the variable that it prints.
NOT_THE_VARIABLE = ("changed", "failed", "skipped", "msg", "item", "ansible_loop_var", "ansible_loop", "failed_when_result")
# Of a failed task, what its message may leave out.
STREAMS = ("stderr", "stdout", "module_stderr", "module_stdout")


class CallbackModule(DefaultCallback):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "screwdriver.kata.progress"

    def __init__(self) -> None:
        super().__init__()
        self._transient = sys.stdout.isatty()

    @property
    def _verbose(self) -> bool:
        return self._display.verbosity > 0

    def v2_playbook_on_play_start(self, play: Play) -> None:
        if self._verbose:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        self._print(f"{play.get_name().strip()}{self._marker(play)}", C.COLOR_HIGHLIGHT)

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        if self._verbose:
            super().v2_playbook_on_task_start(task, is_conditional)
        elif self._transient:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\033[2K\033[2m  ... {task.get_name()}"[: width + 9] + "\033[0m")
            sys.stdout.flush()

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        if self._verbose:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: IncludedFile) -> None:
        if self._verbose:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_runner_on_ok(result)
        elif not isinstance(result.task, TaskInclude):
            self._warn(result)
            # Each item of a loop was printed as it came.
            if not (result.task.loop and "results" in result.result):
                self._print_ok(result)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_runner_item_on_ok(result)
        elif not isinstance(result.task, TaskInclude):
            self._warn(result)
            self._print_ok(result)

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_runner_on_skipped(result)
        else:
            self._warn(result)

    def v2_runner_item_on_skipped(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_runner_item_on_skipped(result)
        else:
            self._warn(result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        if self._verbose:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._warn(result)
        if not (result.task.loop and result.result.get("results")):
            self._print_failed(result, "ignored" if ignore_errors else "FAILED")

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_runner_item_on_failed(result)
            return
        self._warn(result)
        self._print_failed(result, "FAILED")

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        # A task that waits has not failed.
        if self._verbose:
            super().v2_runner_retry(result)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_runner_on_unreachable(result)
            return
        self._warn(result)
        text = f"UNREACHABLE: {result.host.get_name()}: {result.result.get('msg') or 'no message'}"
        self._print(text, C.COLOR_UNREACHABLE, stderr=self.get_option("display_failed_stderr"))

    def v2_on_file_diff(self, result: CallbackTaskResult) -> None:
        if self._verbose:
            super().v2_on_file_diff(result)
            return
        for one in result.result.get("results") or [result.result]:
            if one.get("changed") and one.get("diff") and (diff := self._get_diff(one["diff"])):
                self._print(diff.rstrip())

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        if self._verbose:
            super().v2_playbook_on_stats(stats)
            return
        for host in sorted(stats.processed):
            summary = stats.summarize(host)
            self._print(f"{host}: " + ", ".join(f"{count} {what}" for what, count in summary.items() if count), C.COLOR_VERBOSE)
        if stats.custom and self.get_option("show_custom_stats"):
            for name, values in sorted(stats.custom.items()):
                self._print(f"stats{'' if name == '_run' else f' of {name}'}: {self._dump_results(values, indent=0)}")
        if context.CLIARGS.get("check") and self.get_option("check_mode_markers"):
            self._print("DRY RUN", C.COLOR_HIGHLIGHT)

    def _print_ok(self, result: CallbackTaskResult) -> None:
        values = result.result
        if result.task.action in C._ACTION_DEBUG:
            self._print_message(values)
        elif values.get("changed"):
            title = result.task.get_name().rpartition(" : ")[2]
            self._print(f"  changed{_on(result)}: {title}{self._item(values)}{self._marker(result.task)}", C.COLOR_CHANGED)

    def _print_message(self, values: t.MutableMapping[str, t.Any]) -> None:
        if "msg" in values:
            message = values["msg"]
            if isinstance(message, list) and all(isinstance(line, str) for line in message):
                message = "\n".join(message)
            self._print(_text(message))
            return
        for name, value in values.items():
            if name not in NOT_THE_VARIABLE and not name.startswith("_ansible"):
                self._print(f"{name}: {_text(value)}")

    def _print_failed(self, result: CallbackTaskResult, title: str) -> None:
        values = result.result
        message = str(values.get("msg") or "no message")
        text = f"{title}{_on(result)}: {result.task.get_name()}{self._item(values)}: {message}"
        streams = [f"{name}: {values[name].rstrip()}" for name in STREAMS if values.get(name) and values[name].strip() not in message]
        self._print("\n".join([text, *streams]), C.COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))

    def _item(self, values: t.MutableMapping[str, t.Any]) -> str:
        label = self._get_item_label(values)
        return "" if label is None else f" (item={label})"

    def _marker(self, what: t.Any) -> str:
        return " [CHECK MODE]" if what.check_mode and self.get_option("check_mode_markers") else ""

    def _warn(self, result: CallbackTaskResult) -> None:
        """Prints warnings and deprecations; the text of an exception is in the message."""
        if result.result.get("warnings") or result.result.get("deprecations"):
            self._clear()
            self._handle_warnings(result.result)

    def _clear(self) -> None:
        if self._transient:
            sys.stdout.write("\r\033[2K")
            sys.stdout.flush()

    def _print(self, text: str, color: str | None = None, stderr: bool = False) -> None:
        self._clear()
        self._display.display(text, color=color, stderr=stderr)


def _text(value: t.Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, default=str, ensure_ascii=False)


def _on(result: CallbackTaskResult) -> str:
    """The host, where it is another one than this."""
    name = result.host.get_name()
    return "" if name == "localhost" else f" on {name}"
