# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The retries of the seam to the API server: a watch ends caught up or with an error, a write that meets another writer is repeated."""

from __future__ import annotations

import itertools
import types
import typing as t
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import kubernetes.watch
import pytest
import urllib3
from ansible_collections.screwdriver.kata.plugins.module_utils import _k8s
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, ClusterError
from kubernetes.client.exceptions import ApiException


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

    def follow(self, seconds: int) -> list[tuple[str, str]]:
        return [(change.kind, change.resource_version) for change in self.cluster.follow("Pod", "1", seconds)]


def test_a_watch_lasts_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 0))
    assert server.follow(5) == [("ADDED", "2")]
    assert server.clock.now == 1005
    assert server.asked[0]["timeout_seconds"] == 5
    assert server.asked[0]["_request_timeout"] == (10.0, 65.0)


def test_a_watch_that_finds_nobody_goes_on_until_it_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 20))
    assert server.follow(5) == [("ADDED", "2")]
    assert server.clock.now == 1021
    assert {ask["resource_version"] for ask in server.asked} == {"1"}


def test_a_watch_that_finds_nobody_for_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 999))
    with pytest.raises(ClusterError) as gone:
        server.follow(5)
    assert str(gone.value) == "Cannot watch Pod: no answer from the API server. Check that it runs and can be reached."
    assert 1030 <= server.clock.now <= 1032


def test_a_forgotten_resource_version_is_answered_by_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 0))
    watch = server.stream

    def stream(get: t.Any, **options: t.Any) -> t.Iterator[dict[str, t.Any]]:
        if options["resource_version"] == "1":
            return iter([{"type": "ERROR", "raw_object": {"code": 410, "message": "too old resource version"}}])
        return watch(get, **options)

    pods = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]
    monkeypatch.setattr(server, "stream", stream)
    monkeypatch.setattr(server.cluster, "list", lambda kind, api_version, **params: (pods, "7"))
    changes = list(server.cluster.follow("Pod", "1", 5))
    assert [(change.kind, len(change.objects), change.resource_version) for change in changes] == [("LIST", 2, "7"), ("ADDED", 1, "8")]
    assert server.clock.now == 1005


class Node:
    """A node whose writes meet these errors first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: t.Iterable[int], uid: str = "1") -> None:
        self.errors = iter(errors)
        self.uid = uid
        self.reads = 0
        self.clock = Clock()
        monkeypatch.setattr(_k8s, "time", self.clock)
        self.cluster = Cluster.__new__(Cluster)
        monkeypatch.setattr(self.cluster, "get", self.get)
        monkeypatch.setattr(self.cluster, "patch", self.patch)

    def get(self, *_names: t.Any) -> dict[str, t.Any] | None:
        self.reads += 1
        return {"metadata": {"name": "a", "uid": self.uid}, "read": self.reads} if self.uid else None

    def patch(self, _kind: str, _name: str, patch: dict[str, t.Any], *_rest: t.Any) -> dict[str, t.Any]:
        if status := next(self.errors, 0):
            raise ClusterError(f"refused with {status}", status)
        return patch

    def reconcile(self) -> dict[str, t.Any] | None:
        return self.cluster.reconcile("Node", {"metadata": {"name": "a", "uid": "1"}, "read": 0}, lambda node: {"from": node["read"]})


def test_a_conflict_is_decided_again_on_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, [409, 409])
    assert node.reconcile() == {"from": 2, "metadata": {"uid": "1"}}
    assert node.reads == 2


def test_conflicts_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, itertools.repeat(409))
    with pytest.raises(ClusterError, match="^refused with 409$"):
        node.reconcile()
    assert 1060 <= node.clock.now <= 1061


@pytest.mark.parametrize(("errors", "uid"), [([404], "1"), ([409], ""), ([409], "2")])
def test_an_object_that_is_deleted_or_replaced_is_not_an_error(monkeypatch: pytest.MonkeyPatch, errors: list[int], uid: str) -> None:
    assert Node(monkeypatch, errors, uid).reconcile() is None


def test_any_other_error_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="^refused with 422$"):
        Node(monkeypatch, [422]).reconcile()


def answer(date: str | None) -> types.SimpleNamespace:
    return types.SimpleNamespace(data=b"{}", headers={"Date": date} if date else {})


def ahead_of_this_machine(cluster: Cluster) -> int:
    """Whole minutes."""
    return round((cluster.now() - datetime.now(UTC)) / timedelta(minutes=1))


def in_minutes(minutes: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)


@pytest.mark.parametrize("minutes", [5, -5])
def test_the_time_is_that_of_the_api_servers_latest_answer(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    cluster = Server(monkeypatch, away=(0, 0)).cluster
    assert ahead_of_this_machine(cluster) == 0
    monkeypatch.setattr(
        cluster, "_client", types.SimpleNamespace(get=lambda *_names, **_options: answer(in_minutes(minutes))), raising=False
    )
    cluster.get("Pod", "a")
    assert ahead_of_this_machine(cluster) == minutes


def test_an_error_and_a_watch_tell_the_time_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, away=(0, 0))

    def missing(*_names: t.Any, **_options: t.Any) -> t.NoReturn:
        error = ApiException(404, "Not Found")
        error.headers = {"Date": in_minutes(7)}
        raise error

    monkeypatch.setattr(server.cluster, "_client", types.SimpleNamespace(get=missing), raising=False)
    assert server.cluster.get("Pod", "a") is None
    assert ahead_of_this_machine(server.cluster) == 7

    resource = types.SimpleNamespace(get=lambda **_options: answer(in_minutes(-3)))
    monkeypatch.setattr(server.cluster, "_resource", lambda kind, api_version: resource)
    watch = server.stream

    def stream(get: t.Any, **options: t.Any) -> t.Iterator[dict[str, t.Any]]:
        assert get(watch=True).data == b"{}"
        return watch(get, **options)

    monkeypatch.setattr(server, "stream", stream)
    server.follow(1)
    assert ahead_of_this_machine(server.cluster) == -3


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_an_answer_without_a_date_changes_no_time(monkeypatch: pytest.MonkeyPatch, date: str | None) -> None:
    cluster = Server(monkeypatch, away=(0, 0)).cluster
    for told, minutes in ((in_minutes(5), 5), (date, 5)):
        client = types.SimpleNamespace(get=lambda *_names, told=told, **_options: answer(told))
        monkeypatch.setattr(cluster, "_client", client, raising=False)
        cluster.get("Pod", "a")
        assert ahead_of_this_machine(cluster) == minutes


def connect(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> tuple[Cluster, float]:
    """A cluster whose API server answers after these errors, and the seconds until it did."""
    left = iter(errors)
    clock = Clock()
    client = types.SimpleNamespace(dry_run=False, configuration=types.SimpleNamespace(connection_pool_maxsize=4))

    def get_api_client(_module: t.Any) -> types.SimpleNamespace:
        if error := next(left, None):
            raise error
        return client

    monkeypatch.setattr(_k8s, "time", clock)
    monkeypatch.setattr(_k8s, "get_api_client", get_api_client)
    return Cluster(types.SimpleNamespace()), clock.now - 1000  # type: ignore[arg-type]


def test_a_busy_api_server_is_asked_for_its_kinds_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _cluster, seconds = connect(monkeypatch, ApiException(429, "Too Many Requests"), ApiException(500, "Internal Server Error"))
    assert 0 < seconds < 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ApiException(403, "Forbidden"), "Cannot reach the Kubernetes API: Forbidden."),
        (
            urllib3.exceptions.ProtocolError("away"),
            "Cannot reach the Kubernetes API: no answer from the API server. Check that it runs and can be reached.",
        ),
    ],
)
def test_an_api_server_that_refuses_or_is_not_there_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    with pytest.raises(ClusterError) as refused:
        connect(monkeypatch, error)
    assert str(refused.value) == says
