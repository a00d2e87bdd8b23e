"""What the role rollout writes for people and programs: lines, status, report, metrics; and the dashboard that reads the metrics."""

from __future__ import annotations

import json
import re
import typing as t
from datetime import UTC, datetime
from html.parser import HTMLParser

import jinja2
import pytest
from ansible.plugins.filter.core import FilterModule as CoreFilters
from ansible_collections.screwdriver.kata.plugins.filter.rollout_chart import rollout_chart

from ...helpers import TOP

ROLE = TOP / "roles" / "rollout"
EVIL = '<script>alert("x")</script>\n\\'


def render(name: str, **values: t.Any) -> str:
    """A template as the role renders it, with the names that the role has by then."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    )
    environment.filters |= {"ternary": CoreFilters().filters()["ternary"], "screwdriver.kata.rollout_chart": rollout_chart}
    names = {"rollout_namespace": "sd", "rollout_name": "kata-rollout", "executor_kata": "k8s-kata", "executor_legacy": "k8s-vm"}
    limits = {"rollout_max_failure_ratio": "0.02", "rollout_max_setup_seconds": "300"}
    return environment.get_template(name).render(**names, **limits, now=lambda utc: datetime.now(UTC), **values)


def figures(started: int, seconds: int | None, failures: dict[str, int] | None = None) -> dict[str, t.Any]:
    return {
        "builds": started,
        "started": started,
        "failures": failures or {},
        "details": {},
        "setup_seconds": {"p50": seconds, "p95": seconds},
    }


def gate(**more: t.Any) -> dict[str, t.Any]:
    executors = {"k8s-kata": figures(3, 0, {EVIL: 1}), "k8s-vm": figures(0, None)}
    base = {
        "verdict": "pass",
        "reasons": [EVIL],
        "observed_seconds": 60.0,
        "executors": executors,
        "share_observed": {"percent": 99.5, "builds": 3},
    }
    return {
        **base,
        "excluded_on_kata": 0,
        "suspects": [],
        "worst": {},
        "log_e": 0.1,
        "log_m": 0.2,
        "log_threshold": 5.5,
        "doubt": "",
        **more,
    }


def record(phase: str, **more: t.Any) -> dict[str, t.Any]:
    times = {"began": "2026-11-23T20:00:00Z", "ended": "2026-11-23T20:12:31Z"}
    step = {"step": 1, "pilot": False, "share": 100, "gate": gate(), "outcome": "passed", **times}
    base = {
        "phase": phase,
        "step": 1,
        "share": 100,
        "pilot": False,
        "steps": [{"share": 100, "pilot": False}],
        "reason": EVIL,
        "holder": EVIL,
    }
    return {**base, **times, "history": [step], "notes": [{"at": "t", "by": EVIL, "text": EVIL}], "approvals": [], **more}


def status(stored: dict[str, t.Any]) -> str:
    values = {"weightages": {"k8s-vm": 0, "k8s-kata": 100}, "findings": []}
    return render("status.j2", __rollout_stored=stored, __rollout_lock_holder="", executor_result=values)


def test_an_interval_fits_80_columns_and_tells_0_seconds_from_unknown() -> None:
    lines = render("interval.j2", __rollout_record={"rollout": record("running")}, __rollout_gate=gate()).splitlines()
    assert lines == [
        "step 1/1  100 % asked  99.5 % observed  60 s  pass",
        "  k8s-kata             1 of     4 failed to start  setup 0/0 s",
        "  k8s-vm               0 of     0 failed to start  setup -",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("phase", ["running", "paused", "rolled_back", "finished"])
def test_status_and_report_are_written_in_every_phase(phase: str) -> None:
    for stored in (record(phase, reason=""), record(phase, history=[], reason="")):
        text = status(stored)
        assert phase.replace("_", " ") in text
        assert max(map(len, text.splitlines())) <= 80, text
        assert phase.replace("_", " ") in render("report.html.j2", __rollout_record={"rollout": stored})


def test_status_without_a_record_says_so() -> None:
    assert "There is no rollout sd/kata-rollout yet." in status({"phase": "none", "history": []})


def test_status_without_the_permission_to_read_the_config_is_a_sentence() -> None:
    values = {"__rollout_stored": record("paused"), "__rollout_lock_holder": "", "executor_result": {"failed": True}}
    text = render("status.j2", **values, __rollout_unknown="Cannot read ConfigMap sd/x: not allowed (403).")
    assert "Weightages now: unknown. Cannot read ConfigMap sd/x: not allowed (403)." in text


def test_status_of_a_config_without_executors_has_no_blank() -> None:
    values = {"__rollout_stored": record("paused"), "__rollout_lock_holder": "", "executor_result": {"weightages": {}, "findings": []}}
    assert "Weightages now: none\n" in render("status.j2", **values)


def test_failures_have_one_denominator_everywhere() -> None:
    """Builds with an outcome: those that started and those that failed to."""
    stored = record("finished", reason="")
    assert "1 of 4" in status(stored)
    assert "<td>4</td><td>1 (25.00 %)</td>" in render("report.html.j2", __rollout_record={"rollout": stored})
    assert 'screwdriver_kata_rollout_builds{rollout="sd/kata-rollout",executor="k8s-kata"} 4' in metrics()


def test_every_value_of_the_report_is_escaped() -> None:
    suspect = {"image": EVIL, "exclusion": EVIL, "kata": {"failed": 1, "builds": 1}, "legacy": {"failed": 0, "builds": 1}}
    worst = {"image": {"name": EVIL, "builds": 3, "failed": 3}}
    stored = record("paused")
    stored["history"][0]["gate"] = gate(suspects=[suspect], worst=worst)
    page = render("report.html.j2", __rollout_record={"rollout": stored})
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(page)
    assert "script" not in tags
    assert page.count("&lt;script&gt;") >= 8
    assert "Most failures of one image" in page


def metrics() -> str:
    return render("metrics.prom.j2", __rollout_record={"rollout": record("running")}, __rollout_gate=gate())


def test_prometheus_can_parse_the_metrics() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    samples = [sample for family in parser.text_string_to_metric_families(metrics()) for sample in family.samples]
    values = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    name = ("rollout", "sd/kata-rollout")
    assert values["screwdriver_kata_rollout_phase", (("phase", "running"), name)] == 1
    assert values["screwdriver_kata_rollout_share_observed_percent", (name,)] == 99.5
    assert values["screwdriver_kata_rollout_failures", (("cause", EVIL), ("executor", "k8s-kata"), name)] == 1


def test_metrics_are_complete_before_the_first_look() -> None:
    text = render("metrics.prom.j2", __rollout_record={"rollout": record("running")}, __rollout_gate={})
    assert "screwdriver_kata_rollout_step{" in text
    assert "log_e_value" not in text


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROLE / "files" / "grafana-dashboard.json").read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all({"type", "title", "gridPos", "targets", "datasource"} <= panel.keys() for panel in panels)
    asked = set(re.findall(r"screwdriver_kata_rollout_\w+", json.dumps(panels)))
    there = set(re.findall(r"^(screwdriver_kata_rollout_\w+)\{", metrics(), re.MULTILINE))
    assert asked == there


def test_observing_proposes_limits_from_the_fleet() -> None:
    legacy = figures(990, 10, {"ImagePull": 10})
    plan = [{"seconds": None}, {"seconds": 3600}, {"seconds": 5400}]
    values = {"__rollout_legacy": legacy, "__rollout_failed": "10", "__rollout_outcomes": "1000", "__rollout_ratio": "0.01"}
    more = {"__rollout_limit": "0.033", "__rollout_builds": "31", "__rollout_rate": "1.667", "__rollout_plan": plan}
    text = render("observe.j2", __rollout_gate=gate(observed_seconds=600.0), **values, **more)
    assert "k8s-vm: 10 of 1000 failed to start (1.0 %), setup 10/10 s" in text
    assert "rollout_max_failure_ratio: 0.033" in text
    assert "rollout_max_setup_seconds: 60" in text
    assert "about 2.5 hours" in text
    assert "few builds" not in text
    assert max(map(len, text.splitlines())) <= 80
