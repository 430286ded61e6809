"""The other doors of the same routes. Each door's task tells which routes it serves, so that the
last one of a route takes back what nobody waits for any more."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from app.fleet.listing import LIVING, RUNNING, seconds
from app.fleet.server import Server
from app.task import live

PROPERTY = live.PREFIX + live.DOOR
FIELDS = ["id", "last_update", f"runtime.{PROPERTY}"]
PAGE = 500  # tasks of a listing: instances are among them


def told(routes: Iterable[str], task: str) -> str:
    """What the task of a door tells of its routes. Their names have no blanks."""
    return live.belongs(" ".join(routes), task)


async def others(server: Server, project: str, task: str) -> set[str]:
    """The names of the routes that doors besides the one of this task serve, whose tasks are in a
    project, by its ID. Raises ClearMLError."""
    tasks: list[Mapping[str, Any]] = []
    wish = {"project": [project], "status": [RUNNING], "only_fields": FIELDS, "page_size": PAGE}
    for page in itertools.count():
        found = await server.dated("tasks", "get_all_ex", {**wish, "page": page})
        tasks += found.get("tasks") or []
        if len(tasks) < (page + 1) * PAGE:
            break
    now = server.now
    names: set[str] = set()
    for each in tasks:
        owner, *routes = str((each.get("runtime") or {}).get(PROPERTY) or "").split(" ")
        lives = now - seconds(each.get("last_update"), now) <= LIVING
        if lives and owner == each["id"] and owner != task:
            names.update(routes)
    return names
