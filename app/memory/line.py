"""The requests of one model: those that wait for it, in a line, and those that lease it."""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 8  # requests that are told in one turn of the loop: each then sends to its child


class Waiter:
    """A request in the line, `since` when; `granted` is done soon after it `leases` the model, or
    with an exception where it is refused."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.leases = False
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Line:
    """Times in seconds of one clock."""

    def __init__(self) -> None:
        self.leased = 0  # requests that lease the model: granted, and not ended
        self.last_used = 0.0
        self.gap: float | None = None  # from the model's last idle moment to the request after it
        self._waiters: deque[Waiter] = deque()
        self._untold: deque[Waiter] = deque()  # they lease the model, and do not know it yet

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def waiting_since(self) -> float | None:
        """When the oldest came that waits; None if none does."""
        return self._waiters[0].since if self._waiters else None

    @property
    def empty(self) -> bool:
        """A request that comes now is the next."""
        return not self._waiters and not self._untold

    def lease(self, now: float) -> None:
        """A request leases the model without waiting; it ends with `end`."""
        if not self.leased:
            self.gap = now - self.last_used
        self.leased += 1

    def end(self, now: float) -> None:
        self.leased -= 1
        self.last_used = now

    def join(self, now: float) -> Waiter:
        """A new place at the end of the line."""
        if not self.leased and not self._waiters:
            self.gap = now - self.last_used
        waiter = Waiter(now)
        self._waiters.append(waiter)
        return waiter

    def grant(self) -> None:
        """All requests in the line lease the model from here on. They are told of it a few at a
        time, in their order: hundreds at once would hold up everybody else."""
        telling = bool(self._untold)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.granted.done():
                self.leased += 1  # here: the model must not be evicted before the request runs
                waiter.leases = True
                self._untold.append(waiter)
        if not telling:
            self._tell()

    def _tell(self) -> None:
        for _ in range(min(AT_ONCE, len(self._untold))):
            granted = self._untold.popleft().granted
            if not granted.done():
                granted.set_result(None)
        if self._untold:
            asyncio.get_running_loop().call_soon(self._tell)

    def refuse(self, error: Exception) -> None:
        """All requests in the line end with this error."""
        while self._waiters:
            granted = self._waiters.popleft().granted
            if not granted.done():
                granted.set_exception(error)
                granted.exception()  # asyncio complains where the request has left meanwhile

    def release(self, waiter: Waiter, now: float) -> None:
        """End the request's lease, or take it out of the line."""
        if waiter.leases:
            waiter.granted.cancel()  # nothing, where it was told
            self.end(now)
        elif not waiter.granted.done():
            waiter.granted.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
