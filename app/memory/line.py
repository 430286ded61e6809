"""The requests of one model: those that wait for it, in a line, and those that lease it."""

from __future__ import annotations

import asyncio
from collections import deque

from app.memory.caller import Caller
from app.memory.fair import Fair
from app.memory.kv_budget import KvBudget
from app.memory.seat import Demand, Seat, Use

AT_ONCE = 8  # requests that are told in one turn of the loop: each then sends to its child
AGED = 30.0  # seconds: whom others have kept waiting for longer is served before all of them
PAUSE = 1.0  # seconds without a request, as people and agents make them
LATELY = 10.0  # seconds: a caller that had a turn in them is likely to come again
NOBODY = Caller("address", "")
ONE = Demand()
ASKS = Demand(slots=0)  # takes no slot


class Waiter:
    """A request in the line, `since` when; `granted` is done soon after it has its `seat`, or with
    an exception where it is refused. Before that it may be granted to have its prompt counted:
    then it is `counting`, and has no `seat`."""

    def __init__(self, since: float, demand: Demand = ONE, caller: Caller = NOBODY) -> None:
        self.since = since
        self.demand = demand
        self.caller = caller
        self.counting = False
        self.seat: Seat | None = None  # while it leases the model
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Line:
    """Times in seconds of one clock."""

    def __init__(self) -> None:
        self.budget = KvBudget()
        self.leased = 0  # requests that lease the model: granted, and not ended
        self.last_used = 0.0
        self.gave_up = 0.0  # when a request last waited in vain
        self.gap: float | None = None  # from the model's last idle moment to the request after it
        self.busy_since = 0.0  # when that request came
        self.busy_before = (0.0, 0.0)  # the time without an idle moment before that one
        self.hog = False  # requests waited when the model last left, without a pause since
        self._waiters: Fair[Waiter] = Fair()
        self._asking: deque[Waiter] = deque()  # they want no slot
        self._counting = 0  # of those that wait: they lease the model until their prompt is counted
        self._untold: deque[Waiter] = deque()  # they lease the model, and do not know it yet

    @property
    def waiting(self) -> int:
        return self._waiters.size + len(self._asking)

    @property
    def seated(self) -> int:
        """Requests that lease the model and have a seat: they are at work."""
        return self.leased - self._counting

    @property
    def waiting_since(self) -> float | None:
        """When the oldest came that waits; None if none does."""
        others = [waiter.since for waiter in self._asking]
        oldest = self._waiters.oldest
        return min(others if oldest is None else [*others, oldest], default=None)

    @property
    def empty(self) -> bool:
        """A request that comes now is the next."""
        return not self.waiting and not self._untold

    def lease(self, now: float, demand: Demand = ONE, caller: Caller = NOBODY) -> Seat | None:
        """Lease the model without waiting, until `end`; None where the request has to wait, or its
        prompt is to be counted."""
        if self.budget.must_count(demand) or (demand.slots and self._has_enough(caller, now)):
            return None
        seat = self.budget.seat(demand, now)
        if seat is not None:
            seat.caller = caller
            if demand.slots:
                self._waiters.count(caller, now)
            if not self.leased:
                self._begin(now)
            self.leased += 1
        return seat

    def _begin(self, now: float) -> None:
        """A request after an idle moment."""
        if self.last_used >= self.busy_since:  # or its requests have all given up
            self.busy_before = self.busy_since, self.last_used
        self.gap, self.busy_since = now - self.last_used, now
        self.hog = self.hog and self.gap < PAUSE

    def ends_turn(self) -> None:
        """The model leaves. Who has just asked, after an idle moment, makes no hog of it."""
        if self.last_used >= self.busy_since:
            self.hog = self.waiting > 0

    def end(self, seat: Seat, now: float, use: Use = Use.WHOLE) -> None:
        self.budget.end(seat, use, now)
        self._end(now)

    def _end(self, now: float) -> None:
        self.leased -= 1
        self.last_used = now

    def join(self, now: float, demand: Demand = ONE, caller: Caller = NOBODY) -> Waiter:
        """A new place in the line."""
        if not self.leased and not self.waiting:
            self._begin(now)
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

    def counted(self, waiter: Waiter, demand: Demand, now: float) -> None:
        """The prompt is counted: the request waits on, at its place, and leases nothing."""
        self._stop_counting(waiter, now)
        waiter.demand = demand
        waiter.granted = asyncio.get_running_loop().create_future()
        if waiter not in self._waiters:  # all that waited were refused meanwhile
            self._waiters.join(waiter)

    def _stop_counting(self, waiter: Waiter, now: float) -> None:
        if waiter.counting:
            waiter.counting = False
            self._counting -= 1
            self._end(now)

    def grant(self, now: float) -> None:
        """Requests in the line lease the model from here on, as many as have room in it. They are
        told of it a few at a time, in their order: hundreds at once would hold up everybody
        else."""
        telling = bool(self._untold)
        while (waiter := self._next(now)) is not None:
            self._untold.append(waiter)
        if not telling:
            self._tell()

    def _next(self, now: float) -> Waiter | None:
        if self._asking:
            asks = self._asking.popleft()
            self._seated(asks, now)  # it wants no slot, so there is always one
            return self._leasing(asks)

        def may_be_next(waiter: Waiter) -> bool:
            return not waiter.counting and not self._has_enough(waiter.caller, now)

        waiter = self._waiters.first(now - AGED, may_be_next, self._is_cheap)
        if waiter is None:
            return None
        if self.budget.must_count(waiter.demand):
            return self._count(waiter)
        if not self._seated(waiter, now):
            return None
        self._waiters.serve(waiter, now)
        return self._leasing(waiter)

    def _has_enough(self, caller: Caller, now: float) -> bool:
        """Whether a caller has to leave a slot to others: requests that it has left hold all but
        one, which nobody can use before llama-server has noticed."""
        left, slots = self.budget.left_by(caller), self.budget.slots
        enough = slots > 0 and left >= max(1, slots - 1)
        return enough and self._waiters.others_since(caller, now - LATELY)

    def _is_cheap(self, waiter: Waiter) -> bool:
        return self.budget.keeps(waiter.demand)

    def _count(self, waiter: Waiter) -> Waiter | None:
        """It keeps its place, and others have their turns meanwhile."""
        if self._counting >= self.budget.slots:
            return None
        self._counting += 1
        self.leased += 1
        waiter.counting = True
        return waiter

    def _leasing(self, waiter: Waiter) -> Waiter:
        self.leased += 1  # here: the model must not be evicted before the request runs
        return waiter

    def _seated(self, waiter: Waiter, now: float) -> bool:
        crowded = self._waiters.size > 1
        waiter.seat = self.budget.seat(waiter.demand, now, crowded=crowded)
        if waiter.seat is not None:
            waiter.seat.caller = waiter.caller
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
        for waiter in [*self._waiters.clear(), *self._asking]:
            _refuse(waiter, error)
        self._asking.clear()

    def release(self, waiter: Waiter, now: float, use: Use = Use.WHOLE) -> None:
        """End the request's lease, or take it out of the line."""
        waiter.granted.cancel()  # nothing, where it was told
        if waiter.seat is not None:
            self.end(waiter.seat, now, use)
            return
        self._stop_counting(waiter, now)
        if waiter.demand.slots:
            self.gave_up = now
        self._waiters.remove(waiter)
        if waiter in self._asking:
            self._asking.remove(waiter)


def _refuse(waiter: Waiter, error: Exception) -> None:
    if not waiter.granted.done():
        waiter.granted.set_exception(error)
        waiter.granted.exception()  # asyncio complains where the request has left meanwhile
