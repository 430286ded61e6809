"""Requests of a door to ClearML's server, and the server's time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from app.machine import clock
from app.task.clearml_task import ClearMLTask

T = TypeVar("T")
DEADLINE = 20.0  # seconds
AWAY, KEPT = 30.0, 16  # seconds without a listing that are an outage; how many are kept


class Server:
    """Each request is one try: the SDK would not give up for hours."""

    def __init__(self, task: ClearMLTask) -> None:
        """`task`: the door's own, whose session is used."""
        self._task = task
        self._ahead = 0.0  # of our clock, in seconds
        self._heard = -math.inf  # when it last listed
        self._away: deque[tuple[float, float]] = deque(maxlen=KEPT)

    @property
    def now(self) -> float:
        """Its time, in seconds since 1970, by the date of its last answer to `dated`."""
        return clock.wall() + self._ahead

    def outages(self) -> Sequence[tuple[float, float]]:
        """Begin and end of the last ones, by its time. It has just listed."""
        away = clock.now() - self._heard
        if AWAY < away < math.inf:
            self._away.append((self.now - away, self.now))
        self._heard = clock.now()
        return self._away

    async def ask(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float = DEADLINE
    ) -> dict[str, Any]:
        """The data of the answer. Raises ClearMLError: NoAnswerError where the request may have had
        an effect all the same."""
        return (await self._task.once(service, action, fields, min(deadline, DEADLINE)))[0]

    async def dated(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """As `ask`; the answer's date sets what we take for the server's time."""
        found, date = await self._task.once(service, action, fields, DEADLINE)
        self._ahead = (_time(date) or clock.wall()) - clock.wall()
        return found

    async def call(self, name: str, function: Callable[[Any], T], deadline: float) -> T:
        """As `ClearMLTask.call`."""
        return await self._task.call(name, function, deadline)


def _time(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
