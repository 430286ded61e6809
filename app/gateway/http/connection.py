"""HTTP/1.1, the server's side, on asyncio.Protocol: one client's socket, and its flow both ways.

A connection's requests are answered one at a time. Those that a client pipelines wait, and nothing
more is read meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, cast

from app.errors import RequestError
from app.gateway.http.backlog import Backlog
from app.gateway.http.households import household
from app.gateway.http.limits import Limits
from app.gateway.http.pipeline import Handler, Pipeline
from app.gateway.http.reader import Reader
from app.gateway.http.request import Request
from app.gateway.http.turnstile import Step, Turnstile
from app.machine import clock


class Owner(Protocol):
    """The server of the connections: counts them, and answers their requests."""

    @property
    def limits(self) -> Limits: ...

    @property
    def handler(self) -> Handler: ...

    @property
    def turnstile(self) -> Turnstile: ...

    @property
    def backlog(self) -> Backlog: ...

    @property
    def closing(self) -> bool: ...

    def allows(self, address: str) -> bool: ...

    def admit(self, connection: Connection) -> RequestError | None: ...

    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Owner) -> None:
        self._server = server
        self._limits = server.limits
        self._reader = Reader(server.limits, self, self._take)
        self._pipeline = Pipeline(server.handler, self._answered, self._enter)
        self._transport: asyncio.Transport | None = None
        self.address = ""  # the client's; "" for one on a Unix socket
        self._paused_at: float | None = None  # when reading was paused
        self._held = 0.0  # seconds for which it was, since the newest request's head
        self._dropping = False  # what still arrives is read and dropped
        self._since = clock.now()  # the client has been waited for since then
        self.write_paused: float | None = None  # since when the client has not kept up
        self._unread = 0  # bytes that waited for it then

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0].partition("%")[0] if peer else ""
        if not self._server.allows(self.address):
            self._dropping = True
            self._transport.abort()
            return
        refusal = self._server.admit(self)
        if refusal is not None:
            self._reader.refuse(refusal)
            self._refuse()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if self._dropping or reader.refused is not None:
            return
        if reader.receiving is not None:
            self._since = clock.now()
        reader.feed(data)
        if reader.refused is not None:
            self._refuse()
        self._hold_back()

    def eof_received(self) -> bool:
        return False  # nobody can tell this from a client that has left

    def connection_lost(self, error: Exception | None) -> None:
        self._server.forget(self)
        self._server.backlog.forget(self)
        # All of it, with what has arrived, is freed now, or with the request that is under way. The
        # collector looks seldom, and what thousands of connections leave would hold everybody up.
        self._pipeline.leave()
        self._reader.end()

    def pause_writing(self) -> None:
        self.write_paused = clock.now()
        self._unread = self._unsent()
        self._pipeline.hold()
        self.follow()

    def resume_writing(self) -> None:
        self.write_paused = None
        self._server.backlog.forget(self)
        current = self._pipeline.current
        if current is not None and current.flow is not None:
            current.flow.resume()
        self._pipeline.release()
        self._hold_back()

    # One request after another.

    def _take(self, request: Request) -> RequestError | None:
        if len(self._pipeline.waiting) >= self._limits.pipelined:
            return RequestError(429, "too many pipelined requests wait on this connection")
        self._held = 0.0
        self._pipeline.add(request)
        return None

    def _enter(self, request: Request, step: Step, *, ends: bool = False) -> None:
        home = household(self.address)
        self._server.turnstile.enter(home, request.headers, step, ends=ends)

    def _answered(self, request: Request) -> None:
        self._since = clock.now()
        if self._transport is None or self._transport.is_closing():
            return
        if not request.keep_alive or self._server.closing:
            self._drop_rest()
        elif self._pipeline.waiting:
            self._pipeline.go_on()
        elif self._reader.refused is not None:
            self._refuse()
        self._hold_back()

    def _refuse(self) -> None:
        """Answer what cannot be read as a request, once the request before it is answered."""
        reader = self._reader
        error = reader.refused
        assert error is not None
        if reader.receiving is not None:  # it is in the body of a request, which then fails
            reader.receiving.fail(error)
            reader.receiving = None
        elif self._pipeline.empty:
            request = Request(self, "GET", "", [])
            request.keep_alive = False
            request.refuse(error)
            self._drop_rest()

    # Flow.

    def _drop_rest(self) -> None:
        """Close once everything has been sent. What a client still sends is read and dropped, or it
        could not read the answer."""
        self._dropping = True
        self._since = clock.now()
        if self._transport is not None and not self._transport.is_closing():
            if self._reader.receiving is None and self._reader.refused is None:
                self._transport.close()
            else:
                with contextlib.suppress(OSError, RuntimeError):
                    self._transport.write_eof()
        self._hold_back()

    def _hold_back(self) -> None:
        """Stop reading while nobody takes what arrives."""
        receiving, pipeline = self._reader.receiving, self._pipeline
        full = receiving is not None and receiving.buffered > self._limits.buffered
        blocked = pipeline.current is not None and self._reader.refused is not None
        self._set_reading(self._dropping or not (pipeline.waiting or full or blocked))

    def _set_reading(self, wanted: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if wanted and self._paused_at is not None:
            self._since = clock.now()
            self._held += self._since - self._paused_at
            self._paused_at = None
            self._transport.resume_reading()
        elif not wanted and self._paused_at is None:
            self._paused_at = clock.now()
            self._transport.pause_reading()

    # For the request.

    def send(self, data: bytes) -> None:
        # The child's next token may arrive after the client has left and before its request ends.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def transport(self) -> asyncio.WriteTransport | None:
        return self._transport

    def follow(self) -> None:
        """Where the client does not keep up: keep what its answer's source sends, or pause it."""
        current = self._pipeline.current
        if self.write_paused is None or current is None or current.flow is None:
            return
        if current.kept and self._server.backlog.keep(self, self._unsent(), current.told):
            current.flow.resume()
        else:
            current.flow.pause()

    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def part(self) -> None:
        """Close once the client has read what was sent."""
        if self._transport is not None:
            self._transport.close()

    def body_taken(self) -> None:
        if self._paused_at is not None:
            self._hold_back()

    # For the server.

    @property
    def busy(self) -> bool:
        return self._pipeline.current is not None

    @property
    def idle_since(self) -> float | None:
        """Since when nothing has been under way that would be lost; None if something is."""
        current = self._pipeline.current
        under_way = current is not None and not current.gives_way
        return None if under_way or self._unsent() else max(self._since, self._reader.since)

    def hurry(self, now: float) -> None:
        """Leave the client, or say so, if it takes longer than it may."""
        if self.write_paused is not None:
            self._look(now)
        reader = self._reader
        if not self._overdue(now):
            return
        arriving = reader.in_head or reader.receiving is not None
        if self.write_paused is not None or self._dropping or not arriving:
            self.abort()
        else:
            reader.refuse(RequestError(408, "the request took too long to arrive"))
            self._refuse()
            self._hold_back()

    def _look(self, now: float) -> None:
        """Whether the client has read anything of note: while more comes nobody can tell."""
        unread = self._unsent()
        if not self._unread - self._limits.write_least < unread <= self._unread:
            self.write_paused, self._unread = now, unread
        self.follow()

    def stop(self, error: RequestError) -> None:
        """The server ends: leave the client, or say so where no answer has begun."""
        request = self._pipeline.current
        if request is None or request.started or self.write_paused is not None:
            self.abort()
            return
        self._pipeline.cancel()
        request.keep_alive = False
        request.refuse(error)
        self._drop_rest()

    def _overdue(self, now: float) -> bool:
        limits, reader = self._limits, self._reader
        if self.write_paused is not None:
            return now - self.write_paused > limits.write_pause
        waited = now - max(self._since, reader.since)
        if self._dropping:
            return waited > limits.linger
        if reader.refused is not None or self._paused_at is not None:
            return False  # it is the client that waits
        if reader.in_head or not reader.began:
            return waited > limits.head_time
        if reader.receiving is not None:
            return self._slow(reader.receiving, now, waited)
        return self._pipeline.current is None and waited > limits.keep_alive

    def _slow(self, request: Request, now: float, waited: float) -> bool:
        """Whether the body of the request takes too long, or does not arrive at the least rate."""
        limits = self._limits
        taken = now - request.received - self._held
        least = (taken - limits.body_grace) * limits.body_rate
        return waited > limits.body_pause or taken > limits.body_time or request.size < least
