"""What a door asks of ClearML's server: which instances there are, and to start one.

The server has no compare-and-set for tasks: of sixteen who look and then clone, all sixteen clone.
Names of queues are unique, so that a queue is the lock of a route while an instance is ordered: of
all who create it one succeeds. Whoever finds the lock taken leaves the order to its holder.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from app.errors import ConfigError
from app.fleet import listing
from app.fleet.config import Route
from app.fleet.listing import Listed, seconds
from app.form.fields import GENERAL
from app.form.merge import merge, parse
from app.form.settings import Settings
from app.machine import clock
from app.task import api, launch, live
from app.task.api import RefusedError
from app.task.checkout import Script
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher
from app.task.sdk import ClearMLError
from app.task.served import Served

DEADLINE = 20.0  # seconds
STALE = 30.0  # seconds of a lock, by the server's clock, whose holder must be gone
PAGE, MOST_PAGES = 500, 40  # tasks of a listing
LONGEST = 200  # characters of a line
CONFIGURATION = "routes"
ABOUT = "the routes of this door; edited here, they change within seconds"
ROUTE_FIELD = f"{GENERAL}/gateway_route"
QUEUE_FIELD = f"{GENERAL}/queue"


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a task waits: its place in the queue, from 1 (0: it is not there any more), and how
    many workers take tasks from that queue."""

    queue: str
    place: int
    workers: int


class Orders:
    """Every method raises ConfigError, and says what the server says."""

    def __init__(self, task: ClearMLTask, project: str, script: Script | None) -> None:
        """`project`, by name, is where instances are, unless their route names another; `script`:
        what agents run for a form, None if that is not known."""
        self._task = task
        self._project = project
        self._script = script
        self._launcher = Launcher(task)
        self._projects: dict[str, str] = {}
        self._ahead = 0.0  # of the server's clock, in seconds

    async def listed(self, routes: Sequence[Route]) -> list[Listed]:
        """The instances of all routes, and those that are to come."""
        projects = [await self._project_of(route) for route in routes]
        fields = {
            "project": sorted(set(projects)),
            "status": [listing.QUEUED, listing.RUNNING],
            "only_fields": ["id", *listing.FIELDS],
            "search_hidden": True,
            "page_size": PAGE,
        }
        tasks: list[Mapping[str, Any]] = []
        for page in range(MOST_PAGES):
            found = await self._dated("tasks", "get_all_ex", {**fields, "page": page})
            tasks += found.get("tasks") or []
            if len(tasks) < (page + 1) * PAGE:
                return listing.read(tasks, self._now())
        raise ClearMLError(f"ClearML: more than {MOST_PAGES * PAGE} tasks run in the project")

    async def settings(self, route: Route) -> Settings:
        """What the route's instances will be told. Raises ConfigError."""
        return parse(merge(await self._form(route), {}, {}))

    async def start(
        self, route: Route, wanted: int, counts: Callable[[Listed], bool]
    ) -> str | None:
        """Start one instance, if fewer than `wanted` of those that are listed count; the ID of its
        task. None if there are as many, or another door is at it."""
        lock = await self._lock(route)
        if lock is None:
            return None
        begun = clock.now()
        try:
            listed = [each for each in await self.listed([route]) if each.route == route.name]
            if sum(map(counts, listed)) >= wanted:
                return None
            return await self._start(route, begun)
        finally:
            if lock:
                await self._unlock(lock)

    async def _unlock(self, lock: str) -> None:
        """Another door breaks it where this fails."""
        try:
            await self._ask("queues", "delete", {"queue": lock, "force": True})
        except ClearMLError as error:
            logger.warning("%s", error)

    async def _start(self, route: Route, begun: float) -> str:
        form = await self._form(route)
        queue = await self._launcher.queue(route.queue or form.get(QUEUE_FIELD, ""))
        task = await self._made(route, form, await self._project_of(route))
        try:
            await self._join(task, route)
            if clock.now() - begun > STALE:
                raise ClearMLError(f"ClearML: ordering an instance took more than {STALE:g} s")
            await self._launcher.enqueue(task, queue)
        except BaseException:
            with contextlib.suppress(ClearMLError):
                await self._ask("tasks", "delete", {"task": task, "force": True})
            raise
        return task

    async def _join(self, task: str, route: Route) -> None:
        if route.template:
            parameter = {"section": GENERAL, "name": "gateway_route", "value": route.name}
            change = {"task": task, "hyperparams": [parameter], "replace_hyperparams": "none"}
            await self._ask("tasks", "edit_hyper_params", change)
        told = {live.ROUTE: live.belongs(route.name, task), live.VERSION: route.version}
        try:
            await self._ask("tasks", "edit_runtime", live.edit(task, told))
        except RefusedError as error:
            if not api.unknown_action(error):
                raise
            await self._ask("tasks", "edit", {"task": task, "runtime": told, "force": True})

    async def _made(self, route: Route, form: Mapping[str, str], project: str) -> str:
        name = launch.task_name(route.name)
        if not route.template:
            if self._script is None:
                raise ConfigError(
                    f"route {route.name}: a form needs --repo: what agents are to run"
                )
            described = launch.describe(name, self._script, form)
            return str(
                (await self._ask("tasks", "create", {**described, "project": project}))["id"]
            )
        wish = {"task": route.template, "new_task_name": name, "new_task_project": project}
        return str((await self._ask("tasks", "clone", wish))["id"])

    async def _form(self, route: Route) -> dict[str, str]:
        given = dict(route.form) or await self._launcher.parameters(route.template)
        given[ROUTE_FIELD] = route.name
        if route.queue:
            given[QUEUE_FIELD] = route.queue
        if route.template:
            return given
        return merge(given, {}, {}).to_write()

    async def _lock(self, route: Route) -> str | None:
        """The ID of a queue that nobody else has made; None if another door has, "" if this user
        may make none."""
        name = f"llamacpp-route {route.project or self._project} {route.name}"
        for last in (False, False, True):
            try:
                return str((await self._ask("queues", "create", {"name": name}))["id"])
            except RefusedError:
                holder = await self._holder(name)
                if holder is None and last:
                    return await self._without_lock(name)
                if holder is not None:
                    await self._break_if_stale(holder)
                    return None
        raise AssertionError("the last try returns or raises")

    async def _without_lock(self, name: str) -> str:
        """Nobody has it, and we may make none."""
        logger.warning(
            "no queue %r can be made, which would keep doors from starting an instance at once: "
            "several doors may start one each",
            name,
        )
        return ""

    async def _holder(self, name: str) -> Mapping[str, Any] | None:
        found = await self._dated("queues", "get_all", {"name": f"^{re.escape(name)}$"})
        return next((each for each in found.get("queues") or [] if each["name"] == name), None)

    async def _break_if_stale(self, lock: Mapping[str, Any]) -> None:
        if self._now() - seconds(lock.get("created"), self._now()) > STALE:
            await self._ask("queues", "delete", {"queue": lock["id"], "force": True})

    async def standing(self, tasks: Sequence[str]) -> dict[str, Served]:
        return await self._launcher.served(tasks) if tasks else {}

    async def place(self, task: str, route: Route) -> Place:
        """Where a queued task waits."""
        form = await self._form(route)
        queue = await self._launcher.queue(route.queue or form.get(QUEUE_FIELD, ""))
        found = (await self._ask("queues", "get_by_id", {"queue": queue}))["queue"]
        waiting = [str(each["task"]) for each in found.get("entries") or []]
        workers = (await self._ask("workers", "get_all", {"last_seen": 600})).get("workers") or []
        serving = [w for w in workers if queue in [q.get("id") for q in w.get("queues") or []]]
        at = waiting.index(task) + 1 if task in waiting else 0
        return Place(str(found.get("name") or queue), at, len(serving))

    async def last_line(self, task: str) -> str:
        """The last line of the task's console; "" if there is none."""
        wish = {"task": task, "batch_size": 1, "order": "desc"}
        events = (await self._ask("events", "get_task_log", wish)).get("events") or []
        lines = str(events[0].get("msg") or "").strip().splitlines() if events else []
        return lines[-1][:LONGEST] if lines else ""

    async def take_back(self, task: str) -> None:
        """One that no agent has taken yet."""
        await self._ask("tasks", "dequeue", {"task": task})
        await self._ask("tasks", "delete", {"task": task, "force": True})

    async def routes(self, task: str) -> str:
        """The text of the routes that the door's own task has; "" if it has none."""
        wish = {"tasks": [task], "names": [CONFIGURATION]}
        found = (await self._ask("tasks", "get_configurations", wish)).get("configurations") or []
        items = [item for each in found for item in each.get("configuration") or []]
        return str(items[0].get("value") or "") if items else ""

    async def keep_routes(self, task: str, text: str) -> None:
        item = {"name": CONFIGURATION, "value": text, "type": "toml", "description": ABOUT}
        wish = {"task": task, "configuration": [item], "replace_configuration": False}
        await self._ask("tasks", "edit_configuration", {**wish, "force": True})

    async def _project_of(self, route: Route) -> str:
        name = route.project or self._project
        if name not in self._projects:
            self._projects[name] = await self._launcher.project(name)
        return self._projects[name]

    def _now(self) -> float:
        """The server's time, in seconds since 1970."""
        return clock.wall() + self._ahead

    async def _ask(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return await self._task.ask(service, action, fields, DEADLINE)

    async def _dated(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """As `_ask`; the answer's date sets what we take for the server's time."""
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
