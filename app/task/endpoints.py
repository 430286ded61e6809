"""ClearML's Model Endpoints table: a row for every model, from its first load to the end.

The server drops a row that is not reported for its lifetime, so the rows of an instance that was
killed disappear by themselves. A row that appears, disappears or gets another URL is told at once.
A server that does not have the table is asked once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.machine import clock
from app.machine.deadline import within
from app.task import api
from app.task.api import RefusedError
from app.task.clearml_task import ClearMLTask
from app.task.sdk import ClearMLError, Complaints, one_line

logger = logging.getLogger(__name__)

INTERVAL = 30.0
LOOK = 1.0  # seconds between two looks at whether a row has changed; they ask nobody
LIFETIME = 120  # seconds
DEADLINE = 15.0
TABLE = "the Model Endpoints table"


@dataclass(frozen=True, kw_only=True)
class ModelEndpoint:
    """A row of the table. `url` is "" until the model is served, `uptime` is in seconds, `latency`
    in milliseconds."""

    name: str
    reference: str
    url: str
    uptime: float
    requests: int
    latency: float


def container_of(task_id: str, name: str) -> str:
    """The ID of a model's row."""
    return f"{task_id}-{name}"


@dataclass(frozen=True)
class Reported:
    """The last report of a row: its time, and the model's requests so far."""

    at: float
    requests: int


class Endpoints:
    def __init__(
        self,
        task: ClearMLTask,
        rows: Callable[[], Sequence[ModelEndpoint]],
        machine: Callable[[], Mapping[str, object]],
    ) -> None:
        """`machine` returns the `machine_stats` of ClearML's workers: percent and MB."""
        self._task = task
        self._rows = rows
        self._machine = machine
        self._reported: dict[str, Reported] = {}
        self._asked: set[str] = set()  # the rows that the server may have
        self._told: set[tuple[str, str]] = set()  # names and URLs, as last reported or tried
        self._due = asyncio.Event()
        self._known = True  # whether the server has the table
        self._complaints = Complaints()
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        if not self._task.offline:
            self._reporting = asyncio.create_task(self._report_on())

    async def stop(self, budget: float) -> None:
        """Remove every row from the table, within `budget` seconds. Never raises."""
        if self._reporting is not None:
            self._reporting.cancel()
        names, self._asked = sorted(self._asked), set()
        # All at once: the SDK's one thread sends them in turn, and all have the same deadline.
        leaving = [self._ask("unregister_container", name, {}, budget) for name in names]
        failures = [each for each in await asyncio.gather(*leaving, return_exceptions=True) if each]
        if failures and self._known:
            self._complain(f"{len(failures)} rows stay up to {LIFETIME} s", failures[0])

    def refresh(self) -> None:
        """Report now instead of at the end of the interval."""
        self._due.set()

    async def _report_on(self) -> None:
        while True:
            self._due.clear()
            try:
                await self.report()
                self._complaints.worked(TABLE)
            except Exception as error:  # noqa: BLE001 the reports go on after one that fails
                self._complain("out of date", error)
            if not self._known:
                return
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait for the end of the interval, or until there is something new to tell."""
        end = clock.now() + INTERVAL
        while not self._due.is_set() and clock.now() < end and _urls(self._rows()) == self._told:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(LOOK, self._due.wait())

    def _complain(self, what: str, error: BaseException) -> None:
        why = str(error) if isinstance(error, ClearMLError) else one_line(error)
        self._complaints.failed(TABLE, f"{TABLE}: {what}: {why}")

    async def report(self) -> None:
        """Report every row, and remove those that are no more. Raises ClearMLError at the first row
        that gets no answer, and after the last row if one was refused."""
        rows = self._rows()
        self._told = _urls(rows)
        machine = dict(self._machine())
        refusal = None
        for name in sorted(self._asked - {row.name for row in rows}):
            await self._ask("unregister_container", name, {}, DEADLINE)
            self._asked.discard(name)
            self._reported.pop(name, None)
        for row in rows:
            try:
                await self._report(row, machine)
            except RefusedError as error:
                if api.unknown_action(error):
                    self._known = False
                    self._asked.clear()
                    logger.info("this ClearML server has no Model Endpoints table")
                    return
                refusal = refusal or error
        if refusal is not None:
            raise refusal

    async def _report(self, row: ModelEndpoint, machine: Mapping[str, object]) -> None:
        fields = {
            "endpoint_name": row.name,
            "model_name": row.name,
            "model_source": row.reference,
            "reference": [{"type": "task", "value": self._task.task_id}],
        }
        # The server refuses a status report without a URL, and a registration restarts the row's
        # lifetime: so a row without a URL is registered each time. So is one that was dropped.
        if not row.url or not self._is_kept(row.name):
            self._asked.add(row.name)
            lifetime = {"timeout": LIFETIME}
            await self._ask("register_container", row.name, {**fields, **lifetime}, DEADLINE)
        now = clock.now()
        if row.url:
            status = {
                "endpoint_url": row.url,
                "uptime_sec": int(row.uptime),
                "requests_num": row.requests,
                "requests_min": self._per_minute(row, now),
                "latency_ms": int(row.latency),
                "machine_stats": machine,
            }
            await self._ask("container_status_report", row.name, {**fields, **status}, DEADLINE)
        self._reported[row.name] = Reported(now, row.requests)

    def _is_kept(self, name: str) -> bool:
        """Whether the row's lifetime has not ended."""
        reported = self._reported.get(name)
        return reported is not None and clock.now() - reported.at < LIFETIME

    def _per_minute(self, row: ModelEndpoint, now: float) -> float:
        before = self._reported.get(row.name, Reported(now - row.uptime, 0))
        return round(60 * (row.requests - before.requests) / max(1.0, now - before.at), 2)

    async def _ask(self, action: str, name: str, fields: Mapping[str, Any], budget: float) -> None:
        container = {"container_id": container_of(self._task.task_id, name)}
        await self._task.write("serving", action, {**container, **fields}, budget)


def _urls(rows: Sequence[ModelEndpoint]) -> set[tuple[str, str]]:
    return {(row.name, row.url) for row in rows}
