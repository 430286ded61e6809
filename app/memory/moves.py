"""When a model came into memory and left it, from where and why: counts since the start, and the
moves of the last hour. Pure."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

LASTING = 3600.0  # seconds for which a move is kept
KEPT = 500  # moves of one model
LONGEST = 200  # characters of a reason


class Departure(enum.Enum):
    """Why a model left GPU memory or, parked, CPU RAM."""

    ROOM = "room"  # a request needed it for another model
    RAM = "ram"  # another model needed the CPU RAM where this one was parked
    GROWN = "grown"  # a model took more memory than was predicted
    UNUSED = "unused"  # nobody asked for it during its time to live
    ASKED = "asked"  # a person parked or unloaded it
    ENDED = "ended"  # its process ended by itself


class Move(NamedTuple):
    """A change of state: `at` on the ledger's clock; `state` and `tier` as everywhere; `reason` of
    a departure or a failure. `number` counts the moves of this model, from 1 on."""

    number: int
    at: float
    state: str
    tier: str
    reason: str


class Moves:
    def __init__(self, tiers: Sequence[str] = ("ram", "disk")) -> None:
        """`tiers`: from where a model can come."""
        self.loads = dict.fromkeys(tiers, 0)
        self.load_seconds = dict.fromkeys(tiers, 0.0)
        self.departures = {why.value: 0 for why in Departure}
        self.failures = 0  # loads that failed, and processes that ended by themselves
        self._why = ""
        self.last: tuple[enum.Enum, enum.Enum] | None = None  # state and tier that are noted
        self._kept: deque[Move] = deque(maxlen=KEPT)

    def came(self, tier: str, seconds: float) -> None:
        self.loads[tier] += 1
        self.load_seconds[tier] += seconds

    def left(self, why: Departure) -> None:
        self.departures[why.value] += 1
        self._why = why.value

    def failed(self, reason: str) -> None:
        self.failures += 1
        self._why = reason[:LONGEST]  # also of a process that ended by itself: it says how

    def note(self, at: float, state: enum.Enum, tier: enum.Enum) -> None:
        """Keep a change of the model's state, and the reason that was told before it."""
        self.last = state, tier
        number = self._kept[-1].number + 1 if self._kept else 1
        self._kept.append(Move(number, at, str(state.value), str(tier.value), self._why))
        self._why = ""

    def after(self, number: int, now: float) -> list[Move]:
        """The moves after this one (0: all) that say how the model was in the last hour: the last
        one before that hour too."""
        found: list[Move] = []
        for move in reversed(self._kept):
            if move.number <= number:
                break
            found.append(move)
            if move.at < now - LASTING:
                break
        return found[::-1]
