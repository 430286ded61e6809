"""A file that is being fetched, `<name>.part`, with a record beside it of what is there already:
also after a SIGKILL, and for another process that goes on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from app.machine import clock, small_file, threads
from app.models.spans import Spans

SAVED_EVERY = 0.5  # seconds
LOOK = 0.3  # seconds between two looks at what another process fetches
MOST_RECORD = 1 << 20  # bytes
OPENED = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class PartFile:
    """Whoever opens it holds its lock: see `locked`. Methods may be called in several threads."""

    def __init__(self, path: Path, identity: str, size: int) -> None:
        """`identity` of the content; "": unknown, so that nothing of before can be used. Raises
        OSError."""
        self.path = path
        self.identity = identity
        self.size = size
        self._lock = threads.Lock()
        self._spans = Spans(_recorded(path, identity, size))
        self.resumed = self._spans.total
        self._saved = clock.now()
        for left in path.parent.glob(f"{record_of(path).name}.*.tmp"):  # by one that was killed
            left.unlink(missing_ok=True)
        self._file = os.open(path, OPENED, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise OSError(errno.EINVAL, "it is no file", str(path))
            os.ftruncate(self._file, size)
            self.save(at_once=True)  # of what is no part of this content nothing may be trusted
        except OSError:
            os.close(self._file)
            raise

    def write(self, offset: int, data: bytes) -> None:
        """Raises OSError."""
        view, at = memoryview(data), offset
        with self._lock:  # a thread that was left behind must not write into another file
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
            self._spans.add(offset, at)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset)

    @property
    def here(self) -> int:
        with self._lock:
            return self._spans.total

    @property
    def prefix(self) -> int:
        with self._lock:
            return self._spans.prefix

    def missing(self) -> list[tuple[int, int]]:
        with self._lock:
            return self._spans.missing(self.size)

    def save(self, *, at_once: bool = False) -> None:
        """Write down what is there, if that is due. Raises OSError."""
        if not at_once and clock.now() - self._saved < SAVED_EVERY:
            return
        self._saved = clock.now()
        with self._lock:
            spans = self._spans.all
        record = {"identity": self.identity, "size": self.size, "spans": spans}
        small_file.replace(record_of(self.path), json.dumps(record).encode())

    def close(self) -> None:
        with self._lock:
            os.close(self._file)
            self._file = -1

    def forget(self) -> None:
        """Begin again: nothing of it can be used."""
        with self._lock:
            self._spans = Spans()
        self.save(at_once=True)

    def placed(self, target: Path) -> None:
        """Move the whole file to where it belongs; its folder is there. Raises OSError."""
        self.path.replace(target)
        record_of(self.path).unlink(missing_ok=True)


def record_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def bytes_here(path: Path) -> int:
    """Bytes that are there of a file that this or another process fetches, or did."""
    return Spans(_recorded(path, None, None)).total


def _recorded(path: Path, identity: str | None, size: int | None) -> list[tuple[int, int]]:
    """None of what is wrong in any way: it is fetched again then."""
    try:
        told = json.loads(small_file.content(record_of(path), MOST_RECORD))
        spans = [(int(start), int(end)) for start, end in told["spans"]]
        same = identity is None or (identity and told["identity"] == identity)
        bounded = all(0 <= start < end <= told["size"] for start, end in spans)
        whole = path.stat().st_size == told["size"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return []
    return spans if same and bounded and whole and size in (None, told["size"]) else []


@contextlib.contextmanager
def locked(path: Path, waits: Callable[[int], None]) -> Iterator[None]:
    """Hold a part file's lock. While another process or thread has it, `waits` is told how many
    bytes are there. Raises OSError."""
    lock = os.open(path.with_name(f"{path.name}.lock"), OPENED, 0o666)
    try:
        while not _taken(lock):
            waits(bytes_here(path))
            clock.sleep(LOOK)
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
