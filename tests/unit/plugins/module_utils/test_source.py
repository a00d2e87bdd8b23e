# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the worker's config is read from."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import source
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.workload import CONFIG_DIRECTORY

WHERE = {"kind": "ConfigMap", "namespace": "sd", "name": "w", "key": "local.yaml", "container": None, "mount": False}


def worker(name: str) -> dict[str, t.Any]:
    mount = {"name": "config", "mountPath": f"{CONFIG_DIRECTORY}/local.yaml", "subPath": "local.yaml"}
    container = {"name": "w", "image": "screwdrivercd/buildcluster-queue-worker:stable", "volumeMounts": [mount]}
    spec = {"containers": [container], "volumes": [{"name": "config", "configMap": {"name": "w"}}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    workload = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"kind": "Deployment", "metadata": {"name": name, "namespace": "sd"}, "spec": workload}


class Named:
    """An API server that lets only the worker that is named be read, and all be listed."""

    def __init__(self, module: object, dry_run: bool = False) -> None:
        pass

    def get(self, kind: str, name: str, *unused: str) -> dict[str, t.Any]:
        assert name == "w", f"{kind} {name} may not be read"
        return worker("w") if kind == "Deployment" else {"metadata": {"name": "w"}, "data": {"local.yaml": "executor: {}\n"}}

    def list(self, kind: str, *unused: t.Any, **more: t.Any) -> tuple[list[dict[str, t.Any]], str]:
        return ([worker("w"), worker("second")] if kind == "Deployment" else []), ""


def test_another_worker_of_the_config_is_only_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "Cluster", Named)
    found = source.ConfigMapSource(t.cast("t.Any", None), {**WHERE, "deployment": "w", "workload_kind": "Deployment"})
    assert [peer.worker for peer in found.peers] == ["Deployment sd/second"]
    assert found.peers[0].workload == {"kind": "Deployment", "name": "second"}
