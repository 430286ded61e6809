"""A request's way to its model: it is counted, waits in the line, leases the model, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from app.errors import RequestError
from app.memory.ledger import MOVING, Ledger, Model, ModelState, Upstream
from app.memory.line import Waiter

STOPPING = "the instance is stopping"
MAX_WAITING = 512  # requests for one model


class Leases(Generic[Upstream]):
    """Who may come, who must wait, and when a decision is due."""

    def __init__(
        self,
        ledger: Ledger[Upstream],
        schedule: Callable[[], None],
        notify: Callable[[], None],
    ) -> None:
        """`schedule` decides anew; `notify` says that something has changed, and nothing is to be
        decided."""
        self._ledger = ledger
        self._schedule = schedule
        self._notify = notify

    def deny_if_full(self, model: Model[Upstream]) -> None:
        """Raises what `Pool.deny_if_full` raises."""
        if self._ledger.closed:
            raise RequestError(503, STOPPING, retry_after=10)
        if model.limit is not None and model.admitted >= model.limit:
            model.denied += 1
            message = f"{model.name}: {model.limit} requests are running, which is the limit"
            raise RequestError(429, message, retry_after=1)

    def queue(self, model: Model[Upstream]) -> Waiter | None:
        """Join the model's line; None where the request leases the model at once. Raises
        RequestError 503 where waiting would be in vain."""
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
            raise RequestError(503, message, retry_after=10)
        if model.state is ModelState.READY and model.line.empty and not self._undecided():
            model.line.lease(now)  # as `turns` would say
            return None
        waiter = model.line.join(now)
        self._schedule()
        return waiter

    def _undecided(self) -> bool:
        """Whether requests wait for a decision: for a model's turn, or for one that drains. Nothing
        is to be decided for a model that comes until it is there, nor for one that leaves until it
        is gone, nor for one that is not set up."""
        return any(
            model.line.waiting and model.state not in MOVING and model.server is not None
            for model in self._ledger
        )

    def release(self, model: Model[Upstream], waiter: Waiter | None) -> None:
        """A request ends, or gives up waiting."""
        now, waited = self._ledger.now(), waiter is not None and not waiter.leases
        if waiter is None:
            model.line.end(now)
        else:
            model.line.release(waiter, now)
        # While others lease the model, it is as busy as before.
        if (waited or not model.line.leased) and self._undecided():
            self._schedule()
        else:
            self._notify()


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
    request, and mostly has nothing to wait for."""

    def __init__(
        self, leases: Leases[Upstream], model: Model[Upstream], wait: float | None
    ) -> None:
        self._leases = leases
        self._model = model
        self._wait = wait
        self._waiter: Waiter | None = None

    async def __aenter__(self) -> Upstream:
        self._waiter = self._leases.queue(self._model)
        if self._waiter is not None:
            await self._granted(self._waiter)
        assert self._model.upstream is not None
        return self._model.upstream

    async def _granted(self, waiter: Waiter) -> None:
        try:
            if not waiter.granted.done():
                await asyncio.wait({waiter.granted}, timeout=self._wait)
            if waiter.granted.done():
                waiter.granted.result()
            elif not waiter.leases:
                raise self._too_late()
        except BaseException:
            self._leases.release(self._model, waiter)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leases.release(self._model, self._waiter)

    def _too_late(self) -> RequestError:
        name, state = self._model.name, self._model.state.value
        message = f"{name} is still {state}; it goes on, come back later"
        return RequestError(503, message, retry_after=10)
