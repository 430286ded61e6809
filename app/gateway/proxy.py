"""One request from its first byte to its last: route → admit → lease → child → client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from app.engine.exchange import Exchange
from app.engine.http import Client
from app.errors import NotConnectedError, OverflowedError, RequestError, StuckError, UpstreamError
from app.gateway.body.reading import Reading
from app.gateway.body.room import Holding
from app.gateway.call import LEFT, Call, Incoming, asking, used
from app.gateway.callers import caller_of, own
from app.gateway.demand import added, fields, kind_of
from app.gateway.http.request import Request
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.labels import PROJECT, label
from app.gateway.origins import KEY_VARIABLE, check_local
from app.gateway.quota import Place
from app.gateway.relay import Relay
from app.gateway.routes import (
    EVERYWHERE,
    FOR_CALLERS,
    HEALTH,
    MESSAGES,
    PAGE,
    READY,
    ModelNames,
    Options,
    Own,
    named_in_body,
    route,
    split_target,
    strip,
)
from app.gateway.rules import Rules
from app.gateway.streams import stream_of
from app.gateway.waiting import HEADER, KeptAlive, wait_timeout
from app.machine import clock
from app.memory.lease import Ask, Lease
from app.memory.pool import Pool
from app.memory.seat import Use
from app.telemetry.samples import Sample

logger = logging.getLogger(__name__)

# Answers a request for one of our own paths, or for its part on one model, to who holds the key.
Page = Callable[[Request, str | None, Holder], Awaitable[None] | None]
TRIES = 5  # of a request whose llama-server has ended before it took it
FAULT = 500  # an exception that nobody foresaw
OPEN_PAGES = (HEALTH, READY, PAGE)  # need no key: the page is empty until it has asked for data
NOT_YOURS = (
    "this key is a named caller's: what shows or changes what belongs to others needs the "
    f"instance's own key, {KEY_VARIABLE}"
)


class Proxy:
    """Answers the requests of all clients: our own pages, and the models' paths."""

    def __init__(
        self,
        pool: Pool[Client],
        names: ModelNames,
        rules: Rules,
        pages: Mapping[str, Page],
        record: Callable[[Sample], None],
        reading: Reading,
    ) -> None:
        """`pages` answer our own paths; `record` is told of every finished request."""
        self._pool = pool
        self._names = names
        self._rules = rules
        self._pages = pages
        self._record = record
        self._reading = reading

    async def __call__(self, request: Request) -> None:
        request.named_errors = request.target.partition("?")[0].endswith(MESSAGES)
        holder = await self._check_caller(request)
        names = own(holder, self._names)
        destination = route(request.method, request.target, names, self._rules.prefixes)
        if isinstance(destination, Options):  # without CORS: no other site's page may call
            request.reply(204, b"", destination.headers())
            return
        if isinstance(destination, Own):
            if holder.name and destination.page not in FOR_CALLERS:
                raise RequestError(403, NOT_YOURS)
            answered = self._pages[destination.page](request, destination.model, holder)
            if answered is not None:
                await answered
            return
        incoming = Incoming(request, destination, names, holder, self._rules.keys.quota(holder))
        with Place(incoming.quota, clock.now()), self._reading.holding(request) as holding:
            await self._pass_on(incoming, holding)

    async def _pass_on(self, incoming: Incoming, holding: Holding) -> None:
        request, destination = incoming.request, incoming.destination
        if destination.model is not None:
            self._pool.deny_if_full(destination.model)
        models = incoming.models()
        body = await self._reading.body(request, models, holding, multipart=destination.multipart)
        model = destination.model or named_in_body({"model": body.model}, incoming.names)
        self._reading.allowed(model).check(body.length or 0, body.media)
        # Only now: a client that sends its body slowly takes no other client's place.
        with self._pool.admit(model):
            routed = self._rules.routed
            caller = caller_of(incoming.holder, request.headers, request.address, routed=routed)
            call = Call(request, destination.path, model, body, caller, incoming.quota)
            await self._serve(call)

    async def _check_caller(self, request: Request) -> Holder:
        """Whose key was sent. Raises RequestError 401, 403, 429. Comes before the route, whose 404
        names the models."""
        if self._rules.local_only:
            check_local(request.method, request.headers, self._rules.allowed)
        target = request.target
        path = target if target == EVERYWHERE else split_target(target)[0]
        if strip(path, self._rules.prefixes) in OPEN_PAGES:
            return UNNAMED
        return await self._rules.keys.check(request)

    async def _serve(self, call: Call) -> None:
        stream = stream_of(call.path, call.model, int(clock.wall()))
        broken = partial(self._pool.broken, call.model)
        relay = Relay(call.request, broken, call.body.several, stream)
        status = FAULT
        try:
            with KeptAlive(relay, streams=call.body.streams):
                await self._lease_and_relay(call, relay)
            status = relay.status
        except asyncio.CancelledError:
            status = LEFT
            raise
        except (RequestError, UpstreamError) as error:
            refusal = error if isinstance(error, RequestError) else broken(error)
            status = refusal.status
            if not relay.pinged:
                raise refusal from None
            relay.refuse(refusal)
        finally:
            self._finished(call, relay, status)

    async def _lease_and_relay(self, call: Call, relay: Relay) -> None:
        wait = wait_timeout(call.request.header(HEADER), self._rules.wait_timeout)
        ask = asking(kind_of(call.path), call)
        until = clock.now() + wait
        relay.repeatable = call.body.whole is not None
        refused = 0
        while True:
            try:
                await self._attempt(call, relay, ask, until)
                return
            except NotConnectedError:
                # The child has just ended without seeing the request: the next one may answer.
                refused += 1
                if refused == TRIES or call.body.pieces is None:
                    raise
                await self._pool.gone(call.model)
                relay.again()
            except StuckError:
                if not relay.repeatable:
                    raise
                await self._pool.gone(call.model)
                until = clock.now() + wait  # what it waited for has come to nothing
                relay.again()
                relay.repeatable = False
            except OverflowedError as error:
                if not relay.repeatable:
                    raise RequestError(503, f"{call.model}: {error}", retry_after=1) from None
                relay.again()
                relay.repeatable = False
                ask = replace(ask, demand=ask.demand.alone())

    async def _attempt(self, call: Call, relay: Relay, ask: Ask[Client], until: float) -> None:
        kind = kind_of(call.path)
        lease = self._pool.lease(call.model, max(0.0, until - clock.now()), ask)
        async with lease as upstream:
            relay.leased_at = clock.now()
            if kind is not None and call.body.pieces is not None:
                added(call.body.pieces, fields(kind, call.body, lease.seat))
                relay.limit(lease.seat.limit or ask.demand.limit)
            await self._relay(call, upstream, relay, lease)

    async def _relay(
        self, call: Call, upstream: Client, relay: Relay, lease: Lease[Client]
    ) -> None:
        exchange: Exchange | None = None
        relay.begun = lease.begun
        try:
            body = call.body
            exchange = await upstream.exchange(call.head(), body.whole, relay, body.length)
            call.request.flow_from(exchange)
            if call.body.whole is None:
                await self._upload(call, exchange, relay)
            await relay.done
        finally:
            call.request.flow_from(None)
            if exchange is not None:
                lease.use = use_of(exchange)
                exchange.abort()  # at once, if the client has left

    async def _upload(self, call: Call, exchange: Exchange, relay: Relay) -> None:
        """Send the body in pieces, no faster than the child takes them."""
        async for chunk in self._reading.pieces(call.request, call.body, call.model):
            if relay.done.done():
                return  # the child has answered already
            await exchange.write(chunk)
        exchange.end()

    def _finished(self, call: Call, relay: Relay, status: int) -> None:
        since = call.request.received
        first, leased = relay.first_token, relay.leased_at
        sample = Sample(
            model=call.model,
            status=status,
            latency=clock.now() - since,
            first_token=None if first is None else first - since,
            tokens=relay.ends.tokens(),
            wait=None if leased is None else leased - since,
            size=relay.ends.size,
            request=call.request.id.decode(),
            project=label(call.request.headers, PROJECT),
            caller=call.caller.name if call.caller.kind == "key" else "",
            overflows=relay.overflows,
        )
        call.quota.take(used(call, relay.pieces, sample), clock.now())
        self._pool.finished(call.model, served=0 < relay.status < 500)
        self._record(sample)
        if self._rules.debug:
            self._log(call.request, sample)

    def _log(self, request: Request, sample: Sample) -> None:
        logger.info(
            "%s %s: %d in %.3f s, %d + %d tokens, request %s",
            request.method,
            request.target,
            sample.status,
            sample.latency,
            sample.tokens.prompt,
            sample.tokens.generated,
            sample.request,
            extra={"subject": sample.model},
        )


def use_of(exchange: Exchange) -> Use:
    """What llama-server has to do with a request whose answer nobody waits for any more: nothing
    with one that has not arrived whole."""
    if exchange.done:
        return Use.WHOLE
    return Use.LEFT if exchange.sent else Use.UNSENT
