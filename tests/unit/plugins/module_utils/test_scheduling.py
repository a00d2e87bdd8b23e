# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._rollout import scheduling as _scheduling

TAINT = {"key": "dedicated", "value": "kata", "effect": "NoSchedule"}


def node(*taints: dict[str, str], **labels: str) -> dict[str, t.Any]:
    return {"metadata": {"name": "build-1", "labels": labels}, "spec": {"taints": list(taints)}}


def pod(*expressions: dict[str, t.Any], **spec: t.Any) -> dict[str, t.Any]:
    if expressions:
        terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {"spec": spec}


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (TAINT, True),
        ({**TAINT, "operator": "Equal"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "value": "kata"}, True),
        ({**TAINT, "value": "other"}, False),
        ({**TAINT, "effect": "NoExecute"}, False),
        ({**TAINT, "key": "other"}, False),
        ({"key": "dedicated"}, False),
        ({}, False),
    ],
)
def test_tolerates(toleration: dict[str, str], expected: bool) -> None:
    assert _scheduling.tolerates(toleration, TAINT) is expected


def test_a_taint_without_a_value() -> None:
    assert _scheduling.tolerates({"key": "a", "value": ""}, {"key": "a", "effect": "NoSchedule"})
    assert _scheduling.misfit(node({"key": "a", "effect": "NoExecute"}), pod()) == "taint a=:NoExecute is not tolerated"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(tolerations=[TAINT]), ""),
        (pod(), "taint dedicated=kata:NoSchedule is not tolerated"),
        (pod(tolerations=[TAINT], nodeSelector={"dedicated": "kata"}), ""),
        (pod(tolerations=[TAINT], nodeSelector={"dedicated": "kata", "disk": "ssd"}), "label disk=ssd is missing"),
        (pod({"key": "dedicated", "operator": "In", "values": ["kata", "other"]}, tolerations=[TAINT]), ""),
        (
            pod({"key": "dedicated", "operator": "In", "values": ["sd"]}, tolerations=[TAINT]),
            "the node affinity dedicated=sd does not match",
        ),
        (
            pod({"key": "dedicated", "operator": "NotIn", "values": ["kata", "x"]}, tolerations=[TAINT]),
            "the node affinity dedicated NotIn kata,x does not match",
        ),
        (pod({"key": "gone", "operator": "NotIn", "values": ["x"]}, tolerations=[TAINT]), ""),
        (pod({"key": "gone", "operator": "Exists"}, tolerations=[TAINT]), "the node affinity gone Exists does not match"),
        (pod({"key": "gone", "operator": "DoesNotExist"}, tolerations=[TAINT]), ""),
        (pod({"key": "cores", "operator": "Gt", "values": ["8"]}, tolerations=[TAINT]), ""),
        (pod({"key": "cores", "operator": "Lt", "values": ["8"]}, tolerations=[TAINT]), "the node affinity cores Lt 8 does not match"),
        (pod({"key": "gone", "operator": "Gt", "values": ["8"]}, tolerations=[TAINT]), "the node affinity gone Gt 8 does not match"),
    ],
)
def test_misfit(given: dict[str, t.Any], expected: str) -> None:
    assert _scheduling.misfit(node(TAINT, dedicated="kata", cores="64"), given) == expected


def test_one_of_several_terms_is_enough() -> None:
    given = pod({"key": "gone", "operator": "Exists"})
    terms = given["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert _scheduling.misfit(node(), given) != ""
    terms.append({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["build-1"]}]})
    assert _scheduling.misfit(node(), given) == ""
    # An empty term matches nothing.
    terms[1] = {}
    assert _scheduling.misfit(node(), given) != ""


def test_a_preference_is_no_obstacle() -> None:
    assert _scheduling.misfit(node({"key": "a", "value": "b", "effect": "PreferNoSchedule"}), pod()) == ""


def test_pending_sentence() -> None:
    reasons = {"build-1": "label a=b is missing", "build-2": "label a=b is missing", "build-3": "taint x=y:NoSchedule is not tolerated"}
    assert _scheduling.pending_sentence(reasons, "kata") == (
        "Build pods would stay Pending, because no node of the pool fits them: label a=b is missing (build-1 and build-2),"
        " taint x=y:NoSchedule is not tolerated (build-3); correct RuntimeClass kata, the executor's nodeSelectors, or the nodes."
    )
