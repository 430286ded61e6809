"""In which order those go to the first instance of a route who have waited for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.memory.caller import Caller
from app.memory.fair import Fair

MOST = 64  # turns: an instance takes turns itself among those that it has no slot for


@dataclass(eq=False)
class Waits:
    """A request that waits, since when, and what wakes it."""

    caller: Caller
    since: float
    future: asyncio.Future[None]


def in_turns(waiting: Sequence[Waits], slots: int) -> list[Waits]:
    """All of them: the first ones, up to `slots`, by turns between their callers, by weight and
    class as at an instance; the others in order of coming."""
    fair: Fair[Waits] = Fair()
    for each in sorted(waiting, key=lambda each: each.since):
        fair.join(each)
    first: list[Waits] = []
    while len(first) < min(slots, MOST) and (turn := fair.first(float("-inf"))) is not None:
        fair.serve(turn, 0.0)
        first.append(turn)
    return first + sorted(fair, key=lambda each: each.since)
