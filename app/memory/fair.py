"""Turns between the callers of one model: who of those that wait is next. Pure.

Turns go round the callers (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996): each turn
moves its caller's clock on by one over its weight, and the caller whose clock is furthest behind is
next. A caller's own requests stay in order.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from app.memory.caller import Caller

REMEMBERED = 1024  # callers without a waiting request, whose clocks are kept


class Waits(Protocol):
    """A request that waits, since when."""

    caller: Caller
    since: float


Key = tuple[str, str]
W = TypeVar("W", bound=Waits)


class Fair(Generic[W]):
    def __init__(self) -> None:
        self._lines: dict[Key, deque[W]] = {}
        self._clocks: OrderedDict[Key, float] = OrderedDict()  # the last one served last
        self._served: dict[Key, float] = {}  # when each of these had its last turn
        self._now = 0.0  # the clock of the caller that was served last
        self.size = 0  # requests that wait

    def __iter__(self) -> Iterator[W]:
        return (each for line in self._lines.values() for each in line)

    @property
    def oldest(self) -> float | None:
        """Since when the one waits that came first."""
        return min((line[0].since for line in self._lines.values()), default=None)

    def join(self, request: W) -> None:
        if _key(request.caller) not in self._lines:
            self._keep(request.caller, self._clock(request.caller))
        self._lines.setdefault(_key(request.caller), deque()).append(request)
        self.size += 1

    def __contains__(self, request: W) -> bool:
        return request in self._lines.get(_key(request.caller), ())

    def others_since(self, caller: Caller, since: float) -> bool:
        """Whether others wait, or have had a turn since then."""
        own = _key(caller)
        served = any(at >= since for key, at in self._served.items() if key != own)
        return served or any(key != own for key in self._lines)

    def first(
        self,
        aged: float,
        ready: Callable[[W], bool] = lambda _: True,
        cheap: Callable[[W], bool] = lambda _: False,
    ) -> W | None:
        """The next one. Those come first that others have kept waiting since before `aged`, the
        longest before all others: later requests of others keep nobody waiting for ever. What a
        caller's own requests before it took does not count. One that is `cheap` goes a turn before
        its caller's time. Callers whose first one is not `ready` are passed over."""
        heads = [line[0] for line in self._lines.values() if ready(line[0])]
        if len(heads) < 2:
            return heads[0] if heads else None
        return min(heads, key=lambda each: self._rank(each, aged, cheap(each)))

    def _rank(self, request: W, aged: float, cheap: bool) -> tuple[float, ...]:
        caller = request.caller
        served = self._served.get(_key(caller), -math.inf)
        kept_since = max(request.since, served)
        if kept_since <= aged:
            return False, kept_since
        return True, caller.batch, self._clock(caller) - cheap, not cheap, served, request.since

    def _clock(self, caller: Caller) -> float:
        return max(self._clocks.get(_key(caller), 0.0), self._now)

    def serve(self, request: W, now: float) -> None:
        """The request's turn has come."""
        self.remove(request)
        self.count(request.caller, now)

    def count(self, caller: Caller, now: float) -> None:
        """A turn of a caller who need not wait."""
        begun = self._clock(caller)
        waiting = [self._clocks.get(key, begun) for key in self._lines]
        self._now = max(self._now, min([begun, *waiting]))
        self._keep(caller, begun + 1 / caller.weight)
        self._served[_key(caller)] = now

    def _keep(self, caller: Caller, clock: float) -> None:
        self._clocks[_key(caller)] = clock
        self._clocks.move_to_end(_key(caller))
        if len(self._clocks) > REMEMBERED:
            key, _ = self._clocks.popitem(last=False)
            self._served.pop(key, None)

    def remove(self, request: W) -> None:
        """It waits no longer; nothing if it does not."""
        line = self._lines.get(_key(request.caller))
        if line is None or request not in line:
            return
        line.remove(request)
        self.size -= 1
        if not line:
            del self._lines[_key(request.caller)]

    def last_of_most(self, caller: Caller) -> W | None:
        """The last request of the caller who has most of those that wait, if that is another caller
        and has more than this one would have."""
        longest = max(self._lines.values(), key=len, default=None)
        own = len(self._lines.get(_key(caller), ())) + 1
        return longest[-1] if longest is not None and len(longest) > own else None

    def clear(self) -> list[W]:
        """Take all out."""
        all_of_them = list(self)
        self._lines.clear()
        self.size = 0
        return all_of_them


def _key(caller: Caller) -> Key:
    return caller.kind, caller.name
