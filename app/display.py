"""Keeps what ClearML shows of an instance up to date: sends what has changed, now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from app import dashboard, examples
from app.examples import Target
from app.gateway.status import Overview, Phase
from app.task.connection import Connection, Table

logger = logging.getLogger(__name__)

PROGRESS = 5.0  # seconds between two looks, while models are on their way


class Display:
    def __init__(
        self,
        connection: Connection,
        overview: Overview,
        targets: Callable[[], Sequence[Target]],
        interval: float,
    ) -> None:
        """`interval` in seconds: how often the last activity is told."""
        self._connection = connection
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
        found = dashboard.properties(self._overview, time.monotonic(), targets[0]) | over
        changed = {key: text for key, text in found.items() if self._shown.get(key) != text}
        rows = dashboard.models_table(self._overview)
        table = Table(*dashboard.MODELS_TABLE, rows) if rows != self._rows else None
        self._shown, self._rows = found, rows
        if changed or table is not None:
            self._connection.show(changed, table)
        self._show_page(targets)

    def _show_page(self, targets: Sequence[Target]) -> None:
        """The page of examples, whenever the models are reached in another way."""
        if self._overview.phase is not Phase.SERVING:
            return
        page = examples.page(targets)
        if page != self._page:
            self._page = page
            self._connection.show_page(*dashboard.EXAMPLE, page)

    async def _tick(self) -> None:
        while True:
            setting_up = self._overview.phase is Phase.SETTING_UP
            await asyncio.sleep(min(PROGRESS, self._interval) if setting_up else self._interval)
            try:
                self.update()
            except Exception:  # noqa: BLE001 one that fails must not end the next ones
                logger.exception("the task's page could not be brought up to date")
