"""What a door does by itself: it looks which instances there are and how they stand, keeps those
that are needed, starts one where requests wait, and lets go of those that nobody needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from app.errors import AppError, UpstreamError
from app.fleet import config
from app.fleet.config import Route
from app.fleet.listing import QUEUED, Listed
from app.fleet.member import Member
from app.fleet.orders import Orders
from app.fleet.routes import Routes
from app.fleet.scaling import decide
from app.fleet.standing import Coming, RouteState
from app.form.checks import default_endpoint_name
from app.machine import clock
from app.machine.deadline import within
from app.memory.backoff import delay
from app.models.reference import title
from app.task.sdk import Complaints, NoAnswerError
from app.task.served import standing as standing_of

logger = logging.getLogger(__name__)

LIST, HASTE, PROBE, TICK, EDITED = 3.0, 0.5, 2.0, 1.0, 10.0  # seconds between two looks
MISSED = 60.0  # seconds after which a task that was ordered and is nowhere is given up
TRUSTED = 30.0  # seconds for which a listing is good enough to decide by
LEAST_BACKOFF = 2.0  # seconds after a failed order
EXPLAINED = 3  # instances to come of a route, whose place and progress are looked up


class Watch:
    def __init__(self, routes: Routes, orders: Orders, door: str, task: str) -> None:
        """`door`: this door's name among others; `task`: its own task, whose configuration has the
        routes."""
        self._routes = routes
        self._orders = orders
        self._door = door
        self._task = task
        self._text = ""
        self._complaints = Complaints()
        self._due = asyncio.Event()  # requests wait that no instance can serve
        self._listing = asyncio.Lock()
        self._running: list[asyncio.Task[None]] = []
        self._ordering: set[asyncio.Task[None]] = set()
        self.listed_at: float | None = None  # when the server last told

    def start(self, text: str) -> None:
        """`text`: of the routes, as they are served now."""
        self._text = text
        for name, look, pause in (
            ("the instances", self._list, self._until_listed),
            ("how instances stand", self._probe, lambda: asyncio.sleep(self._pause(PROBE))),
            ("what is needed", self._decide, self._until_due),
            ("the routes", self._read, lambda: asyncio.sleep(EDITED)),
        ):
            self._running.append(asyncio.create_task(self._loop(name, look, pause)))

    def stop(self) -> None:
        for running in (*self._running, *self._ordering):
            running.cancel()

    def want(self) -> None:
        """A request waits for an instance."""
        self._due.set()

    async def _loop(
        self,
        name: str,
        look: Callable[[], Awaitable[None]],
        pause: Callable[[], Awaitable[object]],
    ) -> None:
        while True:
            try:
                await look()
            except AppError as error:
                self._complaints.failed(name, f"{name}: {error}; the last state stands")
            except Exception:  # noqa: BLE001 a fault in one look must not end all later ones
                logger.exception("looking at %s", name)
            else:
                self._complaints.worked(name)
            await pause()

    def _pause(self, usual: float) -> float:
        waiting = any(state.waiting for state in self._routes.states.values())
        return min(usual, HASTE) if waiting else usual

    async def _until_listed(self) -> None:
        """Sooner where requests wait, and where one begins to wait."""
        until = clock.now() + LIST
        while clock.now() < until:
            await asyncio.sleep(HASTE)
            if any(state.waiting for state in self._routes.states.values()):
                return

    async def _until_due(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await within(TICK, self._due.wait())
        self._due.clear()

    # Which instances there are.

    async def _list(self) -> None:
        async with self._listing:
            await self._list_once()

    async def _list_once(self) -> None:
        states = self._routes.states
        listed = await self._orders.listed([state.route for state in states.values()])
        self.listed_at = clock.now()
        known = {task for state in states.values() for task in state.members}
        self._routes.update(listed)
        new = [m for s in states.values() for t, m in s.members.items() if t not in known]
        await self._look_at(new)
        await self._take_back(listed)
        await self._explain(listed)
        await self._settle_orders(listed)

    async def _explain(self, listed: list[Listed]) -> None:
        """How those stand that are to come, for people who wait for them."""
        for state in list(self._routes.states.values()):
            if not state.waiting:
                continue
            coming = [each for each in listed if each.task in state.listed][:EXPLAINED]
            try:
                state.coming = {each.task: await self._coming(state, each) for each in coming}
            except AppError as error:  # of this route alone
                logger.debug("route %s: %s", state.route.name, error)
            state.tell()

    async def _coming(self, state: RouteState, each: Listed) -> Coming:
        if each.status == QUEUED:
            place = await self._orders.place(each.task, state.route)
            if not place.workers and not state.route.autoscaled:
                problem = f"no agent takes tasks from the queue {place.queue}: start one there"
                return Coming(each.task, problem, hopeless=True)
            return Coming(each.task, f"task {each.task} is number {place.place} in {place.queue}")
        found = (await self._orders.standing([each.task])).get(each.task)
        how = standing_of(found) if found is not None else "started"
        line = await self._orders.last_line(each.task)
        told = f"task {each.task}: {how}" + (f" ({line})" if line else "")
        return Coming(each.task, told)

    async def _take_back(self, listed: list[Listed]) -> None:
        """What this door has ordered beyond the most that there may be, the youngest first: another
        door may have ordered at the same time."""
        for state in self._routes.states.values():
            standing = state.standing()
            coming = standing.coming - state.ordering  # what was just ordered is listed already
            surplus = len(standing.instances) - len(state.old()) + coming - state.route.max
            queued = [e for e in listed if e.task in state.ordered and e.status == QUEUED]
            queued.sort(key=lambda each: each.created)
            for each in queued[-surplus:] if surplus > 0 else []:
                logger.info("route %s: task %s is one too many", each.route, each.task)
                state.ordered.pop(each.task, None)
                await self._orders.take_back(each.task)

    async def _settle_orders(self, listed: list[Listed]) -> None:
        """Whether what was ordered has come, or failed before."""
        there = {each.task for each in listed}
        states = list(self._routes.states.values())
        gone = [task for state in states for task in state.ordered if task not in there]
        found = await self._orders.standing(gone)
        for state in states:
            for task, since in list(state.ordered.items()):
                member = state.members.get(task)
                if member is not None and member.serves:
                    del state.ordered[task]
                    state.problem, state.failures = "", 0
                elif task in found and found[task].over:
                    del state.ordered[task]
                    reason = f": {found[task].reason}" if found[task].reason else ""
                    self._failed(state, f"task {task} has {found[task].status}{reason}")
                elif task not in there and clock.now() - since > MISSED:
                    del state.ordered[task]
                    self._failed(state, f"task {task} is not of the route any more")

    # How they stand.

    async def _probe(self) -> None:
        states = list(self._routes.states.values())
        await self._look_at([member for state in states for member in state.members.values()])
        known = [member for state in states for member in state.members.values()]
        await asyncio.gather(*map(self._keep, known))

    async def _keep(self, member: Member) -> None:
        with contextlib.suppress(UpstreamError):  # it is said again
            await member.keep(self._door)

    async def _look_at(self, members: list[Member]) -> None:
        before = [member.problem for member in members]
        await asyncio.gather(*(member.look() for member in members))
        for member, known in zip(members, before, strict=True):
            if member.problem and member.problem != known:
                logger.warning("task %s: %s", member.task, member.problem)
        self._routes.rename()
        for state in self._routes.states.values():
            state.tell()

    # What is needed.

    async def _decide(self) -> None:
        now = clock.now()
        recent = self.listed_at is not None and now - self.listed_at < TRUSTED
        for state in self._routes.states.values():
            busy = sum(member.load for member in state.members.values())
            state.demand.see(now, busy + state.waiting, state.slots)
            if not recent or now < state.retry_at:
                continue
            if self._replace(state):
                continue
            decision = decide(state.route, state.standing(), state.demand, now)
            if decision.start and not state.ordering and not take_back(state):
                self._order(state)
            if decision.let_go:
                self._let_go(state, state.members[decision.let_go])

    def _replace(self, state: RouteState) -> bool:
        """Whether instances by an earlier template are being replaced: the new ones come up beside
        them, and take over."""
        old = state.old()
        if not old:
            return False
        wanted = min(len(old), max(1, state.route.min))
        new = len(state.serving()) - len(old)
        if new >= wanted:
            for member in old:
                self._let_go(state, member)
        elif state.new() < wanted and not state.ordering:
            self._order(state)
        return True

    def _order(self, state: RouteState) -> None:
        standing = state.standing()
        wanted = len(standing.instances) + standing.coming + standing.stuck + 1
        state.ordering = True
        ordering = asyncio.create_task(self._start(state, wanted))
        self._ordering.add(ordering)
        ordering.add_done_callback(partial(self._order_done, state))

    def _order_done(self, state: RouteState, ordering: asyncio.Task[None]) -> None:
        self._ordering.discard(ordering)
        state.ordering = False
        state.tell()
        if not ordering.cancelled() and (fault := ordering.exception()) is not None:
            logger.error("ordering an instance", exc_info=fault)

    async def _start(self, state: RouteState, wanted: int) -> None:
        try:
            task = await self._orders.start(state.route, wanted, state.counts)
        except AppError as error:
            self._failed(state, str(error), final=not isinstance(error, NoAnswerError))
            return
        if task is not None:
            logger.info("route %s: ordered an instance, task %s", state.route.name, task)
            state.ordered[task] = clock.now()
        try:
            await self._list()  # it is seen before anybody decides anew
        except AppError as error:
            logger.warning("%s", error)

    def _failed(self, state: RouteState, problem: str, *, final: bool = True) -> None:
        """`final`: callers who wait are told, since waiting would be in vain."""
        state.failures += 1
        wait = max(LEAST_BACKOFF, delay(state.failures))
        state.problem, state.retry_at = problem if final else "", clock.now() + wait
        logger.warning("route %s: %s; again in %g s", state.route.name, problem, wait)
        state.tell()

    def _let_go(self, state: RouteState, member: Member) -> None:
        state.changed = clock.now()
        logger.info("route %s: task %s is needed no more", state.route.name, member.task)
        member.release()

    # The routes, as their task has them.

    async def _read(self) -> None:
        text = await self._orders.routes(self._task)
        if text.strip() and text != self._text:
            self._text = text
            routes = config.parse(text)
            logger.info("the routes are now: %s", ", ".join(route.name for route in routes))
            for gone in self._routes.configure(routes):
                for member in gone.members.values():
                    member.release()
                    await self._keep(member)
        await self.name_models()

    async def name_models(self) -> None:
        """Which models the routes have, by their templates."""
        for state in list(self._routes.states.values()):
            if state.named != state.route:
                await self._name(state)
        self._routes.rename()

    async def _name(self, state: RouteState) -> None:
        route = state.route
        try:
            state.models = await models_of(self._orders, route)
        except AppError as error:
            if state.unreadable != str(error):
                logger.warning("route %s: %s", route.name, error)
            state.unreadable = str(error)
        else:
            state.unreadable, state.named = "", route


def take_back(state: RouteState) -> bool:
    """Whether one that this door had let go of is here still, and is used again."""
    members = state.members.values()
    back = (m for m in members if m.let_go and m.alive and not state.outdated(m.listed))
    found = next(back, None)
    if found is not None:
        found.take_back()
        state.tell()
    return found is not None


async def models_of(orders: Orders, route: Route) -> tuple[str, ...]:
    """The endpoint names of the models that the route's instances serve. Raises ConfigError."""
    settings = await orders.settings(route)
    named = (each.endpoint_name or title(each.model) for each in settings.models)
    return tuple(default_endpoint_name(name) for name in named)
