"""How much memory the bodies of all requests under way may take. Pure."""

from __future__ import annotations

from app.errors import RequestError
from app.gateway.http.shares import Shares

TOTAL = 512 << 20  # bytes
OF_AN_ADDRESS = TOTAL // 2  # a proxy's clients have one address
UNCOUNTED = 64 << 10  # bytes of each body: small ones are never refused for the sake of large ones
RETRY_AFTER = 2.0  # seconds


class Room:
    """Refuses what does not fit any more."""

    def __init__(self, total: int = TOTAL, of_an_address: int = OF_AN_ADDRESS) -> None:
        self._shares = Shares(total, of_an_address)

    @property
    def taken(self) -> int:
        """Bytes."""
        return self._shares.taken

    def take(self, address: str, size: int) -> None:
        """Raises RequestError 503."""
        if not self._shares.fits_one(address, size):
            self._refuse("the bodies of your requests under way are too large together")
        if not self._shares.fits(size):
            self._refuse("the bodies of all requests under way are too large together")
        self._shares.add(address, size)

    def _refuse(self, message: str) -> None:
        raise RequestError(503, message, retry_after=RETRY_AFTER)

    def give_back(self, address: str, size: int) -> None:
        self._shares.add(address, -size)


class Holding:
    """The memory that one body takes, until the block ends or `end`."""

    def __init__(self, room: Room, address: str) -> None:
        self._room = room
        self._address = address
        self._size = self._counted = 0

    def __enter__(self) -> Holding:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """The body is in the child's hands."""
        if self._counted:
            self._room.give_back(self._address, self._counted)
            self._counted = 0

    def grow(self, size: int) -> None:
        """So many more bytes have arrived. Raises RequestError 503."""
        more = max(0, self._size + size - UNCOUNTED) - self._counted
        if more > 0:
            self._room.take(self._address, more)
            self._counted += more
        self._size += size
