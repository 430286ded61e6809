"""A stub of llama-server: answers at once, as the request's field "stub" asks, and costs little.

"stub":"300x10" is a stream of 300 events, one every 10 ms, each with the time when it was sent;
"stub":"size1000" is an answer of 1,000 bytes. Without the field the answer is a small chat message.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from functools import cache
from pathlib import Path

import uvloop

DELTA = {
    "choices": [{"finish_reason": None, "index": 0, "delta": {"content": " word"}}],
    "created": 1795403945,
    "id": "chatcmpl-TVS5CEBUsSIQ34ABmSC2Ty2KErBoZI8M",
    "model": "bench",
    "sent": 0,
    "object": "chat.completion.chunk",
}
BEFORE, AFTER = (
    part.encode() for part in json.dumps(DELTA, separators=(",", ":")).split('"sent":0')
)
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Keep-Alive: timeout=5, max=100\r\n\r\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
USAGE = {"completion_tokens": 1, "prompt_tokens": 9, "total_tokens": 10}
MESSAGE = {"role": "assistant", "content": "Hello"}
CHOICE = {"index": 0, "finish_reason": "stop", "message": MESSAGE}
SMALL = json.dumps({"object": "chat.completion", "choices": [CHOICE], "usage": USAGE}).encode()
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
WISH = re.compile(rb'"stub": ?"(?:(\d+)x(\d+)|size(\d+))"')
READ = 600  # bytes of a body in which its wish is looked for


def event() -> bytes:
    text = b'data: %b"sent":%d%b\n\n' % (BEFORE, time.monotonic_ns(), AFTER)
    return b"%x\r\n%b\r\n" % (len(text), text)


@cache
def large(size: int) -> tuple[bytes, bytes]:
    text = b'{"content":"%b"}' % (b"x" * (size - 14))
    return HEAD % len(text), text


class Stub(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or transport
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.begin = b""
        self.missing = -1  # bytes of the body, -1 while the head is incomplete

    def data_received(self, data: bytes) -> None:
        if len(self.begin) < 8192 + READ:
            self.begin += data[: 8192 + READ - len(self.begin)]
        if self.missing >= 0:
            self.missing -= len(data)
        else:
            end = data.find(b"\r\n\r\n") if self.begin == data else self.begin.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.begin[: end + 2])
            have = len(data) - end - 4 if self.begin[:64] == data[:64] else 0
            self.missing = (int(length[1]) if length else 0) - have
        if self.missing <= 0:
            wish = WISH.search(self.begin)
            self.begin, self.missing = b"", -1
            self.answer(wish)

    def answer(self, wish: re.Match[bytes] | None) -> None:
        if wish is None:
            self.transport.write(HEAD % len(SMALL) + SMALL)
        elif wish[3]:
            self.transport.writelines(large(int(wish[3])))
        else:
            self.transport.write(STREAM)
            self.tell(int(wish[1]), int(wish[2]) / 1000, asyncio.get_running_loop().time())

    def tell(self, left: int, pause: float, when: float) -> None:
        """The next event; at fixed times, so that a late one does not delay the others."""
        if self.transport.is_closing():
            return
        if not left:
            self.transport.write(b"0\r\n\r\n")
            return
        self.transport.write(event())
        loop = asyncio.get_running_loop()
        loop.call_at(when + pause, self.tell, left - 1, pause, when + pause)


async def serve(path: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    if path:
        Path(path).unlink(missing_ok=True)
        await loop.create_unix_server(Stub, path, backlog=2048)
    if port:
        await loop.create_server(Stub, "127.0.0.1", port, backlog=2048)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
