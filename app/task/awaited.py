"""Wait until tasks serve."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from app.machine import clock
from app.task.api import RefusedError
from app.task.sdk import ClearMLError, Complaints
from app.task.served import Served, standing

POLL = 3.0  # seconds
QUIET = 15.0  # seconds between two lines that differ in their numbers only
NUMBER = re.compile(r"\d+")

logger = logging.getLogger(__name__)


class Tasks(Protocol):
    """What is asked of ClearML's server."""

    async def served(self, tasks: Sequence[str]) -> Mapping[str, Served]: ...


class Progress:
    """Says how each task stands when that changes, but not every percent."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def tell(self, found: Served) -> None:
        text, now = standing(found), clock.now()
        before, since = self._said.get(found.task, ("", 0.0))
        alike = NUMBER.sub("", text) == NUMBER.sub("", before)
        if text == before or (alike and now - since < QUIET):
            return
        self._said[found.task] = (text, now)
        logger.info("%s (%s): %s", found.task, found.name, text)


class Awaited:
    """Tasks of which each is to serve. `tell` is called with each that does."""

    def __init__(self, tasks: Tasks, ids: Sequence[str], tell: Callable[[Served], None]) -> None:
        self._tasks = tasks
        self._tell = tell
        self._waiting = list(ids)
        self._progress, self._complaints = Progress(), Complaints()
        self._failed = False

    async def serve(self, seconds: float) -> bool:
        """Whether all serve within `seconds`; logs why one does not. An outage of the server is
        waited for. Raises RefusedError."""
        last = clock.now() + seconds
        while True:
            await self._look()
            if not self._waiting:
                return not self._failed
            if clock.now() >= last:
                break
            await asyncio.sleep(min(POLL, max(last - clock.now(), 0.0)))
        for each in self._waiting:
            logger.error("%s does not serve after %g minutes, and goes on", each, seconds / 60)
        return False

    async def _look(self) -> None:
        try:
            looked = await self._tasks.served(self._waiting)
        except RefusedError:
            raise
        except ClearMLError as error:
            self._complaints.failed("", f"{error}; trying again")
            return
        self._complaints.worked("")
        self._waiting = [each for each in self._waiting if self._waits(each, looked.get(each))]

    def _waits(self, task: str, found: Served | None) -> bool:
        """Whether this one is still to be waited for; if not, that is said."""
        if found is not None and found.serves:
            self._tell(found)
            return False
        if found is not None and not found.over:
            self._progress.tell(found)
            return True
        why = "it was deleted" if found is None else standing(found)
        logger.error("%s does not serve: %s", task, why)
        self._failed = True
        return False
