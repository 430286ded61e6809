"""How much memory answers may take that their clients have not read. Pure."""

from __future__ import annotations

from collections import Counter

from app.gateway.http.limits import Limits


class Backlog:
    """Counts bytes, by the household of the client. Half of all is the most of one."""

    def __init__(self, limits: Limits) -> None:
        self._all = limits.unread_together
        self._of: Counter[str] = Counter()
        self._together = 0

    def add(self, home: str, size: int) -> None:
        """So much more is kept, or less, below zero."""
        self._together += size
        self._of[home] += size
        if not self._of[home]:
            del self._of[home]

    def has_room(self, home: str) -> bool:
        return self._together < self._all and self._of.get(home, 0) < self._all // 2
