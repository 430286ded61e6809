"""HTTP/1.1 to one child: pooled connections; get, post, and a streaming exchange.

Pushes what it receives into a sink as it arrives, without a task or a queue in between: one
streamed token is one callback. The sink slows the child down with `pause` and `resume`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

from app.errors import NotConnectedError, UpstreamError
from app.machine import network

Headers = list[tuple[bytes, bytes]]  # names in lower case

CONNECT_TIMEOUT = 5.0
FULL_PAUSE = 0.005
MAX_IDLE = 16  # connections; each holds a thread of the child's while it is open
IDLE_LIFETIME = 2.0  # seconds; the child itself closes after 5
MAX_REPLY = 16 << 20  # bytes that get and post take


class Sink(Protocol):
    """Who takes a response. After `complete` or `failed` nothing more comes."""

    def head(self, status: int, headers: Headers) -> None: ...

    def data(self, chunk: bytes) -> None: ...

    def complete(self) -> None: ...

    def failed(self, error: UpstreamError) -> None: ...


@dataclass(frozen=True)
class Address:
    """A Unix socket's path, or a TCP port of this machine."""

    path: str = ""
    port: int = 0

    def listen(self) -> tuple[str, ...]:
        """llama-server's arguments to listen here."""
        if self.path:
            return ("--host", self.path)
        return ("--host", "127.0.0.1", "--port", str(self.port))


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _Connection(asyncio.Protocol):
    """One connection to the child, for one exchange at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self._complete = False
        self._framed = False  # the answer says how long it is
        self._keep_alive = False
        self.exchange: Exchange | None = None
        self.transport: asyncio.Transport | None = None
        self.served = 0
        self.idle_since = 0.0

    def begin(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        self._complete = False
        self._framed = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or self._parser is None:
            self.close()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamError(f"the child's answer is no HTTP: {error}"))
            return
        # All pieces of one read go on as one: fewer frames and writes, and nothing is delayed.
        if self._chunks:
            chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            exchange.sink.data(chunk)
        if self._complete:
            self._finish()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._client.forget(self)
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.started and not self._framed:
            self._finish()  # a body that ends with the connection
        else:
            self._fail(UpstreamError("the child closed the connection before its answer was whole"))

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.writable.clear()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.writable.set()

    # httptools
    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None and self.exchange is not None
        status = self._parser.get_status_code()
        if status < 200:
            return
        self.exchange.started = True
        self.exchange.sink.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        self._complete = self._parser.get_status_code() >= 200
        self._keep_alive = self._parser.should_keep_alive()  # only here does the parser know

    def _finish(self) -> None:
        exchange, self.exchange = self.exchange, None
        assert exchange is not None and self._parser is not None and self.transport is not None
        self.served += 1
        reusable = self._framed and self._keep_alive
        if reusable and exchange.sent:
            self.transport.resume_reading()
            self._client.release(self)
        else:
            self.close()
        exchange.end_with(exchange.sink.complete)

    def _fail(self, error: UpstreamError) -> None:
        exchange, self.exchange = self.exchange, None
        self.close()
        if exchange is None:
            return
        if self.served and not exchange.started and exchange.replayable:
            exchange.replay()
        else:
            exchange.end_with(lambda: exchange.sink.failed(error))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Exchange:
    """One request to the child and its answer."""

    def __init__(self, client: Client, request: bytes, sink: Sink) -> None:
        self.sink = sink
        self.started = False  # the answer has begun
        self.done = False
        self.sent = True  # False while a request body is still being written
        self.replayable = True
        self._paused = False
        self.writable = asyncio.Event()
        self.writable.set()
        self._client = client
        self._request = request
        self._connection: _Connection | None = None
        self._replay: asyncio.Task[None] | None = None

    async def begin(self, *, fresh: bool = False) -> None:
        """Send the request. Raises NotConnectedError."""
        connection = await self._client.acquire(fresh)
        connection.begin(self)
        self._connection = connection
        self._write(self._request)
        if self._paused:
            self.pause()

    def stream_body(self) -> None:
        """The body follows in pieces by `write`, then `end`."""
        self.sent = self.replayable = False

    async def write(self, chunk: bytes) -> None:
        """One piece of a chunked request body; returns when there is room for more."""
        self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await self.writable.wait()

    def end(self) -> None:
        self._write(b"0\r\n\r\n")
        self.sent = True

    def _write(self, data: bytes) -> None:
        if transport := self._open_transport():
            transport.write(data)

    def end_with(self, tell: Callable[[], None]) -> None:
        """Nothing more comes; who waits to write need not."""
        self.done = True
        self.writable.set()
        tell()

    def pause(self) -> None:
        self._paused = True
        if transport := self._open_transport():
            transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if transport := self._open_transport():
            transport.resume_reading()

    def _open_transport(self) -> asyncio.Transport | None:
        if self.done or self._connection is None or self._connection.transport is None:
            return None
        transport = self._connection.transport
        return None if transport.is_closing() else transport

    def abort(self) -> None:
        """Leave: the child sees the closed connection and frees the slot."""
        if self._replay is not None:
            self._replay.cancel()
        if not self.done and self._connection is not None:
            self.done = True
            self._connection.exchange = None
            self._connection.close()

    def replay(self) -> None:
        """An idle connection that the child had just closed: the same request on a new one."""
        self.replayable = False
        self._replay = asyncio.ensure_future(self._begin_again())

    async def _begin_again(self) -> None:
        try:
            await self.begin(fresh=True)
        except UpstreamError as error:
            failure = error
            self.end_with(lambda: self.sink.failed(failure))


class Client:
    """The connections to one child at `address`, with the key that it wants."""

    def __init__(self, address: Address, api_key: str) -> None:
        self.address = address
        self._authorization = f"Bearer {api_key}".encode()
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    async def exchange(
        self,
        head: tuple[str, str, Headers],
        body: bytes | None,
        sink: Sink,
    ) -> Exchange:
        """Send method, target and headers with a whole body; with None, by `Exchange.write`.

        Raises NotConnectedError where the child takes no connection.
        """
        method, target, headers = head
        request = self._head(method, target, headers, body)
        found = Exchange(self, request, sink)
        if body is None:
            found.stream_body()
        await found.begin()
        return found

    async def get(self, target: str, timeout: float) -> Reply:
        return await self._request("GET", target, b"", timeout)

    async def post(self, target: str, body: object, timeout: float) -> Reply:
        return await self._request("POST", target, json.dumps(body).encode(), timeout)

    async def _request(self, method: str, target: str, body: bytes, timeout: float) -> Reply:
        """Raises UpstreamError, also where the whole answer takes longer than `timeout`."""
        collector = _Collector()
        headers = [(b"content-type", b"application/json")]
        exchange: Exchange | None = None
        try:
            exchange = await self.exchange((method, target, headers), body, collector)
            return await asyncio.wait_for(collector.reply, timeout)
        except asyncio.TimeoutError:
            raise UpstreamError(f"no answer to {method} {target} in {timeout:g} s") from None
        finally:
            if exchange is not None:
                exchange.abort()

    def _head(self, method: str, target: str, headers: Headers, body: bytes | None) -> bytes:
        lines = [f"{method} {target} HTTP/1.1".encode(), b"host: llama-server"]
        lines += [b"%b: %b" % header for header in headers]
        lines.append(b"authorization: " + self._authorization)
        if body is None:
            lines.append(b"transfer-encoding: chunked")
        elif body or method != "GET":
            lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")

    async def acquire(self, fresh: bool = False) -> _Connection:
        now = asyncio.get_running_loop().time()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if now - connection.idle_since < IDLE_LIFETIME:
                return connection
            connection.close()
        return await self._connect()

    async def _connect(self) -> _Connection:
        connection = _Connection(self)
        try:
            await asyncio.wait_for(self._open_transport(connection), CONNECT_TIMEOUT)
        except (OSError, asyncio.TimeoutError) as error:
            raise NotConnectedError(f"the child takes no connection: {error}") from None
        self._open.add(connection)
        return connection

    async def _open_transport(self, connection: _Connection) -> None:
        if not self.address.path:
            await network.connect(lambda: connection, self.address.port)
            return
        while True:
            try:
                await network.connect_unix(lambda: connection, self.address.path)
                return
            except BlockingIOError:  # more at once than the child's backlog holds
                await asyncio.sleep(FULL_PAUSE)

    def release(self, connection: _Connection) -> None:
        now = connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        while len(self._idle) > MAX_IDLE or now - self._idle[0].idle_since >= IDLE_LIFETIME:
            self._idle.popleft().close()

    def forget(self, connection: _Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Break every connection; what was under way fails."""
        for connection in list(self._open):
            connection.close()


class _Collector:
    """A sink that keeps a small answer whole."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_REPLY:
            self.failed(UpstreamError("an answer larger than 16 MiB"))
        else:
            self._chunks.append(chunk)

    def complete(self) -> None:
        if not self.reply.done():
            self.reply.set_result(Reply(self._status, self._headers, b"".join(self._chunks)))

    def failed(self, error: UpstreamError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
