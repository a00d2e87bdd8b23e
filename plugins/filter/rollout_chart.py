# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_chart
short_description: Draws a rollout as SVG charts
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Draws for each step the share asked and observed, the builds that failed to start, and the setup times, of both executors side by side,
    each with its limit.
  - Colors are the CSS variables C(--kata), C(--legacy), C(--ink) and C(--limit), with defaults for a light page.
options:
  _input:
    description: The RV(screwdriver.kata.rollout#module:rollout) record's C(history).
    type: list
    elements: dict
    required: true
  kata_executor:
    description: The name of the Kata executor.
    type: str
    default: k8s-kata
  legacy_executor:
    description: The name of the legacy executor.
    type: str
    default: k8s-vm
  max_failure_ratio:
    description: The limit of failed starts to draw, from 0 to 1.
    type: float
    default: 0.02
  max_setup_seconds:
    description: The limit of the setup time to draw, in seconds. It is left out where no bar comes near it.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: Draw the rollout
  ansible.builtin.copy:
    content: "{{ record.rollout.history | screwdriver.kata.rollout_chart }}"
    dest: rollout.svg
    mode: "0644"
"""

RETURN = r"""
_value:
  description: Three C(svg) elements that need no other file.
  type: str
"""

import typing as t
from html import escape

WIDTH = 320
HEIGHT = 210
LEFT = 38
RIGHT = 8
TOP = 28
BOTTOM = 44
KATA = "var(--kata, #2b6cb0)"
LEGACY = "var(--legacy, #8a94a6)"
INK = "var(--ink, #1a202c)"
LIMIT = "var(--limit, #c53030)"
TEXT = "font-family='system-ui, sans-serif' font-size='11'"


class Bar(t.NamedTuple):
    """One bar: its value, the color, and how strong it is."""

    value: float | None
    color: str
    opacity: float = 1.0


class Panel(t.NamedTuple):
    """One chart: a group of bars for each step."""

    title: str
    unit: str
    labels: list[str]
    groups: list[list[Bar]]
    marks: list[float | None]
    legend: list[tuple[str, Bar]]
    limit: float | None
    minimum: float


def rollout_chart(
    history: list[dict[str, t.Any]],
    kata_executor: str = "k8s-kata",
    legacy_executor: str = "k8s-vm",
    max_failure_ratio: float = 0.02,
    max_setup_seconds: float = 300,
) -> str:
    labels = ["pilot" if step["pilot"] else f"{step['share']:g} %" for step in history]
    names = (kata_executor, legacy_executor)
    figures = [[step["gate"]["executors"].get(name) for name in names] for step in history]
    panels = (
        Panel(
            "Share of builds on Kata",
            "%",
            labels,
            [[Bar(None if step["pilot"] else step["gate"]["share_observed"]["percent"], KATA)] for step in history],
            [None if step["pilot"] else step["share"] for step in history],
            [("observed", Bar(0, KATA)), ("asked", Bar(None, INK))],
            None,
            100,
        ),
        Panel(
            "Failed to start",
            "%",
            labels,
            [[Bar(_failed_percent(of), color) for of, color in zip(pair, (KATA, LEGACY), strict=True)] for pair in figures],
            [],
            [(name, Bar(0, color)) for name, color in zip(names, (KATA, LEGACY), strict=True)],
            max_failure_ratio * 100,
            max_failure_ratio * 200 or 1,
        ),
        Panel(
            "Setup time, median and 95th percentile",
            "s",
            labels,
            [_setup_bars(pair) for pair in figures],
            [],
            [(name, Bar(0, color)) for name, color in zip(names, (KATA, LEGACY), strict=True)],
            max_setup_seconds,
            10,
        ),
    )
    return "\n".join(_draw(panel) for panel in panels)


def _failed_percent(figures: dict[str, t.Any] | None) -> float | None:
    failed = sum(figures["failures"].values()) if figures else 0
    outcomes = figures["started"] + failed if figures else 0
    return 100 * failed / outcomes if outcomes else None


def _setup_bars(pair: list[dict[str, t.Any] | None]) -> list[Bar]:
    bars = []
    for figures, color in zip(pair, (KATA, LEGACY), strict=True):
        times = figures["setup_seconds"] if figures else {"p50": None, "p95": None}
        bars += [Bar(times["p50"], color), Bar(times["p95"], color, 0.5)]
    return bars


def _draw(panel: Panel) -> str:
    values = [column.value for group in panel.groups for column in group if column.value is not None]
    highest = max([panel.minimum, *values, *(mark for mark in panel.marks if mark is not None)])
    # A limit far above every bar would flatten them.
    limit = panel.limit if panel.limit is not None and panel.limit <= highest * 1.5 else None
    highest = max(highest, limit or 0) * (1.05 if highest > panel.minimum else 1)
    floor, room = HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM

    def level(value: float) -> float:
        return round(floor - value / highest * room, 1)

    title = escape(panel.title, quote=True)
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{title}' xmlns='http://www.w3.org/2000/svg'>",
        _text(LEFT, 15, panel.title, "start", weight=600),
    ]
    for value in (0, highest / 2, highest):
        parts.append(_line(LEFT, WIDTH - RIGHT, level(value), INK, "stroke-opacity='0.15'"))
        parts.append(_text(LEFT - 4, level(value) + 4, f"{value:.3g}{' ' + panel.unit if value else ''}", "end"))
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(panel.groups))
    for index, group in enumerate(panel.groups):
        width = min(24.0, slot * 0.8 / len(group))
        begin = LEFT + slot * index + (slot - width * len(group)) / 2
        for place, column in enumerate(group):
            if column.value is not None:
                x, y = round(begin + place * width, 1), level(column.value)
                parts.append(
                    f"<rect x='{x}' y='{y}' width='{width - 1:.1f}' height='{max(0.0, floor - y):.1f}' fill='{column.color}'"
                    f" fill-opacity='{column.opacity}'><title>{column.value:.3g} {panel.unit}</title></rect>"
                )
        mark = panel.marks[index] if panel.marks else None
        if mark is not None:
            parts.append(_line(begin - 4, begin + width + 4, level(mark), INK, "stroke-width='2'"))
        parts.append(_text(LEFT + slot * (index + 0.5), floor + 14, panel.labels[index], "middle"))
    if limit is not None:
        parts.append(_line(LEFT, WIDTH - RIGHT, level(limit), LIMIT, "stroke-dasharray='4 3'"))
        parts.append(_text(WIDTH - RIGHT, level(limit) - 3, f"limit {limit:g} {panel.unit}", "end", LIMIT))
    x = float(LEFT)
    for name, column in panel.legend:
        parts.append(
            f"<rect x='{x:.0f}' y='{HEIGHT - 14}' width='10' height='{8 if column.value is not None else 2}' fill='{column.color}'/>"
        )
        parts.append(_text(x + 14, HEIGHT - 6, name, "start"))
        x += 30 + 6.5 * len(name)
    return "\n".join([*parts, "</svg>"])


def _line(x1: float, x2: float, y: float, color: str, style: str) -> str:
    return f"<line x1='{x1:.1f}' x2='{x2:.1f}' y1='{y:.1f}' y2='{y:.1f}' stroke='{color}' {style}/>"


def _text(x: float, y: float, text: str, anchor: str, color: str = INK, weight: int = 400) -> str:
    style = f"text-anchor='{anchor}' {TEXT} font-weight='{weight}' fill='{color}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>"


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rollout_chart": rollout_chart}
