"""The pool: requests lease models from it, and it decides which models are in memory.

Every decision is one synchronous call of `_schedule` on one event loop, over the whole ledger:
`turns` says what to do, and `loads` does it. Nothing else brings a model into memory for a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Generic

from app.console import ModelLogger
from app.errors import LoadError, RequestError, UpstreamError, for_callers
from app.memory import turns
from app.memory.departures import Departures
from app.memory.kv_budget import KvBudget
from app.memory.lease import STOPPING, Admission, Ask, Lease, Leases
from app.memory.ledger import (
    NOT_KNOWN,
    Free,
    Ledger,
    Loadable,
    Model,
    ModelState,
    Tier,
    Upstream,
    View,
)
from app.memory.line import ASKS
from app.memory.loads import Keep, Loads
from app.memory.moves import Departure
from app.memory.room import LOOK, Room
from app.memory.turns import Turn

logger = logging.getLogger(__name__)

GRACE = 5.0  # seconds in which the memory of a process that has ended comes free
BOUND = 60.0  # seconds: the longest that any request should wait for a turn


class Pool(Generic[Upstream]):
    def __init__(
        self,
        models: Iterable[Model[Upstream]],
        budget: Mapping[str, int],
        clock: Callable[[], float],
        *,
        resident_tier: Tier = Tier.RAM,
        bound: float = BOUND,
        free: Free = NOT_KNOWN,
    ) -> None:
        """`budget` in bytes by device. `clock` gives seconds that only grow. `resident_tier` is
        where a model's weights lie while it serves. `bound` in seconds: the longest that any
        request should wait for a turn."""
        self._ledger = Ledger(models, budget, clock, resident_tier, free)
        self._loads = Loads(self._ledger, self._schedule)
        self._departures = Departures(self._ledger, self._schedule)
        self._leases = Leases(self._ledger, self._schedule, self._notify, self._departures.watch)
        self._room = Room(budget, free.gpus)
        self._bound = bound
        self._changed: asyncio.Event | None = None  # while somebody waits for a change
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lost(self) -> asyncio.Future[str]:
        """Done once the instance cannot go on, with the reason."""
        return self._ledger.lost

    # For bring-up.

    def downloading(self, name: str, progress: float = 0.0) -> None:
        model = self._ledger[name]
        model.state, model.progress = ModelState.DOWNLOADING, progress
        self._ledger.note_moves()

    def provide(
        self,
        name: str,
        server: Loadable,
        upstream: Upstream,
        need: Mapping[str, int],
        seats: KvBudget | None = None,
    ) -> None:
        """The model can be leased from now on; `need` in bytes by device; `seats`: how many
        requests it takes at once, if that is bounded."""
        model = self._ledger[name]
        model.line.budget = seats or model.line.budget
        model.server, model.upstream, model.need = server, upstream, need
        model.state, model.progress, model.tier = ModelState.COLD, None, Tier.DISK
        self._schedule()

    def fail(self, name: str, reason: str) -> None:
        """Bring-up has failed. A model that was not provided will never come."""
        model = self._ledger[name]
        if model.coming is not None:
            return  # a request has begun to load it once more: it is as that ends
        told = for_callers(reason)
        if model.server is None:  # or its loads have counted already
            model.moves.failed(told)
        model.state, model.reason, model.progress = ModelState.FAILED, told, None
        self._ledger.note_moves()
        model.line.refuse(RequestError(503, f"{name} is not available: {told}"))
        self._ledger.lose_if_given_up(reason)

    # For requests.

    def deny_if_full(self, name: str) -> None:
        """Refuse a request before its body is read. Raises RequestError: 429 at the limit, 503
        while the instance stops."""
        self._leases.deny_if_full(self._ledger[name])

    def admit(self, name: str) -> Admission[Upstream]:
        """Count a request from here to its last byte: a context. Entering raises what
        `deny_if_full` raises."""
        return Admission(self._leases, self._ledger[name])

    def lease(
        self, name: str, wait: float | None = None, ask: Ask[Upstream] | None = None
    ) -> Lease[Upstream]:
        """Keep a model in memory for one request, to the last byte of its answer: an asynchronous
        context, which gives the upstream.

        Entering raises RequestError 503 if the model cannot be loaded, with the cause, or is not
        ready within `wait` seconds (the load goes on then), and 400 for a prompt that is longer
        than its context.
        """
        return Lease(self._leases, self._ledger[name], wait, ask or Ask())

    def finished(self, name: str, *, served: bool) -> None:
        """An admitted request has ended; one that was served clears the count of failures."""
        model = self._ledger[name]
        model.requests += 1
        if served:
            model.failures = 0

    async def gone(self, name: str, patience: float) -> None:
        """A child took no connection: wait until the pool has noticed its end, at most `patience`
        seconds."""
        model = self._ledger[name]
        if model.state is ModelState.READY and model.watch is not None:
            await asyncio.wait({model.watch}, timeout=patience)

    def view(self) -> list[View]:
        return [model.view() for model in self._ledger]

    # For a person, and for preloading.

    async def load(self, name: str) -> None:
        """Bring a model into memory before it is asked for. Raises LoadError, RequestError."""
        try:
            async with self.lease(name, ask=Ask(ASKS)):
                pass
        except RequestError as error:
            cause = error.__cause__
            if isinstance(cause, LoadError):
                raise cause from None
            raise

    def check(self, name: str) -> None:
        """Raises RequestError 409 for a model that was not provided."""
        model = self._ledger[name]
        if model.server is None:
            raise RequestError(409, f"{name} is {model.state.value}: {model.reason or 'not here'}")

    def park(self, name: str) -> None:
        """Let an idle model leave the GPU, kept as near as can be. Raises RequestError 409 if it is
        in use."""
        model = self._idle(name)
        if model.state is ModelState.READY:
            self._loads.leave(model, Departure.ASKED)
            self._ledger.note_moves()

    def unload(self, name: str) -> None:
        """End an idle model's process and keep nothing. Raises RequestError 409 if it is in use."""
        model = self._idle(name)
        if model.state in (ModelState.READY, ModelState.PARKED):
            self._loads.leave(model, Departure.ASKED, Keep.NOTHING)
            self._ledger.note_moves()
        elif model.server is not None:
            model.server.forget()

    def _idle(self, name: str) -> Model[Upstream]:
        model = self._ledger[name]
        if model.line.leased or model.coming or model.leaving:
            raise RequestError(409, f"{name} is {model.state.value}, and in use")
        return model

    def pin(self, name: str, pinned: bool) -> None:
        self._ledger[name].pinned = pinned
        self._schedule()

    # The end.

    async def close(self) -> None:
        """Stop every process."""
        self.refuse_new()
        self._departures.close()
        await self._loads.close()

    def refuse_new(self) -> None:
        """The drain begins: requests that lease a model go on, all others are refused."""
        self._ledger.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for model in self._ledger:
            model.line.refuse(RequestError(503, STOPPING, retry_after=10))
        self._notify()

    def broken(self, name: str, error: UpstreamError) -> RequestError:
        """What a request is told whose model broke it off: at the end we stop them all."""
        if self._ledger.closed:
            return RequestError(503, STOPPING, retry_after=10)
        return RequestError(502, f"{name}: {error}")

    async def drained(self) -> None:
        """Return when no request leases a model."""
        while any(model.line.leased for model in self._ledger):
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()

    # The decision.

    def _schedule(self) -> None:
        """Decide anew, and begin what is decided. Contains no `await`."""
        self._ledger.note_moves()  # what has changed since
        if self._ledger.closed:
            self._notify()
            return
        now = self._ledger.now()
        self._room.look(list(self._ledger), now)
        decided = turns.assign(self._ledger.standings(), self._room.bytes, now, self._bound)
        for turn in decided.begin:
            self._begin(turn)
        for name, reason in decided.unused:
            self._loads.leave_unused(self._ledger[name], reason)
        again = [decided.again_at] if decided.again_at is not None else []
        for name, reason in decided.refused:
            if not self._refused(self._ledger[name], reason, now):
                again.append(now + LOOK)
        for model in self._ledger:
            held_back = model.name in decided.draining
            since = now if model.held_back_since is None else model.held_back_since
            model.held_back_since = since if held_back else None
            if model.state is ModelState.READY and not held_back:
                model.line.grant(now)
            self._departures.watch(model)
        self._ledger.note_moves()
        self._wake_at(min(again, default=None), now)
        self._notify()

    def _refused(self, model: Model[Upstream], reason: str, now: float) -> bool:
        """Refuse a model's requests; False where that is too early. If other programs use the
        memory, requests wait a moment: the memory of a process that has ended may not be free yet.
        """
        others = self._room.taken(model.need)
        if others and now - (model.line.waiting_since or now) < GRACE:
            return False
        again = 10 if others else None
        model.line.refuse(RequestError(503, f"{model.name} {reason}{others}", retry_after=again))
        return True

    def _wake_at(self, when: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, when - now), self._schedule)

    def _begin(self, turn: Turn) -> None:
        model = self._ledger[turn.name]
        for name in turn.evict:
            self._loads.leave(self._ledger[name], Departure.ROOM)
            ModelLogger(logger, name).info("makes room for %s: %s", model.name, turn.reason)
        self._loads.come(model, after=[self._ledger[name] for name in turn.after])

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
