"""What templates/grafana.json and templates/prometheus-alerts.yml ask Prometheus for."""

import json
import re
import shutil
from pathlib import Path

import yaml

TEMPLATES = Path(__file__).parent.parent / "templates"
RULES = TEMPLATES / "prometheus-alerts.yml"
DASHBOARD = json.loads((TEMPLATES / "grafana.json").read_text())
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"]]
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")

OF_PROMETHEUS = {"up"}  # what it knows of its targets by itself
NOT_NAMES = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)'
)
NAME = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
OPERATORS = {"and", "or", "unless", "bool", "offset"}


def metrics_of(query):
    """The names of the metrics in a query in PromQL, as far as ours go."""
    return {*NAME.findall(NOT_NAMES.sub(" ", query))} - OPERATORS


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries():
    """Every query of the dashboard and of the alerts."""
    return [
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *(rule["expr"] for rule in ALERTS),
    ]


def variables():
    """The queries of the dashboard's variables: the metric of each."""
    found = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return [re.fullmatch(r"label_values\((.+), \w+\)", query)[1] for query in found]


def metrics():
    found = set().union(*map(metrics_of, [*queries(), *variables()]))
    return found - OF_PROMETHEUS
