# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = """
name: results
type: notification
short_description: Writes the result of each task as a line of JSON
description:
  - For tests that check what a module returned.
options:
  path:
    description: The file that the lines are added to.
    required: true
    env:
      - name: KATA_TEST_RESULTS
"""

import json
import typing as t
from pathlib import Path

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "results"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, result: t.Any, **more: t.Any) -> None:
        with Path(self.get_option("path")).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"task": result.task.get_name(), **result.result, **more}, default=str) + "\n")

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._write(result, failed=False)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._write(result, failed=True)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._write(result, failed=True)
