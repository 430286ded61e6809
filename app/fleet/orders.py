"""What a door asks of ClearML's server: which instances there are, and to start one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import ConfigError
from app.fleet import doors, listing
from app.fleet.config import Route
from app.fleet.drafts import ORDERING, Drafts
from app.fleet.listing import Listed
from app.fleet.lock import STALE, Lock, remove
from app.fleet.server import Server
from app.form.fields import GENERAL
from app.form.merge import merge, parse
from app.form.settings import Settings
from app.machine import clock
from app.task import launch, live
from app.task.api import RefusedError
from app.task.checkout import Script
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher
from app.task.sdk import ClearMLError, NoAnswerError
from app.task.served import Served

logger = logging.getLogger(__name__)

PAGE, MOST_PAGES = 500, 40  # tasks of a listing
LONGEST = 200  # characters of a line
LAST_SEEN = 600  # seconds since a worker that lives has said so
CONFIGURATION = "routes"
ABOUT = "the routes of this door; edited here, they change within seconds"
DRAFT = "created"
ROUTE_FIELD = f"{GENERAL}/gateway_route"
QUEUE_FIELD = f"{GENERAL}/queue"


@dataclass(frozen=True)
class Place:
    """Where a task waits: its place in the queue, from 1 (0: it is not there any more), and how
    many workers take tasks from that queue."""

    queue: str
    place: int
    workers: int


class Orders:
    """Every method raises ConfigError, and says what the server says."""

    def __init__(
        self, task: ClearMLTask, project: str, script: Script | None, secret: str = ""
    ) -> None:
        """`project`, by name, is where instances are, unless their route names another; `script`:
        what agents run for a form, None if that is not known; `secret`: what doors share."""
        self._server = Server(task)
        self._project = project
        self._script = script
        self._secret = secret
        self._launcher = Launcher(self._server)
        self._unsure: set[str] = set()  # tasks of orders whose answer was lost
        self._locks: list[str] = []  # that could not be given back
        self._projects: dict[str, str] = {}

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
            found = await self._server.dated("tasks", "get_all_ex", {**fields, "page": page})
            tasks += found.get("tasks") or []
            if len(tasks) < (page + 1) * PAGE:
                await self._tidy()
                return listing.read(tasks, self._server.now, self._server.outages())
        raise ClearMLError(f"ClearML: more than {MOST_PAGES * PAGE} tasks run in the project")

    async def _tidy(self) -> None:
        """What was left by an outage: drafts that have come into no queue, and locks."""
        unsure = sorted(self._unsure)
        found = await self.standing(unsure)
        self._unsure.difference_update(unsure)
        for task in unsure:
            if task in found and found[task].status == DRAFT:
                await self._delete(task)
        while self._locks:
            await remove(self._server, self._locks[-1])
            self._locks.pop()

    async def settings(self, route: Route) -> Settings:
        """What the route's instances will be told. Raises ConfigError."""
        return parse(merge(await self._form(route), {}, {}))

    async def start(self, route: Route, suffices: Callable[[Sequence[Listed]], bool]) -> str | None:
        """Start one instance, unless what is listed of the route `suffices`; the ID of its task.
        None if it does, or another door is at it."""
        name = f"llamacpp-route {route.project or self._project} {route.name}"
        lock = Lock(self._server, name)
        if not await lock.take():
            return None
        begun = clock.now()

        async def enough() -> bool:
            listed = await self.listed([route])
            return suffices([each for each in listed if each.route == route.name])

        try:
            if await enough():
                return None
            return await self._start(route, begun, None if lock.held else enough)
        finally:
            if left := await lock.give_back():
                self._locks.append(left)

    async def _start(
        self, route: Route, begun: float, enough: Callable[[], Awaitable[bool]] | None
    ) -> str | None:
        """`enough`, where there is no lock: whether another door was faster."""
        form = await self._form(route)
        queue = await self._launcher.queue(route.queue or form.get(QUEUE_FIELD, ""))
        project, name = await self._project_of(route), launch.task_name(route.name)
        drafts = Drafts(self._server, project, name) if enough else None
        task = await self._made(route, form, project, name + (ORDERING if drafts else ""))
        try:
            await self._join(task, route)
            if drafts and enough and (not await drafts.first(task) or await enough()):
                await self._delete(task)
                return None
            if clock.now() - begun > STALE:
                raise ConfigError(f"ClearML: ordering an instance took more than {STALE:g} s")
            await self._launcher.enqueue(task, queue)
        except NoAnswerError:
            self._unsure.add(task)  # it may be in the queue: the next listing tells
            raise
        except asyncio.CancelledError:
            await self._withdraw(task)
            raise
        except ConfigError:
            await self._delete(task)
            raise
        if drafts:
            with contextlib.suppress(ClearMLError):
                await drafts.rename(task)
        return task

    async def _withdraw(self, task: str) -> None:
        """An order that is given up while it is made: it is in the queue, or a draft."""
        try:
            await self.take_back(task)
        except RefusedError:
            await self._delete(task)
        except NoAnswerError as error:
            self._unsure.add(task)
            logger.warning("%s", error)
        except ClearMLError as error:
            logger.warning("%s", error)

    async def _delete(self, task: str, *, force: bool = False) -> None:
        """Without `force` the server deletes a draft only."""
        try:
            await self._server.ask("tasks", "delete", {"task": task, "force": force})
        except NoAnswerError:
            self._unsure.add(task)
        except ClearMLError as error:
            logger.warning("%s", error)

    async def _join(self, task: str, route: Route) -> None:
        if route.template:
            parameter = {"section": GENERAL, "name": "gateway_route", "value": route.name}
            change = {"task": task, "hyperparams": [parameter], "replace_hyperparams": "none"}
            await self._server.ask("tasks", "edit_hyper_params", change)
        told = {live.VERSION: route.version}
        await self._launcher.join(task, route.name, self._secret, told)

    async def _made(self, route: Route, form: Mapping[str, str], project: str, name: str) -> str:
        if not route.template:
            if self._script is None:
                raise ConfigError(
                    f"route {route.name}: a form needs --repo: what agents are to run"
                )
            described = launch.describe(name, self._script, form)
            return str(
                (await self._server.ask("tasks", "create", {**described, "project": project}))["id"]
            )
        wish = {"task": route.template, "new_task_name": name, "new_task_project": project}
        return str((await self._server.ask("tasks", "clone", wish))["id"])

    async def _form(self, route: Route) -> dict[str, str]:
        given = dict(route.form) or await self._launcher.parameters(route.template)
        given[ROUTE_FIELD] = route.name
        if route.queue:
            given[QUEUE_FIELD] = route.queue
        if route.template:
            return given
        return merge(given, {}, {}).to_write()

    async def standing(self, tasks: Sequence[str]) -> dict[str, Served]:
        return await self._launcher.served(tasks) if tasks else {}

    async def place(self, task: str) -> Place:
        """Where a queued task waits."""
        queue = await self._queue_of(task)
        if not queue:
            return Place("", 0, 1)  # it has just left the queue
        name, waiting = await self._queue(queue)
        known = await self._server.ask("workers", "get_all", {"last_seen": LAST_SEEN})
        workers = known.get("workers") or []
        serving = [w for w in workers if queue in [q.get("id") for q in w.get("queues") or []]]
        at = waiting.index(task) + 1 if task in waiting else 0
        return Place(name, at, len(serving))

    async def _queue(self, queue: str) -> tuple[str, list[str]]:
        """Its name, and the tasks that wait there."""
        found = (await self._server.ask("queues", "get_by_id", {"queue": queue}))["queue"]
        waiting = [str(each["task"]) for each in found.get("entries") or []]
        return str(found.get("name") or queue), waiting

    async def _queue_of(self, task: str) -> str:
        """The ID of the queue that the task was put into last; "" if it was in none."""
        wish = {"id": [task], "only_fields": ["id", "execution.queue"], "search_hidden": True}
        tasks = (await self._server.ask("tasks", "get_all", wish)).get("tasks") or [{}]
        return str((tasks[0].get("execution") or {}).get("queue") or "")

    async def last_line(self, task: str) -> str:
        """The last line of the task's console; "" if there is none."""
        wish = {"task": task, "batch_size": 1, "order": "desc"}
        events = (await self._server.ask("events", "get_task_log", wish)).get("events") or []
        lines = str(events[0].get("msg") or "").strip().splitlines() if events else []
        return lines[-1][:LONGEST] if lines else ""

    async def take_back(self, task: str) -> None:
        """One that no agent has taken yet; raises RefusedError once an agent has.

        Its queue gives a task to one who asks, so what this takes out of it no agent begins.
        (`tasks.dequeue` refuses nothing: it sets back a task that runs, too.)
        """
        wish = {"queue": await self._queue_of(task), "task": task, "update_task_status": True}
        try:
            answer = await self._server.ask("queues", "remove_task", wish)
        except NoAnswerError:
            self._unsure.add(task)  # a draft, if it was taken out
            raise
        if not answer.get("removed"):  # somebody was quicker, after the server had looked
            raise RefusedError(f"ClearML: task {task} is not in its queue any more", 400)
        await self._delete(task, force=True)  # a server older than 2.0 leaves its status

    async def strayed(self, task: str) -> bool:
        """Whether a queued task is in its queue no more, so that no agent will take it; also for a
        moment after one has."""
        queue = await self._queue_of(task)
        return bool(queue) and task not in (await self._queue(queue))[1]

    async def remove(self, task: str) -> None:
        """One that has strayed, unless an agent begins it at last."""
        found = await self.standing([task])
        if task in found and found[task].status == listing.QUEUED:
            await self._delete(task, force=True)

    async def others(self, task: str) -> set[str]:
        """The routes that other doors of this door's project serve; `task`: this one's."""
        project = await self._launcher.project(self._project)
        return await doors.others(self._server, project, task)

    async def routes(self, task: str) -> str:
        """The text of the routes that the door's own task has; "" if it has none."""
        wish = {"tasks": [task], "names": [CONFIGURATION]}
        found = await self._server.ask("tasks", "get_configurations", wish)
        tasks = found.get("configurations") or []
        items = [item for each in tasks for item in each.get("configuration") or []]
        return str(items[0].get("value") or "") if items else ""

    async def keep_routes(self, task: str, text: str) -> None:
        item = {"name": CONFIGURATION, "value": text, "type": "toml", "description": ABOUT}
        wish = {"task": task, "configuration": [item], "replace_configuration": False}
        await self._server.ask("tasks", "edit_configuration", {**wish, "force": True})

    async def _project_of(self, route: Route) -> str:
        name = route.project or self._project
        if name not in self._projects:
            self._projects[name] = await self._launcher.project(name)
        return self._projects[name]
