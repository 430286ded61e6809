"""One request from its first byte to its last: route → admit → lease → child → client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

from app.errors import RequestError, UpstreamError, forget_frames
from app.gateway.body.reading import Reading
from app.gateway.body.room import Holding
from app.gateway.call import LEFT, Call, Incoming, estimated
from app.gateway.callers import caller_of, own
from app.gateway.demand import operation
from app.gateway.http.request import Request
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.labels import PROJECT, label
from app.gateway.origins import KEY_VARIABLE, check_local
from app.gateway.quota import Place, untold
from app.gateway.relay import Relay
from app.gateway.routes import (
    EVERYWHERE,
    FOR_CALLERS,
    HEALTH,
    MESSAGES,
    PAGE,
    PROOF,
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
from app.gateway.waiting import KeptAlive
from app.machine import clock
from app.telemetry.samples import Sample

logger = logging.getLogger(__name__)

# Answers a request for one of our own paths, or for its part on one model, to who holds the key.
Page = Callable[[Request, str | None, Holder], Awaitable[None] | None]
KEPT_OF_PROMPT = 1 << 10  # bytes
FAULT = 500  # an exception that nobody foresaw
# Need no key: the page is empty until it has asked for data, and a proof proves that we have one.
OPEN_PAGES = (HEALTH, READY, PAGE, PROOF)
NOT_YOURS = (
    "this key is a named caller's: what shows or changes what belongs to others needs the "
    f"instance's own key, {KEY_VARIABLE}"
)


class Models(Protocol):
    """Those that are served, by name: of one instance, or of many."""

    def below(self, name: str) -> ModelNames | None:
        """The names among which the body chooses if the path has this one; None if that stands for
        one model."""

    def deny_if_full(self, name: str) -> None:
        """Raises RequestError 429, 503."""

    def admit(self, name: str) -> AbstractContextManager[None]:
        """The request counts until the block ends. Raises as `deny_if_full`."""

    async def pass_on(self, call: Call, relay: Relay) -> None:
        """Send the request to its model, until its answer is told. Raises RequestError,
        UpstreamError."""

    def broken(self, name: str, error: UpstreamError) -> RequestError:
        """What a client is told of an answer that broke off."""

    def finished(self, name: str, *, served: bool) -> None: ...


class Proxy:
    """Answers the requests of all clients: our own pages, and the models' paths."""

    def __init__(
        self,
        models: Models,
        names: ModelNames,
        rules: Rules,
        pages: Mapping[str, Page],
        record: Callable[[Sample], None],
        reading: Reading,
    ) -> None:
        """`pages` answer our own paths; `record` is told of every finished request."""
        self._models = models
        self._names = names
        self._rules = rules
        self._pages = pages
        self._record = record
        self._reading = reading
        self.denied = untold  # told the name of a caller that is over its own limits

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
            page = self._pages.get(destination.page)
            if page is None:  # of a door, which has not all of an instance's
                raise RequestError(404, f"there is no {destination.page} here")
            answered = page(request, destination.model, holder)
            if answered is not None:
                await answered
            return
        below = self._models.below(destination.name)
        if below is not None:
            destination, names = replace(destination, model=None), own(holder, below)
        incoming = Incoming(request, destination, names, holder, self._rules.keys.quota(holder))
        place = Place(incoming.quota, clock.now(), self.denied)
        with place, self._reading.holding(request) as holding:
            await self._pass_on(incoming, holding)

    async def _pass_on(self, incoming: Incoming, holding: Holding) -> None:
        request, destination = incoming.request, incoming.destination
        if destination.model is not None:
            self._models.deny_if_full(destination.model)
        models = incoming.models()
        body = await self._reading.body(request, models, holding, multipart=destination.multipart)
        model = destination.model or named_in_body({"model": body.model}, incoming.names)
        self._reading.allowed(model).check(body.length or 0, body.media)
        # Only now: a client that sends its body slowly takes no other client's place.
        with self._models.admit(model):
            labelled = self._rules.labelled
            caller = caller_of(incoming.holder, request.headers, request.address, routed=labelled)
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
        several = call.body.several
        opened = partial(stream_of, call.path, call.model, int(clock.wall()), several.answers)
        broken = partial(self._models.broken, call.model)
        relay = Relay(call.request, broken, several, opened)
        prompt = call.body.beginning(KEPT_OF_PROMPT) if self._rules.keep_prompts else ""
        status = FAULT
        try:
            with KeptAlive(relay, streams=call.body.streams):
                await self._models.pass_on(call, relay)
            status = relay.status
        except asyncio.CancelledError:
            # Many clients do not wait for the end of the body behind the last event.
            status = relay.status if relay.stream.ended(relay.ends.tail) else LEFT
            raise
        except (RequestError, UpstreamError) as error:
            refusal = error if isinstance(error, RequestError) else broken(error)
            status = refusal.status
            if not relay.pinged:
                raise refusal from None
            relay.refuse(refusal)
            forget_frames(refusal)
        finally:
            self._finished(call, relay, status, prompt)

    def _finished(self, call: Call, relay: Relay, status: int, prompt: str) -> None:
        since = call.request.received
        first, leased = relay.first_token, relay.leased_at
        tokens, what = relay.ends.tokens(), operation(call.path)
        if status == LEFT and leased is not None and what:
            tokens = estimated(call, relay.pieces, tokens)
        sample = Sample(
            model=call.model,
            status=status,
            latency=clock.now() - since,
            first_token=None if first is None else first - since,
            tokens=tokens,
            wait=None if leased is None else leased - since,
            woke=relay.woke,
            size=relay.ends.size,
            request=call.request.id.decode(),
            project=label(call.request.headers, PROJECT),
            caller=call.caller.name if call.caller.kind == "key" else "",
            operation=what,
            overflows=relay.overflows,
            answers=call.body.several.answers,
            prompt=prompt,
        )
        call.quota.take(tokens.prompt + tokens.generated, clock.now())
        self._models.finished(call.model, served=0 < relay.status < 500)
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
