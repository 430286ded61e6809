"""ClearML's Model Endpoints table: a row for every model, from its loading to our end.

The server forgets a row that nobody reports for so long (a killed instance's); a server that has
no such table is asked once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import ConfigError
from app.machine import clock
from app.task.clearml_task import ClearMLTask
from app.task.sdk import SdkTimeoutError

logger = logging.getLogger(__name__)

INTERVAL = 30.0
LIFETIME = 120  # seconds
DEADLINE = 15.0


@dataclass(frozen=True, kw_only=True)
class ModelEndpoint:
    """One model: `url` is "" until it is served; `latency` in ms."""

    name: str
    reference: str
    url: str
    uptime: float
    requests: int
    latency: float


class Endpoints:
    def __init__(
        self,
        task: ClearMLTask,
        rows: Callable[[], Sequence[ModelEndpoint]],
        machine: Callable[[], Mapping[str, object]],
    ) -> None:
        """`machine` as `machine_stats` of the server's workers: percent, MB."""
        self._task = task
        self._rows = rows
        self._machine = machine
        self._registered: set[str] = set()
        self._before: dict[str, tuple[float, int]] = {}  # time and requests of the last report
        self._due = asyncio.Event()
        self._known = True  # that the server has the table
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        if not self._task.offline:
            self._reporting = asyncio.create_task(self._report_on())

    async def stop(self) -> None:
        """Take every row out of the table."""
        if self._reporting is not None:
            self._reporting.cancel()
        for name in sorted(self._registered):
            await self._ask("unregister_container", {"container_id": self._id(name)})
        self._registered.clear()

    def refresh(self) -> None:
        """Report at once: a model has come."""
        self._due.set()

    async def _report_on(self) -> None:
        while self._known:
            self._due.clear()
            await self.report()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._due.wait(), INTERVAL)

    async def report(self) -> None:
        machine = dict(self._machine())
        for row in self._rows():
            fields = {
                "container_id": self._id(row.name),
                "endpoint_name": row.name,
                "model_name": row.name,
                "model_source": row.reference,
                "reference": [{"type": "task", "value": self._task.task_id}],
            }
            if row.name not in self._registered:
                asked = {**fields, "timeout": LIFETIME}
                if not await self._ask("register_container", asked):
                    return
                self._registered.add(row.name)
            if row.url:
                told = {
                    **fields,
                    "endpoint_url": row.url,
                    "uptime_sec": int(row.uptime),
                    "requests_num": row.requests,
                    "requests_min": self._per_minute(row),
                    "latency_ms": int(row.latency),
                    "machine_stats": machine,
                }
                await self._ask("container_status_report", told)

    def _per_minute(self, row: ModelEndpoint) -> float:
        now = clock.now()
        then, requests = self._before.get(row.name, (now - row.uptime, 0))
        self._before[row.name] = (now, row.requests)
        return round(60 * (row.requests - requests) / max(1.0, now - then), 2)

    def _id(self, name: str) -> str:
        return f"{self._task.task_id}-{name}"

    async def _ask(self, action: str, fields: Mapping[str, Any]) -> bool:
        try:
            await self._task.ask("serving", action, fields, DEADLINE)
        except ConfigError as error:  # the server says no
            if "unknown" in str(error).lower() or "unsupported" in str(error).lower():
                self._known = False
                logger.info("this ClearML server has no Model Endpoints table")
            else:
                logger.debug("%s", error)
            return False
        except (SdkTimeoutError, OSError, ValueError) as error:
            logger.debug("serving.%s: %s", action, error)
            return False
        return True
