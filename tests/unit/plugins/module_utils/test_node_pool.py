# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Patches of a node: what is named, and nothing else."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _node_pool
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError

FOREIGN = {"key": "foreign", "effect": "NoExecute"}
OURS = {"key": "dedicated", "value": "kata", "effect": "NoSchedule"}
POOL = _node_pool.Pool({"dedicated": "kata"}, {"proof": "abc"}, [OURS])


def node(labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, *taints: dict[str, str]) -> dict[str, t.Any]:
    return {
        "metadata": {"name": "build-1", "resourceVersion": "7", "labels": labels or {}, "annotations": annotations or {}},
        "spec": {"taints": list(taints)},
    }


def params(**given: t.Any) -> dict[str, t.Any]:
    defaults = {"nodes": None, "selector": "", "labels": {}, "annotations": {}, "taints": [], "require_handler": None, "concurrency": 10}
    return {**defaults, **given}


def test_what_is_missing_is_added() -> None:
    assert POOL.present_patch(node({"dedicated": "other", "a": "b"}, None, FOREIGN)) == {
        "metadata": {"labels": {"dedicated": "kata"}, "annotations": {"proof": "abc"}, "resourceVersion": "7"},
        "spec": {"taints": [FOREIGN, OURS]},
    }
    assert POOL.present_patch(node({"dedicated": "kata"}, {"proof": "abc"}, OURS)) == {}


def test_a_taint_gets_its_value() -> None:
    patch = POOL.present_patch(node({"dedicated": "kata"}, {"proof": "abc"}, {**OURS, "value": "other", "timeAdded": "now"}, FOREIGN))
    assert patch["spec"]["taints"] == [OURS, FOREIGN]


def test_what_has_the_value_is_removed() -> None:
    assert POOL.absent_patch(node({"dedicated": "kata", "a": "b"}, {"proof": "abc"}, OURS, FOREIGN)) == {
        "metadata": {"labels": {"dedicated": None}, "annotations": {"proof": None}, "resourceVersion": "7"},
        "spec": {"taints": [FOREIGN]},
    }


def test_another_value_stays() -> None:
    assert POOL.absent_patch(node({"dedicated": "other"}, {"proof": "xyz"}, {**OURS, "value": "other"})) == {}


def test_diff_view_has_what_is_named() -> None:
    assert POOL.diff_view(node({"dedicated": "kata", "a": "b"}, {"c": "d"}, OURS, FOREIGN)) == {
        "labels": {"dedicated": "kata"},
        "annotations": {},
        "taints": [OURS],
    }


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (["", "runc", "kata"], ""),
        (["", "runc"], "Its kubelet does not report handler kata, only runc."),
        ([""], "Its kubelet does not report handler kata, only the default one."),
        (
            [],
            "Its kubelet reports no handlers, so kata cannot be checked; that requires Kubernetes 1.30 and containerd 2.0 or newer.",
        ),
    ],
)
def test_missing_handler(reported: list[str], expected: str) -> None:
    assert _node_pool.missing_handler({"status": {"runtimeHandlers": [{"name": name} for name in reported]}}, "kata") == expected


def test_only_what_may_pass_is_to_be_run_again() -> None:
    assert _node_pool.failure_sentence(["a", "b"], 5, "No answer.", 0) == (
        "2 of 5 nodes could not be written: a and b. No answer. Run again for these nodes."
    )
    for status in (400, 403, 422):
        assert _node_pool.failure_sentence(["a"], 1, "It is invalid.", status) == "1 of 1 nodes could not be written: a. It is invalid."


def test_parse() -> None:
    assert _node_pool.parse(params(labels={"ready": True}, annotations=None, taints=[{**OURS, "value": False}])) == _node_pool.Pool(
        {"ready": "true"}, {}, [{**OURS, "value": "false"}]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": []}, "nodes is empty; name at least one node, or use selector."),
        ({"nodes": ["a", " "]}, "nodes has an empty name; name each node."),
        ({"concurrency": 0}, "concurrency is 0; use at least 1."),
        ({"require_handler": ""}, "require_handler is empty; name a handler, such as kata, or leave it out."),
        ({"labels": {"a": None}}, 'labels: a is null; give it a value, or "" for none.'),
    ],
)
def test_parse_refuses(given: dict[str, t.Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        _node_pool.parse(params(**given))
    assert str(refused.value) == message
