"""What a child has said since one start: how far it is, and what it complains of."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from app.engine import output
from app.machine import clock

KEPT_LINES = 12  # complaints, for the error message
LAST_WORDS = 10.0  # seconds before a crash, in which its cause is told
CHUNK = 64 * 1024
Read = Callable[[str], output.Event | None]


class Speech:
    def __init__(
        self,
        on_line: Callable[[output.LogLine], None],
        on_buffers: Callable[[Mapping[str, int]], None],
    ) -> None:
        """`on_line` is called with every line of its log, `on_buffers` with the bytes that its
        buffers took of each GPU, which it tells at its end."""
        self.progress: float | None = None  # of the load under way, 0..1
        self.context = 0  # tokens, once it is ready
        self.speaks_protocol = False
        self.ready = asyncio.Event()  # set by the protocol
        self.last = clock.now()  # when it said anything
        self._complaints: deque[tuple[float, str]] = deque(maxlen=KEPT_LINES)  # with their times
        self._on_line = on_line
        self._on_buffers = on_buffers

    async def follow(self, source: int, read: Read) -> None:
        """Hear what comes out of a pipe, until its end; `read` says what a line tells."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb")
        )
        buffer = output.LineBuffer()
        with contextlib.closing(transport):
            while chunk := await reader.read(CHUNK):
                self.hear(buffer.feed(chunk), read)
        self.hear(buffer.flush(), read)

    def hear(self, lines: Sequence[str], read: Read = output.read) -> None:
        self.last = clock.now()
        for line in lines:
            event = read(line)
            if isinstance(event, output.LogLine):
                self._hear_line(event)
            elif isinstance(event, output.Loading):
                self.speaks_protocol = True
                self.progress = event.progress
            elif isinstance(event, output.Ready):
                self.speaks_protocol = True
                self.context = event.context
                self.ready.set()
            elif isinstance(event, output.Buffers):
                self._on_buffers(event.devices)

    def _hear_line(self, line: output.LogLine) -> None:
        if line.level == "error":
            self._complaints.append((clock.now(), line.message))
        self._on_line(line)

    def complaints(self, *, loading: bool) -> str:
        """Its two complaints that explain its end, "" without any. A failed load names its cause
        first, and then its consequences. Of a crash only the last words count: what it said of a
        request before is no cause, and may be in the words of a caller."""
        if loading:
            return "; ".join([message for _, message in self._complaints][:2])
        since = clock.now() - LAST_WORDS
        return "; ".join([message for at, message in self._complaints if at >= since][-2:])
