"""Looks at the instances: each is asked on its own, how it stands and to stay, within its own
deadline. One that takes a connection and never answers delays none of the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from functools import partial

from app.errors import UpstreamError
from app.fleet.member import Member
from app.fleet.routes import Routes

logger = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds that a round waits for its looks; those that take longer go on


class Looks:
    def __init__(self, routes: Routes, door: str) -> None:
        """`door`: this door's name among others."""
        self._routes = routes
        self._door = door
        self._running: dict[Member, asyncio.Task[None]] = {}

    async def round(self, members: Iterable[Member]) -> None:
        """Look at those that are due, and that no look is at. Waits no longer than PATIENCE."""
        begun = [self._begin(m) for m in members if m not in self._running and m.due]
        if begun:
            await asyncio.wait(begun, timeout=PATIENCE)

    def stop(self) -> None:
        for running in self._running.values():
            running.cancel()

    def _begin(self, member: Member) -> asyncio.Task[None]:
        running = self._running[member] = asyncio.create_task(self._look(member))
        running.add_done_callback(partial(self._looked, member))
        return running

    def _looked(self, member: Member, running: asyncio.Task[None]) -> None:
        del self._running[member]
        if not running.cancelled() and (fault := running.exception()) is not None:
            logger.error("looking at task %s", member.task, exc_info=fault)

    async def _look(self, member: Member) -> None:
        before = member.problem
        await member.look()
        if member.problem and member.problem != before:
            logger.warning("task %s: %s", member.task, member.problem)
        self._routes.rename()
        state = self._routes.states.get(member.listed.route)
        if state is not None:
            state.tell()
        with contextlib.suppress(UpstreamError):  # it is said again
            await member.keep(self._door)
