"""Requests of a door to ClearML's server, and the server's time."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from app.machine import clock
from app.task import api
from app.task.clearml_task import ClearMLTask

DEADLINE = 20.0  # seconds


class Server:
    def __init__(self, task: ClearMLTask) -> None:
        """`task`: the door's own, whose session is used."""
        self._task = task
        self._ahead = 0.0  # of our clock, in seconds

    @property
    def now(self) -> float:
        """Its time, in seconds since 1970, by the date of its last answer to `dated`."""
        return clock.wall() + self._ahead

    async def ask(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The data of the answer. Raises ClearMLError."""
        return await self._task.ask(service, action, fields, DEADLINE)

    async def dated(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """As `ask`; the answer's date sets what we take for the server's time."""
        call = f"{service}.{action}"
        found, date = await self._task.call(
            call, lambda _: api.dated(service, action, fields), DEADLINE
        )
        self._ahead = (_time(date) or clock.wall()) - clock.wall()
        return found


def _time(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
