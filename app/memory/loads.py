"""Performs what the pool decides: models come into memory, leave it, and are watched in between.

Every step is written into the ledger's rows; then the pool decides anew (`changed`).
"""

from __future__ import annotations

import asyncio
import enum
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic

from app.console import ModelLogger
from app.errors import AppError, LoadError, RequestError, for_callers
from app.memory import backoff, residency, turns
from app.memory.ledger import MOVING, Ledger, Loadable, Model, ModelState, Tier, Upstream
from app.memory.line import ASKS
from app.memory.moves import Departure
from app.memory.residency import Swap
from app.memory.stages import SwitchStage
from app.planning.amounts import HOST, lacking, lasting

logger = logging.getLogger(__name__)

STILL = 60.0  # seconds after which it is told that a load goes on
AGAIN = 1.0  # seconds after which a model that found no room is tried again
MORE_ROOM = 1.3  # times what was predicted
OUT_OF_MEMORY = re.compile(r"alloc|out of memory|\boom\b|signal 9|create_context|not fit", re.I)


class Keep(enum.Enum):
    """What is kept of a model that leaves."""

    NEAR = "all that can be kept, in the tier from which it comes back soonest"
    FILES = "what can be kept on disk, so that its memory is free"
    NOTHING = "nothing"


class Loads(Generic[Upstream]):
    def __init__(self, ledger: Ledger[Upstream], changed: Callable[[], None]) -> None:
        """`changed` is called whenever a model has come, has left or has failed."""
        self._ledger = ledger
        self._changed = changed
        self._moves = 0  # so many have begun
        self._parking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # What the pool asks for. The row says so at once, the rest is done in a task.

    def come(self, model: Model[Upstream], after: Sequence[Model[Upstream]]) -> None:
        """Bring a model into memory once all of `after` have left."""
        parked = model.state is ModelState.PARKED
        model.state = ModelState.WAKING if parked else ModelState.LOADING
        model.unused = ""
        self._moves += 1
        model.coming = self._run(self._come(model, after))

    def leave(self, model: Model[Upstream], why: Departure, keep: Keep = Keep.NEAR) -> None:
        """Let a model leave. It uses its memory until it is gone."""
        model.moves.left(why)
        model.begins_to_leave()
        model.state = ModelState.PARKING if keep is Keep.NEAR else ModelState.STOPPING
        if model.server is not None and model.held_back_since is not None:
            drained = self._ledger.now() - model.held_back_since
            model.server.stages.add(SwitchStage.DRAIN, drained)
        self._moves += 1
        model.leaving = self._run(self._leave(model, keep))

    def leave_unused(self, model: Model[Upstream], reason: str) -> None:
        """Let a model leave that nobody has used for its time to live."""
        model.unused = reason
        ModelLogger(logger, model.name).info("leaves memory: %s", reason)
        # Without a GPU, CPU RAM is the memory that it is to free.
        keep = Keep.FILES if self._ledger.shared else Keep.NEAR
        self.leave(model, Departure.UNUSED, keep)

    async def close(self) -> None:
        """Stop every process; one that cannot be stopped costs the others nothing."""
        stops = (self._stop(model) for model in self._ledger)
        failures = await asyncio.gather(*stops, return_exceptions=True)
        for model, failure in zip(self._ledger, failures, strict=True):
            if isinstance(failure, Exception):
                log = ModelLogger(logger, model.name)
                log.error("llama-server cannot be stopped: %s", failure)
        for task in list(self._tasks):
            task.cancel()

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

    # A model comes.

    async def _come(self, model: Model[Upstream], after: Sequence[Model[Upstream]]) -> None:
        assert model.server is not None
        log = ModelLogger(logger, model.name)
        leaving = [other.leaving for other in after if other.leaving is not None]
        asked, back = self._ledger.now(), sum(other.come_cost for other in after)
        model.server.expect()
        if leaving:
            await asyncio.wait(leaving)
        await self._clear_ram(model)
        begun = self._ledger.now()
        verb = "loading" if model.state is ModelState.LOADING else "waking"
        log.info(verb)
        telling = self._run(self._tell(model, model.server, f"still {verb}"))
        try:
            came_from = await self._start(model, model.server)
        except BaseException as error:
            model.coming, model.tier = None, Tier.DISK
            if not isinstance(error, LoadError):
                raise
            model.try_cost = self._ledger.now() - asked + back
            if not self._may_be_too_tight(model, error):
                self._failed(model, str(error))
                model.line.refuse(self._refusal(model, error))
            self._changed()
            return
        finally:
            telling.cancel()
        model.coming = None
        model.try_cost = self._ledger.now() - asked + back
        self._arrived(model, self._ledger.now() - begun, came_from)

    async def _start(self, model: Model[Upstream], server: Loadable) -> Tier:
        """The tier from which it came."""
        before, move = self._ledger.free.gpus(), self._alone(model)
        came_from = await server.start()
        if before and move is not None and move == self._alone(model):
            left = self._ledger.free.gpus()
            server.took({device: size - left.get(device, size) for device, size in before.items()})
        await server.measure()  # only now: what it took counts where nothing can be measured
        return came_from

    async def _tell(self, model: Model[Upstream], server: Loadable, still: str) -> None:
        """One who watches the console knows whether to wait: a large model takes minutes."""
        begun = self._ledger.now()
        while True:
            await asyncio.sleep(STILL)
            done = "" if server.progress is None else f", {server.progress:.0%}"
            taken = lasting(round(self._ledger.now() - begun))
            ModelLogger(logger, model.name).info("%s after %s%s", still, taken, done)

    def _alone(self, model: Model[Upstream]) -> int | None:
        """The number of moves that have begun, if no other model moves now: if it is the same
        before and after a load, no other model came or left meanwhile."""
        moving = any(other.state in MOVING for other in self._ledger.others(model))
        return None if moving else self._moves

    def _arrived(self, model: Model[Upstream], seconds: float, came_from: Tier) -> None:
        assert model.server is not None
        now = self._ledger.now()
        model.moves.came(came_from.value, seconds)
        model.woke = came_from is Tier.RAM
        model.state, model.reason, model.tier = ModelState.READY, "", self._ledger.resident_tier
        model.come_cost, model.here_since = seconds, now
        model.line.last_used = max(model.line.last_used, now)
        model.switches += 1
        ModelLogger(logger, model.name).info("ready in %.1f s", seconds)
        self._learn(model)
        # A parked process is watched already; one that died on its way back must not end the next.
        if model.watch is None or model.watch.done() or came_from is not Tier.RAM:
            if model.watch is not None:
                model.watch.cancel()
            model.watch = self._run(self._watch(model, model.server))
            model.line.budget.reset(model.server.template)
        self._changed()

    # A model leaves.

    async def _leave(self, model: Model[Upstream], keep: Keep) -> None:
        assert model.server is not None
        begun = self._ledger.now()
        try:
            if keep is Keep.NOTHING:
                await model.server.stop()
                model.tier = Tier.DISK
            else:
                if not model.was_parked:
                    await model.server.measure()
                    self._learn(model)
                model.tier = await self._keep(model, model.server, keep)
            model.state = ModelState.PARKED if model.tier is Tier.RAM else ModelState.COLD
            if model.state is ModelState.PARKED and model.watch is not None and model.watch.done():
                self._has_ended(model, model.server, await model.server.exited())
            if model.state is ModelState.COLD:
                model.line.budget.forget_left()
        except AppError as error:
            self._failed(model, str(error))
        finally:
            model.leaving = None
            if keep is not Keep.NOTHING and not model.was_parked:
                model.leave_cost, model.has_left = self._ledger.now() - begun, True
            self._changed()

    async def _keep(self, model: Model[Upstream], server: Loadable, keep: Keep) -> Tier:
        """The tier where it goes. If that is CPU RAM, parked models may have to go on to disk."""
        if keep is Keep.FILES:
            return await server.leave_for_disk()
        if not server.parked_size():
            return await server.leave()
        async with self._parking:  # one at a time, so that each finds what the one before has left
            parked = [other for other in self._ledger if other.state is ModelState.PARKED]
            in_ram = [other.in_ram() for other in parked]
            free = {HOST: self._ledger.ram_left(model)}
            decision = residency.park(model.in_ram(), in_ram, free)
            if not isinstance(decision, Swap):
                ModelLogger(logger, model.name).info("goes to disk: %s", decision.reason)
                return await server.leave_for_disk()
            self._go_on(decision, model)
            leaving = [other.leaving for other in parked if other.leaving is not None]
            if leaving:
                await asyncio.wait(leaving)
            return await server.leave()

    async def _clear_ram(self, model: Model[Upstream]) -> None:
        """Where models serve from CPU RAM: return once what this one needs is free beside those
        that are parked there. Some of them go on to disk for it."""
        while not self._ledger.closed:
            now, later = self._ledger.ram_lacking()
            if later:
                parked = [m.in_ram() for m in self._ledger if m.state is ModelState.PARKED]
                self._go_on(residency.spill({HOST: later}, parked), model)
            leaving = [other.leaving for other in self._ledger if other.leaving is not None]
            if not (now and leaving):
                return
            await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)

    def _go_on(self, decided: Swap, model: Model[Upstream]) -> None:
        """Parked models go on to disk, for another one."""
        for name in decided.evict:
            log = ModelLogger(logger, name)
            log.info("goes on to disk, for %s: %s", model.name, decided.reason)
            self.leave(self._ledger[name], Departure.RAM, Keep.FILES)

    # A model needs more than was predicted.

    def _may_be_too_tight(self, model: Model[Upstream], error: LoadError) -> bool:
        """A load that ran out of memory beside other models is tried again with more room."""
        beside = any(other.state is ModelState.READY for other in self._ledger.others(model))
        larger = {device: int(size * MORE_ROOM) for device, size in model.need.items()}
        alone = not lacking(larger, self._ledger.budget)
        if not (beside and alone and OUT_OF_MEMORY.search(str(error))):
            return False
        ModelLogger(logger, model.name).warning("needs more room than was predicted: %s", error)
        model.need, model.state = larger, ModelState.COLD
        return True

    def _learn(self, model: Model[Upstream]) -> None:
        """From now on the model counts for what it really uses, if that is more than was predicted.
        Idle models make room for it."""
        assert model.server is not None
        budget = self._ledger.budget
        more = {
            device: min(size, budget[device])
            for device, size in model.server.usage().items()
            if size > model.need.get(device, 0) and device in budget
        }
        if not more:
            return
        model.need = {**model.need, **more}
        model.held = model.need.get(HOST, 0)  # read only while it leaves
        if model.state is not ModelState.READY:
            return
        self._run(self._clear_ram(model))
        for name in turns.overflow(self._ledger.standings(), budget):
            if name != model.name:
                self.leave(self._ledger[name], Departure.GROWN)

    # A model fails.

    async def _watch(self, model: Model[Upstream], server: Loadable) -> None:
        """Await the end of a loaded model's process. If it was not told to end, it has failed."""
        code = await server.exited()
        if model.state in (ModelState.READY, ModelState.PARKED):  # or it was asked to stop
            self._has_ended(model, server, code)

    def _has_ended(self, model: Model[Upstream], server: Loadable, code: int) -> None:
        if model.line.leased:
            model.line.last_used = self._ledger.now()
        model.ends_turn()
        model.tier = Tier.DISK
        model.moves.left(Departure.ENDED)
        model.line.budget.forget_left()
        self._failed(model, server.explain(code))
        self._changed()
        # One that was away because nobody used it stays away.
        if model.pinned or (len(self._ledger) == 1 and not model.unused):
            self._run(self._reload(model))  # a task of its own: the next process is watched again

    async def _reload(self, model: Model[Upstream]) -> None:
        """The only model, or a pinned one, is loaded again without being asked, as often as it
        takes."""
        ledger = self._ledger
        while not (ledger.closed or ledger.lost.done()) and model.state is not ModelState.READY:
            if (wait := model.retry_at - ledger.now()) > 0:
                await asyncio.sleep(wait)
                continue
            waiter = model.line.join(ledger.now(), ASKS)
            self._changed()
            try:
                await waiter.granted
            except RequestError:  # it failed again, as `_failed` has said, or has no room now
                await asyncio.sleep(AGAIN)
            finally:
                model.line.release(waiter, ledger.now())
                self._changed()

    def _failed(self, model: Model[Upstream], reason: str) -> None:
        model.failures += 1
        told = for_callers(reason)
        model.moves.failed(told)
        wait = backoff.delay(model.failures, model.try_cost)
        model.retry_at = self._ledger.now() + wait
        model.state = ModelState.FAILED if wait else ModelState.COLD
        model.reason = told
        ModelLogger(logger, model.name).error("%s", reason)
        self._ledger.lose_if_given_up(reason)

    def _refusal(self, model: Model[Upstream], error: LoadError) -> RequestError:
        """The answer to requests that waited for a load that failed."""
        wait = max(1.0, model.retry_at - self._ledger.now())
        refusal = RequestError(503, f"{model.name}: {for_callers(str(error))}", retry_after=wait)
        refusal.__cause__ = error
        return refusal

    # Tasks.

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a fault in the pool", exc_info=error)
            self._ledger.lose(f"a fault in the pool: {error}")
