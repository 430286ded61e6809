"""Which instance serves a conversation: consistent hashing with bounded loads. Pure.

Each instance has points on a ring, by its slots; a conversation goes to the instance of the first
point after its own hash that has fewer requests than its bound, so that its next turn finds its KV
cache, and an instance that comes or goes moves only its own share. The bound is `SPREAD` times the
average load, by slots, and at least half of its slots (V. Mirrokni, M. Thorup, M. Zadimoghaddam,
"Consistent hashing with bounded loads", 2016). Every door draws the same ring.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

POINTS = 40  # on the ring, for each slot
MOST = 640  # for one instance
SPREAD = 1.25
FREE = 0.5  # of its slots: while so many are free, nobody is sent away from his KV cache


@dataclass(frozen=True)
class Choice:
    """An instance that may be chosen: its task, its slots, the requests that it has from this door,
    and whether the model is in memory there."""

    task: str
    slots: int
    load: int
    resident: bool = True

    @property
    def full(self) -> bool:
        return self.load >= self.slots


def choose(key: int, choices: Sequence[Choice]) -> str | None:
    """The task of the instance for a conversation; None if there is none. Never one that is full
    while another is not, nor one that has to bring the model in while another has it and has a free
    slot."""
    if not choices:
        return None
    best = min(_class(each) for each in choices)
    left = {each.task: each for each in choices if _class(each) == best}
    slots = sum(each.slots for each in left.values())
    load = 1 + sum(each.load for each in left.values())
    # Drawn for all of them: what is left changes with each request.
    for task in _clockwise(key, tuple((each.task, each.slots) for each in choices)):
        each = left.get(task)
        if each is not None and each.load < _bound(each, load / slots):
            return task
    raise AssertionError("the bounds add up to more than the load")


def _bound(choice: Choice, average: float) -> int:
    """Requests, by the average of all per slot."""
    return math.ceil(choice.slots * max(SPREAD * average, FREE))


def _class(choice: Choice) -> int:
    """The lower, the better."""
    if choice.full:
        return 2
    return 0 if choice.resident else 1


def _clockwise(key: int, members: tuple[tuple[str, int], ...]) -> Iterator[str]:
    """Each instance once, in the order of their points after the key's."""
    ring = _ring(members)
    start = bisect.bisect(ring, (_hash(str(key)), ""))
    seen: set[str] = set()
    for at in range(len(ring)):
        task = ring[(start + at) % len(ring)][1]
        if task not in seen:
            seen.add(task)
            yield task


@lru_cache(64)
def _ring(members: tuple[tuple[str, int], ...]) -> list[tuple[int, str]]:
    return sorted((point, task) for task, slots in members for point in _points(task, slots))


def _points(task: str, slots: int) -> Iterable[int]:
    return (_hash(f"{task} {n}") for n in range(min(MOST, POINTS * max(1, slots))))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
