"""The models behind the front: the only ledger of what runs, who uses it, and what to start.

No lock: what is read, decided and written holds no `await`, on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic

from app.console import ModelLogger
from app.engine import backoff
from app.errors import AppError, LoadError, RequestError
from app.memory.ledger import Model, ModelState, Server, Tier, Upstream, View
from app.memory.residency import Refuse, Resident, Serve, Swap, decide

logger = logging.getLogger(__name__)

FAILURES_TO_GIVE_UP = 5
STOPPING = "the instance is stopping"


class Pool(Generic[Upstream]):
    def __init__(
        self,
        models: Iterable[Model[Upstream]],
        budget: int,
        clock: Callable[[], float],
        *,
        resident_tier: Tier = Tier.RAM,
    ) -> None:
        """`budget` in bytes; `clock` gives seconds that only grow."""
        self._models = {model.name: model for model in models}
        self._budget = budget
        self._clock = clock
        self._resident_tier = resident_tier
        self._resident: dict[str, Model[Upstream]] = {}
        self._changed = asyncio.Event()
        self._watches: set[asyncio.Task[None]] = set()
        self._closed = False
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # What the set-up tells.

    def downloading(self, name: str, progress: float = 0.0) -> None:
        model = self._models[name]
        model.state, model.progress = ModelState.DOWNLOADING, progress

    def provide(self, name: str, server: Server, upstream: Upstream, size: int) -> None:
        """The model's files are here: from now on it can be leased. `size` in bytes."""
        model = self._models[name]
        model.server, model.upstream, model.size = server, upstream, size
        model.state, model.progress = ModelState.COLD, None
        model.available.set()

    def fail(self, name: str, reason: str) -> None:
        """The model will never come."""
        model = self._models[name]
        model.state, model.reason, model.progress = ModelState.FAILED, reason, None
        model.available.set()

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
        deadline = None if wait is None else self._clock() + wait
        await self._hold(model, deadline)
        try:
            if model.loading is not None:
                await self._join(model, model.loading, deadline)
            assert model.upstream is not None
            yield model.upstream
        finally:
            model.leased -= 1
            model.last_used = self._clock()
            self._notify()

    def finished(self, name: str, *, served: bool) -> None:
        """An admitted request has ended; one that was served makes up for earlier failures."""
        model = self._models[name]
        model.requests += 1
        if served:
            model.failures = 0

    async def gone(self, name: str, patience: float = 2.0) -> None:
        """A child took no connection: wait until its end was noticed, at most `patience` s."""
        model = self._models[name]
        if model.server is not None and model.name in self._resident:
            await asyncio.wait({asyncio.ensure_future(model.server.exited())}, timeout=patience)
            await asyncio.sleep(0)  # the watch runs on the same exit

    # What everybody may ask.

    def view(self) -> list[View]:
        return [self._view(model) for model in self._models.values()]

    def _view(self, model: Model[Upstream]) -> View:
        progress = model.progress
        if model.state is ModelState.LOADING and model.server is not None:
            progress = model.server.progress
        return View(
            model.name,
            model.state,
            self._tier(model),
            model.reason,
            progress,
            model.admitted,
            model.leased,
            model.requests,
            model.denied,
            model.last_used,
        )

    def _tier(self, model: Model[Upstream]) -> Tier:
        if model.state in (ModelState.READY, ModelState.STOPPING):
            return self._resident_tier
        return Tier.NONE if model.server is None else Tier.DISK

    # The life of the processes.

    async def load(self, name: str) -> None:
        """Load a model before anybody asks. Raises LoadError."""
        model = self._models[name]
        await self._hold(model, None)
        try:
            if model.loading is not None:
                await asyncio.shield(model.loading)
        finally:
            model.leased -= 1
            self._notify()

    async def close(self) -> None:
        """Stop every process; nothing is loaded any more."""
        self.refuse_new()
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*(self._stop(model) for model in list(self._resident.values())))

    def refuse_new(self) -> None:
        """The drain begins: who holds a model goes on, nobody else gets one."""
        self._closed = True
        for model in self._models.values():
            model.available.set()
        self._notify()

    async def drained(self) -> None:
        """Return when no request holds a model."""
        while any(model.leased for model in self._models.values()):
            await self._changed.wait()

    async def _stop(self, model: Model[Upstream]) -> None:
        if model.loading is not None:
            model.loading.cancel()
            await asyncio.wait({model.loading})
        model.state = ModelState.STOPPING
        if model.server is not None:
            await model.server.stop()
        model.state = ModelState.COLD
        self._resident.pop(model.name, None)

    async def _hold(self, model: Model[Upstream], deadline: float | None) -> None:
        await self._until(model, model.available, deadline)
        while True:
            if self._closed:
                raise RequestError(503, STOPPING, retry_after=10)
            if model.server is None:
                raise RequestError(503, f"{model.name} is not available: {model.reason}")
            decision = decide(model.name, model.size, self._residents(), self._budget)
            if isinstance(decision, Serve) and not model.evicting:
                break
            if isinstance(decision, Swap):
                self._swap(model, decision.evict)
                break
            if isinstance(decision, Refuse):
                message = f"{model.name} needs {model.size} bytes of {self._budget}"
                raise RequestError(503, message)
            await self._until(model, self._changed, deadline)
        model.leased += 1

    def _residents(self) -> list[Resident]:
        return [
            Resident(m.name, m.size, bool(m.leased or m.loading or m.evicting), m.last_used)
            for m in self._resident.values()
        ]

    def _swap(self, model: Model[Upstream], evict: Sequence[str]) -> None:
        wait = model.retry_at - self._clock()
        if wait > 0:
            # A caller is not made to wait for a load that is likely to fail again.
            raise RequestError(
                503, f"{model.name} is not available: {model.reason}", retry_after=wait
            )
        leaving = [self._resident[name] for name in evict]
        for other in leaving:
            other.evicting = True  # still holds its memory until it has stopped
        self._resident[model.name] = model
        model.state = ModelState.LOADING
        model.loading = asyncio.create_task(self._load(model, leaving))
        model.loading.add_done_callback(_retrieve)

    async def _join(
        self, model: Model[Upstream], loading: asyncio.Task[None], deadline: float | None
    ) -> None:
        left = None if deadline is None else max(0.0, deadline - self._clock())
        done, _ = await asyncio.wait({loading}, timeout=left)
        if not done:
            raise self._too_late(model)
        if loading.cancelled():
            raise RequestError(503, STOPPING, retry_after=10)
        error = loading.exception()
        if error is not None:
            wait = max(1.0, model.retry_at - self._clock())
            raise RequestError(503, f"{model.name}: {error}", retry_after=wait) from None

    async def _until(
        self, model: Model[Upstream], event: asyncio.Event, deadline: float | None
    ) -> None:
        if event.is_set():
            return
        left = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            await asyncio.wait_for(event.wait(), left)
        except asyncio.TimeoutError:
            raise self._too_late(model) from None

    def _too_late(self, model: Model[Upstream]) -> RequestError:
        message = f"{model.name} is still {model.state.value}; it goes on, come back later"
        return RequestError(503, message, retry_after=10)

    async def _load(self, model: Model[Upstream], leaving: Sequence[Model[Upstream]]) -> None:
        assert model.server is not None
        log = ModelLogger(logger, model.name)
        begun = self._clock()
        try:
            for other in leaving:
                await self._evict(other)
            log.info("loading")
            await model.server.start()
        except BaseException as error:
            del self._resident[model.name]
            if isinstance(error, LoadError):
                self._failed(model, str(error))
            raise
        finally:
            model.loading = None
            self._notify()
        model.state, model.reason = ModelState.READY, ""
        log.info("ready in %.1f s", self._clock() - begun)
        watch = asyncio.create_task(self._watch(model, model.server))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _evict(self, other: Model[Upstream]) -> None:
        assert other.server is not None
        other.state = ModelState.STOPPING
        await other.server.stop()
        other.evicting = False
        other.state = ModelState.COLD
        del self._resident[other.name]

    async def _watch(self, model: Model[Upstream], server: Server) -> None:
        """Await the end of a loaded model's process; one that nobody asked for is a failure."""
        code = await server.exited()
        if model.state is not ModelState.READY or self._resident.get(model.name) is not model:
            return  # it was asked to stop
        del self._resident[model.name]
        self._failed(model, server.explain(code))
        self._notify()
        if len(self._models) == 1:
            await self._reload(model)

    async def _reload(self, model: Model[Upstream]) -> None:
        """The only model is loaded again without being asked, as often as it takes."""
        while not self._closed and not self.lost.done() and model.name not in self._resident:
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

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Every waiter may have left: the load's failure is then known from its log line."""
    if not task.cancelled():
        task.exception()
