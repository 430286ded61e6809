"""One request of a client, and the response to it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from app.errors import RequestError
from app.gateway.http.heads import Headers
from app.gateway.http.ids import HEADER, request_id
from app.gateway.http.outlet import Outlet
from app.gateway.http.stamps import date, phrase
from app.machine import clock

BODILESS = (204, 304)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = (b"content-type", b"application/json; charset=utf-8")


class Wire(Protocol):
    """The connection that a request came on."""

    @property
    def address(self) -> str: ...

    @property
    def outlet(self) -> Outlet: ...

    def send(self, data: bytes) -> None: ...

    def abort(self) -> None: ...

    def body_taken(self) -> None: ...

    def follow(self) -> None: ...


class Flow(Protocol):
    """The source of a response's body. A slow client pauses it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Request:
    """One request and the response to it."""

    def __init__(self, connection: Wire, method: str, target: str, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.id = request_id(self.header(HEADER))
        self.received = clock.now()
        self.keep_alive = True
        self.version = "1.1"
        self.started = False  # the response's head has been sent
        self.finished = False
        self.flow: Flow | None = None
        self.kept = False  # what the client does not read of the answer
        length = self.header(b"content-length")
        # The body's, in bytes, as the client gives it; None if it comes in chunks, or none.
        self.length = None if length is None else int(length.strip().lstrip(b"0") or b"0")
        self.size = 0  # bytes of the body that have arrived
        self.named_errors = False  # in Anthropic's shape: OpenAI's with a `type` beside it
        self.gives_way = False  # its connection may be broken for the sake of a new one
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._complete = False
        self._failure: RequestError | None = None
        self._more: asyncio.Event | None = None  # where more of the body is waited for
        self._expects = self.header(b"expect") is not None
        self._framing = b""
        self._held = b""  # the head, until there is something to send it with

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def address(self) -> str:
        """Where the sender, which may be a proxy, connected from; "" for a Unix socket."""
        return self._connection.address

    # The request's body.

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. The client is held back while nobody takes it."""
        if self._expects and self.version != "1.0" and not self._complete and not self._chunks:
            self._connection.send(CONTINUE)
        self._expects = False
        while True:
            while self._chunks:
                yield self._take()
            if self._complete:
                return
            if self._failure is not None:
                raise self._failure
            self._more = asyncio.Event()
            await self._more.wait()

    def take_whole(self, below: int) -> bytes | None:
        """The body, if all of it has arrived and is smaller than so many bytes; then `chunks` has
        nothing."""
        if not self._complete or self._buffered >= below:
            return None
        return self._take()

    def _take(self) -> bytes:
        """All that has arrived, in one piece: a client may send it in pieces of one byte."""
        chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        self._connection.body_taken()
        return chunk

    @property
    def buffered(self) -> int:
        return self._buffered

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        self.size += len(chunk)
        self._wake()

    def feed_end(self) -> None:
        self._complete = True
        self._wake()

    def _wake(self) -> None:
        if self._more is not None:
            self._more.set()

    def fail(self, error: RequestError) -> None:
        """The rest of the body will not arrive, and no other request after it."""
        self.keep_alive = False
        self._failure = error
        self._wake()

    # The response.

    def start(
        self, status: int, headers: Headers, length: int | None = None, *, hold: bool = False
    ) -> None:
        """Send the head. `length` is the body's, in bytes. Without it the body is sent in chunks;
        with HTTP/1.0 it ends when the connection is closed. With `hold` the head goes out with the
        first piece of the body, or with `flush`: one system call less."""
        self.started = True
        if not self._complete:
            self.keep_alive = False  # the rest of the body stands before the next request
        lines = [b"HTTP/1.1 %d %b" % (status, phrase(status)), b"date: " + date()]
        lines.append(b"x-request-id: " + self.id)
        lines += [b"%b: %b" % header for header in headers]
        if status not in BODILESS:
            if length is not None:
                lines.append(b"content-length: %d" % length)
            elif self.version == "1.1":
                lines.append(b"transfer-encoding: chunked")
                self._framing = b"%x\r\n%b\r\n"
            else:
                self.keep_alive = False
        if self.version == "1.0" and self.keep_alive:
            lines.append(b"connection: keep-alive")
        elif not self.keep_alive:
            lines.append(b"connection: close")
        self._held = b"\r\n".join(lines) + b"\r\n\r\n"
        if not hold:
            self.flush()

    def flush(self) -> None:
        """Send the head, if it was held."""
        if self._held:
            held, self._held = self._held, b""
            self._connection.send(held)

    def flow_from(self, source: Flow | None, *, kept: bool = False) -> None:
        """Where the body will come from. It is paused whenever the client does not keep up: if it
        is `kept`, when there is no room for more that the client has not read."""
        self.flow, self.kept = source, kept
        self._connection.follow()  # the client may not have kept up with what was sent so far

    def write(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        if self.method == "HEAD" or self.finished:
            return
        if self._framing:
            chunk = self._framing % (len(chunk), chunk)
        if self._held:
            chunk, self._held = self._held + chunk, b""
        self._connection.send(chunk)

    def outlet(self) -> Outlet | None:
        """Where pieces of the body go that are framed as chunks already; None if they may not."""
        if not self._framing or self.method == "HEAD" or self.finished:
            return None
        return self._connection.outlet

    def finish(self) -> None:
        if self.finished:
            return
        self.flush()
        if self._framing and self.method != "HEAD":
            self._connection.send(b"0\r\n\r\n")
        self.finished = True

    def abort(self) -> None:
        """Break the connection, so that the client sees that the body is not whole."""
        self.finished = True
        self._connection.abort()

    def reply(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Send a whole, small response. JSON, unless `headers` say otherwise."""
        self.start(status, headers or [JSON], len(body), hold=True)
        self.write(body)
        self.finish()

    def refuse(self, error: RequestError) -> None:
        headers = [JSON, *error.headers]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after))))
        body = {"type": "error", **error.body()} if self.named_errors else error.body()
        self.reply(error.status, json.dumps(body).encode(), headers)
