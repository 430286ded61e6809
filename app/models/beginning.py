"""The beginning of a file that is not here: fetched as far as it is read."""

from __future__ import annotations

from app.errors import TransferError
from app.machine import clock
from app.models.retry import CutError
from app.models.transfer import Source

STEP = 1 << 20  # bytes that one request for a header brings at least
MAX_BEGINNING = 256 << 20
TRIES = 4  # in a row that bring nothing
LONGEST_WAIT = 30.0  # seconds that a server may want us to wait


class Beginning:
    def __init__(
        self, source: Source, size: int, *, version: str = "", ranges: bool = True
    ) -> None:
        """Of a file of `size` bytes. `version` of the content that all answers must bear; `ranges`:
        whether the source sends parts."""
        self._source = source
        self._size = size
        self._version = version
        self._ranges = ranges
        self.data = bytearray()

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes. Raises TransferError."""
        end = min(offset + size, self._size)
        if end > len(self.data):
            if end > MAX_BEGINNING:
                limit = f"{MAX_BEGINNING >> 20} MiB"
                raise TransferError(f"{self._source.title}: a header of more than {limit}")
            self._fetch(end)
        return bytes(self.data[offset:end])

    def _fetch(self, end: int) -> None:
        """Continue after an interruption; give up if nothing at all came several times in a row."""
        problem, futile = "", 0
        while len(self.data) < end and futile < TRIES:
            before = len(self.data)
            try:
                # If all is sent again each time, few times.
                step = STEP if self._ranges else max(STEP, before)
                self._ask(min(max(end, before + step), self._size))
                problem = f"{self._source.title}: it ends too early"
            except CutError as error:
                problem = str(error)
                if len(self.data) <= before:
                    clock.sleep(min(LONGEST_WAIT, error.pause(futile)))
            futile = 0 if len(self.data) > before else futile + 1
        if len(self.data) < end:
            raise TransferError(f"{problem}; its header cannot be read")

    def _ask(self, end: int) -> None:
        """What has come until an interruption may be used; unless all is sent again each time."""
        if not self._ranges:
            self.data.clear()
        until = end if self._ranges else self._size
        with self._source.get(len(self.data), until, self._size, self._version) as body:
            while len(self.data) < end and (data := body.read(end - len(self.data))):
                self.data += data
