"""A model's files come into the page cache while llama-server starts, or while another model still
drains.

llama-server maps a file and touches its pages one by one, each time it needs them: the disk waits
for the CPU, and the CPU for the disk. Several threads that read pieces side by side keep the disk
busy from the first moment (docs/benchmarks.md, "Cold starts").
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from app.machine import host, threads

READERS = 4
PIECE = 8 << 20  # bytes that one reader asks for at once
PAGE = 4096
SAMPLES = 64  # pages of a file of which all must be in memory, if it is to count as there
ROOM = 1.1  # times the files' size that must be free: nothing else is to leave the page cache


class ReadAhead:
    """Of one start."""

    def __init__(
        self, paths: Sequence[Path], memory_free: Callable[[], int] = host.memory_free
    ) -> None:
        self._paths = paths
        self._memory_free = memory_free
        self._pieces = self._all()
        self._lock = threads.Lock()
        self._ended = False

    def begin(self) -> None:
        """Read what is not in memory yet, in threads of our own."""
        threads.daemon("read-ahead", self._look).start()

    def end(self) -> None:
        """No further piece is read. Those under way come to their end."""
        self._ended = True

    def _look(self) -> None:
        """Mostly all is in memory: then one thread has found that out, and the others never are."""
        try:
            first = self._next()
        except OSError:  # llama-server meets it as well, and tells of it
            return
        if first is not None:
            for _ in range(READERS - 1):
                threads.daemon("read-ahead", self._read).start()
            self._read(first)

    def _read(self, piece: tuple[Path, int] | None = None) -> None:
        try:
            # Memory of its own: an arena of the C library's, which each thread has, would keep it.
            with mmap.mmap(-1, PIECE) as buffer:
                while (piece := piece or self._next()) is not None:
                    path, at = piece
                    with path.open("rb", buffering=0) as file:
                        os.preadv(file.fileno(), [buffer], at)
                    piece = None
        except OSError:
            self.end()

    def _next(self) -> tuple[Path, int] | None:
        with self._lock:
            return None if self._ended else next(self._pieces, None)

    def _all(self) -> Iterator[tuple[Path, int]]:
        """The pieces of the files that are not in memory, in order; none where all the files would
        not find room."""
        # To open a pipe would take for ever.
        sizes = {path: path.stat().st_size for path in self._paths if path.is_file()}
        if self._memory_free() < ROOM * sum(sizes.values()):
            return
        for path, size in sizes.items():
            if not _is_cached(path, size):
                yield from ((path, at) for at in range(0, size, PIECE))


def _is_cached(path: Path, size: int) -> bool:
    """Whether it seems to be in memory, as a whole. A file system that does not say so is asked to
    read."""
    with path.open("rb", buffering=0) as file:
        try:
            for at in range(0, size, max(PAGE, size // SAMPLES)):
                os.preadv(file.fileno(), [bytearray(1)], at, os.RWF_NOWAIT)
        except OSError:
            return False
    return True
