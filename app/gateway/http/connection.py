"""HTTP/1.1, the server's side, on asyncio.Protocol: one client's socket, and its flow both ways.

A connection's requests are answered one at a time. Those that a client pipelines wait, and nothing
more is read meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from app.errors import RequestError
from app.gateway.http.households import household
from app.gateway.http.limits import Limits
from app.gateway.http.outlet import Outlet
from app.gateway.http.pipeline import Handler, Pipeline
from app.gateway.http.reader import Reader
from app.gateway.http.request import Request
from app.gateway.http.shares import Shares
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
    def backlog(self) -> Shares: ...

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
        self._transport: asyncio.Transport  # from `connection_made` on, as all that follows
        self._outlet: Outlet
        self.address = ""  # the client's; "" for one on a Unix socket
        self._home = ""  # its household
        self._paused_at: float | None = None  # when reading was paused
        self._held = 0.0  # seconds for which it was, since the newest request's head
        self._source_held_since: float | None = None  # by a client that does not read
        self._dropping = False  # what still arrives is read and dropped
        self._since = clock.now()  # the client has been waited for since then

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0].partition("%")[0] if peer else ""
        self._home = household(self.address)
        kept, home = self._server.backlog, self._home
        self._outlet = Outlet(self._transport, self._limits, kept, home, self._flow)
        if not self._server.allows(self.address):
            self._dropping = True
            self.abort()
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
        self._outlet.drop()
        # All of it, with what has arrived, is freed now, or with the request that is under way. The
        # collector looks seldom, and what thousands of connections leave would hold everybody up.
        self._pipeline.leave()
        self._reader.end()

    def pause_writing(self) -> None:
        self._outlet.pause()
        self._pipeline.hold()
        self.follow()

    def resume_writing(self) -> None:
        self._outlet.resume()

    # One request after another.

    def _take(self, request: Request) -> RequestError | None:
        if len(self._pipeline.waiting) >= self._limits.pipelined:
            return RequestError(429, "too many pipelined requests wait on this connection")
        self._held = 0.0
        self._pipeline.add(request)
        return None

    def _enter(self, request: Request, step: Step, *, ends: bool = False) -> None:
        self._server.turnstile.enter(self._home, request.headers, step, ends=ends)

    def _answered(self, request: Request) -> None:
        self._since = clock.now()
        if self._outlet.is_closing():
            return
        self._outlet.followed_by(None)
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
        if not self._outlet.is_closing():
            if self._reader.receiving is None and self._reader.refused is None:
                self._outlet.close()
            else:
                self._outlet.write_eof()
        self._hold_back()

    def _hold_back(self) -> None:
        """Stop reading while nobody takes what arrives."""
        receiving, pipeline = self._reader.receiving, self._pipeline
        full = receiving is not None and receiving.buffered > self._limits.buffered
        blocked = pipeline.current is not None and self._reader.refused is not None
        self._set_reading(self._dropping or not (pipeline.waiting or full or blocked))

    def _set_reading(self, wanted: bool) -> None:
        if self._outlet.is_closing():
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
        if not self._outlet.is_closing():
            self._outlet.write(data)

    @property
    def outlet(self) -> Outlet:
        return self._outlet

    def _flow(self) -> None:
        """The client has caught up, or no room is left for what it has not read."""
        self.follow()
        if not (self._outlet.behind or self._dropping):
            self._pipeline.release()
            self._hold_back()

    def follow(self) -> None:
        """Let the answer come as fast as its source has it, or as the client reads."""
        current, outlet = self._pipeline.current, self._outlet
        if current is None or current.flow is None:
            self._source_held_since = None
            return
        if not outlet.behind or (current.kept and outlet.has_room):
            current.flow.resume()
        else:
            current.flow.pause()
        if not (current.kept and outlet.full):
            self._source_held_since = None
        elif self._source_held_since is None:
            self._source_held_since = clock.now()

    def abort(self) -> None:
        self._outlet.abort()

    def part(self) -> None:
        """Close once the client has what it was sent."""
        if not self._outlet.waits:
            self.abort()
        elif not self._outlet.is_closing():
            self._drop_rest()

    def body_taken(self) -> None:
        if self._paused_at is not None:
            self._hold_back()

    # For the server.

    @property
    def unread(self) -> tuple[float, int] | None:
        """If the end of an answer waits for the client: when its newest request began, and how many
        bytes it has taken."""
        waits = self._outlet.waits and not self.busy
        return (self._reader.since, self._outlet.taken()) if waits else None

    @property
    def crowds(self) -> bool:
        """See `Outlet.crowds`."""
        return self._outlet.crowds

    def asleep(self, now: float) -> float:
        """Seconds since the client has taken anything of note of what waits for it."""
        return self._outlet.asleep(now)

    @property
    def busy(self) -> bool:
        return self._pipeline.current is not None

    @property
    def idle_since(self) -> float | None:
        """Since when nothing has been under way that would be lost; None if something is."""
        current = self._pipeline.current
        under_way = current is not None and not current.gives_way
        return None if under_way or self._outlet.waits else max(self._since, self._reader.since)

    def hurry(self, now: float) -> None:
        """Leave the client, or say so, if it takes longer than it may."""
        reader, outlet = self._reader, self._outlet
        outlet.look()
        if outlet.behind:
            self.follow()  # others may have made room
        if not self._overdue(now):
            return
        if outlet.behind or self._only_reads:
            self.abort()
        else:
            reader.refuse(RequestError(408, "the request took too long to arrive"))
            self._refuse()
            self._hold_back()

    def stop(self, error: RequestError) -> None:
        """The server ends: leave the client, or say so where no answer has begun."""
        request = self._pipeline.current
        if request is None or request.started or self._outlet.behind:
            self.abort()
            return
        self._pipeline.cancel()
        request.keep_alive = False
        request.refuse(error)
        self._drop_rest()

    @property
    def _only_reads(self) -> bool:
        """Nothing is expected of the client but to read."""
        return self._dropping or not (self._reader.in_head or self._reader.receiving)

    def _overdue(self, now: float) -> bool:
        outlet = self._outlet
        if outlet.behind:
            return outlet.stalls(now, self._source_held_since)
        late = self._late(now)
        if late and self._only_reads and outlet.waits:
            return outlet.stalls(now)
        if outlet.forget() and late:
            self._since = now  # it has all only now
            return False
        return late

    def _late(self, now: float) -> bool:
        limits, reader = self._limits, self._reader
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
