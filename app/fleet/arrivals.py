"""The instances that a door has ordered, until they serve or fail: what those are told who wait for
them, which are too many, and what has become of them."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence

from app.errors import AppError, for_callers
from app.fleet.listing import QUEUED, Listed
from app.fleet.orders import Orders
from app.fleet.routes import Routes
from app.fleet.standing import Coming, RouteState
from app.machine import clock
from app.memory.backoff import delay
from app.task.api import RefusedError
from app.task.served import standing as standing_of

logger = logging.getLogger(__name__)

MISSED = 60.0  # seconds after which a task that was ordered and is nowhere is given up
LEAST_BACKOFF = 2.0  # seconds after a failed order
STRAYED = (
    120.0  # seconds in no queue, after which no agent is about to begin it: they do so at once
)
SEEK = 20.0  # seconds between two looks for such
EXPLAINED = 3  # instances to come of a route, whose place and progress are looked up


class Arrivals:
    def __init__(self, routes: Routes, orders: Orders) -> None:
        self._routes = routes
        self._orders = orders
        self._strays: dict[str, float] = {}  # tasks that are in no queue, and since when
        self._seek_at = -math.inf

    async def see(self, listed: Sequence[Listed]) -> None:
        """What the server lists now, which the routes know already. Raises ConfigError."""
        await self._take_back(listed)
        await self._explain(listed)
        await self._settle(listed)
        await self._replace_strays(listed)

    async def _explain(self, listed: Sequence[Listed]) -> None:
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
            place = await self._orders.place(each.task)
            if not place.workers and not state.route.autoscaled:
                problem = f"no agent takes tasks from the queue {place.queue}: start one there"
                return Coming(each.task, problem, hopeless=True)
            if not place.place:
                told = "has left the queue, and no agent has begun it yet; if that lasts"
                return Coming(each.task, f"task {each.task} {told}, another one is ordered")
            return Coming(each.task, f"task {each.task} is number {place.place} in {place.queue}")
        found = (await self._orders.standing([each.task])).get(each.task)
        how = standing_of(found) if found is not None else "started"
        line = for_callers(await self._orders.last_line(each.task))
        told = f"task {each.task}: {how}" + (f" ({line})" if line else "")
        return Coming(each.task, told)

    async def leave(self, task: str) -> None:
        """The door of this task ends: what doors have ordered and no agent has taken is taken back,
        of routes that no other door serves. Raises ConfigError."""
        states = self._routes.states
        listed = await self._orders.listed([state.route for state in states.values()])
        others = await self._orders.others(task)
        for _, each in self._queued(listed):
            if each.route not in others:
                logger.info("route %s: nobody waits for task %s any more", each.route, each.task)
                with contextlib.suppress(RefusedError):  # an agent has just taken it
                    await self._orders.take_back(each.task)

    def _queued(self, listed: Sequence[Listed]) -> Iterator[tuple[RouteState, Listed]]:
        """What doors have ordered and no agent has begun."""
        for each in listed:
            state = self._routes.states.get(each.route)
            if state is None or each.status != QUEUED or not each.version:
                continue
            if state.counts(each):
                yield state, each

    async def _replace_strays(self, listed: Sequence[Listed]) -> None:
        """What an agent took out of its queue, and has not begun: the agent was lost at this
        moment, or the server's answer to it. No other agent will take it."""
        now = clock.now()
        if now < self._seek_at:
            return
        self._seek_at = now + SEEK
        strays = {}
        for state, each in self._queued(listed):
            with contextlib.suppress(AppError):  # then it is not known
                if not await self._orders.strayed(each.task):
                    continue
                strays[each.task] = self._strays.get(each.task, now)
                if now - strays[each.task] > STRAYED:
                    await self._orders.remove(each.task)
                    state.ordered.pop(each.task, None)
                    problem = "an agent took it out of its queue, and has not begun it"
                    back_off(state, f"task {each.task}: {problem}", final=False)
        self._strays = strays

    async def _take_back(self, listed: Sequence[Listed]) -> None:
        """What this door has ordered beyond the most that there may be, the youngest first: another
        door may have ordered at the same time."""
        for state in list(self._routes.states.values()):
            standing = state.standing()
            coming = standing.coming - state.ordering  # what was just ordered is listed already
            surplus = len(standing.instances) - len(state.old()) + coming - state.route.max
            queued = [e for e in listed if e.task in state.ordered and e.status == QUEUED]
            queued.sort(key=lambda each: each.created)
            for each in queued[-surplus:] if surplus > 0 else []:
                logger.info("route %s: task %s is one too many", each.route, each.task)
                state.ordered.pop(each.task, None)
                with contextlib.suppress(RefusedError):  # an agent has just taken it
                    await self._orders.take_back(each.task)

    async def _settle(self, listed: Sequence[Listed]) -> None:
        """Whether what was ordered has come, or failed before."""
        there = {each.task for each in listed if each.fresh}
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
                    back_off(state, f"task {task} has {found[task].status}{reason}")
                elif task not in there and clock.now() - since > MISSED:
                    del state.ordered[task]
                    back_off(state, f"task {task} gives no sign of life any more")


def back_off(state: RouteState, problem: str, *, final: bool = True) -> None:
    """An order has failed. `final`: callers who wait are told, since waiting would be in vain."""
    state.failures += 1
    wait = max(LEAST_BACKOFF, delay(state.failures))
    state.problem, state.retry_at = for_callers(problem) if final else "", clock.now() + wait
    logger.warning("route %s: %s; again in %g s", state.route.name, problem, wait)
    state.tell()
