"""A request is passed on: it leases its model, goes to the model's llama-server, and its answer
comes back."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from app.console import ModelLogger
from app.engine import clearing
from app.engine.exchange import Exchange, Headers, Sink, Waits
from app.engine.http import Client
from app.errors import (
    EndedError,
    EndingError,
    NotConnectedError,
    OverflowedError,
    RequestError,
    UpstreamError,
)
from app.gateway.body.reading import Reading
from app.gateway.call import Call, asking
from app.gateway.demand import added, fields, kind_of
from app.gateway.relay import Relay
from app.gateway.waiting import HEADER, wait_timeout
from app.machine import clock
from app.memory.lease import Ask, Lease
from app.memory.pool import Pool
from app.memory.seat import Use

logger = logging.getLogger(__name__)

TRIES = 5  # of a request whose llama-server has ended before it took it
GONE = 2.0  # seconds for its end to be noticed


class Upstream(Protocol):
    """Where a request goes: see `engine.http.Client.exchange`."""

    async def exchange(
        self,
        head: tuple[str, str, Headers],
        body: bytes | None,
        sink: Sink,
        length: int | None = None,
        *,
        waits: Waits = ...,
    ) -> Exchange: ...


class Hold(Protocol):
    """A request's hold on its upstream: it is told how far the request went."""

    use: Use


async def send(reading: Reading, call: Call, upstream: Upstream, relay: Relay, hold: Hold) -> None:
    """Send a request once, and relay its answer. Raises UpstreamError, RequestError."""
    exchange: Exchange | None = None
    try:
        body = call.body
        # What needs no slot is answered beside the work.
        waits = Waits.CLIENT if kind_of(call.path) else Waits.ASIDE
        exchange = await upstream.exchange(call.head(), body.whole, relay, body.length, waits=waits)
        call.request.flow_from(exchange, kept=True)
        if call.body.whole is None:
            await _upload(reading, call, exchange, relay)
        await relay.done
    finally:
        call.request.flow_from(None)
        if exchange is not None:
            hold.use = use_of(exchange)
            exchange.abort()  # at once, if the client has left


async def _upload(reading: Reading, call: Call, exchange: Exchange, relay: Relay) -> None:
    """Send the body in pieces, no faster than they are taken."""
    async for chunk in reading.pieces(call.request, call.body, call.model):
        if relay.done.done():
            return  # the answer has come already
        await exchange.write(chunk)
    exchange.end()


def use_of(exchange: Exchange) -> Use:
    """What llama-server has to do with a request whose answer nobody waits for any more: nothing
    with one that has not arrived whole."""
    if exchange.done:
        return Use.WHOLE
    return Use.LEFT if exchange.sent else Use.UNSENT


def _check_again(call: Call, error: NotConnectedError, refused: int, until: float) -> None:
    """Raises `error` for a request that may not be sent once more after so many refusals;
    RequestError 503 for one that has waited for long enough."""
    if refused == TRIES or call.body.pieces is None:
        raise error
    if refused > 1 and clock.now() >= until:  # one more try costs no wait
        raise RequestError(503, f"{call.model}: {error}", retry_after=1) from None


class OfPool:
    """The models of one instance, each of which a llama-server serves: `proxy.Models`."""

    def __init__(self, pool: Pool[Client], wait: float, reading: Reading) -> None:
        """`wait`: seconds for the model, of a request that says nothing of it."""
        self._pool = pool
        self._wait = wait
        self._reading = reading
        self._not_cleared: set[str] = set()  # models of which it has been told
        self.deny_if_full, self.admit = pool.deny_if_full, pool.admit
        self.broken, self.finished = pool.broken, pool.finished

    def below(self, name: str) -> None:
        """A name in the path stands for one model."""

    async def pass_on(self, call: Call, relay: Relay) -> None:
        wait = wait_timeout(call.request.header(HEADER), self._wait)
        ask = asking(kind_of(call.path), call)
        until = clock.now() + wait
        relay.repeatable = call.body.whole is not None
        refused = endings = 0
        while True:
            try:
                await self._attempt(call, relay, ask, until)
                return
            except NotConnectedError as error:
                # The child has just ended without seeing the request: the next one may answer. Of
                # one that took a connection this is only nearly certain.
                refused += 1
                endings += isinstance(error, EndingError)
                if endings > 1:
                    raise
                _check_again(call, error, refused, until)
                await self._pool.gone(call.model, min(GONE, max(0.0, until - clock.now())))
                relay.again()
            except EndedError:
                endings += 1  # the request may be at fault: two of them are enough
                if not relay.once_more() or endings > 1:
                    raise
                await self._pool.gone(call.model, GONE)
                until = clock.now() + wait  # what it waited for has come to nothing
            except OverflowedError as error:
                if not relay.once_more():
                    raise RequestError(503, f"{call.model}: {error}", retry_after=1) from None
                ask = replace(ask, demand=ask.demand.alone())

    async def _clear(
        self, model: str, upstream: Client, lease: Lease[Client], until: float
    ) -> None:
        """`until`: when the request has waited for long enough."""
        try:
            await clearing.clear(upstream, clearing.patience(until - clock.now()))
        except UpstreamError as error:  # the request is sent all the same, and may find no room
            level = logging.DEBUG if model in self._not_cleared else logging.WARNING
            self._not_cleared.add(model)
            ModelLogger(logger, model).log(level, "a request of several answers: %s", error)
        else:
            lease.cleared()

    async def _attempt(self, call: Call, relay: Relay, ask: Ask[Client], until: float) -> None:
        kind = kind_of(call.path)
        lease = self._pool.lease(call.model, max(0.0, until - clock.now()), ask)
        async with lease as upstream:
            relay.leased_at = clock.now()
            relay.woke += lease.woke
            relay.streams, relay.begun = lease.streams, lease.begun
            if lease.seat.clears:
                await self._clear(call.model, upstream, lease, until)
            if kind is not None and call.body.pieces is not None:
                added(call.body.pieces, fields(kind, call.body, lease.seat))
                relay.limit(lease.seat.limit or ask.demand.limit)
            await send(self._reading, call, upstream, relay, lease)
