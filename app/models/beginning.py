"""The beginning of a file that is not here: fetched as far as it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod

from app.errors import TransferError

STEP = 1 << 20  # bytes that one request for a header brings at least
MAX_BEGINNING = 256 << 20
TRIES = 3


class Interrupted(Exception):
    """What has come until then may be used."""


class Beginning(ABC):
    def __init__(self, title: str, size: int) -> None:
        """`title` is what errors call the file, of so many bytes."""
        self.title = title
        self._size = size
        self.data = bytearray()

    @abstractmethod
    def _ask(self, end: int) -> None:
        """Add bytes to `data`, until there are `end`. Raises Interrupted, TransferError."""

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes. Raises TransferError."""
        end = min(offset + size, self._size)
        if end > len(self.data):
            if end > MAX_BEGINNING:
                raise TransferError(
                    f"{self.title}: a header of more than {MAX_BEGINNING >> 20} MiB"
                )
            self._fetch(end)
        return bytes(self.data[offset:end])

    def _fetch(self, end: int) -> None:
        """Continue after an interruption; give up if nothing at all came several times in a row."""
        problem, futile = "", 0
        while len(self.data) < end and futile < TRIES:
            before = len(self.data)
            try:
                self._ask(min(max(end, before + STEP), self._size))
                problem = "it ends too early"
            except Interrupted as error:
                problem = str(error)
            futile = 0 if len(self.data) > before else futile + 1
        if len(self.data) < end:
            raise TransferError(f"{self.title}: its header cannot be read: {problem}")
