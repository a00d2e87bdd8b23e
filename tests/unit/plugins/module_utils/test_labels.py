# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._labels import (
    parse_annotations,
    parse_labels,
    parse_taints,
    parse_tolerations,
)

VALID = "up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends."
KEY = "is not a valid key; use for example dedicated or kata.screwdriver.cd/ready."


def taint(key: str = "dedicated", value: t.Any = "kata", effect: str = "NoSchedule") -> dict[str, t.Any]:
    return {"key": key, "value": value, "effect": effect}


def toleration(**given: t.Any) -> dict[str, t.Any]:
    return {"key": None, "operator": "Equal", "value": None, "effect": None, "toleration_seconds": None, **given}


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), ("True", "True"), (3, "3"), ("", ""), ("v1.2_a-b", "v1.2_a-b"), ("x" * 63, "x" * 63)],
)
def test_values_are_as_in_a_manifest(value: t.Any, text: str) -> None:
    assert parse_labels("labels", {"example.com/a": value}) == {"example.com/a": text}
    assert parse_annotations("annotations", {"a": value}) == {"a": text}
    assert parse_taints("taints", [taint(value=value)]) == [taint(value=text)]


def test_nothing_is_nothing() -> None:
    assert parse_labels("labels", None) == {}
    assert parse_annotations("annotations", None) == {}
    assert parse_taints("taints", None) == []
    assert parse_tolerations("tolerations", None) is None
    assert parse_tolerations("tolerations", []) == []


def test_any_text_is_an_annotation() -> None:
    assert parse_annotations("annotations", {"a": '{"by": "ada lovelace"}\n'}) == {"a": '{"by": "ada lovelace"}\n'}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"ready": None}, 'labels: ready is null; give it a value, or "" for none.'),
        ({"version": 1.2}, "labels: version is 1.2, which is not a string; put the value in quotes."),
        ({"a": ["x"]}, "labels: a is ['x'], which is not a string; put the value in quotes."),
        ({"a": {"b": 1}}, "labels: a is {'b': 1}, which is not a string; put the value in quotes."),
        ({"a": "two words"}, f"labels: a is 'two words', which is not a valid label value; use {VALID}"),
        ({"a": "-x"}, f"labels: a is '-x', which is not a valid label value; use {VALID}"),
        ({"a": "x\n"}, f"labels: a is 'x\\n', which is not a valid label value; use {VALID}"),
        ({"a": "x" * 64}, f"labels: a is '{'x' * 64}', which is not a valid label value; use {VALID}"),
        ({"a": "ä"}, f"labels: a is 'ä', which is not a valid label value; use {VALID}"),
        ({"": "x"}, f"labels: '' {KEY}"),
        ({"not a label": "x"}, f"labels: 'not a label' {KEY}"),
        ({"/a": "x"}, f"labels: '/a' {KEY}"),
        ({"a/b/c": "x"}, f"labels: 'a/b/c' {KEY}"),
        ({"Example.com/a": "x"}, f"labels: 'Example.com/a' {KEY}"),
        ({f"{'a' * 254}/b": "x"}, f"labels: '{'a' * 254}/b' {KEY}"),
    ],
)
def test_what_is_not_a_label(labels: dict[str, t.Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_labels("labels", labels)
    assert str(refused.value) == message


def test_what_is_not_an_annotation() -> None:
    with pytest.raises(UserError) as refused:
        parse_annotations("annotations", {"proven": None})
    assert str(refused.value) == 'annotations: proven is null; give it a value, or "" for none.'


@pytest.mark.parametrize(
    ("taints", "message"),
    [
        ([taint(value=None)], 'taints: the value of dedicated is null; give it a value, or "" for none.'),
        ([taint(key="a b")], f"taints: 'a b' {KEY}"),
        (
            [taint(), taint(value="other")],
            "taints: dedicated is given twice with effect NoSchedule; a node has one taint of a key and effect.",
        ),
    ],
)
def test_what_is_not_a_taint(taints: list[dict[str, t.Any]], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_taints("taints", taints)
    assert str(refused.value) == message


def test_one_key_has_several_effects() -> None:
    assert len(parse_taints("taints", [taint(), taint(effect="NoExecute")])) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (toleration(key="a", value=True), {"key": "a", "value": "true"}),
        (toleration(key="a", value="b", effect="NoSchedule"), {"key": "a", "value": "b", "effect": "NoSchedule"}),
        (toleration(key="a"), {"key": "a"}),
        (toleration(operator="Exists"), {"operator": "Exists"}),
        (
            toleration(key="a", operator="Exists", effect="NoExecute", toleration_seconds=0),
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
        ),
    ],
)
def test_tolerations(given: dict[str, t.Any], expected: dict[str, t.Any]) -> None:
    assert parse_tolerations("tolerations", [given]) == [expected]


@pytest.mark.parametrize(
    ("tolerations", "message"),
    [
        (
            [toleration(value="x")],
            "tolerations: a toleration without a key tolerates every taint; set its operator to Exists, or give a key.",
        ),
        ([toleration(key="a", operator="Exists", value="x")], "tolerations: a has operator Exists and a value; leave the value out."),
        (
            [toleration(key="a", toleration_seconds=5)],
            "tolerations: a has toleration_seconds; set its effect to NoExecute, or leave them out.",
        ),
        ([toleration(key="a", value=1.5)], "tolerations: the value of a is 1.5, which is not a string; put the value in quotes."),
        (
            [toleration(key="a", value="x"), toleration(key="a", value="x")],
            "tolerations: the toleration of a is given twice; leave one out.",
        ),
    ],
)
def test_what_is_not_a_toleration(tolerations: list[dict[str, t.Any]], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_tolerations("tolerations", tolerations)
    assert str(refused.value) == message
