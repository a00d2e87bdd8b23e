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

WIDTH, HEIGHT = 320, 210
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 28, 44
KATA, LEGACY = "var(--kata, #2b6cb0)", "var(--legacy, #8a94a6)"
INK, LIMIT = "var(--ink, #1a202c)", "var(--limit, #c53030)"
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
            max_failure_ratio * 200,
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
    values = [bar.value for group in panel.groups for bar in group if bar.value is not None]
    highest = max([panel.minimum, *values, *(mark for mark in panel.marks if mark is not None)])
    # A limit far above every bar would flatten them.
    limit = panel.limit if panel.limit is not None and panel.limit <= highest * 1.5 else None
    highest = max(highest, limit or 0) * (1.05 if highest > panel.minimum else 1)
    floor, room = HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM

    def level(value: float) -> float:
        return round(floor - value / highest * room, 1)

    parts = [
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(panel.title, quote=True)}' xmlns='http://www.w3.org/2000/svg'>",
        f"<text x='{LEFT}' y='15' {TEXT} font-weight='600' fill='{INK}'>{escape(panel.title)}</text>",
    ]
    for value in (0, highest / 2, highest):
        y = level(value)
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y}' y2='{y}' stroke='{INK}' stroke-opacity='0.15'/>")
        parts.append(
            f"<text x='{LEFT - 4}' y='{y + 4}' text-anchor='end' {TEXT} fill='{INK}'>{value:.3g}{'' if value else ' ' + panel.unit}</text>"
        )
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(panel.groups))
    for index, group in enumerate(panel.groups):
        width = min(24.0, slot * 0.8 / len(group))
        begin = LEFT + slot * index + (slot - width * len(group)) / 2
        for place, bar in enumerate(group):
            if bar.value is not None:
                x, y = round(begin + place * width, 1), level(bar.value)
                parts.append(
                    f"<rect x='{x}' y='{y}' width='{width - 1:.1f}' height='{max(0.0, floor - y):.1f}' fill='{bar.color}'"
                    f" fill-opacity='{bar.opacity}'><title>{bar.value:.3g} {panel.unit}</title></rect>"
                )
        mark = panel.marks[index] if panel.marks else None
        if mark is not None:
            parts.append(
                f"<line x1='{begin - 4:.1f}' x2='{begin + width + 4:.1f}' y1='{level(mark)}' y2='{level(mark)}' stroke='{INK}' stroke-width='2'/>"
            )
        parts.append(
            f"<text x='{LEFT + slot * (index + 0.5):.1f}' y='{floor + 14}' text-anchor='middle' {TEXT} fill='{INK}'>{escape(panel.labels[index])}</text>"
        )
    if limit is not None:
        parts.append(
            f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{level(limit)}' y2='{level(limit)}' stroke='{LIMIT}' stroke-dasharray='4 3'/>"
        )
        parts.append(
            f"<text x='{WIDTH - RIGHT}' y='{level(limit) - 3}' text-anchor='end' {TEXT} fill='{LIMIT}'>limit {limit:g} {panel.unit}</text>"
        )
    x = float(LEFT)
    for name, bar in panel.legend:
        parts.append(f"<rect x='{x:.0f}' y='{HEIGHT - 14}' width='10' height='{8 if bar.value is not None else 2}' fill='{bar.color}'/>")
        parts.append(f"<text x='{x + 14:.0f}' y='{HEIGHT - 6}' {TEXT} fill='{INK}'>{escape(name)}</text>")
        x += 30 + 6.5 * len(name)
    return "\n".join([*parts, "</svg>"])


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rollout_chart": rollout_chart}
