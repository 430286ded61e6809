"""The lock of a route, which a door holds while it orders an instance.

The server has no compare-and-set for tasks: of sixteen who look and then clone, all sixteen clone.
Names of queues are unique: of all who create a queue of one name one succeeds. Whoever finds the
lock taken leaves the order to its holder. Where no queue may be created there is no lock, and the
doors agree by drafts (`app/fleet/drafts.py`).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Any

from app.fleet.listing import seconds
from app.fleet.server import Server
from app.task.api import RefusedError
from app.task.sdk import ClearMLError

logger = logging.getLogger(__name__)

STALE = 30.0  # seconds of a lock, by the server's clock, whose holder must be gone


class Lock:
    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._queue = ""

    @property
    def held(self) -> bool:
        """Whether there is such a lock, and it is ours."""
        return bool(self._queue)

    async def take(self) -> bool:
        """Whether we may go on; False if another door has it, or seems to: nobody knows of a
        request whose answer was lost. Raises ClearMLError."""
        for last in (False, False, True):
            try:
                made = await self._server.ask("queues", "create", {"name": self._name})
            except RefusedError:
                holder = await self._holder()
                if holder is not None:
                    await self._break_if_stale(holder)
                    return False
                if last:
                    break
            else:
                self._queue = str(made["id"])
                return True
        logger.info("no queue %r can be created: the doors agree by drafts", self._name)
        return True

    async def give_back(self) -> str:
        """The ID of a queue that may be left where this fails, which another door breaks if it
        orders first; else ""."""
        try:
            if self._queue:
                await remove(self._server, self._queue)
        except ClearMLError as error:
            logger.warning("%s", error)
            return self._queue
        return ""

    async def _holder(self) -> Mapping[str, Any] | None:
        wish = {"name": f"^{re.escape(self._name)}$"}
        found = (await self._server.dated("queues", "get_all", wish)).get("queues") or []
        return next((each for each in found if each["name"] == self._name), None)

    async def _break_if_stale(self, holder: Mapping[str, Any]) -> None:
        now = self._server.now
        if now - seconds(holder.get("created"), now) > STALE:
            await remove(self._server, str(holder["id"]))


async def remove(server: Server, queue: str) -> None:
    """Delete a lock. One that is gone already is as good. Raises ClearMLError."""
    with contextlib.suppress(RefusedError):
        await server.ask("queues", "delete", {"queue": queue, "force": True})
