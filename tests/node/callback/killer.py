# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = """
name: killer
type: notification
short_description: Kills ansible-playbook in the middle of a task
description:
  - For tests of what an interrupted run leaves behind.
options:
  task:
    description: The end of the task's name. Empty kills nothing.
    default: ""
    env:
      - name: KATA_TEST_KILLED_AT
  delay:
    description: Seconds from the start of the task.
    type: float
    default: 0.3
"""

import os
import signal
import time
import typing as t
from contextlib import suppress
from pathlib import Path

from ansible.plugins.callback import CallbackBase


def family(pid: int) -> list[int]:
    """A process and all that descend from it: Ansible's workers are in sessions of their own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one and child != os.getpid())
    return found


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "killer"
    CALLBACK_NEEDS_ENABLED = True

    def _begins(self, task: t.Any) -> None:
        name = self.get_option("task")
        if not name or not task.get_name().endswith(name):
            return
        victim = os.getpid()
        if os.fork() == 0:
            time.sleep(self.get_option("delay"))
            for pid in family(victim):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os._exit(0)

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        self._begins(task)

    def v2_playbook_on_handler_task_start(self, task: t.Any) -> None:
        self._begins(task)
