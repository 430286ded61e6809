"""What the task's page in ClearML shows of an instance: properties, table, gauges. Pure, over the
overview."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

from app import examples
from app.examples import Target
from app.form.settings import TOTAL
from app.gateway.status import Overview, Phase, last_activity
from app.memory.ledger import ModelState, View
from app.task.endpoints import Row
from app.task.reporter import DENIED, IDLE, IN_FLIGHT, MODEL_MEMORY, MODEL_SWITCHES, Gauge
from app.telemetry.windows import Rates

MODELS_TABLE = ("Deployed Models", "models")
EXAMPLE = ("Command-Line Example", "example")
HEADINGS = [
    "Model Name",
    "Endpoint",
    "State",
    "Tier",
    "Context",
    "Slots",
    "Memory (MB)",
    "Requests",
]
NO_LIMIT = "∞"
HOUR = 3600.0


def properties(overview: Overview, now: float, first: Target) -> dict[str, str]:
    """User properties, escaped: the dashboard puts them into HTML as they are."""
    limit = overview.idle_limit
    found = {
        "status": overview.status(now),
        "endpoint": overview.endpoint,
        "idle_hours": f"{overview.idle(now) / HOUR:.1f}",
        "idle_limit_hours": f"{limit / HOUR:g}" if limit else NO_LIMIT,
        "last_activity": last_activity(overview, now).isoformat(timespec="seconds"),
        "progress": progress(overview),
        "curl": examples.curl(first),
    }
    return {name: html.escape(text, quote=False) for name, text in found.items()}


def progress(overview: Overview) -> str:
    """What models are on their way to, while the instance is set up; "" after that."""
    if overview.phase is not Phase.SETTING_UP:
        return ""
    coming = [f"{view.name}: {_state(view)}" for view in overview.view()]
    return ", ".join(coming)


def _state(view: View) -> str:
    """With how far it is, or why it is so."""
    if view.progress is not None:
        return f"{view.state.value} {view.progress:.0%}"
    return f"{view.state.value}: {view.reason}" if view.reason else view.state.value


def models_table(overview: Overview) -> list[list[str]]:
    """The deployed models, below a row of headings."""
    rows = [HEADINGS]
    for view in overview.view():
        details = overview.models[view.name]
        cells = (
            view.name,
            details.endpoint,
            _state(view),
            view.tier.value,
            details.context or "",
            details.slots or "",
            round(overview.memory(view).total / 1e6) or "",
            view.requests,
        )
        rows.append([html.escape(str(cell), quote=False) for cell in cells])
    return rows


def gauges(overview: Overview, now: float) -> list[Gauge]:
    """What is as it is now, by model and in total."""
    views = overview.view()
    by_title: dict[str, Callable[[int], float]] = {
        IN_FLIGHT: lambda n: float(views[n].admitted),
        DENIED: lambda n: float(views[n].denied),
        MODEL_SWITCHES: lambda n: float(views[n].switches),
        MODEL_MEMORY: lambda n: overview.memory(views[n]).total / 1e9,
    }
    found = []
    for title, value in by_title.items():
        values = [value(number) for number in range(len(views))]
        named = zip((view.name for view in views), values, strict=True)
        found += [Gauge(title, name, amount) for name, amount in named]
        found.append(Gauge(title, TOTAL, sum(values)))
    if overview.phase is not Phase.SETTING_UP:
        found.append(Gauge(IDLE, TOTAL, overview.idle(now) / HOUR))
    return found


SERVED = (ModelState.READY, ModelState.PARKED, ModelState.COLD, ModelState.WAKING)


def endpoint_rows(overview: Overview, rates: Mapping[str, Rates], now: float) -> list[Row]:
    """The Model Endpoints table: a model has a URL once it was first loaded."""
    found = []
    for view in overview.view():
        details = overview.models[view.name]
        served = view.switches > 0 and view.state in SERVED
        rate = rates.get(view.name)
        latency = (rate.latency or 0.0) * 1000 if rate is not None else 0.0
        url = details.endpoint if served else ""
        uptime = now - overview.begun
        found.append(Row(view.name, details.reference, url, uptime, view.requests, latency))
    return found
