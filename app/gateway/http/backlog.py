"""The answers that wait for clients who read more slowly than the models write. Pure.

A model is free for others once its answer has come whole. So a client that stops reading (a laptop
that sleeps, a pager that waits for a key) must not hold its answer back: what it has not read is
kept here, within bounds.
"""

from __future__ import annotations

from app.gateway.http.limits import Limits

AHEAD = 256 * 1024  # bytes that a stream may grow by between two looks at it


class Backlog:
    """What each connection keeps, in bytes."""

    def __init__(self, limits: Limits) -> None:
        self._each = limits.unread
        self._all = limits.unread_together
        self._kept: dict[object, int] = {}
        self._together = 0

    def keep(self, connection: object, unread: int, length: int | None) -> bool:
        """Whether the connection may keep what comes: of an answer of `length` bytes all, of a
        stream (None) some more than is `unread` now. Asked again while it does."""
        wanted = unread + AHEAD if length is None else max(unread, length)
        kept = self._kept.get(connection, 0)
        if wanted > self._each or self._together - kept + wanted > self._all:
            return False
        self._kept[connection] = wanted
        self._together += wanted - kept
        return True

    def forget(self, connection: object) -> None:
        self._together -= self._kept.pop(connection, 0)
