"""The ledger of what runs and what memory it holds: lease a model for one request.

Every decision is one synchronous call of `_schedule`, on one event loop, over the whole ledger:
what `turns.plan` says is done, and nothing else moves a model.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic

from app.console import ModelLogger
from app.errors import AppError, LoadError, RequestError
from app.memory import backoff, residency, turns
from app.memory.ledger import (
    COMING,
    LEAVING,
    NOT_KNOWN,
    Free,
    Model,
    ModelState,
    Server,
    Tier,
    Upstream,
    View,
    Waiter,
)
from app.memory.residency import Resident, Swap
from app.memory.turns import Load, Row, Stage
from app.planning.amounts import GIB, HOST, together
from app.planning.budget import beside_others

logger = logging.getLogger(__name__)

FAILURES_TO_GIVE_UP = 5
STOPPING = "the instance is stopping"
MORE_ROOM = 1.3  # times what was predicted
OUT_OF_MEMORY = re.compile(r"alloc|out of memory|\boom\b|signal 9|create_context|not fit", re.I)
LOOK = 0.1  # seconds for which it is known what other programs hold
GRACE = 5.0  # seconds for what has ended to let go of its memory
MAX_WAITING = 512  # requests for one model
BOUND = 60.0  # seconds that nobody should wait longer for a turn


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
        """`budget` in bytes by device; `clock` gives seconds that only grow."""
        self._models = {model.name: model for model in models}
        self._budget = budget
        self._clock = clock
        self._resident_tier = resident_tier
        self._bound = bound
        self._free = free
        self._parking = asyncio.Lock()
        self._room: Mapping[str, int] = budget  # less what other programs hold
        self._room_until = 0.0
        self._moves = 0  # so many have begun
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # What the set-up tells.

    def downloading(self, name: str, progress: float = 0.0) -> None:
        model = self._models[name]
        model.state, model.progress = ModelState.DOWNLOADING, progress

    def provide(
        self, name: str, server: Server, upstream: Upstream, need: Mapping[str, int]
    ) -> None:
        """The model's files are here: from now on it can be leased. `need` in bytes by device."""
        model = self._models[name]
        model.server, model.upstream, model.need = server, upstream, need
        model.state, model.progress, model.tier = ModelState.COLD, None, Tier.DISK
        self._schedule()

    def fail(self, name: str, reason: str) -> None:
        """The model will never come."""
        model = self._models[name]
        model.state, model.reason, model.progress = ModelState.FAILED, reason, None
        self._refuse(model, RequestError(503, f"{name} is not available: {reason}"))

    # What requests do.

    def deny_if_full(self, name: str) -> None:
        """For who can be told before its body is read. Raises RequestError 429 at the limit."""
        model = self._models[name]
        if self._closed:
            raise RequestError(503, STOPPING, retry_after=10)
        if model.limit is not None and model.admitted >= model.limit:
            model.denied += 1
            message = f"{name}: {model.limit} requests are running, which is the limit"
            raise RequestError(429, message, retry_after=1)

    @contextmanager
    def admit(self, name: str) -> Iterator[None]:
        """Count a request from here to its last byte. Raises RequestError 429 at the limit."""
        self.deny_if_full(name)
        model = self._models[name]
        model.admitted += 1
        try:
            yield
        finally:
            model.admitted -= 1

    @asynccontextmanager
    async def lease(self, name: str, wait: float | None = None) -> AsyncIterator[Upstream]:
        """Hold a model in memory for one request, however long its body streams.

        Raises RequestError 503 where it cannot be loaded, with the cause, or is not ready within
        `wait` seconds; the load goes on.
        """
        model = self._models[name]
        waiter = self._queue(model)
        try:
            done, _ = await asyncio.wait({waiter.granted}, timeout=wait)
            if not done:
                raise self._too_late(model)
            waiter.granted.result()
            assert model.upstream is not None
            yield model.upstream
        finally:
            self._release(model, waiter)

    def finished(self, name: str, *, served: bool) -> None:
        """An admitted request has ended; one that was served makes up for earlier failures."""
        model = self._models[name]
        model.requests += 1
        if served:
            model.failures = 0

    async def gone(self, name: str, patience: float = 2.0) -> None:
        """A child took no connection: wait until its end was noticed, at most `patience` s."""
        model = self._models[name]
        if model.server is not None and model.state is ModelState.READY:
            await asyncio.wait({asyncio.ensure_future(model.server.exited())}, timeout=patience)
            await asyncio.sleep(0)  # the watch runs on the same exit

    # What everybody may ask.

    def view(self) -> list[View]:
        return [self._view(model) for model in self._models.values()]

    def _view(self, model: Model[Upstream]) -> View:
        progress = model.progress
        if model.state in COMING and model.server is not None:
            progress = model.server.progress
        return View(
            model.name,
            model.state,
            model.tier,
            model.reason,
            progress,
            model.admitted,
            model.leased,
            model.requests,
            model.denied,
            model.last_used,
            len(model.waiters),
            model.switches,
            model.pinned,
            model.need,
        )

    def fits(self, names: Sequence[str]) -> bool:
        """Whether these models fit into memory together."""
        needs = [self._models[name].need for name in names]
        return all(
            sum(need.get(device, 0) for need in needs) <= size
            for device, size in self._budget.items()
        )

    # What a person may ask for.

    async def load(self, name: str) -> None:
        """Bring a model into memory before anybody asks. Raises LoadError, RequestError."""
        try:
            async with self.lease(name):
                pass
        except RequestError as error:
            cause = error.__cause__
            if isinstance(cause, LoadError):
                raise cause from None
            raise

    def check(self, name: str) -> None:
        """Raises RequestError 409 for a model that cannot be loaded at all."""
        model = self._models[name]
        if model.server is None:
            raise RequestError(409, f"{name} is {model.state.value}: {model.reason or 'not here'}")

    def park(self, name: str) -> None:
        """Let an idle model leave, to come back soon. Raises RequestError 409 for one in use."""
        model = self._idle(name)
        if model.state is ModelState.READY:
            self._let_go(model)

    def unload(self, name: str) -> None:
        """End an idle model's process, keeping nothing. Raises RequestError 409 for one in use."""
        model = self._idle(name)
        if model.state in (ModelState.READY, ModelState.PARKED):
            self._let_go(model, keep=False)

    def _idle(self, name: str) -> Model[Upstream]:
        model = self._models[name]
        if model.leased or model.coming or model.leaving:
            raise RequestError(409, f"{name} is {model.state.value}, and in use")
        return model

    def pin(self, name: str, pinned: bool) -> None:
        self._models[name].pinned = pinned
        self._schedule()

    # The end.

    async def close(self) -> None:
        """Stop every process; nothing is loaded any more."""
        self.refuse_new()
        await asyncio.gather(*(self._stop(model) for model in self._models.values()))
        for task in list(self._tasks):
            task.cancel()

    def refuse_new(self) -> None:
        """The drain begins: who holds a model goes on, nobody else gets one."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for model in self._models.values():
            self._refuse(model, RequestError(503, STOPPING, retry_after=10))
        self._notify()

    async def drained(self) -> None:
        """Return when no request holds a model."""
        while any(model.leased for model in self._models.values()):
            await self._changed.wait()

    async def _stop(self, model: Model[Upstream]) -> None:
        if model.coming is not None:
            model.coming.cancel()
            await asyncio.wait({model.coming})
        if model.leaving is not None:
            await asyncio.wait({model.leaving})
        if model.server is not None:
            model.state = ModelState.STOPPING
            await model.server.stop()
            model.state, model.tier = ModelState.COLD, Tier.DISK

    # One request's way to its model.

    def _queue(self, model: Model[Upstream]) -> Waiter:
        """Stand in line. Raises RequestError 503 where it would be for nothing."""
        now = self._clock()
        if self._closed:
            raise RequestError(503, STOPPING, retry_after=10)
        wait = model.retry_at - now
        if model.state is ModelState.FAILED and (model.server is None or wait > 0):
            # A caller is not made to wait for a load that is likely to fail again.
            message = f"{model.name} is not available: {model.reason}"
            raise RequestError(503, message, retry_after=wait if model.server else None)
        if len(model.waiters) >= MAX_WAITING:
            message = f"{model.name}: {MAX_WAITING} requests are waiting for it already"
            raise RequestError(503, message, retry_after=10)
        if not model.leased and not model.waiters:
            model.gap = now - model.last_used
        waiter = Waiter(now, asyncio.get_running_loop().create_future())
        model.waiters.append(waiter)
        if model.state is ModelState.READY and not self._anybody_waits(model):
            self._grant(model)  # as the plan would say
        else:
            self._schedule()
        return waiter

    def _anybody_waits(self, but: Model[Upstream] | None = None) -> bool:
        return any(model.waiters for model in self._models.values() if model is not but)

    def _release(self, model: Model[Upstream], waiter: Waiter) -> None:
        granted = waiter.granted
        if not granted.done():
            granted.cancel()
            if waiter in model.waiters:
                model.waiters.remove(waiter)
        elif not granted.cancelled() and granted.exception() is None:
            model.leased -= 1
            model.last_used = self._clock()
        if self._anybody_waits():
            self._schedule()
        else:
            self._notify()

    def _refuse(self, model: Model[Upstream], error: Exception) -> None:
        """Everybody in the model's line is told."""
        while model.waiters:
            granted = model.waiters.popleft().granted
            if not granted.done():
                granted.set_exception(error)
                granted.exception()  # who waited may have left: nobody then takes it

    def _too_late(self, model: Model[Upstream]) -> RequestError:
        message = f"{model.name} is still {model.state.value}; it goes on, come back later"
        return RequestError(503, message, retry_after=10)

    # What moves models.

    def _schedule(self) -> None:
        """Decide anew, and begin what is decided. Holds no `await`."""
        if self._closed:
            self._notify()
            return
        now = self._clock()
        self._look_for_others(now)
        plan = turns.plan(self._rows(), self._room, now, self._bound)
        for load in plan.loads:
            self._switch(load)
        again = [plan.again_at] if plan.again_at is not None else []
        for name, reason in plan.refused:
            if not self._refused(self._models[name], reason, now):
                again.append(now + LOOK)
        for model in self._models.values():
            if model.state is ModelState.READY and model.name not in plan.held_back:
                self._grant(model)
        self._wake_at(min(again, default=None), now)
        self._notify()

    def _look_for_others(self, now: float) -> None:
        """Other programs come and go: before somebody is loaded, what they hold is read again."""
        models = list(self._models.values())
        waiting = [model.need for model in models if model.waiters]
        moving = any(model.state in (*COMING, *LEAVING) for model in models)
        if not waiting or moving or now < self._room_until:
            return
        self._room_until = now + LOOK
        ours = together([m.need for m in models if m.state is ModelState.READY])
        wanted = {d: max(need.get(d, 0) for need in waiting) for d in self._budget}
        self._room = beside_others(self._budget, self._free.gpus(), ours, wanted)

    def _refused(self, model: Model[Upstream], reason: str, now: float) -> bool:
        """Where it is other programs that take the room, its callers wait a moment before they are
        told: a process that has ended may not have let go of everything yet."""
        taken = {d: size - self._room[d] for d, size in self._budget.items()}
        others = [
            f"; other programs hold {taken[device] / GIB:.2f} GiB of {device}"
            for device, size in model.need.items()
            if size and taken[device] > 0
        ]
        if others and now - model.waiters[0].since < GRACE:
            return False
        message = f"{model.name} {reason}{''.join(others)}"
        self._refuse(model, RequestError(503, message, retry_after=10 if others else None))
        return True

    def _rows(self) -> list[Row]:
        return [self._row(model) for model in self._models.values() if model.server]

    def _row(self, model: Model[Upstream]) -> Row:
        stage = Stage.AWAY
        if model.state is ModelState.READY:
            stage = Stage.HERE
        elif model.state in COMING:
            stage = Stage.COMING
        elif model.state in LEAVING:
            stage = Stage.LEAVING
        return Row(
            model.name,
            model.need,
            stage,
            model.leased,
            model.waiters[0].since if model.waiters else None,
            model.priority,
            model.pinned,
            model.last_used,
            model.here_since,
            model.leave_cost + model.come_cost,
            model.gap,
            len(model.waiters),
        )

    def _grant(self, model: Model[Upstream]) -> None:
        while model.waiters:
            granted = model.waiters.popleft().granted
            if not granted.done():
                model.leased += 1  # here, so that nothing comes between
                granted.set_result(None)

    def _wake_at(self, when: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, when - now), self._schedule)

    def _switch(self, load: Load) -> None:
        model = self._models[load.name]
        for name in load.evict:
            self._let_go(self._models[name])
            ModelLogger(logger, name).info("makes room for %s: %s", model.name, load.reason)
        leaving = [self._models[name] for name in load.after]
        parked = model.state is ModelState.PARKED
        model.state = ModelState.WAKING if parked else ModelState.LOADING
        self._moves += 1
        model.coming = self._run(self._come(model, leaving))

    def _let_go(self, model: Model[Upstream], *, keep: bool = True) -> None:
        """From here on it counts as leaving; it holds its memory until it is gone."""
        model.state = ModelState.PARKING if keep else ModelState.STOPPING
        self._moves += 1
        model.leaving = self._run(self._leave(model, keep=keep))

    async def _leave(self, model: Model[Upstream], *, keep: bool) -> None:
        assert model.server is not None
        begun = self._clock()
        self._learn(model)
        try:
            if keep:
                model.tier = await self._keep(model, model.server)
            else:
                await model.server.stop()
                model.tier = Tier.DISK
            model.state = ModelState.PARKED if model.tier is Tier.RAM else ModelState.COLD
        except AppError as error:
            self._failed(model, str(error))
        finally:
            model.leaving = None
            if keep:
                model.leave_cost = self._clock() - begun
            self._schedule()

    async def _keep(self, model: Model[Upstream], server: Server) -> Tier:
        """Where it goes. In CPU RAM others may have to make room for it, and go on to disk."""
        if not server.parks():
            return await server.leave()
        async with self._parking:  # one at a time: each takes of what the one before has left
            parked = [m for m in self._models.values() if m.state is ModelState.PARKED]
            in_ram = [self._in_ram(other) for other in parked]
            decision = residency.park(self._in_ram(model), in_ram, {HOST: self._free.ram()})
            for name in decision.evict if isinstance(decision, Swap) else ():
                log = ModelLogger(logger, name)
                log.info("goes on to disk, for %s: %s", model.name, decision.reason)
                self._let_go(self._models[name], keep=False)
            leaving = [other.leaving for other in parked if other.leaving is not None]
            if leaving:
                await asyncio.wait(leaving)
            return await server.leave()

    def _in_ram(self, model: Model[Upstream]) -> Resident:
        """As one that holds CPU RAM; who is asked for now is about to leave it by itself."""
        need = {HOST: model.server.parks() if model.server is not None else 0}
        held, used = bool(model.waiters), model.last_used
        return Resident(model.name, need, held, last_used=used, priority=model.priority)

    async def _come(self, model: Model[Upstream], leaving: Sequence[Model[Upstream]]) -> None:
        assert model.server is not None
        log = ModelLogger(logger, model.name)
        away = [other.leaving for other in leaving if other.leaving is not None]
        if away:
            await asyncio.wait(away)
        begun = self._clock()
        log.info("loading" if model.state is ModelState.LOADING else "waking")
        before, move = self._free.gpus(), self._alone(model)
        try:
            await model.server.start()
        except BaseException as error:
            model.coming, model.tier = None, Tier.DISK
            if not isinstance(error, LoadError):
                raise
            if not self._may_be_too_tight(model, error):
                self._failed(model, str(error))
                self._refuse(model, self._failure(model, error))
            self._schedule()
            return
        model.coming = None
        if before and move is not None and move == self._alone(model):
            after = self._free.gpus()
            model.server.took({d: size - after.get(d, size) for d, size in before.items()})
        self._arrived(model, self._clock() - begun)

    def _arrived(self, model: Model[Upstream], seconds: float) -> None:
        assert model.server is not None
        now = self._clock()
        model.state, model.reason, model.tier = ModelState.READY, "", self._resident_tier
        model.come_cost, model.here_since = seconds, now
        model.last_used = max(model.last_used, now)
        model.switches += 1
        ModelLogger(logger, model.name).info("ready in %.1f s", seconds)
        self._learn(model)
        if model.watch is None or model.watch.done():  # it may have been parked, not ended
            model.watch = self._run(self._watch(model, model.server))
        self._schedule()

    def _alone(self, model: Model[Upstream]) -> int | None:
        """Which of all moves this one is, if nobody else moves now."""
        others = [m for m in self._models.values() if m is not model]
        moving = any(m.state in (*COMING, *LEAVING) for m in others)
        return None if moving else self._moves

    def _failure(self, model: Model[Upstream], error: LoadError) -> RequestError:
        wait = max(1.0, model.retry_at - self._clock())
        found = RequestError(503, f"{model.name}: {error}", retry_after=wait)
        found.__cause__ = error
        return found

    def _may_be_too_tight(self, model: Model[Upstream], error: LoadError) -> bool:
        """A load that ran out of memory beside others is tried again with more room."""
        beside = any(o.state is ModelState.READY for o in self._models.values() if o is not model)
        larger = {device: int(size * MORE_ROOM) for device, size in model.need.items()}
        if not (beside and OUT_OF_MEMORY.search(str(error)) and self._fits_alone(larger)):
            return False
        ModelLogger(logger, model.name).warning("needs more room than was predicted: %s", error)
        model.need, model.state = larger, ModelState.COLD
        return True

    def _fits_alone(self, need: Mapping[str, int]) -> bool:
        return all(size <= self._budget.get(device, 0) for device, size in need.items())

    def _learn(self, model: Model[Upstream]) -> None:
        """What it really holds counts, where that is more than was predicted; who is idle makes
        room for it."""
        assert model.server is not None
        held = model.server.measured()
        more = {
            device: min(size, self._budget[device])
            for device, size in held.items()
            if size > model.need.get(device, 0) and device in self._budget
        }
        if not more:
            return
        model.need = {**model.need, **more}
        if model.state is not ModelState.READY:
            return
        for name in turns.overflow(self._rows(), self._budget):
            if name != model.name:
                self._let_go(self._models[name])

    async def _watch(self, model: Model[Upstream], server: Server) -> None:
        """Await the end of a loaded model's process; one that nobody asked for is a failure."""
        code = await server.exited()
        if model.state not in (ModelState.READY, ModelState.PARKED):
            return  # it was asked to stop
        model.tier = Tier.DISK
        self._failed(model, server.explain(code))
        self._schedule()
        if len(self._models) == 1 or model.pinned:
            self._run(self._reload(model))  # not here: what comes then needs a watch of its own

    async def _reload(self, model: Model[Upstream]) -> None:
        """The only model is loaded again without being asked, as often as it takes."""
        while not self._closed and not self.lost.done() and model.state is not ModelState.READY:
            await asyncio.sleep(max(0.0, model.retry_at - self._clock()))
            try:
                await self.load(model.name)
            except (AppError, RequestError):
                continue  # said, counted and put off by _failed

    def _failed(self, model: Model[Upstream], reason: str) -> None:
        model.failures += 1
        wait = backoff.delay(model.failures)
        model.retry_at = self._clock() + wait
        model.state = ModelState.FAILED if wait else ModelState.COLD
        model.reason = reason
        ModelLogger(logger, model.name).error("%s", reason)
        if all(m.failures >= FAILURES_TO_GIVE_UP for m in self._models.values()):
            if not self.lost.done():
                self.lost.set_result(f"every model failed {FAILURES_TO_GIVE_UP} times: {reason}")

    def _run(self, coroutine: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a fault in the pool", exc_info=error)
            if not self.lost.done():
                self.lost.set_result(f"a fault in the pool: {error}")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
