"""Standard output as it suits its readers: nobody waits for them for long, but for who has asked
for what is written."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import select
import signal
import stat
import threading
from collections.abc import Iterator
from typing import Any

MOMENT = 50  # milliseconds that a reader is waited for in each second
LOOKS = 10  # in it, whether there is room again
LONGEST_CHARACTER = 4  # bytes


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
    not block."""

    _file = -1

    def __init__(self, file: int, path: str) -> None:
        """`file` stays as it is, for whoever shares it. Raises OSError."""
        self._shared = file
        self._file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self.patience = Patience()

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

    def take(self, text: str) -> None:
        """Write past sys.stdout, which the SDK records, as soon as there is room; nothing if there
        is none for long."""
        while not has_room(self._file, 0):
            if not self.patience.look(self._file):
                return
        self.write(text.encode(errors="replace"))


class Terminal(_Unblocked):
    """A terminal: what it has no room for is lost, and nobody waits. One that has room for a single
    byte says that it has room."""

    name = "<terminal>"

    def __init__(self, file: int) -> None:
        """Raises OSError."""
        super().__init__(file, os.ttyname(file))
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


def unblocked(file: int) -> Terminal | Pipe | None:
    """None where it is neither. Raises OSError."""
    if os.isatty(file):
        return Terminal(file)
    return Pipe(file) if stat.S_ISFIFO(os.fstat(file).st_mode) else None


def parts(text: str) -> Iterator[str]:
    """The same, in parts of at most PIPE_BUF bytes."""
    while len(text) * LONGEST_CHARACTER > select.PIPE_BUF:
        yield text[: select.PIPE_BUF // LONGEST_CHARACTER]
        text = text[select.PIPE_BUF // LONGEST_CHARACTER :]
    yield text


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends what is done meanwhile: the loop, which it is told to, does not run. For a
    command whose loop hears of no other signal. Raises CancelledError."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    loops = signal.set_wakeup_fd(-1)  # or it would be told afterwards, and cancel once more
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    except KeyboardInterrupt:
        raise asyncio.CancelledError from None
    finally:
        signal.signal(signal.SIGINT, before)
        signal.siginterrupt(signal.SIGINT, False)
        signal.set_wakeup_fd(loops, warn_on_full_buffer=False)
