"""What ClearML shows of an instance: user properties, table, page of examples; kept up to date."""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import Callable, Mapping, Sequence

from app.machine import clock
from app.memory.ledger import ModelState, View
from app.page import examples
from app.page.examples import Target
from app.task.clearml_task import ClearMLTask, Table
from app.task.endpoints import ModelEndpoint
from app.telemetry.overview import Overview, Phase, last_activity
from app.telemetry.windows import Rates

logger = logging.getLogger(__name__)

PROGRESS = 5.0  # seconds between two looks, while models are on their way
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


class Presence:
    def __init__(
        self,
        task: ClearMLTask,
        overview: Overview,
        targets: Callable[[], Sequence[Target]],
        interval: float,
    ) -> None:
        """`interval` in seconds: how often the last activity is told."""
        self._task = task
        self._overview = overview
        self._targets = targets
        self._page = ""
        self._interval = interval
        self._shown: dict[str, str] = {}
        self._rows: list[list[str]] = []
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._ticking = asyncio.create_task(self._tick())

    def stop(self) -> None:
        """Say the last of it: the instance is stopped."""
        if self._ticking is not None:
            self._ticking.cancel()
        self.update(status="stopped")

    def update(self, **over: str) -> None:
        """Send what has changed; `over` are properties that are known otherwise."""
        targets = self._targets()
        found = properties(self._overview, clock.now(), targets[0]) | over
        changed = {key: text for key, text in found.items() if self._shown.get(key) != text}
        rows = models_table(self._overview)
        table = Table(*MODELS_TABLE, rows) if rows != self._rows else None
        self._shown, self._rows = found, rows
        if changed or table is not None:
            self._task.show(changed, table)
        self._show_page(targets)

    def _show_page(self, targets: Sequence[Target]) -> None:
        """The page of examples, whenever the models are reached in another way."""
        if self._overview.phase is not Phase.SERVING:
            return
        page = examples.page(targets)
        if page != self._page:
            self._page = page
            self._task.show_page(*EXAMPLE, page)

    async def _tick(self) -> None:
        while True:
            setting_up = self._overview.phase is Phase.SETTING_UP
            await asyncio.sleep(min(PROGRESS, self._interval) if setting_up else self._interval)
            try:
                self.update()
            except Exception:  # noqa: BLE001 one that fails must not end the next ones
                logger.exception("the task's page could not be brought up to date")


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


SERVED = (ModelState.READY, ModelState.PARKED, ModelState.COLD, ModelState.WAKING)


def model_endpoints(
    overview: Overview, rates: Mapping[str, Rates], now: float
) -> list[ModelEndpoint]:
    """The Model Endpoints table: a model has a URL once it was first loaded."""
    found = []
    for view in overview.view():
        details = overview.models[view.name]
        served = view.switches > 0 and view.state in SERVED
        rate = rates.get(view.name)
        row = ModelEndpoint(
            name=view.name,
            reference=details.reference,
            url=details.endpoint if served else "",
            uptime=now - overview.begun,
            requests=view.requests,
            latency=(rate["latency"] or 0.0) * 1000 if rate is not None else 0.0,
        )
        found.append(row)
    return found
