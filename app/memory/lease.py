"""A request's way to its model: it is counted, waits in the line, leases the model, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from app.errors import RequestError
from app.machine import clock
from app.machine.deadline import within
from app.memory.caller import Caller
from app.memory.ledger import COMING, MOVING, Ledger, Model, ModelState, Upstream
from app.memory.line import NOBODY, ONE, Waiter
from app.memory.seat import Demand, Seat, Use

STOPPING = "the instance is stopping"
MAX_WAITING = 512  # requests for one model
GOES_ON = (ModelState.PENDING, ModelState.DOWNLOADING, *COMING)  # whether anybody waits or not
HERE_OR_MOVING = (ModelState.READY, *MOVING)


@dataclass(frozen=True)
class Ask(Generic[Upstream]):
    """What a request wants of its model, and for whom. `count` has llama-server count the tokens
    of its prompt, or of so many of its prompts (None: it does not say); it raises
    UpstreamError."""

    demand: Demand = ONE
    caller: Caller = NOBODY
    count: Callable[[Upstream, int], Awaitable[int | None]] | None = None


class Leases(Generic[Upstream]):
    """Who may come, who must wait, and when a decision is due."""

    def __init__(
        self,
        ledger: Ledger[Upstream],
        schedule: Callable[[], None],
        notify: Callable[[], None],
        watch: Callable[[Model[Upstream]], None],
    ) -> None:
        """`schedule` decides anew; `notify` says that something has changed, and nothing is to be
        decided; `watch` finds out when the model's slots come free."""
        self._ledger = ledger
        self._schedule = schedule
        self._notify = notify
        self._watch = watch

    def deny_if_full(self, model: Model[Upstream]) -> None:
        """Raises what `Pool.deny_if_full` raises."""
        if self._ledger.closed:
            raise RequestError(503, STOPPING, retry_after=10)
        if model.limit is not None and model.admitted >= model.limit:
            model.denied += 1
            message = f"{model.name}: {model.limit} requests are running, which is the limit"
            raise RequestError(429, message, retry_after=1)

    def queue(self, model: Model[Upstream], ask: Ask[Upstream]) -> Waiter | Seat:
        """Join the model's line, or lease the model at once. Raises RequestError 503 where waiting
        would be in vain."""
        now = self._ledger.now()
        if self._ledger.closed:
            raise RequestError(503, STOPPING, retry_after=10)
        wait = model.retry_at - now
        if model.state is ModelState.FAILED and (model.server is None or wait > 0):
            # No caller waits for a load that is likely to fail again.
            message = f"{model.name} is not available: {model.reason}"
            raise RequestError(503, message, retry_after=wait if model.server else None)
        if model.line.waiting >= MAX_WAITING:
            message = f"{model.name}: {MAX_WAITING} requests are waiting for it already"
            error = RequestError(503, message, retry_after=10)
            if not model.line.make_room(ask.caller, error):
                raise error
        if model.state is ModelState.READY and model.line.empty and not self._contended():
            seat = model.line.lease(now, ask.demand, ask.caller)  # as `turns` would say
            if seat is not None:
                return seat
        waiter = model.line.join(now, ask.demand, ask.caller)
        self._schedule()
        return waiter

    def counted(self, model: Model[Upstream], waiter: Waiter, demand: Demand) -> None:
        """The prompt is counted: the request waits for its seat. Raises RequestError 400, 503."""
        budget = model.line.budget
        if budget.too_long(demand):
            raise TooLongError(model.name, demand, budget.each)
        if self._ledger.closed:
            raise RequestError(503, STOPPING, retry_after=10)
        model.line.counted(waiter, demand, self._ledger.now())
        self._schedule()

    def _contended(self) -> bool:
        """Whether requests wait for a model's turn, for which others may have to drain. Nothing is
        to be decided for a model that comes until it is there, nor for one that leaves until it is
        gone, nor for one that is not set up."""
        for model in self._ledger:  # no generator: it is asked twice for each request
            if model.line.waiting and model.state not in HERE_OR_MOVING:
                if model.server is not None:
                    return True
        return False

    def cleared(self, model: Model[Upstream], seat: Seat) -> None:
        """What resting slots held is gone: others may have waited for that."""
        model.line.budget.cleared(seat)
        self._next(model, self._ledger.now(), gave_up=False)

    def begun(self, model: Model[Upstream], seat: Seat) -> None:
        """A stream's first token has come: others may have waited for that."""
        if seat.prompts == 1 and not seat.begun:  # of several prompts, others may be read yet
            model.line.budget.begin(seat)
            self._next(model, self._ledger.now(), gave_up=False)

    def release(self, model: Model[Upstream], place: Waiter | Seat, use: Use) -> None:
        """A request ends, or gives up waiting."""
        now = self._ledger.now()
        waited = isinstance(place, Waiter) and place.seat is None
        if isinstance(place, Waiter):
            model.line.release(place, now, use)
        else:
            model.line.end(place, now, use)
        self._watch(model)
        if self._contended() and (waited or not model.line.leased):
            self._schedule()  # while others lease the model, it is as busy as before
        else:
            self._next(model, now, gave_up=waited)

    def _next(self, model: Model[Upstream], now: float, *, gave_up: bool) -> None:
        """Who waits for the slots that have come free has his turn. If none waits for a model's
        turn any more, no other model has to drain."""
        others = (each.line.waiting or each.held_back_since is not None for each in self._ledger)
        if gave_up and any(others):
            self._schedule()
        elif model.line.waiting and model.state is ModelState.READY:
            self._schedule() if self._contended() else model.line.grant(now)
        self._notify()


class TooLongError(RequestError):
    """A prompt that can never be served, in the words that clients of OpenAI know."""

    def __init__(self, model: str, demand: Demand, context: int) -> None:
        which = "the prompt has" if demand.slots == 1 else "the prompts that run together have"
        has = f"{model} has a context of {context} tokens"
        message = f"{which} {demand.prompt} tokens, and {has}"
        super().__init__(400, message, code="context_length_exceeded")


class Admission(Generic[Upstream]):
    """A request among those of its model: see `Pool.admit`."""

    def __init__(self, leases: Leases[Upstream], model: Model[Upstream]) -> None:
        self._leases = leases
        self._model = model

    def __enter__(self) -> None:
        self._leases.deny_if_full(self._model)
        self._model.admitted += 1

    def __exit__(self, *_: object) -> None:
        self._model.admitted -= 1


class Lease(Generic[Upstream]):
    """One request's hold on a model: see `Pool.lease`. No generator, for it is entered at every
    request, and mostly has nothing to wait for.

    Whoever sends the request says in `use` how far that went.
    """

    def __init__(
        self,
        leases: Leases[Upstream],
        model: Model[Upstream],
        wait: float | None,
        ask: Ask[Upstream],
    ) -> None:
        self._leases = leases
        self._model = model
        self._until = None if wait is None else clock.now() + wait
        self._ask = ask
        self._place: Waiter | Seat
        self.use = Use.UNSENT

    @property
    def seat(self) -> Seat:
        """What the request was given."""
        seat = self._place.seat if isinstance(self._place, Waiter) else self._place
        assert seat is not None
        return seat

    @property
    def woke(self) -> float:
        """Seconds of its wait in which its model came into memory."""
        if not isinstance(self._place, Waiter):
            return 0.0
        waited = self._model.here_since - self._place.since
        return max(0.0, min(waited, self._model.come_cost))

    def cleared(self) -> None:
        """What resting slots held is gone."""
        self._leases.cleared(self._model, self.seat)

    def streams(self) -> None:
        """The first event of a stream has come."""
        self.seat.streams = True

    def begun(self) -> None:
        """Its first token has come."""
        self._leases.begun(self._model, self.seat)

    async def __aenter__(self) -> Upstream:
        self._place = self._leases.queue(self._model, self._ask)
        if isinstance(self._place, Waiter):
            await self._seated(self._place)
        assert self._model.upstream is not None
        return self._model.upstream

    async def _seated(self, waiter: Waiter) -> None:
        try:
            await self._granted(waiter)
            while waiter.seat is None:
                await self._count(waiter)
                await self._granted(waiter)
        except BaseException:
            self._leases.release(self._model, waiter, Use.UNSENT)
            raise

    async def _count(self, waiter: Waiter) -> None:
        assert self._ask.count is not None and self._model.upstream is not None
        counting = self._ask.count(self._model.upstream, self._model.line.budget.slots)
        try:
            prompt = await within(self._left(), counting)
        except asyncio.TimeoutError:
            raise self._too_late() from None
        self._leases.counted(self._model, waiter, waiter.demand.counted(prompt))

    async def _granted(self, waiter: Waiter) -> None:
        if not waiter.granted.done():
            await asyncio.wait({waiter.granted}, timeout=self._left())
        if waiter.granted.done():
            waiter.granted.result()
        elif waiter.seat is None:
            raise self._too_late()

    def _left(self) -> float | None:
        """Seconds that it may still wait."""
        return None if self._until is None else max(0.0, self._until - clock.now())

    async def __aexit__(self, *_: object) -> None:
        self._leases.release(self._model, self._place, self.use)

    def _too_late(self) -> RequestError:
        name, state = self._model.name, self._model.state.value
        if self._model.state is ModelState.READY:
            message = f"{name} is busy: others had their turns for as long as this request may wait"
        elif self._model.state in GOES_ON:
            message = f"{name} is still {state}; it goes on, come back later"
        else:
            message = f"{name} did not come into memory in the time that this request may wait"
        return RequestError(503, message, retry_after=10)
