# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads archives on the controller and copies them to the node, where the module of the same name unpacks them."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.screwdriver.kata.plugins.module_utils._install.download import DownloadError, fetch_all


class ActionModule(ActionBase):
    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        # The role passes what the node lacks, so nothing is copied that is there.
        archives = list(args.get("archives") or [])
        sources: dict[str, str] = {"host": (task_vars or {}).get("inventory_hostname", "")}
        if archives and args.get("download_on", "controller") == "controller" and not self._task.check_mode:
            # As for a module that is delegated to the controller.
            for environment in self._task.environment or []:
                os.environ.update({name: str(value) for name, value in (self._templar.template(environment) or {}).items()})
            cache = os.path.expanduser(str(args.get("cache") or ""))
            try:
                paths = fetch_all(archives, cache, int(args.get("timeout", 60)), "localhost")
            except DownloadError as error:
                return {**result, "failed": True, "msg": str(error)}
            directory = self._make_tmp_path()
            for name, path in paths.items():
                sources[name] = self._transfer_file(path, self._connection._shell.join_path(directory, name))
        result.update(self._execute_module(module_args={**args, "sources": sources}, task_vars=task_vars))
        return result
