"""The clients: streams that are read at the same time, and small requests on kept connections."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

SENT = re.compile(rb'"sent":(\d+)')
END = b"0\r\n\r\n"


def request(prefix: str, wish: str = "", size: int = 0, model: str = "bench") -> bytes:
    """A chat request for the stub; its body has at least `size` bytes, most of them JSON that has
    to be read as a whole."""
    stub = f'"stub":"{wish}",' if wish else ""
    streams = "true" if "x" in wish else "false"
    text = f'{{"model":"{model}",{stub}"stream":{streams},"messages":[{{"role":"user","content":"'
    text += "Hello " * (size // 6) + '"}]}'
    body = text.encode()
    return (
        f"POST {prefix}/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


@dataclass
class Stream:
    """One answer, as it came: events, seconds to the first byte, and how late each event was."""

    events: int = 0
    first: float = 0.0
    took: float = 0.0  # seconds from the first event to the end
    late: list[float] = field(default_factory=list)


class Reader(asyncio.Protocol):
    """Sends requests on one connection, one after the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.tail = b""
        self.stream = Stream()
        self.begun = 0.0
        self.left = -1  # bytes of an answer with a length; -1 while it is not known
        self.done: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    async def ask(self, data: bytes) -> Stream:
        self.stream, self.left, self.tail = Stream(), -1, b""
        self.done = asyncio.get_running_loop().create_future()
        self.begun = time.monotonic()
        self.transport.write(data)
        await self.done
        return self.stream

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.stream.events += data.count(b"data: ")
        for sent in SENT.findall(data) if self.stream.events else ():
            self.stream.late.append((now - int(sent)) / 1e9)
        if not self.stream.first:
            self.stream.first = now / 1e9 - self.begun
            data = self._begin(data)
        elif self.left > 0:
            self.left -= len(data)
        self.tail = (self.tail + data)[-5:] if self.left < 0 else b""
        if self.left == 0 or (self.left < 0 and self.tail == END):
            self._finish()

    def _begin(self, data: bytes) -> bytes:
        """The part of the body that came with the head."""
        assert data[9:12] == b"200", data[:300]
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        if length:
            self.left = int(length[1]) - len(body)
        return body

    def _finish(self) -> None:
        self.stream.took = time.monotonic() - self.begun - self.stream.first
        if not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "done") and not self.done.done():
            self.done.set_exception(ConnectionError(f"closed: {error}"))


Where = int | str  # a port of this machine, or the path of a Unix socket


async def connect(where: Where) -> Reader:
    loop = asyncio.get_running_loop()
    if isinstance(where, str):
        return (await loop.create_unix_connection(Reader, where))[1]
    return (await loop.create_connection(Reader, "127.0.0.1", where))[1]


async def streams(where: Where, data: bytes, count: int) -> list[Stream]:
    """Read so many streams at the same time, each on a connection of its own."""

    async def one() -> Stream:
        reader = await connect(where)
        found = await reader.ask(data)
        reader.transport.close()
        return found

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def many(where: Where, data: bytes, connections: int, each: int) -> list[float]:
    """So many requests on each of so many connections; the seconds that each request took."""

    async def one() -> list[float]:
        reader = await connect(where)
        took = []
        for _ in range(each):
            begun = time.monotonic()
            await reader.ask(data)
            took.append(time.monotonic() - begun)
        reader.transport.close()
        return took

    return [t for took in await asyncio.gather(*(one() for _ in range(connections))) for t in took]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
