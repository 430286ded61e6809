"""Who fetches which bytes of a file, and over how many connections. Pure.

Threads take pieces from a board. One that finds none left takes the second half of the largest that
another one is still fetching.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.models.spans import Span

FIRST, CONNECTIONS = 2, 8  # at the beginning; at most
RAMP = 1.0  # seconds after which there are twice as many, if the last ones have brought a
GAIN = 1.2  # times higher rate: else they only take CPU time from each other
LEAST, MOST = 4 << 20, 64 << 20  # bytes of a piece
SHARES = 32  # into so many a file is divided, within these limits
WORTH_DIVIDING = 8 << 20  # bytes: what a server has sent already of the second half is lost
SLOW, SLOW_AFTER = 16_000.0, 10.0  # bytes/s, seconds: of a connection that is given up


@dataclass
class Piece:
    """The bytes from `at` to `end` are to be fetched; `end` may come nearer meanwhile."""

    at: int
    end: int
    begun: float = 0.0  # when a thread took it
    start: int = 0  # where it was then

    def slow(self, now: float) -> bool:
        """Whether its connection has all but stopped: another one may do better."""
        seconds = now - self.begun
        return seconds > SLOW_AFTER and self.at - self.start < SLOW * seconds


class Board:
    """Not guarded: whoever uses it in several threads holds a lock."""

    def __init__(self, missing: Iterable[Span], size: int, *, divisible: bool = True) -> None:
        """What is `missing` of a file of `size` bytes; in one piece if it is not `divisible`."""
        self._divisible = divisible
        self._free = [Piece(*span) for span in (missing if divisible else [(0, size)])]
        self._active: list[Piece] = []
        self._size = min(MOST, max(LEAST, size // SHARES))

    @property
    def most(self) -> int:
        """Connections that have something to do."""
        missing = sum(piece.end - piece.at for piece in self._free)
        return -(-missing // LEAST) if self._divisible else 1

    @property
    def empty(self) -> bool:
        """Nothing is left, and nobody fetches anything."""
        return not self._free and not self._active

    def take(self, now: float) -> Piece | None:
        """None if there is nothing to take at the moment."""
        piece = self._next()
        if piece is not None:
            piece.begun, piece.start = now, piece.at
            self._active.append(piece)
        return piece

    def put_back(self, piece: Piece) -> None:
        """It is whole, or its thread has given it up."""
        self._active.remove(piece)
        if piece.at < piece.end:
            if not self._divisible:
                piece.at = 0
            self._free.insert(0, piece)

    def _next(self) -> Piece | None:
        if self._free:
            return self._cut(self._free[0])
        if not self._divisible or not self._active:
            return None
        largest = max(self._active, key=lambda piece: piece.end - piece.at)
        if largest.end - largest.at > WORTH_DIVIDING:
            middle = (largest.at + largest.end) // 2
            piece, largest.end = Piece(middle, largest.end), middle
            return piece
        return None

    def _cut(self, free: Piece) -> Piece:
        if not self._divisible or free.end - free.at <= self._size:
            return self._free.pop(0)
        piece = Piece(free.at, free.at + self._size)
        free.at = piece.end
        return piece


class Ramp:
    """How many connections there are: more as long as that is faster."""

    def __init__(self, most: int, here: int, now: float) -> None:
        """`most` have something to do; so many bytes are `here`."""
        self._most = min(CONNECTIONS, most)
        self.connections = min(FIRST, self._most)
        self._here, self._since, self._best = here, now, 0.0

    def more(self, here: int, now: float) -> int:
        """So many more than before."""
        seconds = now - self._since
        if self.connections == self._most or seconds < RAMP:
            return 0
        rate = (here - self._here) / seconds
        self._here, self._since = here, now
        if rate <= GAIN * self._best:
            return 0
        self._best = rate
        more = min(self.connections, self._most - self.connections)
        self.connections += more
        return more
