# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils import _runtime_class
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError

TOLERATION = {"key": "dedicated", "operator": "Equal", "value": "kata", "effect": "NoSchedule"}
CURRENT: dict[str, t.Any] = {
    "metadata": {"name": "kata", "uid": "1", "labels": {"owner": "ada"}},
    "handler": "kata",
    "overhead": {"podFixed": {"cpu": "250m", "memory": "160Mi"}},
    "scheduling": {"nodeSelector": {"dedicated": "kata"}, "tolerations": [TOLERATION]},
}


def wanted(**given: t.Any) -> _runtime_class.Wanted:
    params = {"name": "kata", "handler": "kata", "overhead": None, "node_selector": None, "tolerations": None, "state": "present"}
    return _runtime_class.parse({**params, **given})


def given_toleration(**given: t.Any) -> dict[str, t.Any]:
    return {"toleration_seconds": None, **TOLERATION, **given}


def test_what_is_not_asked_for_stays() -> None:
    assert _runtime_class.patch_for(CURRENT, wanted()) == {}


def test_equal_values_need_no_patch() -> None:
    same = wanted(overhead={"cpu": 0.25, "memory": "163840Ki"}, node_selector={"dedicated": "kata"}, tolerations=[given_toleration()])
    assert _runtime_class.patch_for(CURRENT, same) == {}


def test_stale_entries_are_removed() -> None:
    other = wanted(overhead={"memory": "1Gi"}, node_selector={"ready": True}, tolerations=[])
    assert _runtime_class.patch_for(CURRENT, other) == {
        "overhead": {"podFixed": {"cpu": None, "memory": "1Gi"}},
        "scheduling": {"nodeSelector": {"dedicated": None, "ready": "true"}, "tolerations": None},
    }


def test_an_empty_value_removes_the_whole() -> None:
    assert _runtime_class.patch_for(CURRENT, wanted(overhead={}, node_selector={})) == {
        "overhead": None,
        "scheduling": {"nodeSelector": None},
    }


def test_new_body() -> None:
    assert _runtime_class.new_body(wanted(overhead={"cpu": 1}, node_selector={}, tolerations=[given_toleration(value=True)])) == {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "kata"},
        "handler": "kata",
        "overhead": {"podFixed": {"cpu": "1"}},
        "scheduling": {"tolerations": [{"key": "dedicated", "value": "true", "effect": "NoSchedule"}]},
    }


def test_recreated_body_keeps_what_is_not_asked_for() -> None:
    body = _runtime_class.recreated_body(CURRENT, wanted(handler="kata-clh", overhead={"cpu": "1"}))
    assert body["handler"] == "kata-clh"
    assert body["metadata"] == {"name": "kata", "labels": {"owner": "ada"}}
    assert body["overhead"] == {"podFixed": {"cpu": "1"}}
    assert body["scheduling"] == CURRENT["scheduling"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ""}, "name is empty; give the name of the RuntimeClass, such as kata."),
        ({"handler": " "}, "handler is empty; give the name of containerd's runtime handler, such as kata."),
        ({"overhead": {"memory": "much"}}, "overhead: 'much' is not a valid quantity of memory; use for example 250m, 2 or 160Mi."),
        ({"overhead": {"cpu": True}}, "overhead: True is not a valid quantity of cpu; use for example 250m, 2 or 160Mi."),
        ({"overhead": {"cpu": None}}, "overhead: None is not a valid quantity of cpu; use for example 250m, 2 or 160Mi."),
        ({"overhead": {"cpu": "-1"}}, "overhead: '-1' is not a valid quantity of cpu; use for example 250m, 2 or 160Mi."),
        ({"overhead": {"cpu": ""}}, "overhead: '' is not a valid quantity of cpu; use for example 250m, 2 or 160Mi."),
        ({"node_selector": {"ready": None}}, 'node_selector: ready is null; give it a value, or "" for none.'),
        (
            {"tolerations": [given_toleration(), given_toleration()]},
            "tolerations: the toleration of dedicated is given twice; leave one out.",
        ),
    ],
)
def test_parse_refuses(given: dict[str, t.Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        wanted(**given)
    assert str(refused.value) == message


def test_a_class_that_is_deleted_needs_no_handler() -> None:
    assert wanted(state="absent", handler=None).handler is None


def test_require_unused() -> None:
    pods = [
        {"metadata": {"namespace": "sd-builds", "name": f"build-{number}"}, "spec": {"runtimeClassName": "kata" if number else "other"}}
        for number in range(6)
    ]
    _runtime_class.require_unused("gvisor", pods, "deleted")
    with pytest.raises(UserError) as refused:
        _runtime_class.require_unused("kata", pods, "recreated")
    assert str(refused.value) == (
        "RuntimeClass kata cannot be recreated while pods use it (sd-builds/build-1, sd-builds/build-2, sd-builds/build-3 and 2 more);"
        " wait until they end, or set force."
    )
