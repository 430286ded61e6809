"""HTTP/1.1, the server's side, on asyncio.Protocol and httptools (llhttp).

llhttp refuses CL+TE, duplicate CL, obs-fold, bare LF, NUL and bad chunk sizes; heads.py makes the
checks that llhttp does not. A connection's requests are answered one at a time. Those that a client
pipelines wait, and nothing more is read meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import httptools

from app.errors import RequestError
from app.gateway.http.heads import Headers, check_head, without_upgrade
from app.gateway.http.limits import Limits
from app.gateway.http.request import Request
from app.machine import clock

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[None]]


class Owner(Protocol):
    """The server of the connections: counts them, and answers their requests."""

    @property
    def limits(self) -> Limits: ...

    @property
    def handler(self) -> Handler: ...

    @property
    def closing(self) -> bool: ...

    def allows(self, address: str) -> bool: ...

    def admit(self, connection: Connection) -> bool: ...

    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Owner) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._headers: Headers = []
        self._messages = 0  # begun so far
        self._head_parsed = 0  # bytes of the head under way that the parser has given out
        self._head_fed = 0  # bytes of it that have arrived
        self._in_head = False
        self._receiving: Request | None = None  # whose body is arriving
        self._current: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._queue: deque[Request] = deque()
        self._refused: RequestError | None = None
        self._read_paused = False
        self._dropping = False  # what still arrives is read and dropped
        self._since = clock.now()  # the client has been waited for since then
        self.write_paused: float | None = None

    @property
    def local(self) -> bool:
        """The client is on this machine."""
        peer = self._transport.get_extra_info("peername") if self._transport else None
        if not peer:
            return False
        return ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer and not self._server.allows(peer[0]):
            self._dropping = True
            self._transport.abort()
        elif not self._server.admit(self):
            refusal = RequestError(503, "the instance has too many connections", retry_after=1)
            body = json.dumps(refusal.body()).encode()
            head = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n"
            self.send(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            self._drop_rest()

    def data_received(self, data: bytes) -> None:
        if self._dropping:
            return
        fresh, messages = not self._in_head and self._receiving is None, self._messages
        if self._receiving is not None:
            self._since = clock.now()
        self._feed(data)
        if self._in_head:
            if not fresh:
                self._head_fed += len(data)
            elif self._messages == messages + 1:
                self._head_fed = len(data)
            self._check_head()
        if self._refused is not None:
            self._refuse()
        self._hold_back()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Java's client and `curl --http2` ask for HTTP/2 with an ordinary request. A server may
            # ignore that (RFC 9110, 7.8), but llhttp does not: so it reads the request once more,
            # without these headers.
            if self._refused is None:
                parser = self._parser
                head = without_upgrade(
                    parser.get_method(),
                    self._target,
                    parser.get_http_version(),
                    self._headers,
                    keep_alive=parser.should_keep_alive(),
                )
                self._parser = httptools.HttpRequestParser(self)
                self._feed(head + data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refused = self._refused or RequestError(
                400, f"the request is not valid HTTP: {error}"
            )

    def eof_received(self) -> bool:
        return False  # nobody can tell this from a client that has left

    def connection_lost(self, error: Exception | None) -> None:
        self._server.forget(self)
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self.write_paused = clock.now()
        if self._current is not None and self._current.flow is not None:
            self._current.flow.pause()

    def resume_writing(self) -> None:
        self.write_paused = None
        if self._current is not None and self._current.flow is not None:
            self._current.flow.resume()

    # httptools

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", []
        self._head_parsed = self._head_fed = 0
        self._messages += 1
        self._in_head = True
        self._since = clock.now()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_parsed += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._head_parsed += len(name) + len(value) + 4
        self._check_head()

    def _check_head(self) -> None:
        limits = self._limits
        if len(self._target) > limits.target:
            self._refused = RequestError(
                414, f"the request's target is longer than {limits.target} bytes"
            )
        elif max(self._head_parsed, self._head_fed) > limits.head:
            self._refused = RequestError(
                431, f"the request's head is larger than {limits.head} bytes"
            )
        elif len(self._headers) > limits.headers:
            self._refused = RequestError(431, f"the request has more than {limits.headers} headers")

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refused is not None:
            return
        method = self._parser.get_method()
        version = self._parser.get_http_version()
        refusal = check_head(method, version, self._headers)
        if refusal is None and len(self._target) > self._limits.target:
            refusal = RequestError(
                414, f"the request's target is longer than {self._limits.target} bytes"
            )
        if refusal is None and len(self._queue) >= self._limits.pipelined:
            refusal = RequestError(429, "too many pipelined requests wait on this connection")
        if refusal is not None:
            self._refused = refusal
            return
        if self._parser.should_upgrade():
            return  # it is read once more, without the wish
        target = self._target.decode("latin-1")
        request = Request(self, method.decode(), target, self._headers)
        request.version = version
        request.keep_alive = self._parser.should_keep_alive()
        self._receiving = request
        if self._current is None:
            self._start(request)
        else:
            self._queue.append(request)

    def on_body(self, body: bytes) -> None:
        if self._receiving is not None:
            self._receiving.feed(body)

    def on_message_complete(self) -> None:
        if self._receiving is not None:
            self._receiving.feed_end()
            self._receiving = None

    # One request after another.

    def _start(self, request: Request) -> None:
        self._current = request
        self._task = asyncio.get_running_loop().create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        try:
            await self._server.handler(request)
        except RequestError as error:
            if request.started:
                request.abort()
            else:
                request.refuse(error)
        except Exception:  # noqa: BLE001 a fault in one request must not end the others
            logger.exception("%s %s", request.method, request.target)
            if request.started:
                request.abort()
            else:
                request.refuse(
                    RequestError(500, "the instance failed to answer; its log has the cause")
                )
        self._answered(request)

    def _answered(self, request: Request) -> None:
        self._current = self._task = None
        self._since = clock.now()
        if self._transport is None or self._transport.is_closing():
            return
        if not request.keep_alive or self._server.closing:
            self._drop_rest()
        elif self._queue:
            self._start(self._queue.popleft())
        elif self._refused is not None:
            self._refuse()
        self._hold_back()

    def _refuse(self) -> None:
        """Answer what cannot be read as a request, once the request before it is answered."""
        error = self._refused
        assert error is not None
        if self._receiving is not None:  # it is in the body of a request, which then fails
            self._receiving.fail(error)
            self._receiving, self._refused = None, None
        elif self._current is None:
            request = Request(self, "GET", "", [])
            request.keep_alive = False
            request.refuse(error)
            self._drop_rest()

    def _drop_rest(self) -> None:
        """Close once everything has been sent. What a client still sends is read and dropped, or it
        could not read the answer."""
        self._dropping = True
        self._since = clock.now()
        if self._transport is not None and not self._transport.is_closing():
            if self._receiving is None and self._refused is None:
                self._transport.close()
            else:
                with contextlib.suppress(OSError, RuntimeError):
                    self._transport.write_eof()
        self._hold_back()

    def _hold_back(self) -> None:
        """Stop reading while nobody takes what arrives."""
        receiving = self._receiving
        full = receiving is not None and receiving.buffered > self._limits.buffered
        blocked = self._current is not None and self._refused is not None
        self._set_reading(self._dropping or not (self._queue or full or blocked))

    def _set_reading(self, wanted: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if wanted and self._read_paused:
            self._read_paused = False
            self._since = clock.now()
            self._transport.resume_reading()
        elif not wanted and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    # For the request.

    def send(self, data: bytes) -> None:
        # The child's next token may arrive after the client has left and before its request ends.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def body_taken(self) -> None:
        if self._read_paused:
            self._hold_back()

    # For the server.

    @property
    def busy(self) -> bool:
        return self._current is not None

    def overdue(self, now: float) -> bool:
        """Whether the client takes longer than it may."""
        limits = self._limits
        if self.write_paused is not None:
            return now - self.write_paused > limits.write_pause
        waited = now - self._since
        if self._dropping:
            return waited > limits.linger
        if self._in_head or not self._messages:
            return waited > limits.head_time
        if self._receiving is not None:
            return not self._read_paused and waited > limits.body_pause
        return self._current is None and waited > limits.keep_alive
