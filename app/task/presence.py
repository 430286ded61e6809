"""What the task shows of an instance in ClearML: user properties, table and page of examples."""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.machine import clock
from app.machine.deadline import within
from app.memory.ledger import ModelState, View
from app.page import examples
from app.page.examples import Target
from app.planning.amounts import lasting
from app.task.clearml_task import ClearMLTask
from app.task.endpoints import ModelEndpoint
from app.task.live import LIVE, MODELS, models
from app.task.reporting import Table
from app.task.sdk import ClearMLError, Complaints
from app.telemetry.idle import lasted
from app.telemetry.overview import Overview, Phase, last_activity
from app.telemetry.windows import Rates

logger = logging.getLogger(__name__)

PROGRESS = 5.0  # seconds between two updates at most, during the set-up
AGAIN = 15.0  # the same, after one that failed
MODELS_TABLE = ("Deployed Models", "models")
CALLERS_TABLE = ("Callers", "callers")
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
USED = ["Caller", "Requests", "Denied", "Prompt Tokens", "Cached Tokens", "Generated Tokens"]
NO_LIMIT = "∞"
STATE, CALLERS, PAGE = "the state", "the callers", "the page of examples"  # what is shown


class Presence:
    """Keeps the task up to date: sends what differs from what was confirmed, one call at a time."""

    def __init__(
        self,
        task: ClearMLTask,
        overview: Overview,
        targets: Callable[[], Sequence[Target]],
        interval: float,
    ) -> None:
        """`interval`: seconds between updates; `targets`: the models as callers reach them."""
        self._task = task
        self._overview = overview
        self._targets = targets
        self._interval = interval
        # What the task shows now, as the SDK's thread has confirmed it.
        self._properties: dict[str, str] = {}
        self._live: dict[str, str] = {}
        self._rows: list[list[str]] = []
        self._used: list[list[str]] = []
        self._page = ""
        self._due = asyncio.Event()
        self._complaints = Complaints()
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send_on())

    def refresh(self) -> None:
        """Update now instead of at the end of the interval."""
        self._due.set()

    async def stop(self, budget: float) -> None:
        """Show that the instance is stopped, within `budget` seconds. Never raises."""
        if self._sending is not None:
            self._sending.cancel()
        await self._try(STATE, self._show_state(budget, status="stopped"))
        await self._try(CALLERS, self._show_callers(budget))

    async def _send_on(self) -> None:
        while True:
            self._due.clear()
            await self._overview.readings.renew()
            interval = self._interval
            if self._overview.phase is Phase.SETTING_UP:
                interval = min(PROGRESS, interval)
            again = await self._try(STATE, self._show_state())
            again |= await self._try(CALLERS, self._show_callers())
            await self._try(PAGE, self._show_page())  # a missing file server may stay away
            if again:
                interval = min(AGAIN, interval)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(interval, self._due.wait())

    async def _try(self, what: str, showing: Awaitable[None]) -> bool:
        """Whether to try again soon, as after a failure of ClearML's, which is logged once. What
        failed is sent again with the next update."""
        try:
            await showing
            self._complaints.worked(what)
        except ClearMLError as error:
            self._complaints.failed(what, error)
            return True
        except Exception:  # noqa: BLE001 the updates go on after a fault of ours
            logger.exception("%s could not be shown in ClearML", what)
        return False

    async def _show_state(self, deadline: float | None = None, **over: str) -> None:
        """Send the properties and the table that have changed; `over` replaces properties."""
        await self._task.look(deadline)
        found = properties(self._overview, clock.now(), self._targets()[0]) | over
        changed = {key: text for key, text in found.items() if self._properties.get(key) != text}
        rows = models_table(self._overview)
        table = Table(*MODELS_TABLE, rows) if rows != self._rows else None
        if changed or table is not None:
            await self._task.show(changed, table, deadline)
            self._properties, self._rows = found, rows
        live = live_state(self._overview, found)
        told = {key: text for key, text in live.items() if self._live.get(key) != text}
        if told:
            await self._task.tell(told, deadline)
            self._live = live

    async def _show_callers(self, deadline: float | None = None) -> None:
        """Send the table of callers if there is a keys file, and the table has changed."""
        rows = callers_table(self._overview)
        if rows != self._used:
            await self._task.show({}, Table(*CALLERS_TABLE, rows), deadline)
            self._used = rows

    async def _show_page(self) -> None:
        """Send the page of examples if callers reach the models in another way than before."""
        if self._overview.phase is not Phase.SERVING:
            return
        page = examples.page(self._targets())
        if page != self._page:
            await self._task.show_page(*EXAMPLE, page)
            self._page = page


def properties(overview: Overview, now: float, first: Target) -> dict[str, str]:
    """The user properties, escaped: ClearML's dashboard inserts them into HTML as they are."""
    limit = overview.idle_limit
    found = {
        "status": overview.status(now),
        "endpoint": overview.endpoint,
        "idle_hours": lasted(overview.idle(now)),
        "idle_limit_hours": lasting(limit) if limit else NO_LIMIT,
        "last_activity": last_activity(overview, now).isoformat(timespec="seconds"),
        "progress": progress(overview),
        "curl": examples.curl(first),
    }
    return {name: html.escape(text, quote=False) for name, text in found.items()}


def live_state(overview: Overview, shown: Mapping[str, str]) -> dict[str, str]:
    """What programs are told of the instance (`task.live.LIVE`)."""
    states = {view.name: view.state.value for view in overview.view()}
    given = {key: shown[key] for key in LIVE if key in shown}
    return {**given, MODELS: models(states), "endpoint": overview.endpoint}


def progress(overview: Overview) -> str:
    """Every model's state during the set-up; "" after it."""
    if overview.phase is not Phase.SETTING_UP:
        return ""
    coming = [f"{view.name}: {_state(view)}" for view in overview.view()]
    return ", ".join(coming)


def _state(view: View) -> str:
    """A model's state, with its progress or its reason."""
    if view.progress is not None:
        return f"{view.state.value} {view.progress:.0%}"
    return f"{view.state.value}: {view.reason}" if view.reason else view.state.value


def models_table(overview: Overview) -> list[list[str]]:
    """A row of headings, and a row for each model."""
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


def callers_table(overview: Overview) -> list[list[str]]:
    """A row of headings, and a row for each caller of the keys file; no row without one."""
    if overview.by_caller is None:
        return []
    found = [
        (name, used.requests, used.denied, used.prompt, used.cached, used.generated)
        for name, used in overview.by_caller.used.items()
    ]
    return [USED, *([str(cell) for cell in row] for row in found)]


def model_endpoints(
    overview: Overview, rates: Mapping[str, Rates], now: float
) -> list[ModelEndpoint]:
    """The rows of the Model Endpoints table. A model that failed has none. A model has a URL from
    its first load on, and every one once the instance serves: requests for a model that is not in
    memory wait for it."""
    served, found = overview.phase is not Phase.SETTING_UP, []
    for view in overview.view():
        if view.state is ModelState.FAILED:
            continue
        details = overview.models[view.name]
        rate = rates.get(view.name)
        row = ModelEndpoint(
            name=view.name,
            reference=details.reference,
            url=details.endpoint if served or view.switches else "",
            uptime=now - overview.begun,
            requests=view.requests,
            latency=(rate["latency"] or 0.0) * 1000 if rate is not None else 0.0,
        )
        found.append(row)
    return found
