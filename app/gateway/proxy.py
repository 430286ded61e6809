"""One request from its first byte to its last: route → admit → lease → child → client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from app.engine.http import Client, Exchange
from app.errors import NotConnectedError, RequestError, UpstreamError
from app.gateway.admission import Keys, check_local
from app.gateway.body import check_body, parse_form, parse_json
from app.gateway.http.limits import Limits
from app.gateway.http.request import JSON, Request
from app.gateway.relay import Relay, request_headers
from app.gateway.routes import (
    HEALTH,
    PAGE,
    READY,
    Own,
    ToModel,
    named_in_body,
    route,
    split_target,
    strip,
)
from app.gateway.waiting import HEADER, kept_alive, wait_timeout
from app.machine import clock
from app.memory.pool import Pool
from app.telemetry.samples import Sample, Whole, several

logger = logging.getLogger(__name__)

# Answers a request for one of our own paths, or for the part of it on one model.
Page = Callable[[Request, str | None], Awaitable[None] | None]
FAULT = 500  # of ours: an exception that nobody foresaw
LEFT = 499  # nginx's status for a client that left before the end
OPEN_PAGES = (HEALTH, READY, PAGE)  # need no key: the page has nothing in it before it asks


@dataclass(frozen=True)
class Rules:
    """How requests are treated: `wait_timeout` in seconds; `routed` where the App Gateway looks
    after who may call."""

    keys: Keys
    wait_timeout: float = 300
    allow_remote_media: bool = False
    debug: bool = False
    routed: bool = False
    prefixes: list[str] = field(default_factory=list)  # grows when a gateway gives its path

    @property
    def local_only(self) -> bool:
        """Nobody but callers on this machine is answered."""
        return not self.keys and not self.routed


class Proxy:
    """The handler of the front's server."""

    def __init__(
        self,
        pool: Pool[Client],
        names: tuple[str, ...],
        rules: Rules,
        pages: Mapping[str, Page],
        record: Callable[[Sample], None],
    ) -> None:
        """`pages` answer our own paths; `record` is told of every finished request."""
        self._pool = pool
        self._names = names
        self._rules = rules
        self._pages = pages
        self._record = record
        self._limits = Limits()

    async def __call__(self, request: Request) -> None:
        if self._rules.local_only:
            check_local(request.method, request.headers)
        path = strip(split_target(request.target)[0], self._rules.prefixes)
        if path not in OPEN_PAGES:  # before the route: a 404 names the models
            self._rules.keys.check(request.headers)
        found = route(request.method, request.target, self._names, self._rules.prefixes)
        if isinstance(found, Own):
            answered = self._pages[found.page](request, found.model)
            if answered is not None:
                await answered
            return
        if found.model is not None:
            self._pool.deny_if_full(found.model)
        body, parsed = await self._body(request, found)
        name = found.model or named_in_body(parsed, self._names)
        with self._pool.admit(name):  # only now: who sends slowly takes nobody's place
            await self._serve(request, found, name, (body, parsed))

    async def _body(self, request: Request, found: ToModel) -> tuple[bytes | None, object]:
        """The body, as it came and read; None for one that is passed on as it comes."""
        if found.multipart and (found.model or len(self._names) == 1):
            return None, {}
        body = await request.body(self._limits.body)
        if found.multipart:
            return body, parse_form(request.header(b"content-type"), body)
        parsed = parse_json(body)
        check_body(parsed, allow_remote_media=self._rules.allow_remote_media)
        return body, parsed

    async def _serve(
        self, request: Request, found: ToModel, name: str, asked: tuple[bytes | None, object]
    ) -> None:
        """`asked`: the body, as it came and read."""
        body, parsed = asked
        streams = isinstance(parsed, dict) and parsed.get("stream") is True
        wanted = several(parsed)
        relay = Relay(request, Whole(wanted) if wanted else None)
        status = FAULT
        try:
            with kept_alive(relay, streams=streams):
                await self._lease_and_relay(request, found, name, (body, relay))
            status = relay.status
        except asyncio.CancelledError:
            status = LEFT
            raise
        except (RequestError, UpstreamError) as error:
            refusal = error
            if not isinstance(refusal, RequestError):
                refusal = RequestError(502, f"{name}: {error}")
            status = refusal.status
            if not relay.pinged:
                raise refusal from None
            relay.refuse(refusal)
        finally:
            self._finished(request, name, relay, status)

    async def _lease_and_relay(
        self, request: Request, found: ToModel, name: str, answer: tuple[bytes | None, Relay]
    ) -> None:
        wait = wait_timeout(request.header(HEADER), self._rules.wait_timeout)
        for attempt in (1, 2):
            try:
                async with self._pool.lease(name, wait) as upstream:
                    answer[1].held = clock.now()
                    await self._relay(request, found, upstream, answer)
                return
            except NotConnectedError:
                # It has just ended, and has seen nothing of this: the next one may answer.
                if attempt == 2 or answer[0] is None:
                    raise
            await self._pool.gone(name)

    async def _relay(
        self,
        request: Request,
        found: ToModel,
        upstream: Client,
        answer: tuple[bytes | None, Relay],
    ) -> None:
        body, relay = answer
        exchange: Exchange | None = None
        try:
            headers = request_headers(request.headers)
            if body is not None and not found.multipart:
                # It is JSON, whatever `curl -d` called it; llama-server bounds forms at 1 MiB.
                headers = [header for header in headers if header[0] != JSON[0]] + [JSON]
            head = (request.method, found.path, headers)
            exchange = await upstream.exchange(head, body, relay)
            request.flow_from(exchange)
            if body is None:
                await self._upload(request, exchange, relay)
            await relay.done
        finally:
            request.flow_from(None)
            if exchange is not None:
                exchange.abort()  # at once, where the client has left

    async def _upload(self, request: Request, exchange: Exchange, relay: Relay) -> None:
        """Pass the body on as it comes, no faster than the child takes it."""
        async for chunk in request.chunks():
            if relay.done.done():
                return  # the child has answered already
            await exchange.write(chunk)
        exchange.end()

    def _finished(self, request: Request, name: str, relay: Relay, status: int) -> None:
        now = clock.now()
        since = request.received
        first, held = (None if t is None else t - since for t in (relay.first_token, relay.held))
        tokens = relay.ends.tokens()
        sample = Sample(name, status, now - since, first, tokens, held, relay.ends.size)
        self._pool.finished(name, served=0 < relay.status < 500)
        self._record(sample)
        if self._rules.debug:
            logger.info(
                "%s %s: %d in %.3f s, %d + %d tokens",
                request.method,
                request.target,
                status,
                sample.latency,
                tokens.prompt,
                tokens.generated,
                extra={"subject": name},
            )
