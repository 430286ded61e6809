"""The instances that a door has ordered, until they serve or fail: what those are told who wait for
them, which are too many, and what has become of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

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
LOOK = 20.0  # seconds between two looks for orders that are lost
LOST = 120.0  # seconds in no queue; an agent that has taken a task begins it within two
AGAIN = 2  # times in a row: then it was not the server's answer that was lost
EXPLAINED = 3  # instances to come of a route, whose place and progress are looked up


class Arrivals:
    def __init__(self, routes: Routes, orders: Orders) -> None:
        self._routes = routes
        self._orders = orders
        self._look_at = 0.0
        self._nowhere: dict[str, float] = {}  # tasks that stand in no queue, and since when

    async def see(self, listed: Sequence[Listed]) -> None:
        """What the server lists now, which the routes know already. Raises ConfigError."""
        await self._take_back(listed)
        await self._find_lost()
        await self._explain(listed)
        await self._settle(listed)

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
                return Coming(each.task, f"task {each.task} has just left the queue")
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
        for each in listed:
            state = states.get(each.route)
            if state is None or each.route in others or each.status != QUEUED:
                continue
            if each.version and state.counts(each):
                logger.info("route %s: nobody waits for task %s any more", each.route, each.task)
                await self._withdraw(each.task)

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
                await self._withdraw(each.task)

    async def _find_lost(self) -> None:
        """An agent asks the server for a task, and the answer is lost on its way: the task is in no
        queue any more, no agent has it, and it would be waited for without end.

        A scheduler may also have moved it into a queue that this door does not see. So it is taken
        back once only: where the next one goes the same way, no answer was lost. Raises
        ConfigError."""
        now = clock.now()
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        states = [s for s in self._routes.states.values() if not s.route.autoscaled]
        queued = {
            state: [t for t, e in state.listed.items() if e.status == QUEUED] for state in states
        }
        waiting = await self._orders.waiting() if any(queued.values()) else set()
        before, self._nowhere = self._nowhere, {}
        for state, tasks in queued.items():
            nowhere = {task: before.get(task, now) for task in tasks if task not in waiting}
            self._nowhere |= nowhere
            lost = [task for task, since in nowhere.items() if now - since >= LOST]
            if lost and state.lost < AGAIN:
                await self._give_up(state, lost)
                state.lost += 1  # where the server did not answer, it is tried once more

    async def _give_up(self, state: RouteState, lost: Sequence[str]) -> None:
        problem = f"task {', '.join(lost)} is in no queue that is seen, and no agent has begun it"
        if state.lost:
            logger.warning("route %s: %s, as the one before it", state.route.name, problem)
            return
        for task in lost:
            await self._withdraw(task)
            state.ordered.pop(task, None)
        back_off(state, problem, final=False)

    async def _withdraw(self, task: str) -> None:
        with contextlib.suppress(RefusedError):  # an agent has just taken it
            await self._orders.take_back(task)

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
                    state.lost = state.lost if state.lost == AGAIN else 0
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
