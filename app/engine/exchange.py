"""One exchange with a child: a request, and its answer as it arrives.

Whatever the child sends goes into a sink at once, without a task or a queue in between; the chunks
of a stream may pass the sink by (`engine.passage`). The sink holds the child back with `pause` and
`resume`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import httptools

from app.engine.passage import LINE_END, Passage, silent
from app.errors import EndedError, EndingError, UpstreamError
from app.machine import clock

Headers = list[tuple[bytes, bytes]]  # names in lower case
ENDING = 2.0  # seconds that a process takes to end, once it closes its connections


class Waits(enum.Enum):
    """Who waits for an answer, and what it shows of the child."""

    CLIENT = "a client; it is the child's work"
    # llama-server's HTTP threads give it, also where the thread that computes hangs.
    ASIDE = "a client; it is given beside the child's work, and shows nothing of that"
    US = "nobody but us, and we have a deadline"


class Sink(Protocol):
    """Takes an answer. Nothing is called after `complete` or `failed`."""

    passage: Passage | None  # from when it is there, whole chunks go this way, and not to `data`

    def head(self, status: int, headers: Headers) -> None: ...

    def flush(self) -> None:
        """The head has come without any of the body: whoever holds it back waits no longer."""

    def data(self, chunk: bytes) -> None: ...

    def complete(self) -> None: ...

    def failed(self, error: UpstreamError) -> None: ...


class Connections(Protocol):
    """Where an exchange gets its connection, and a connection goes afterwards. `progress` counts
    the signs that the child works on requests of others than us, `aside` those that it answers what
    clients ask it beside that."""

    progress: int
    aside: int
    doubtful: bool  # the child has closed a connection: it may take none any more
    broken: bool  # it has closed one in an exchange, and answered none since: it may be ending

    peer: str  # its name in errors

    async def acquire(self, fresh: bool = False) -> ChildConnection: ...

    def release(self, connection: ChildConnection) -> None:
        """It may be used again."""

    def forget(self, connection: ChildConnection) -> None:
        """It is closed."""


class ChildConnection(asyncio.Protocol):
    """One connection to the child; it carries one exchange at a time."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        # httptools: a piece of the body. No method of ours is called for it.
        self.on_body = self._chunks.append
        self._head_only = False  # the last read has brought a head, and no body yet
        self._parser = httptools.HttpResponseParser(self)
        self._passage: Passage | None = None  # the parser is between two chunks, and may miss some
        self._at_end = False  # the parser has come to the end of a chunk
        self._complete = False
        self._framed = False  # the answer says how long it is
        self._keep_alive = False
        self.exchange: Exchange | None = None
        self.transport: asyncio.Transport  # from when it is connected
        self._connected = False
        self._closed = False  # by us
        self.served = 0
        self.idle_since = 0.0

    def begin(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        self._passage = None
        self._complete = False
        self._framed = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connected = True

    def data_received(self, data: bytes) -> None:
        if self._passage is not None:
            if self._passage.takes(data):
                self._connections.progress += 1
                return
            self._passage = None
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # the child sends what nobody asked for
            return
        self._at_end = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamError(f"{self._connections.peer}'s answer is no HTTP: {error}"))
            return
        # All pieces of one read are passed on as one: fewer frames and writes, and no delay.
        chunks = self._chunks
        if chunks:
            chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            if not silent(chunk):
                self._note(exchange)
            exchange.sink.data(chunk)
        elif self._head_only and not self._complete:
            exchange.sink.flush()
        self._head_only = False
        if self._complete:
            self._finish()
        elif self._at_end and data.endswith(LINE_END) and self.exchange is exchange:
            self._passage = exchange.sink.passage

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.doubtful |= not self._closed
        self._connections.forget(self)
        exchange = self.exchange
        del self._parser  # it refers to us: no cycle is left for the garbage collector
        if exchange is None:
            return
        if exchange.started and not self._framed:
            self._finish()  # a body that ends with the connection
        else:
            self._fail(self._cause(exchange))

    def _cause(self, exchange: Exchange) -> UpstreamError:
        """A process that ends closes its connections one after the other, and its listener at any
        moment of that: what it was sent in between it has hardly seen."""
        peer = self._connections.peer
        told = f"{peer} closed the connection before its answer was whole"
        if self._closed:
            return UpstreamError(told)
        if exchange.late and exchange.just_begun and not exchange.started:
            return EndingError(f"{peer} ended before it took the request")
        self._connections.broken = True
        return EndedError(told)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.hold()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self._note(self.exchange)
            self.exchange.release()

    def _note(self, exchange: Exchange) -> None:
        """The child goes on with it."""
        self._connections.progress += exchange.waits is Waits.CLIENT
        self._connections.aside += exchange.waits is Waits.ASIDE

    # httptools
    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self.exchange is not None
        status = self._parser.get_status_code()
        if status < 200:
            return
        self.exchange.started = self._head_only = True
        self.exchange.sink.head(status, self._headers)

    def on_chunk_header(self) -> None:
        self._at_end = False

    def on_chunk_complete(self) -> None:
        self._at_end = True

    def on_message_complete(self) -> None:
        self._complete = self._parser.get_status_code() >= 200
        self._keep_alive = self._parser.should_keep_alive()  # known only at this point

    def _finish(self) -> None:
        exchange = self.leave()
        assert exchange is not None
        self.served += 1
        self._connections.broken = False
        reusable = self._framed and self._keep_alive
        if reusable and exchange.sent:
            self.transport.resume_reading()
            self._connections.release(self)
        else:
            self.close()
        exchange.end_with(exchange.sink.complete)

    def _fail(self, error: UpstreamError) -> None:
        exchange = self.exchange
        lost = exchange and self.served and exchange.just_begun and not exchange.started
        if exchange and lost and exchange.replayable:
            self.leave()
            self.close()
            exchange.replay()
        else:
            self.fail(error)

    def fail(self, error: UpstreamError) -> None:
        """Close it: the exchange under way, if there is one, has failed."""
        exchange = self.leave()
        self.close()
        if exchange is not None:
            exchange.end_with(lambda: exchange.sink.failed(error))

    def leave(self) -> Exchange | None:
        """The exchange that was under way gets nothing more."""
        exchange, self.exchange, self._passage = self.exchange, None, None
        return exchange

    def close(self) -> None:
        self._closed = True
        self.transport.abort()

    def abandon(self) -> None:
        """Close it if it is connected: who asked for it does not wait any more."""
        if self._connected:
            self.close()


class Exchange:
    """One request to the child and its answer."""

    def __init__(
        self,
        connections: Connections,
        request: Sequence[bytes],
        sink: Sink,
        *,
        waits: Waits = Waits.CLIENT,
    ) -> None:
        """`request`: its head and what of its body is there, in pieces that are written at once."""
        self.sink = sink
        self.waits = waits
        self.started = False  # the answer has begun
        self.done = False
        self.sent = True  # False while a request body is still being written
        self.replayable = True
        self.late = False  # it began while `Connections.broken`,
        self.begun = 0.0  # and when
        self._chunked = False
        self._paused = False
        self._full: asyncio.Event | None = None  # while the child does not take what is sent
        self._connections = connections
        self._request = request
        self._connection: ChildConnection | None = None
        self._replay: asyncio.Task[None] | None = None

    @property
    def owed(self) -> bool:
        """It is the child's turn: it has the request, or does not take what is sent of it; and
        whoever waits for the answer takes what comes."""
        turn = self.sent or self._full is not None
        return turn and not self._paused and self.waits is not Waits.US

    @property
    def just_begun(self) -> bool:
        """What is closed so soon was being closed when the request came."""
        return clock.now() - self.begun < ENDING

    async def begin(self, *, fresh: bool = False) -> None:
        """Send the request. Raises NotConnectedError."""
        connection = await self._connections.acquire(fresh)
        connection.begin(self)
        self._connection = connection
        self.late, self.begun = self._connections.broken, clock.now()
        if transport := self._open_transport():
            transport.writelines(self._request)
        if self._paused:
            self.pause()

    def stream_body(self, *, chunked: bool) -> None:
        """The request's body follows in pieces by `write`, and then `end`. `chunked`: the head does
        not tell its length."""
        self.sent = self.replayable = False
        self._chunked = chunked

    async def write(self, chunk: bytes) -> None:
        """Send one piece of the request's body; return when there is room for more."""
        self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        if self._full is not None:
            await self._full.wait()

    def end(self) -> None:
        if self._chunked:
            self._write(b"0\r\n\r\n")
        self.sent = True

    def _write(self, data: bytes) -> None:
        if transport := self._open_transport():
            transport.write(data)

    def end_with(self, tell: Callable[[], None]) -> None:
        """Nothing more comes; nobody waits to write any longer."""
        self.done = True
        self.release()
        tell()

    def hold(self) -> None:
        """The child does not take what is sent."""
        if self._full is None:
            self._full = asyncio.Event()

    def release(self) -> None:
        """It does, or need not any more."""
        if self._full is not None:
            self._full.set()
            self._full = None

    def pause(self) -> None:
        self._paused = True
        if transport := self._open_transport():
            transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if transport := self._open_transport():
            transport.resume_reading()

    def _open_transport(self) -> asyncio.Transport | None:
        if self.done or self._connection is None:
            return None
        transport = self._connection.transport
        return None if transport.is_closing() else transport

    def abort(self) -> None:
        """Close the connection, if the answer is not whole: the child then frees the slot."""
        if self._replay is not None:
            self._replay.cancel()
        if not self.done and self._connection is not None:
            self.done = True
            self._connection.leave()
            self._connection.close()

    def replay(self) -> None:
        """The child had just closed the idle connection: send the same request on a new one."""
        self.replayable = False
        self._replay = asyncio.ensure_future(self._begin_again())

    async def _begin_again(self) -> None:
        try:
            await self.begin(fresh=True)
        except UpstreamError as error:
            failure = EndingError(f"{error}, after it had closed one with the request on it")
            self.end_with(lambda: self.sink.failed(failure))
