"""Which points of a plot need not be sent: those between two of the same value. Pure.

A model that nobody asks has the same values every 15 seconds. A hundred of them would be 200,000
events an hour in ClearML's database that tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.telemetry.scalars import Point

SELDOM = 20  # windows: a value that stays is told once in 5 minutes


@dataclass(slots=True)
class _Stay:
    """A series whose value stays what was told."""

    told: Point
    left_out: Point | None = None  # the newest since then
    windows: int = 0  # since then
    pause: int = 1  # windows from the point told to the next one


class Thinning:
    """A value that stays is told after 1, 2, 4, … windows, and then every 5 minutes. Before a new
    value the old one is told once more, as it was a window before: so each plot has the shape that
    it would have with all points."""

    def __init__(self) -> None:
        self._stays: dict[tuple[str, str], _Stay] = {}

    def thin(self, points: Sequence[Point]) -> list[Point]:
        """Those of a window that are to be sent, and of the windows before."""
        before, self._stays = self._stays, {}
        kept: list[Point] = []
        for point in points:
            series = (point.title, point.series)
            stay = before.pop(series, None)
            self._stays[series] = _goes_on(stay, point, kept)
        kept += [stay.left_out for stay in before.values() if stay.left_out]  # these have ended
        return kept

    def rest(self) -> list[Point]:
        """The newest point of each series, where it was not sent: nothing comes behind them."""
        stays, self._stays = self._stays, {}
        return [stay.left_out for stay in stays.values() if stay.left_out]


def _goes_on(stay: _Stay | None, point: Point, kept: list[Point]) -> _Stay:
    if stay is None or stay.told.value != point.value:
        kept += [stay.left_out] if stay and stay.left_out else []
        kept.append(point)
        return _Stay(point)
    stay.windows += 1
    if stay.windows < stay.pause:
        stay.left_out = point
        return stay
    kept.append(point)
    return _Stay(point, pause=min(2 * stay.pause, SELDOM))
