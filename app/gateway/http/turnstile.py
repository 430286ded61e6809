"""Lets requests begin and end, a few at each turn of the loop.

A loop does all that is ready before it looks for anything else. So a thousand requests that come at
once, or a thousand clients that leave, would hold up for 0.1 s everybody who is being answered.
Here they wait, and who is being answered has a turn between any few of them.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable

from app.gateway.http.heads import Headers

AT_ONCE = 16  # steps; each takes 0.1 to 0.2 ms
CALLER = {b"authorization", b"x-api-key", b"session"}  # headers; nobody has checked them yet
Step = Callable[[], bool]  # begins or ends a request; False if there was nothing to do any more
Lines = dict[tuple[bytes, ...], deque[Step]]  # by caller; the first is the next one


class Turnstile:
    """Those who wait stand in one line for each caller. The households take turns, and so do the
    callers of a household, as those behind a gateway are: who comes with one request does not wait
    behind somebody's thousand."""

    def __init__(self) -> None:
        self._most = AT_ONCE
        self._done = 0  # in this turn of the loop
        self._turns = False  # `_turn` comes with the next one
        self._waiting: dict[str, Lines] = {}  # by household; the first is the next one

    def enter(self, household: str, headers: Headers, step: Step) -> None:
        """Call `step` now, or in a later turn of the loop. `headers`: of its request."""
        if self._waiting or self._done >= self._most:
            lines = self._waiting.setdefault(household, {})
            caller = tuple([value for name, value in headers if name in CALLER])
            lines.setdefault(caller, deque()).append(step)
            return
        self._done += step()
        if not self._turns:
            self._count_anew()

    def open(self) -> None:
        """Take all steps at once from here on: the server closes, and waits for them."""
        self._most = sys.maxsize
        self._turn()

    def _count_anew(self) -> None:
        self._turns = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._done, self._turns = 0, False
        try:
            while self._waiting and self._done < self._most:
                self._done += self._next()()
        finally:  # a step that fails must not be the last one
            if self._done or self._waiting:
                self._count_anew()

    def _next(self) -> Step:
        """Who has had a turn goes behind all others."""
        household = next(iter(self._waiting))
        lines = self._waiting.pop(household)
        caller = next(iter(lines))
        line = lines.pop(caller)
        step = line.popleft()
        if line:
            lines[caller] = line
        if lines:
            self._waiting[household] = lines
        return step
