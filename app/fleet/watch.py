"""What a door does by itself: it looks which instances there are and how they stand, keeps those
that are needed, starts one where requests wait, and lets go of those that nobody needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from app.errors import AppError
from app.fleet.arrivals import Arrivals, back_off
from app.fleet.edits import Edits
from app.fleet.listing import Listed
from app.fleet.looks import Looks
from app.fleet.member import Member
from app.fleet.orders import Orders
from app.fleet.routes import Routes
from app.fleet.scaling import decide
from app.fleet.standing import RouteState
from app.machine import clock
from app.machine.deadline import within
from app.task.sdk import Complaints, NoAnswerError

logger = logging.getLogger(__name__)

LIST, HASTE, PROBE, TICK, EDITED = 3.0, 0.5, 2.0, 1.0, 10.0  # seconds between two looks
LEAVING = 6.0  # seconds for the last words to the server
TRUSTED = 30.0  # seconds for which a listing is good enough to decide by
LEFT = "what this door has ordered may still wait in a queue: %s"


class Watch:
    def __init__(
        self, routes: Routes, orders: Orders, edits: Edits, door: str, task: str = ""
    ) -> None:
        """`door`: this door's name among others; `task`: its own."""
        self._routes = routes
        self._orders = orders
        self._arrivals = Arrivals(routes, orders)
        self._task = task
        self._looks = Looks(routes, door)
        self._edits = edits
        self._complaints = Complaints()
        self._due = asyncio.Event()  # requests wait that no instance can serve
        self._listing = asyncio.Lock()
        self._running: list[asyncio.Task[None]] = []
        self._ordering: set[asyncio.Task[None]] = set()
        self.listed_at: float | None = None  # when the server last told

    def start(self) -> None:
        for name, look, pause in (
            ("the instances", self._list, self._until_listed),
            ("how instances stand", self._probe, lambda: asyncio.sleep(self._pause(PROBE))),
            ("what is needed", self._decide, self._until_due),
            ("the routes", self._edits.look, lambda: asyncio.sleep(EDITED)),
        ):
            self._running.append(asyncio.create_task(self._loop(name, look, pause)))

    async def stop(self, seconds: float) -> None:
        """Takes at most so many `seconds`. What this door has ordered in vain is taken back."""
        for running in self._running:
            running.cancel()
        self._looks.stop()
        try:
            await within(seconds, self._leave())
        except asyncio.TimeoutError:
            logger.warning(LEFT, f"no answer in {seconds:g} s")
        except AppError as error:
            logger.warning(LEFT, error)
        finally:
            for ordering in self._ordering:
                ordering.cancel()

    async def _leave(self) -> None:
        if self._ordering:
            await asyncio.wait(self._ordering)
        await self._arrivals.leave(self._task)

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
            try:
                await self._list_once()
            except AppError as error:
                self._routes.unlisted = str(error)
                raise
            self._routes.unlisted = ""

    async def _list_once(self) -> None:
        states = self._routes.states
        listed = await self._orders.listed([state.route for state in states.values()])
        self.listed_at = clock.now()
        known = {task for state in states.values() for task in state.members}
        self._routes.update(listed)
        new = [m for s in states.values() for t, m in s.members.items() if t not in known]
        await self._looks.round(new)
        await self._arrivals.see(listed)

    # How they stand.

    async def _probe(self) -> None:
        states = self._routes.states.values()
        await self._looks.round([m for state in states for m in state.members.values()])

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
        suffices = state.one_more()
        state.ordering = True
        ordering = asyncio.create_task(self._start(state, suffices))
        self._ordering.add(ordering)
        ordering.add_done_callback(partial(self._order_done, state))

    def _order_done(self, state: RouteState, ordering: asyncio.Task[None]) -> None:
        self._ordering.discard(ordering)
        state.ordering = False
        state.tell()
        if not ordering.cancelled() and (fault := ordering.exception()) is not None:
            logger.error("ordering an instance", exc_info=fault)

    async def _start(self, state: RouteState, suffices: Callable[[Sequence[Listed]], bool]) -> None:
        try:
            task = await self._orders.start(state.route, suffices)
        except AppError as error:
            back_off(state, str(error), final=not isinstance(error, NoAnswerError))
            return
        if task is not None:
            logger.info("route %s: ordered an instance, task %s", state.route.name, task)
            state.ordered[task] = clock.now()
        try:
            await self._list()  # it is seen before anybody decides anew
        except AppError as error:
            logger.warning("%s", error)

    def _let_go(self, state: RouteState, member: Member) -> None:
        state.changed = clock.now()
        logger.info("route %s: task %s is needed no more", state.route.name, member.task)
        member.release()


def take_back(state: RouteState) -> bool:
    """Whether one that this door had let go of is here still, and is used again."""
    members = state.members.values()
    back = (m for m in members if m.let_go and m.alive and not state.outdated(m.listed))
    found = next(back, None)
    if found is not None:
        found.take_back()
        state.tell()
    return found is not None
