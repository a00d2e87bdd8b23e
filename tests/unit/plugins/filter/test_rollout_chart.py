"""The charts of the report: what they show, and that they are well-formed."""

from __future__ import annotations

import typing as t
from xml.etree import ElementTree

from ansible_collections.screwdriver.kata.plugins.filter.rollout_chart import rollout_chart


def step(share: float, observed: float | None, pilot: bool = False, setup: int | None = 4, failed: int = 0) -> dict[str, t.Any]:
    figures = {"started": 20, "failures": {"SandboxFailed": failed}, "setup_seconds": {"p50": setup, "p95": setup and setup * 2}}
    gate = {"share_observed": {"percent": observed}, "executors": {"k8s-kata": figures, "k8s-vm": figures}}
    return {"share": share, "pilot": pilot, "gate": gate}


def parsed(charts: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{charts}</div>")


def texts(charts: str) -> set[str]:
    return {element.text or "" for element in parsed(charts).iter("{http://www.w3.org/2000/svg}text")}


def bars(charts: str) -> list[str]:
    return [element.text or "" for element in parsed(charts).iter("{http://www.w3.org/2000/svg}title")]


def test_has_a_place_for_each_step_and_both_executors() -> None:
    shown = texts(rollout_chart([step(0, None, pilot=True), step(2.5, 2.4), step(100, 100.0)]))
    assert {"pilot", "2.5 %", "100 %", "asked", "observed", "k8s-kata", "k8s-vm"} <= shown


def test_draws_the_figures_and_the_limit() -> None:
    charts = rollout_chart([step(5, 4.5, failed=5)])
    # 5 of 25 builds failed to start.
    assert bars(charts) == ["4.5 %", "20 %", "20 %", "4 s", "8 s", "4 s", "8 s"]
    assert "limit 2 %" in texts(charts)


def test_no_failure_may_be_allowed() -> None:
    charts = rollout_chart([step(5, 4.5)], max_failure_ratio=0.0)
    assert bars(charts)[1:3] == ["0 %", "0 %"]
    assert "limit 0 %" in texts(charts)


def test_what_is_unknown_is_not_drawn() -> None:
    assert bars(rollout_chart([{**step(5, None, setup=None), "gate": {"share_observed": {"percent": None}, "executors": {}}}])) == []


def test_names_are_escaped() -> None:
    charts = rollout_chart([step(5, 5.0)], kata_executor="<script>")
    assert "<script>" not in charts
    assert "<script>" in texts(charts)


def test_needs_no_other_file() -> None:
    charts = rollout_chart([step(5, 5.0)])
    assert charts.startswith("<svg")
    assert charts.endswith("</svg>")
    assert "<image" not in charts
    assert "href" not in charts
