"""How doors order one instance among them where they may create no queue, and so have no lock.

Each makes its task as a draft, with a name that all doors know. A second later, when all see the
drafts of all, the oldest is the one that is enqueued; whoever made another one deletes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from app.fleet.listing import seconds
from app.fleet.lock import STALE
from app.fleet.server import Server

ORDERING = " (ordering)"  # the end of a draft's name
PAUSE = 1.0  # seconds from a draft until all doors must have made theirs


class Drafts:
    def __init__(self, server: Server, project: str, name: str) -> None:
        """`project`, by ID, is where drafts are made; `name`: of the task, once it is enqueued."""
        self._server = server
        self._project = project
        self._name = name

    async def first(self, task: str) -> bool:
        """Whether this draft, which was just made, is to be enqueued. Raises ClearMLError."""
        await asyncio.sleep(PAUSE)
        name = self._name + ORDERING
        wish = {
            "project": [self._project],
            "status": ["created"],
            "name": f"^{re.escape(name)}$",
            "only_fields": ["id", "name", "created"],
            "search_hidden": True,
        }
        found = (await self._server.dated("tasks", "get_all_ex", wish)).get("tasks") or []
        drafts = [each for each in found if each.get("name") == name]
        oldest = min(filter(self._counts, drafts), key=_age, default=None)
        return oldest is not None and bool(oldest["id"] == task)

    def _counts(self, draft: Mapping[str, Any]) -> bool:
        """Unless the door that made it must be gone."""
        now = self._server.now
        return now - seconds(draft.get("created"), now) <= STALE

    async def rename(self, task: str) -> None:
        """It is in the queue. Raises ClearMLError."""
        change = {"task": task, "name": self._name, "force": True}
        await self._server.ask("tasks", "edit", change)


def _age(draft: Mapping[str, Any]) -> tuple[float, str]:
    return seconds(draft.get("created"), 0.0), str(draft["id"])
