"""HTTP/1.1 to one child: its pooled connections, small requests, and exchanges that stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.bell import Bell
from app.engine.exchange import ChildConnection, Exchange, Headers, Sink, Waits
from app.engine.passage import Passage
from app.errors import NotConnectedError, UpstreamError
from app.machine import clock, network
from app.machine.deadline import within

CONNECT_TIMEOUT = 5.0
FULL_PAUSE = 0.005  # seconds between two tries while the child's backlog is full
IDLE_LIFETIME = 2.0  # seconds; the child itself closes after 5
MOST_IDLE = 256  # connections to a peer that has no thread for each
KNOCK = 1.0  # seconds: who does not accept in them is busy
SMALL = 16 << 10  # bytes of a body that are rather copied than written on their own
MAX_REPLY = 16 << 20  # bytes that `get` and `post` accept


@dataclass(frozen=True)
class Address:
    """A Unix socket's path, or a TCP port, by default of this machine."""

    path: str = ""
    port: int = 0
    host: str = network.LOOPBACK

    def listen(self) -> tuple[str, ...]:
        """llama-server's arguments to listen here."""
        if self.path:
            return ("--host", self.path)
        return ("--host", self.host, "--port", str(self.port))


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """The connections to one child at `address`, which wants this key; or to another server, by
    the name of `peer` in errors. `largest`: bytes of an answer that `get` and `post` accept.
    `most_idle`: connections, at least one, that are kept for later."""

    def __init__(
        self,
        address: Address,
        api_key: str,
        peer: str = "llama-server",
        largest: int = MAX_REPLY,
        most_idle: int = MOST_IDLE,
    ) -> None:
        self.address = address
        self.peer = peer
        self._largest = largest
        self._most_idle = most_idle
        self._authorization = f"Bearer {api_key}".encode()
        self.progress = self.aside = 0
        self._doubtful = False
        self.broken = False
        self.refused = False  # the last connection, for nobody listens there
        self.refuses = Bell()  # rings whenever that happens
        self.stirs = Bell()  # rings at each exchange, and when it may take no connection any more
        self._given_up = False
        self._held: int | None = None  # the file of its Unix socket
        self._idle: deque[ChildConnection] = deque()
        self._open: dict[ChildConnection, None] = {}  # in the order in which they were made

    async def exchange(
        self,
        head: tuple[str, str, Headers],
        body: bytes | None,
        sink: Sink,
        length: int | None = None,
        *,
        waits: Waits = Waits.CLIENT,
    ) -> Exchange:
        """Send a request: method, target and headers; its body, or None if the body follows by
        `Exchange.write`, in `length` bytes or in chunks.

        Raises NotConnectedError if the child takes no connection.
        """
        method, target, headers = head
        size = length if body is None else len(body)
        pieces = _pieces(self._head(method, target, headers, size), body)
        exchange = Exchange(self, pieces, sink, waits=waits)
        if body is None:
            exchange.stream_body(chunked=length is None)
        # A body in pieces cannot be sent again, as others are if the child has just closed an idle
        # connection.
        await exchange.begin(fresh=body is None)
        return exchange

    async def get(self, target: str, timeout: float) -> Reply:
        """As `post_json`; nobody but us waits for it."""
        return await self._request("GET", target, [b""], timeout, Waits.US)

    async def post(self, target: str, body: object, timeout: float, waits: Waits) -> Reply:
        """As `post_json`."""
        return await self.post_json(target, [json.dumps(body).encode()], timeout, waits)

    async def post_json(
        self, target: str, pieces: Sequence[bytes], timeout: float, waits: Waits
    ) -> Reply:
        """Raises UpstreamError."""
        return await self._request("POST", target, pieces, timeout, waits)

    async def _request(
        self, method: str, target: str, pieces: Sequence[bytes], timeout: float, waits: Waits
    ) -> Reply:
        """Raises UpstreamError, also if the whole answer takes longer than `timeout`."""
        try:
            return await within(timeout, self._answered(method, target, pieces, waits))
        except asyncio.TimeoutError:
            raise UpstreamError(f"no answer to {method} {target} in {timeout:g} s") from None

    async def _answered(
        self, method: str, target: str, pieces: Sequence[bytes], waits: Waits
    ) -> Reply:
        collector = Collector(self._largest)
        head = method, target, [(b"content-type", b"application/json")]
        whole, length = (pieces[0], None) if len(pieces) == 1 else (None, sum(map(len, pieces)))
        exchange = await self.exchange(head, whole, collector, length, waits=waits)
        try:
            if whole is None:
                for piece in pieces:
                    await exchange.write(piece)
                exchange.end()
            return await collector.reply
        finally:
            exchange.abort()

    def _head(self, method: str, target: str, headers: Headers, size: int | None) -> bytes:
        """`size` of the body in bytes; None if it comes in chunks."""
        lines = [f"{method} {target} HTTP/1.1".encode(), b"host: llama-server"]
        lines += [b"%b: %b" % header for header in headers]
        lines.append(b"authorization: " + self._authorization)
        if size is None:
            lines.append(b"transfer-encoding: chunked")
        elif size or method != "GET":
            lines.append(b"content-length: %d" % size)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    @property
    def owed(self) -> int:
        """Answers that the child has to go on with, for clients wait for them."""
        return len(self._owed())

    @property
    def owes_work(self) -> bool:
        """Whether one of these is by its own work: see `Waits`."""
        return any(exchange.waits is Waits.CLIENT for exchange in self._owed())

    def _owed(self) -> list[Exchange]:
        exchanges = (connection.exchange for connection in self._open)
        return [each for each in exchanges if each is not None and each.owed]

    @property
    def doubtful(self) -> bool:
        return self._doubtful

    @doubtful.setter
    def doubtful(self, doubtful: bool) -> None:
        self._doubtful = doubtful
        if doubtful:
            self.stirs.ring()

    @property
    def rests(self) -> bool:
        """Nothing is under way, and it takes connections as far as is known."""
        doubt = self._doubtful or self.refused
        return not doubt and all(each.exchange is None for each in self._open)

    def give_up(self, error: UpstreamError) -> None:
        """The child is being ended: every exchange under way has failed with this error, and none
        begins until `reopen`."""
        self._given_up = True
        for connection in list(self._open):
            connection.fail(error)

    def reopen(self) -> None:
        """There is another child."""
        self._given_up = self.broken = False
        self.let_go()

    def hold(self) -> None:
        """From now on connect to the Unix socket that is at the address now, even if somebody
        removes its file or the folder. Raises FileNotFoundError."""
        self.let_go()
        if self.address.path:
            self._held = network.hold(self.address.path)

    def let_go(self) -> None:
        """The opposite of `hold`."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @property
    def _path(self) -> str:
        return self.address.path if self._held is None else network.held(self._held)

    async def acquire(self, fresh: bool = False) -> ChildConnection:
        if self._given_up:
            raise NotConnectedError(f"{self.peer} is being ended")
        connection = self._rested(fresh) or await self._connect()
        self.stirs.ring()  # only now: an exchange is under way once it has its connection
        return connection

    def _rested(self, fresh: bool) -> ChildConnection | None:
        """One that is kept, and was used so lately that the child keeps it, too."""
        now = clock.now()
        if fresh and self._idle and len(self._open) >= self._most_idle:
            self._idle.popleft().close()  # a child that has a thread for each may have none left
        while self._idle and not fresh:
            connection = self._idle.pop()
            if now - connection.idle_since < IDLE_LIFETIME:
                return connection
            connection.close()
        return None

    async def _connect(self) -> ChildConnection:
        connection = ChildConnection(self)
        try:
            await self._open_transport(connection)
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # or the name is none
            self.refused = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            if self.refused:
                self.refuses.ring()
            self.stirs.ring()
            raise NotConnectedError(f"{self.peer} takes no connection: {error}") from None
        self.refused = False
        self._open[connection] = None
        return connection

    async def knock(self) -> None:
        """Find out whether the child takes connections: `refused` tells, where there is no doubt
        any more."""
        try:
            (await within(KNOCK, self._connect())).close()
        except (NotConnectedError, asyncio.TimeoutError):
            if not self.refused:  # its backlog is full, or we have no descriptors
                return
        self.doubtful = False

    async def _open_transport(self, connection: ChildConnection) -> None:
        if not self.address.path:
            opening = network.connect(lambda: connection, self.address.port, self.address.host)
            try:
                await within(CONNECT_TIMEOUT, opening)
            except asyncio.CancelledError:
                connection.abandon()
                raise
            return
        deadline = clock.now() + CONNECT_TIMEOUT
        while True:  # a Unix socket answers at once
            path = self._path
            try:
                await network.connect_unix(lambda: connection, path)
                return
            except BlockingIOError:  # more at once than the child's backlog holds
                if clock.now() > deadline:
                    raise
                await asyncio.sleep(FULL_PAUSE)
            except (FileNotFoundError, PermissionError):
                if path == self.address.path:
                    raise
                self.let_go()  # a sandbox shows what is held, and lets nobody connect to it

    def release(self, connection: ChildConnection) -> None:
        now = connection.idle_since = clock.now()
        self._idle.append(connection)
        most = self._most_idle
        while len(self._idle) > most or now - self._idle[0].idle_since >= IDLE_LIFETIME:
            self._idle.popleft().close()

    def forget(self, connection: ChildConnection) -> None:
        self._open.pop(connection, None)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Close every connection: exchanges under way fail, and none is tried once more."""
        for connection in list(self._open):
            if connection.exchange is not None:
                connection.exchange.replayable = False
            connection.close()


def _pieces(head: bytes, body: bytes | None) -> tuple[bytes, ...]:
    """What is sent at once; in one piece if the body is small."""
    body = body or b""
    return (head + body,) if len(body) < SMALL else (head, body)


class Collector:
    """A sink that collects a small answer."""

    passage: Passage | None = None

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def flush(self) -> None: ...

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._largest:
            self.failed(UpstreamError(f"an answer larger than {self._largest} bytes"))
        else:
            self._chunks.append(chunk)

    def complete(self) -> None:
        if not self.reply.done():
            self.reply.set_result(Reply(self._status, self._headers, b"".join(self._chunks)))

    def failed(self, error: UpstreamError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
