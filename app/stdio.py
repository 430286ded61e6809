"""Standard output as it suits its readers: nobody waits for them for long."""

from __future__ import annotations

import contextlib
import io
import os
import select
from typing import Any

MOMENT = 50  # milliseconds that a reader is waited for in each second
LOOKS = 10  # in it, whether there is room again


def has_room(file: int, wait: int) -> bool:
    """Whether there is room at once, or after so many milliseconds at most. Of a pipe: for
    PIPE_BUF bytes; of a terminal: for one, at least."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(wait))  # also what says that it is closed


class Patience:
    """How long may be waited for a reader: for MOMENT in each second, however much is written."""

    def __init__(self) -> None:
        self._looks, self._renewed = float(LOOKS), 0.0

    def renew(self, now: float) -> None:
        """`now` in seconds."""
        gained = max(0.0, now - self._renewed) * LOOKS
        self._looks, self._renewed = min(LOOKS, self._looks + gained), now

    def look(self, file: int) -> bool:
        """Wait for room, a part of MOMENT; False at once if that is used up."""
        if self._looks < 1:
            return False
        self._looks -= 1
        has_room(file, MOMENT // LOOKS)  # also if it is said to have some: it may be too little
        return True


class _Unblocked(io.RawIOBase):
    """A stream for sys.stdout or sys.stderr that is written by a description of its own, which does
    not block: one that has room for a single byte says that it has room."""

    def __init__(self, file: int, path: str) -> None:
        """`file` stays as it is, for whoever shares it. Raises OSError."""
        self._shared, self._file = file, -1
        self._file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._shared

    def close(self) -> None:
        if not self.closed and self._file >= 0:
            os.close(self._file)
        super().close()


class Pipe(_Unblocked):
    """A pipe: what others than the log write there and it has no room for is lost, and nobody
    waits."""

    name = "<pipe>"

    def __init__(self, file: int) -> None:
        """Raises OSError."""
        super().__init__(file, f"/proc/self/fd/{file}")

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        with contextlib.suppress(BlockingIOError):
            while left:  # so many bytes are taken whole or not at all
                left = left[os.write(self._file, left[: select.PIPE_BUF]) :]
        return len(data)


class Terminal(_Unblocked):
    """A terminal: what it has no room for is lost, and nobody waits."""

    name = "<terminal>"

    def __init__(self, file: int) -> None:
        """Raises OSError."""
        super().__init__(file, os.ttyname(file))
        self.patience = Patience()
        self.lost = 0  # writes
        self.torn = False  # the last one that was taken in part or whole lacks its end
        self._stuck = False  # the last one was not taken whole

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._file, left) :]
                continue
            # A line's end needs two bytes of room.
            if self._stuck or not self.patience.look(self._file):
                self.lost += 1
                break
        self._stuck = bool(left)
        if len(left) < size:
            self.torn = self._stuck
        return size

    def take(self, text: str) -> bool:
        """Write past sys.stdout, which the SDK records; whether all of it was taken."""
        before = self.lost
        self.write(text.encode(errors="replace"))
        return self.lost == before

    def isatty(self) -> bool:
        return True
