"""All connections: bounded in number, of each address too. Idle ones give way to new ones."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from app.errors import RequestError
from app.gateway.http.households import household
from app.gateway.http.limits import Limits

AT_ONCE = 32  # idle ones that give way together: a flood of new ones costs one search for many
MOST_TURNED_AWAY = 256  # that are still read the reason to


class Member(Protocol):
    """One connection."""

    @property
    def address(self) -> str: ...

    @property
    def busy(self) -> bool: ...

    @property
    def unread(self) -> tuple[float, int] | None: ...

    @property
    def crowds(self) -> bool: ...

    def asleep(self, now: float) -> float: ...

    @property
    def idle_since(self) -> float | None: ...

    def abort(self) -> None: ...

    def part(self) -> None: ...

    def hurry(self, now: float) -> None: ...

    def stop(self, error: RequestError) -> None: ...


class Connections:
    """Those of one server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._homes: dict[Member, str] = {}
        self._of: defaultdict[str, dict[Member, None]] = defaultdict(dict)
        self._turned_away: dict[Member, None] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter([*self._homes, *self._turned_away])

    def __bool__(self) -> bool:
        return bool(self._homes or self._turned_away)

    def admit(self, connection: Member) -> RequestError | None:
        """Give it a place, or say why there is none. The connection counts until `forget`."""
        home = household(connection.address)
        if not self._room_of(home):
            return self._turn_away(connection, "your address has too many connections")
        if not self._room():
            return self._turn_away(connection, "the instance has too many connections")
        self._homes[connection] = home
        self._of[home][connection] = None
        return None

    def forget(self, connection: Member) -> None:
        self._turned_away.pop(connection, None)
        home = self._homes.pop(connection, None)
        if home is None:
            return
        self._of[home].pop(connection, None)
        if not self._of[home]:
            del self._of[home]

    def _room_of(self, home: str) -> bool:
        if len(self._of.get(home, ())) < self._limits.of_one_address:
            return True
        return self._give_way(self._of[home])

    def _room(self) -> bool:
        return len(self._homes) < self._limits.connections or self._give_way(self._homes)

    def _give_way(self, candidates: Iterable[Member]) -> bool:
        """Break those that have been idle longest, first of all where one address has many."""
        idle = [(-len(self._of[self._homes[c]]), c.idle_since, c) for c in candidates]
        known = [(many, since, c) for many, since, c in idle if since is not None]
        chosen = heapq.nsmallest(AT_ONCE, known, key=lambda row: row[:2])
        for _, _, connection in chosen:
            self.forget(connection)
            connection.abort()
        return bool(chosen)

    def _turn_away(self, connection: Member, message: str) -> RequestError:
        if len(self._turned_away) >= MOST_TURNED_AWAY:
            eldest = next(iter(self._turned_away))
            self.forget(eldest)
            eldest.abort()
        self._turned_away[connection] = None
        return RequestError(503, message, retry_after=1)
