from __future__ import annotations

import typing as t
from decimal import Decimal
from fractions import Fraction

import pytest

pytest.importorskip("regress")

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing as _routing

TWO = {"plugin": "k8s-vm", "k8s-vm": {"weightage": 100}, "k8s-kata": {"pluginName": "k8s", "weightage": 0, "exclusions": ["rhel6"]}}


def test_every_share_of_two_decimals_is_written_as_integers_that_give_it() -> None:
    for hundredths in range(10001):
        share = Decimal(hundredths) / 100
        weights = _routing.weights_for(TWO, "k8s-kata", "k8s-vm", share)
        assert all(isinstance(weight, int) and weight >= 0 for weight in weights.values())
        assert Fraction(weights["k8s-kata"], sum(weights.values())) == Fraction(share) / 100


@pytest.mark.parametrize(
    ("share", "expected"), [("0", (0, 100)), ("10", (10, 90)), ("2.5", (25, 975)), ("33.33", (3333, 6667)), ("100", (100, 0))]
)
def test_the_smallest_scale_is_taken(share: str, expected: tuple[int, int]) -> None:
    weights = _routing.weights_for(TWO, "k8s-kata", "k8s-vm", Decimal(share))
    assert (weights["k8s-kata"], weights["k8s-vm"]) == expected


def test_a_third_executor_keeps_its_weightage_and_the_sum_stays() -> None:
    section = {**TWO, "k8s": {"weightage": 20}, "k8s-vm": {"weightage": 80}}
    assert _routing.weights_for(section, "k8s-kata", "k8s-vm", Decimal(30)) == {"k8s-kata": 30, "k8s-vm": 50}


@pytest.mark.parametrize(
    ("third", "share", "message"),
    [
        (
            {"weightage": 20},
            "90",
            "kata_share 90 cannot be expressed: of weightages that sum to 100, k8s has 20. "
            "Set that weightage to 0, or give k8s-vm a weightage that makes the share a whole number.",
        ),
        ({"weightage": 1.5}, "10", "kata_share 10 cannot be expressed while k8s has 1.5: make that weightage a positive integer or 0."),
        ({"weightage": -5}, "10", "kata_share 10 cannot be expressed while k8s has -5: make that weightage a positive integer or 0."),
    ],
)
def test_what_a_third_executor_does_not_allow(third: dict[str, t.Any], share: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        _routing.weights_for({**TWO, "k8s": third, "k8s-vm": {"weightage": 80}}, "k8s-kata", "k8s-vm", Decimal(share))
    assert str(refused.value) == message


SHARES: dict[str, tuple[dict[str, t.Any], str, dict[str, float]]] = {
    "10 of 100": ({"a": 10, "b": 90}, "node", {"a": 0.1, "b": 0.9}),
    "1 of 10": ({"a": 1, "b": 9}, "node", {"a": 0.1, "b": 0.9}),
    "strings": ({"a": "10", "b": "90"}, "node", {"a": 0.1, "b": 0.9}),
    "percent signs count as 0": ({"a": "10%", "b": "90%"}, "node", {"a": 0.0, "b": 1.0}),
    "below one, all to the first": ({"a": 0.1, "b": 0.9}, "node", {"a": 1.0, "b": 0.0}),
    "negative": ({"a": -10, "b": 90}, "node", {"a": 0.0, "b": 1.0}),
}


@pytest.mark.parametrize("case", SHARES)
def test_shares(case: str) -> None:
    weights, image, expected = SHARES[case]
    section = {"plugin": "b", **{name: {"pluginName": "k8s", "weightage": weight} for name, weight in weights.items()}}
    assert {name: float(share) for name, share in _routing.shares(section, image).items()} == expected


@pytest.mark.parametrize(
    ("exclusions", "image", "kata"),
    [
        (["rhel6"], "reg/RHEL65-tools", 0),
        (["rhel6"], "rhel7", 1),
        (["^centos:6$"], "reg/centos:6", 1),
        (["rhel.6"], "rhel-6", 0),
        ([""], "anything", 0),
        (["*rhel6"], "rhel7", 0),
        ("rhel6", "rhel7", 0),
        ([], "rhel6", 1),
    ],
)
def test_exclusions_are_javascripts(exclusions: t.Any, image: str, kata: int) -> None:
    section = {
        "plugin": "k8s-vm",
        "k8s-vm": {"weightage": 0},
        "k8s-kata": {"pluginName": "k8s", "weightage": 100, "exclusions": exclusions},
    }
    assert _routing.shares(section, image) == {"k8s-vm": 1 - kata, "k8s-kata": kata}
