"""Reports the task's scalars every few seconds: what happened since the report before, and the
values of the moment. What a plot does not need is left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.task.thinning import Thinning
from app.telemetry import scalars
from app.telemetry.overview import Overview
from app.telemetry.scalars import Point
from app.telemetry.sources import BySeries
from app.telemetry.windows import Rates, Windows

logger = logging.getLogger(__name__)

INTERVAL = 15.0


@dataclass(frozen=True)
class Gauge:
    """A scalar's value at this moment, in its unit."""

    title: str
    series: str
    value: float


class Reporter:
    def __init__(
        self,
        windows: Windows,
        send: Callable[[list[Point], float], None],
        clock: Callable[[], float],
        gauges: Callable[[float], Sequence[Gauge]] = lambda _: (),
        interval: float = INTERVAL,
    ) -> None:
        """`send` is given points, some of them older, and the seconds since the start."""
        self._windows = windows
        self._send = send
        self._clock = clock
        self._gauges = gauges
        self._begun = clock()
        self._interval = interval
        self._ticking: asyncio.Task[None] | None = None
        self._thinning = Thinning()
        self.last: Mapping[str, Rates] = {}  # of the window before this one

    def start(self) -> None:
        self._ticking = asyncio.create_task(self._tick())

    def stop(self) -> None:
        """Report the last, shorter window; a failure is logged, so that the task's end goes on."""
        if self._ticking is not None:
            self._ticking.cancel()
        self._report_or_log(last=True)

    def report(self, *, last: bool = False) -> None:
        now = self._clock()
        since = now - self._begun
        at = int(since)
        gauges = [Point(g.title, g.series, g.value, at) for g in self._gauges(now)]
        self.last = self._windows.close(now)
        kept = self._thinning.thin(points(self.last, at) + gauges)
        self._send(kept + self._thinning.rest() if last else kept, since)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            self._report_or_log()

    def _report_or_log(self, *, last: bool = False) -> None:
        try:
            self.report(last=last)
        except Exception:  # noqa: BLE001 neither the next reports nor the end depend on this one
            logger.exception("the report failed")


def points(rates: Mapping[str, Rates], iteration: int) -> list[Point]:
    """The scalars of one window, by series; no point where there is no value."""
    return [
        Point(row.title, series, row.unit.of(value), iteration)
        for series, values in rates.items()
        for row in scalars.reported()
        if (value := values.get(row.key)) is not None
    ]


def gauges(overview: Overview, now: float) -> list[Gauge]:
    """The values of this moment, by model and in total."""
    return [
        Gauge(row.title, series, row.unit.of(value))
        for row in scalars.reported()
        if isinstance(row.source, BySeries)
        for series, value in row.source.series(overview, now).items()
        if value is not None
    ]
