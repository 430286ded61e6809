"""The way of a token: what a child sends as one whole chunk, past the parser, to the client.

Between two tokens of one stream come those of all others. So what a token costs is mostly the
memory that is looked at anew for it, and whatever is done for each token is in one small object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

# What llama-server sends in a stream, and is no event: a comment, so that the connection is kept;
# and where it begins with another prompt of a list, an event that has nothing.
COMMENT, NULL = b":", b"data: null"
SILENT = (COMMENT, NULL)
PROGRESS = b'"prompt_progress"'  # in an event: the prompt is read still (`return_progress`)
LINE_END, END_OF_EVENT = b"\r\n", b"\n\n"
KEPT = 4  # chunks: what a stream has cost is told in one of the last three
MOST_DIGITS = 6  # of the size of a chunk that comes in one read
LONGEST_READ = 4096  # bytes of a read whose size line is kept
_size_lines: dict[int, bytes] = {}  # by the length of a read; lru_cache would write at each look


def silent(chunk: bytes) -> bool:
    """Whether a read of a stream brought no event. One read may bring a comment and an event."""
    return chunk.startswith(SILENT) and all(
        line.startswith(COMMENT) or line == NULL for line in chunk.split(b"\n") if line.strip()
    )


def early(chunk: bytes) -> bool:
    """Whether a read of a stream only tells how far the prompt is read. One read may bring that and
    the first token."""
    _, progress, rest = chunk.rpartition(PROGRESS)
    return bool(progress) and not rest.partition(END_OF_EVENT)[2].strip()


def size_line(length: int) -> bytes:
    """What a read of so many bytes begins with if it is one whole chunk that is not the last one,
    as llama-server and we write it: the size of its content in lower-case hexadecimal digits (RFC
    9112, 7.1)."""
    line = bytes(length + 1)  # nothing begins with more than it has
    for digits in range(1, MOST_DIGITS + 1):
        size = length - digits - 2 * len(LINE_END)
        if size > 0 and len(found := b"%x\r\n" % size) == digits + len(LINE_END):
            line = found
    if length <= LONGEST_READ:
        _size_lines[length] = line
    return line


class Writer(Protocol):
    """Where a stream goes."""

    @property
    def is_closing(self) -> Callable[[], bool]: ...

    @property
    def write(self) -> Callable[[bytes], None]: ...


class Passage:
    """The way of a stream in which nothing has to be read or written anew: whole chunks (RFC 9112,
    7.1) go to the client as they come."""

    __slots__ = ("_closing", "_heeded", "_last", "_write", "pieces", "size")

    def __init__(self, outlet: Writer, heeded: bytes = b"") -> None:
        """Chunks that have what is `heeded`, if anything, do not go this way."""
        self._heeded = heeded
        self._write = outlet.write
        self._closing = outlet.is_closing
        self._last: deque[bytes] = deque(maxlen=KEPT)
        self.pieces = 0  # chunks that went this way
        self.size = 0  # their bytes, without what frames them

    def takes(self, read: bytes) -> bool:
        """Pass on a read that is one whole chunk. False if it is none, is no event, or has what is
        heeded."""
        line = _size_lines.get(len(read)) or size_line(len(read))
        if not (read.startswith(line) and read.endswith(LINE_END)):
            return False
        if read.startswith(SILENT, len(line)) or (self._heeded and self._heeded in read):
            return False
        if not self._closing():  # or the client has left, and its request has not ended yet
            self._write(read)
        self._last.append(read)
        self.pieces += 1
        self.size += len(read) - len(line) - len(LINE_END)
        return True

    def write_by(self, write: Callable[[bytes], None]) -> None:
        """From now on chunks go another way to the client."""
        self._write = write

    def take_last(self) -> list[bytes]:
        """The content of the last chunks, each told once."""
        found = [chunk[chunk.index(LINE_END) + 2 : -2] for chunk in self._last]
        self._last.clear()
        return found
