"""Which points of a plot need not be sent: those between two of the same value. Pure.

A model that nobody asks has the same values every 15 seconds. A hundred of them would be 194,000
events an hour in ClearML's database that tell nothing. (Historians of processes call this a
deadband with a heartbeat.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.telemetry.scalars import Point

SELDOM = 300  # seconds, at most, between two points of a value that stays


@dataclass(slots=True)
class _Series:
    """`sent`: the newest point that was sent; `skipped`: the newest since then, which has the same
    value; `pause`: seconds from the one sent to the next one, if the value stays."""

    sent: Point
    skipped: Point | None = None
    pause: int = 0


class Thinning:
    """A value that stays is sent in the next window, then after 30 seconds, one minute, two, and at
    last every 5 minutes. Before a new value the old one is sent once more, as it was a window
    before: so the line of each plot is the one that it would be with all points."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}

    def thin(self, points: Sequence[Point]) -> list[Point]:
        """Those of a window that are to be sent, and of the windows before."""
        before, self._series = self._series, {}
        kept: list[Point] = []
        for point in points:
            name = (point.title, point.series)
            self._series[name] = _go_on(before.pop(name, None), point, kept)
        kept += [series.skipped for series in before.values() if series.skipped]  # these have ended
        return kept

    def rest(self) -> list[Point]:
        """The newest point of each series, where it was not sent: nothing comes behind them."""
        return [series.skipped for series in self._series.values() if series.skipped]


def _go_on(series: _Series | None, point: Point, kept: list[Point]) -> _Series:
    if series is None or series.sent.value != point.value:
        kept += [series.skipped] if series and series.skipped else []
        kept.append(point)
        return _Series(point)
    since = point.iteration - series.sent.iteration
    if since < series.pause:
        series.skipped = point
        return series
    kept.append(point)
    return _Series(point, pause=min(2 * since, SELDOM))
