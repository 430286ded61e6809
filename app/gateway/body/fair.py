"""Whose body is examined next, where more wait than there are workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

MODERATE = 4 << 20  # bytes; the examination of a larger body may take seconds


class _Waiting(NamedTuple):
    caller: str
    size: int  # bytes of its body
    granted: asyncio.Future[None]


class FairQueue:
    """Places for so many bodies at a time. The next one is that of the caller who has the fewest
    bytes under way, and of such bodies the smallest: who sends many or large ones waits behind
    those who do not. Of several places the last one is kept for moderate bodies."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._kept = min(1, places - 1)
        self._waiting: list[_Waiting] = []
        self._under_way: Counter[str] = Counter()  # bytes that wait or have a place, by caller

    @asynccontextmanager
    async def place(self, caller: str, size: int) -> AsyncIterator[None]:
        self._under_way[caller] += size
        try:
            await self._take(_Waiting(caller, size, asyncio.get_running_loop().create_future()))
            try:
                yield
            finally:
                self._give_back()
        finally:
            self._under_way[caller] -= size
            if not self._under_way[caller]:
                del self._under_way[caller]

    async def _take(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._grant()
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._give_back()  # it was granted as the client left
            raise

    def _give_back(self) -> None:
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        while fitting := [waiting for waiting in self._waiting if self._fits(waiting)]:
            chosen = min(fitting, key=lambda w: (self._under_way[w.caller], w.size))
            self._waiting.remove(chosen)
            if not chosen.granted.done():
                self._free -= 1
                chosen.granted.set_result(None)

    def _fits(self, waiting: _Waiting) -> bool:
        return self._free > (self._kept if waiting.size > MODERATE else 0)
