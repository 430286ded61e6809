"""What the door's own task shows: the routes, their instances, and where callers reach them."""

from __future__ import annotations

import asyncio
import logging

from app.fleet import doors
from app.fleet.routes import Routes
from app.instance.ending import Ending
from app.task import live
from app.task.clearml_task import ClearMLTask
from app.task.reporting import Table
from app.task.sdk import ClearMLError, Complaints

logger = logging.getLogger(__name__)

INTERVAL = 15.0  # seconds
LAST = 2.0  # seconds for the last state
HEADINGS = ("route", "task", "machine", "state", "slots", "in flight", "models")
STOPPED = "stopped"
TABLE, SERIES = "Routes", "instances"


class Reports:
    def __init__(self, task: ClearMLTask, routes: Routes, endpoint: str) -> None:
        self._task = task
        self._routes = routes
        self._endpoint = endpoint
        self._complaints = Complaints()
        self._shown: tuple[object, ...] = ()

    def start(self, ending: Ending) -> None:
        running = asyncio.create_task(self._run())

        async def stop(seconds: float) -> None:
            running.cancel()
            await self._show(STOPPED, seconds)

        ending.push("the door's page", stop, LAST)

    async def _run(self) -> None:
        while True:
            serves = any(state.serving() for state in self._routes.states.values())
            await self._show("active" if serves else "idle", None)
            await asyncio.sleep(INTERVAL)

    async def _show(self, status: str, deadline: float | None) -> None:
        rows = self._rows()
        shown = status, rows, list(self._routes.states)
        if shown == self._shown:
            return
        state = {"status": status, "endpoint": self._endpoint}
        ours = () if status == STOPPED else self._routes.states
        told = {live.DOOR: doors.told(ours, self._task.task_id)}
        try:
            await self._task.tell(state | told, deadline)
            await self._task.show(state, Table(TABLE, SERIES, [HEADINGS, *rows]), deadline)
        except ClearMLError as error:
            self._complaints.failed("", f"{error}; the last state stands")
        else:
            self._complaints.worked("")
            self._shown = shown

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for name, state in self._routes.states.items():
            for member in state.members.values():
                models = ", ".join(f"{n}: {seen.state}" for n, seen in member.models.items())
                told = "leaving" if member.leaving else member.state or "unknown"
                in_flight = str(member.in_flight)
                where = member.where
                rows.append((name, member.task, where, told, str(member.slots), in_flight, models))
            rows += [
                (name, task, each.machine, each.status, "", "", "")
                for task, each in state.listed.items()
            ]
        return rows
