"""The requests of one model: those that wait for it, in a line, and those that lease it."""

from __future__ import annotations

import asyncio
from collections import deque

from app.memory.caller import Caller
from app.memory.fair import Fair
from app.memory.kv_budget import KvBudget
from app.memory.seat import Demand, Seat

AT_ONCE = 8  # requests that are told in one turn of the loop: each then sends to its child
AGED = 30.0  # seconds: whom others have kept waiting for longer is served before all of them
NOBODY = Caller("address", "")
ONE = Demand()
ASKS = Demand(slots=0)  # takes no slot


class Waiter:
    """A request in the line, `since` when; `granted` is done soon after it `leases` the model, or
    with an exception where it is refused. Without a `seat` its prompt is to be counted, and it is
    granted once more."""

    def __init__(self, since: float, demand: Demand = ONE, caller: Caller = NOBODY) -> None:
        self.since = since
        self.demand = demand
        self.caller = caller
        self.leases = self.counting = False
        self.seat: Seat | None = None
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Line:
    """Times in seconds of one clock."""

    def __init__(self) -> None:
        self.budget = KvBudget()
        self.leased = 0  # requests that lease the model: granted, and not ended
        self.last_used = 0.0
        self.gap: float | None = None  # from the model's last idle moment to the request after it
        self._waiters: Fair[Waiter] = Fair()
        self._asking: deque[Waiter] = deque()  # they want no slot
        self._counted: deque[Waiter] = deque()  # they lease the model, and wait for a seat
        self._counting = 0
        self._untold: deque[Waiter] = deque()  # they lease the model, and do not know it yet

    @property
    def waiting(self) -> int:
        return len(self._waiters) + len(self._counted) + len(self._asking)

    @property
    def seated(self) -> int:
        """Requests that lease the model and have a seat: they are at work."""
        return self.leased - self._counting - len(self._counted)

    @property
    def waiting_since(self) -> float | None:
        """When the oldest came that waits; None if none does."""
        others = [waiter.since for waiter in (*self._counted, *self._asking)]
        oldest = self._waiters.oldest
        return min(others if oldest is None else [*others, oldest], default=None)

    @property
    def empty(self) -> bool:
        """A request that comes now is the next."""
        return not self.waiting and not self._untold

    def lease(self, now: float, demand: Demand = ONE, caller: Caller = NOBODY) -> Seat | None:
        """Lease the model without waiting, until `end`; None where the request has to wait, or its
        prompt is to be counted."""
        if self.budget.must_count(demand):
            return None
        seat = self.budget.seat(demand, now)
        if seat is not None:
            self._waiters.count(caller, now)
            if not self.leased:
                self.gap = now - self.last_used
            self.leased += 1
        return seat

    def end(self, seat: Seat, now: float, *, whole: bool = True) -> None:
        """`whole`: llama-server has nothing more to do for the request."""
        if whole:
            self.budget.free(seat)
        else:
            self.budget.leave(seat, now)
        self._end(now)

    def _end(self, now: float) -> None:
        self.leased -= 1
        self.last_used = now

    def join(self, now: float, demand: Demand = ONE, caller: Caller = NOBODY) -> Waiter:
        """A new place in the line."""
        if not self.leased and not self.waiting:
            self.gap = now - self.last_used
        waiter = Waiter(now, demand, caller)
        if demand.slots:
            self._waiters.join(waiter)
        else:
            self._asking.append(waiter)
        return waiter

    def make_room(self, caller: Caller, error: Exception) -> bool:
        """Refuse the last request of the caller who has most in a full line; False if that is this
        caller."""
        last = self._waiters.last_of_most(caller)
        if last is not None:
            self._waiters.remove(last)
            _refuse(last, error)
        return last is not None

    def counted(self, waiter: Waiter, demand: Demand) -> None:
        """The prompt is counted: the request waits for its seat before all that were not."""
        self._counting -= 1
        waiter.counting = False
        waiter.demand = demand
        waiter.granted = asyncio.get_running_loop().create_future()
        self._counted.append(waiter)

    def grant(self, now: float, *, draining: bool = False) -> None:
        """Requests in the line lease the model from here on, as many as have room in it; of a model
        that is `draining`, only those that lease it already, and wait for a seat. They are told of
        it a few at a time, in their order: hundreds at once would hold up everybody else."""
        telling = bool(self._untold)
        while (waiter := self._next(now, draining)) is not None:
            self._untold.append(waiter)
        if not telling:
            self._tell()

    def _next(self, now: float, draining: bool) -> Waiter | None:
        if self._asking and not draining:
            return self._leasing(self._asking.popleft(), now)
        if self._counted:
            return self._counted.popleft() if self._seated(self._counted[0], now) else None
        return None if draining else self._first(now)

    def _first(self, now: float) -> Waiter | None:
        """The next of those that do not lease the model."""
        waiter = self._waiters.first(now - AGED, lambda each: self.budget.keeps(each.demand))
        if waiter is None:
            return None
        if self.budget.must_count(waiter.demand):
            if self._counting >= self.budget.slots:
                return None
            self._counting += 1
            waiter.counting = True
        elif not self._seated(waiter, now):
            return None
        self._waiters.serve(waiter, now)
        return self._leasing(waiter, now)

    def _leasing(self, waiter: Waiter, now: float) -> Waiter:
        if not waiter.demand.slots:
            self._seated(waiter, now)
        self.leased += 1  # here: the model must not be evicted before the request runs
        waiter.leases = True
        return waiter

    def _seated(self, waiter: Waiter, now: float) -> bool:
        crowded = len(self._waiters) > 1
        waiter.seat = self.budget.seat(waiter.demand, now, crowded=crowded)
        return waiter.seat is not None

    def _tell(self) -> None:
        for _ in range(min(AT_ONCE, len(self._untold))):
            granted = self._untold.popleft().granted
            if not granted.done():
                granted.set_result(None)
        if self._untold:
            asyncio.get_running_loop().call_soon(self._tell)

    def refuse(self, error: Exception) -> None:
        """All requests in the line end with this error."""
        for waiter in [*self._waiters.clear(), *self._counted, *self._asking]:
            _refuse(waiter, error)
        self._counted.clear()
        self._asking.clear()

    def release(self, waiter: Waiter, now: float, *, whole: bool = True) -> None:
        """End the request's lease, or take it out of the line."""
        if waiter.leases:
            waiter.granted.cancel()  # nothing, where it was told
            if waiter.seat is not None:
                self.end(waiter.seat, now, whole=whole)
                return
            if waiter in self._counted:
                self._counted.remove(waiter)
            elif waiter.counting:
                self._counting -= 1
            self._end(now)
        elif not waiter.granted.done():
            waiter.granted.cancel()
            self._waiters.remove(waiter)
            if waiter in self._asking:
                self._asking.remove(waiter)


def _refuse(waiter: Waiter, error: Exception) -> None:
    if not waiter.granted.done():
        waiter.granted.set_exception(error)
        waiter.granted.exception()  # asyncio complains where the request has left meanwhile
