"""Writes every result as JSON to the file that RESULTS_JSON names, as a JSON callback does."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results_json
type: notification
short_description: Writes every result as JSON
description: Writes every result as JSON to the file that the environment variable RESULTS_JSON names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "results_json"

    def v2_runner_on_ok(self, result: t.Any) -> None:
        with open(os.environ["RESULTS_JSON"], "a", encoding="utf-8") as stream:
            stream.write(f"{self._dump_results(result.result, indent=0, sort_keys=False, keep_invocation=True)}\n")

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self.v2_runner_on_ok(result)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self.v2_runner_on_ok(result)

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        self.v2_runner_on_ok(result)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        self.v2_runner_on_ok(result)
