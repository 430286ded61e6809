"""Every few seconds: what happened since the last time, as the task's scalars."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from app.task.connection import Point
from app.telemetry.windows import Rates, Windows

logger = logging.getLogger(__name__)

INTERVAL = 15.0

REQUESTS = "Total Number of Requests"
TOKENS_PER_SECOND = "Tokens per Second"
LATENCY = "Latency"
GENERATED = "Generated Tokens"
PROMPT = "Prompt Tokens"


def points(rates: Mapping[str, Rates], iteration: int) -> list[Point]:
    """The scalars of one window; latency in milliseconds, and no point where nothing ended."""
    found = []
    for series, rate in rates.items():
        found += [
            Point(REQUESTS, series, rate.requests, iteration),
            Point(TOKENS_PER_SECOND, series, rate.tokens_per_second, iteration),
            Point(GENERATED, series, rate.generated_tokens, iteration),
            Point(PROMPT, series, rate.prompt_tokens, iteration),
        ]
        if rate.latency is not None:
            found.append(Point(LATENCY, series, rate.latency * 1000, iteration))
    return found


class Reporter:
    def __init__(
        self,
        windows: Windows,
        send: Callable[[list[Point]], None],
        clock: Callable[[], float],
        interval: float = INTERVAL,
    ) -> None:
        self._windows = windows
        self._send = send
        self._clock = clock
        self._begun = clock()
        self._interval = interval
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._ticking = asyncio.create_task(self._tick())

    def stop(self) -> None:
        """Report the last, shorter window."""
        if self._ticking is not None:
            self._ticking.cancel()
        self.report()

    def report(self) -> None:
        now = self._clock()
        self._send(points(self._windows.close(now), int(now - self._begun)))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                self.report()
            except Exception:  # noqa: BLE001 a report that fails must not end the next ones
                logger.exception("the report failed")
