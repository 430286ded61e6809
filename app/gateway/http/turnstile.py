"""Lets requests begin and end, a few at each turn of the loop.

A loop does all that is ready before it looks for anything else. So a thousand requests that come at
once, or a thousand clients that leave, would hold up for 0.1 s everybody who is being answered.
Here they wait, and who is being answered has a turn between any few of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE = 16  # steps; each takes 0.1 to 0.2 ms
Step = Callable[[], bool]  # begins or ends a request; False if there was nothing to do any more


class Turnstile:
    """Those who wait stand in one line for each household, and the lines take turns: who comes with
    one request does not wait behind somebody's thousand."""

    def __init__(self) -> None:
        self._done = 0  # in this turn of the loop
        self._turns = False  # `_turn` comes with the next one
        self._lines: dict[str, deque[Step]] = {}  # the first is the next one

    def enter(self, household: str, step: Step) -> None:
        """Call `step` now, or in a later turn of the loop."""
        if self._lines or self._done == AT_ONCE:
            self._lines.setdefault(household, deque()).append(step)
            return
        self._done += step()
        if not self._turns:
            self._count_anew()

    def _count_anew(self) -> None:
        self._turns = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._done, self._turns = 0, False
        while self._lines and self._done < AT_ONCE:
            self._done += self._next()()
        if self._done:
            self._count_anew()

    def _next(self) -> Step:
        household = next(iter(self._lines))
        line = self._lines.pop(household)
        step = line.popleft()
        if line:
            self._lines[household] = line  # behind all others
        return step
