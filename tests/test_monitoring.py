"""The dashboard and the alerts are whole, and ask only for what there is."""

import re
import subprocess
from pathlib import Path

import pytest

from app.telemetry.conventions import exposed
from app.telemetry.scalars import Type
from tests.monitoring import (
    ALERTS,
    DASHBOARD,
    PROMTOOL,
    RULES,
    metrics,
    metrics_of,
    panels,
    queries,
)

ENDINGS = {
    Type.COUNTER: ("_total",),
    Type.GAUGE: ("",),
    Type.HISTOGRAM: ("_bucket", "_sum", "_count"),
}
LABELS = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
KNOWN_LABELS = {"le", "job", "instance"}
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def test_names_are_read_out_of_queries():
    query = 'sum by (a) (rate(x_total{b=~"c|d"}[5m])) / on (e) f:g > 0.5 and y unless z'
    assert metrics_of(query) == {"x_total", "f:g", "y", "z"}


def test_every_metric_that_is_asked_for_is_one_of_ours():
    ours = {metric.name + ending for metric in exposed() for ending in ENDINGS[metric.type]}
    asked = {name for name in metrics() if not name.startswith("process_")}
    assert asked <= ours and len(asked) > 20


@pytest.mark.parametrize("query", queries())
def test_every_label_that_is_asked_for_is_one_of_its_metrics(query):
    has = {metric.name: {*metric.labels} for metric in exposed()}
    names = {re.sub("_(total|bucket|sum|count)$", "", name) for name in metrics_of(query)}
    known = set().union(KNOWN_LABELS, *(has.get(name, set()) for name in names))
    asked = {label.strip() for found in LABELS.findall(query) for label in found.split(",")}
    asked |= set(re.findall(r"[{,](\w+)(?:=|!)", query))
    assert asked <= known


def test_the_dashboard_is_one_that_grafana_takes():
    assert DASHBOARD["title"] and DASHBOARD["uid"] and DASHBOARD["schemaVersion"] >= 36
    variables = {v["name"]: v["type"] for v in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query", "model": "query"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*numbers}) == len(numbers)
    for panel in panels():
        assert panel["title"] and panel["type"] in ("stat", "timeseries")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        assert all("$instance" in target["expr"] for target in panel["targets"])


def test_no_two_panels_share_a_place():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_it_is_about():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) > 5
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


@needs_promtool
def test_prometheus_takes_the_alerts():
    subprocess.run([PROMTOOL, "check", "rules", RULES], check=True)


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then():
    subprocess.run(
        [PROMTOOL, "test", "rules", Path(__file__).parent / "prometheus_alerts.yml"], check=True
    )
