"""The requests of one model: those that wait for it, in a line, and those that lease it."""

from __future__ import annotations

import asyncio
from collections import deque


class Waiter:
    """A request in the line, `since` when; `granted` is done once it may lease the model, or is
    refused with an exception."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Line:
    """Times in seconds of one clock."""

    def __init__(self) -> None:
        self.leased = 0  # requests that lease the model: granted, and not ended
        self.last_used = 0.0
        self.gap: float | None = None  # from the model's last idle moment to the request after it
        self._waiters: deque[Waiter] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def waiting_since(self) -> float | None:
        """When the oldest came that waits; None if none does."""
        return self._waiters[0].since if self._waiters else None

    def join(self, now: float) -> Waiter:
        """A new place at the end of the line."""
        if not self.leased and not self._waiters:
            self.gap = now - self.last_used
        waiter = Waiter(now)
        self._waiters.append(waiter)
        return waiter

    def grant(self) -> None:
        """All requests in the line lease the model from here on."""
        while self._waiters:
            granted = self._waiters.popleft().granted
            if not granted.done():
                self.leased += 1  # here: the model must not be evicted before the request runs
                granted.set_result(None)

    def refuse(self, error: Exception) -> None:
        """All requests in the line end with this error."""
        while self._waiters:
            granted = self._waiters.popleft().granted
            if not granted.done():
                granted.set_exception(error)
                granted.exception()  # asyncio complains where the request has left meanwhile

    def release(self, waiter: Waiter, now: float) -> None:
        """End the request's lease, or take it out of the line."""
        granted = waiter.granted
        if not granted.done():
            granted.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        elif not granted.cancelled() and granted.exception() is None:
            self.leased -= 1
            self.last_used = now
