"""Which doors of a route need this instance, and until when they have said so. Pure."""

from __future__ import annotations

MOST = 64  # doors


class Keeps:
    """A door renews its keep for as long as it needs the instance, and lets go when it does not. A
    door that is gone says nothing more: then the instance's own idle limit counts."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._let_go = False

    def renew(self, door: str, until: float) -> None:
        self._until.pop(door, None)
        self._until[door] = until
        if len(self._until) > MOST:
            self._until.pop(next(iter(self._until)))
        self._let_go = False

    def let_go(self, door: str) -> None:
        self._until.pop(door, None)
        self._let_go = True

    @property
    def used(self) -> bool:
        """Whether a door has ever asked for anything."""
        return bool(self._until) or self._let_go

    def held(self, now: float) -> bool:
        return any(until > now for until in self._until.values())

    def released(self, now: float) -> bool:
        """Whether a door has let go since the last keep, and no other one keeps it."""
        return self._let_go and not self.held(now)
