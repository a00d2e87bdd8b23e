# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_chart
short_description: Draws a rollout as an SVG picture
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Draws the share that was asked and the share that was seen at each step, and the setup times of both executors beside each other.
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
requirements:
  - matplotlib >= 3.8.0
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
  description: The picture as an C(svg) element that needs no other file.
  type: str
"""

import io
import typing as t

from ansible.errors import AnsibleFilterError

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as exc:
    MATPLOTLIB_ERROR: ImportError | None = exc
else:
    MATPLOTLIB_ERROR = None

KATA = "#2b6cb0"
LEGACY = "#a0aec0"
ASKED = "#1a202c"


def rollout_chart(history: list[dict[str, t.Any]], kata_executor: str = "k8s-kata", legacy_executor: str = "k8s-vm") -> str:
    if MATPLOTLIB_ERROR:
        raise AnsibleFilterError("rollout_chart needs the Python library matplotlib on the controller.") from MATPLOTLIB_ERROR
    labels = ["pilot" if step["pilot"] else f"{step['share']:g} %" for step in history]
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        shares, setup = figure.subplots(1, 2)
        _draw_shares(shares, history, labels)
        _draw_setup(setup, history, labels, {kata_executor: KATA, legacy_executor: LEGACY})
        picture = io.StringIO()
        figure.savefig(picture, format="svg", metadata={"Date": None, "Title": "Rollout"})
    text = picture.getvalue()
    return text[text.index("<svg") :]


def _draw_shares(axes: t.Any, history: list[dict[str, t.Any]], labels: list[str]) -> None:
    places = range(len(history))
    axes.bar(places, [0 if step["pilot"] else step["gate"]["share_observed"]["percent"] or 0 for step in history], color=KATA, label="seen")
    axes.plot(places, [step["share"] for step in history], "_", color=ASKED, markersize=26, markeredgewidth=2, label="asked")
    axes.set(title="Share of builds on Kata", ylabel="percent", ylim=(0, 105), xticks=places, xticklabels=labels)
    axes.legend(frameon=False, loc="upper left")


def _draw_setup(axes: t.Any, history: list[dict[str, t.Any]], labels: list[str], colours: dict[str, str]) -> None:
    for offset, (name, colour) in zip((-0.2, 0.2), colours.items(), strict=True):
        times = [step["gate"]["executors"][name]["setup_seconds"] for step in history]
        places = [place + offset for place in range(len(history))]
        axes.bar(places, [time["p95"] or 0 for time in times], width=0.36, color=colour, alpha=0.45, label=f"{name} p95")
        axes.bar(places, [time["p50"] or 0 for time in times], width=0.36, color=colour, label=f"{name} p50")
    axes.set(title="Setup time", ylabel="seconds", xticks=range(len(history)), xticklabels=labels)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"rollout_chart": rollout_chart}
