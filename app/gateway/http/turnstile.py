"""Lets requests begin and end, a few at each turn of the loop.

A loop does all that is ready before it looks for anything else. So a thousand requests that come at
once, or a thousand clients that leave, would hold up for 0.1 s everybody who is being answered.
Here they wait, and who is being answered has a turn between any few of them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable

from app.gateway.http.heads import Headers

logger = logging.getLogger(__name__)

AT_ONCE = 16  # steps; what a request does first, and last, takes 0.1 to 0.2 ms
CALLER = {b"authorization", b"x-api-key", b"session"}  # headers; nobody has checked them yet
Step = Callable[[], bool]  # begins or ends a request; False if there was nothing to do any more
Lines = dict[tuple[bytes, ...], deque[Step]]  # by caller; the first is the next one


class Turnstile:
    """Those who wait stand in one line for each caller. The households take turns, and so do the
    callers of a household, as those behind a gateway are (round-robin fair queueing): who comes
    with one request does not wait behind somebody's thousand."""

    def __init__(self) -> None:
        self._most = AT_ONCE
        self._done = 0  # steps in this turn of the loop
        self._scheduled = False  # `_turn`, for the next one
        self._waiting: dict[str, Lines] = {}  # by household; the first is the next one

    def enter(self, household: str, headers: Headers, step: Step, *, ends: bool = False) -> None:
        """Call `step` now, or in a later turn of the loop. `headers`: of its request. One that
        `ends` a request goes before all that its caller wants to begin: it gives back what others
        wait for."""
        if self._done < self._most:
            self._take(step)
            if not self._scheduled:
                self._schedule()
            return
        caller = tuple([value for name, value in headers if name in CALLER])
        line = self._waiting.setdefault(household, {}).setdefault(caller, deque())
        if ends:
            line.appendleft(step)
        else:
            line.append(step)

    def open(self) -> None:
        """Take all steps at once from here on: the server closes, and waits for them."""
        self._most = sys.maxsize
        self._turn()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._done, self._scheduled = 0, False
        while self._waiting and self._done < self._most:
            self._take(self._next())
        if self._done:
            self._schedule()

    def _take(self, step: Step) -> None:
        try:
            self._done += step()
        except Exception:  # noqa: BLE001 a fault in one must not keep all others waiting
            logger.exception("a request could not begin, or end")
            self._done += 1

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
