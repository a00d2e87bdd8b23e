# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A watch ends caught up, or with an error, and never silently while the API server is away."""

from __future__ import annotations

import types
import typing as t

import kubernetes.watch
import pytest
import urllib3
from ansible_collections.screwdriver.kata.plugins.module_utils import _k8s
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError


class Clock:
    """Time that only a watch or a sleep takes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Server:
    """Answers the watches of a cluster: away until a time, then with one event for each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, away: tuple[float, float]) -> None:
        self.clock = Clock()
        self.away = away
        self.asked: list[dict[str, t.Any]] = []
        monkeypatch.setattr(_k8s, "time", self.clock)
        monkeypatch.setattr(kubernetes.watch, "Watch", lambda: self)
        self.cluster = Cluster.__new__(Cluster)
        monkeypatch.setattr(self.cluster, "_resource", lambda kind, api_version: types.SimpleNamespace(get=None), raising=False)

    def stream(self, _get: t.Any, **options: t.Any) -> t.Iterator[dict[str, t.Any]]:
        self.asked.append(options)
        begins, ends = self.away
        if begins <= self.clock.now - 1000 < ends:
            raise urllib3.exceptions.ProtocolError("away")
        version = str(int(options["resource_version"]) + 1)
        yield {"type": "ADDED", "raw_object": {"metadata": {"resourceVersion": version}}}
        self.clock.sleep(options["timeout_seconds"])

    def watch(self, seconds: int) -> list[str]:
        return [body["metadata"]["resourceVersion"] for _kind, body in self.cluster.watch("Pod", "1", seconds)]


def test_a_watch_lasts_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 0))
    assert server.watch(5) == ["2"]
    assert server.clock.now == 1005
    assert (server.asked[0]["timeout_seconds"], server.asked[0]["_request_timeout"]) == (5, (10.0, 65.0))


def test_a_watch_that_finds_nobody_goes_on_until_it_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 20))
    assert server.watch(5) == ["2"]
    assert server.clock.now == 1021
    assert {ask["resource_version"] for ask in server.asked} == {"1"}


def test_a_watch_that_finds_nobody_for_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 999))
    with pytest.raises(ClusterError) as gone:
        server.watch(5)
    assert str(gone.value) == "Cannot watch Pod: no answer from the API server. Check that it runs and can be reached."
    assert 1030 <= server.clock.now <= 1032
