from __future__ import annotations

import typing as t
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from ansible_collections.screwdriver.kata.plugins.filter.rollout_chart import rollout_chart


def step(share: float, seen: float | None, pilot: bool = False, setup: int | None = 4) -> dict[str, t.Any]:
    figures = {"setup_seconds": {"p50": setup, "p95": setup and setup * 2}}
    return {
        "share": share,
        "pilot": pilot,
        "gate": {"share_observed": {"percent": seen}, "executors": {"k8s-kata": figures, "k8s-vm": figures}},
    }


def texts(svg: str) -> set[str]:
    return {element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_has_a_place_for_each_step_and_both_executors() -> None:
    seen = texts(rollout_chart([step(0, None, pilot=True), step(2.5, 2.4), step(100, 100.0)]))
    assert {"pilot", "2.5 %", "100 %", "asked", "seen", "k8s-kata p50", "k8s-kata p95", "k8s-vm p50", "k8s-vm p95"} <= seen


def test_a_step_without_a_start_is_drawn_as_nothing() -> None:
    assert "5 %" in texts(rollout_chart([step(5, None, setup=None)]))


def test_is_the_same_for_the_same_rollout_but_for_ids() -> None:
    assert texts(rollout_chart([step(5, 5.0)])) == texts(rollout_chart([step(5, 5.0)]))


def test_is_one_element_that_needs_nothing_else() -> None:
    svg = rollout_chart([step(5, 5.0)])
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    assert "<image" not in svg and "<script" not in svg
