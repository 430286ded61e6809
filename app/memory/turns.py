"""Whose turn it is on a GPU that does not hold all models: pure policy, no I/O, no clock.

Requests are coalesced by model: who is resident serves all of its requests. Others wait, and get
their turn by numbers and age. A resident model that is in demand keeps its place for a quantum in
proportion to what a switch costs; then its new requests wait as well, it drains, and it leaves. An
idle one leaves after a moment, or a little later where its next request usually comes sooner than
a switch would pay (anticipatory disk scheduling: Iyer and Druschel, SOSP 2001).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.memory.residency import Refuse, Resident, Swap, Wait, decide
from app.planning.amounts import Need

QUANTUM = 4.0  # times what a switch costs: at least 4/5 of the time is spent on requests
LEAST_QUANTUM = 0.2  # seconds
AGE_OF_ONE = 2.0  # times what a switch costs: waiting that long counts as one request more
LINGER = 0.25  # times what a switch costs: for how long an idle model may keep others waiting
LONGEST_LINGER = 1.0  # seconds
SETTLE = 0.1  # times what a switch costs: for how long requests are collected before one
LONGEST_SETTLE = 0.05  # seconds


class Stage(enum.Enum):
    AWAY = "away"
    COMING = "coming"
    HERE = "here"
    LEAVING = "leaving"


@dataclass(frozen=True)
class Row:
    """One model, times in seconds of one clock.

    `waiting_since`: arrival of its oldest waiting request, None where none waits; `waiting`: how
    many do. `gap`: from its
    last idle moment to the request after it. `switch_cost`: what leaving and coming back take.
    """

    name: str
    need: Need
    stage: Stage
    leased: int = 0
    waiting_since: float | None = None
    priority: int = 0
    pinned: bool = False
    last_used: float = 0.0
    here_since: float = 0.0
    switch_cost: float = 0.0
    gap: float | None = None
    waiting: int = 0


@dataclass(frozen=True)
class Load:
    """Let `evict` leave; once all of `after` are gone, those that left already included, begin."""

    name: str
    evict: tuple[str, ...]
    after: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Plan:
    """`loads` are to begin now; who is `held_back` gets no new request; `refused` can never be
    served, each with the reason; at `again_at` the plan may be another one, by time alone."""

    loads: tuple[Load, ...] = ()
    held_back: frozenset[str] = frozenset()
    refused: tuple[tuple[str, str], ...] = ()
    again_at: float | None = None


def order(rows: Sequence[Row], now: float, bound: float) -> list[Row]:
    """Who waits for a place, the next one first.

    A switch pays for as many requests as wait for it, so many go before few: those of callers that
    go from model to model together, then stay together. Age outweighs numbers in the end, and
    whoever has waited for half the bound goes before any priority: nobody starves.
    """

    def rank(row: Row) -> tuple[bool, float, float, float]:
        since = row.waiting_since or 0.0
        age = now - since
        if age >= bound / 2:
            return (False, 0.0, 0.0, since)
        crowd = row.waiting + age / (AGE_OF_ONE * (row.switch_cost or 1.0))
        return (True, -row.priority, -crowd, since)

    waiting = [r for r in rows if r.stage is Stage.AWAY and r.waiting_since is not None]
    return sorted(waiting, key=rank)


def keeps_until(row: Row, waiting: int, bound: float) -> float:
    """Until when a resident model keeps its place while `waiting` others wait for one."""
    if row.leased or row.waiting_since is not None:
        quantum = max(LEAST_QUANTUM, QUANTUM * row.switch_cost)
        return row.here_since + min(quantum, bound / 2 / max(1, waiting))
    linger = min(LINGER * row.switch_cost, LONGEST_LINGER)
    if row.gap is None or row.gap >= linger:
        return row.last_used
    # Within its quantum only: else a hog with short gaps would never leave.
    limit = row.here_since + min(QUANTUM * row.switch_cost, bound / 2 / max(1, waiting))
    return min(row.last_used + linger, limit)


def plan(rows: Sequence[Row], budget: Need, now: float, bound: float) -> Plan:
    """What to do now. `bound` in seconds: the longest that anybody should wait for a turn."""
    current = {row.name: row for row in rows}
    loads: list[Load] = []
    refused: list[tuple[str, str]] = []
    head: Row | None = None
    held_back: frozenset[str] = frozenset()
    again: list[float] = []
    waiting = order(rows, now, bound)
    there = _residents(current, now, len(waiting), bound)
    for row in waiting:
        if head is not None and not _beside(row, head, there, budget):
            continue  # behind the first who must wait: only what takes nothing from it
        decision = decide(row.name, row.need, there, budget)
        if isinstance(decision, Swap):
            until = _settled(row, [current[name] for name in decision.evict])
            if until > now:
                head = head or row
                again.append(until)
                continue
            # Who leaves for somebody else still holds memory that was not counted above.
            leaving = [r.name for r in current.values() if r.stage is Stage.LEAVING]
            after = (*decision.evict, *leaving) if decision.evict else ()
            loads.append(Load(row.name, decision.evict, after, decision.reason))
            current[row.name] = replace(row, stage=Stage.COMING)
            for name in decision.evict:
                current[name] = replace(current[name], stage=Stage.LEAVING)
            there = _residents(current, now, len(waiting), bound)
        elif isinstance(decision, Refuse) and head is None:
            refused.append((row.name, decision.reason))
        elif isinstance(decision, Wait) and head is None:
            head = row
            held_back, later = _blocked(decision, current, now, len(waiting), bound)
            again += later
    return Plan(tuple(loads), held_back, tuple(refused), min(again, default=None))


def _beside(row: Row, head: Row, there: Sequence[Resident], budget: Need) -> bool:
    """Whether it fits beside everybody, and beside who waits before it."""
    return all(
        size + head.need.get(device, 0) + sum(r.need.get(device, 0) for r in there)
        <= budget.get(device, 0)
        for device, size in row.need.items()
    )


def _settled(row: Row, leaving: Sequence[Row]) -> float:
    """When it is time to take somebody's place: a moment after whoever leaves was last used, and
    after the request came, since those that come together are better served together."""
    if not leaving or any(other.waiting_since is not None for other in leaving):
        return 0.0  # nobody has to go, or who does has been held back for long enough
    last = max(row.waiting_since or 0.0, *(other.last_used for other in leaving))
    cost = max(row.switch_cost, *(other.switch_cost for other in leaving))  # one may be unknown
    return last + min(SETTLE * cost, LONGEST_SETTLE)


def overflow(rows: Sequence[Row], budget: Need) -> list[str]:
    """Idle residents that must go because all together hold more than there is; who was used
    longest ago first. It may not be enough."""
    kept = [row for row in rows if row.stage in (Stage.HERE, Stage.COMING)]
    found = []
    for row in sorted(kept, key=lambda r: (r.priority, r.last_used)):
        over = [d for d in budget if sum(r.need.get(d, 0) for r in kept) > budget[d]]
        idle = row.stage is Stage.HERE and not row.leased and not row.pinned
        if idle and any(row.need.get(device) for device in over):
            found.append(row.name)
            kept.remove(row)
    return found


def _residents(
    current: Mapping[str, Row], now: float, waiting: int, bound: float
) -> list[Resident]:
    found = []
    for row in current.values():
        if row.stage is Stage.AWAY:
            continue
        lingers = row.stage is Stage.HERE and keeps_until(row, waiting, bound) > now
        held = row.stage is Stage.COMING or bool(row.leased) or lingers
        leaving = row.stage is Stage.LEAVING
        found.append(
            Resident(row.name, row.need, held, leaving, row.pinned, row.last_used, row.priority)
        )
    return found


def _blocked(
    decision: Wait, current: dict[str, Row], now: float, waiting: int, bound: float
) -> tuple[frozenset[str], list[float]]:
    """Whose time is up, and when that of the others will be."""
    held_back, again = set(), []
    for name in decision.blockers:
        row = current[name]
        if row.stage is not Stage.HERE:
            continue
        until = keeps_until(row, waiting, bound)
        if until <= now:
            held_back.add(name)
        else:
            again.append(until)
    return frozenset(held_back), again
