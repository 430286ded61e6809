"""One request's way from a door to an instance, and to another one where that one fails it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from urllib.parse import quote

from app.engine.exchange import Exchange, Sink, Waits
from app.errors import DeclinedError, NotConnectedError, UpstreamError
from app.fleet.member import Member
from app.gateway.call import Call
from app.gateway.http.heads import Headers
from app.gateway.labels import LONGEST, SESSION
from app.gateway.relay import Relay
from app.machine import clock
from app.memory.seat import Use

logger = logging.getLogger(__name__)

TRIES = 5  # instances that a request is sent to while they take no connection


@dataclass
class Hold:
    """A request's hold on an instance."""

    member: Member
    use: Use = Use.UNSENT

    def __enter__(self) -> Hold:
        self.member.taken()
        return self

    def __exit__(self, *_: object) -> None:
        self.member.given_back()


@dataclass
class Journey:
    """One request's way: until when it may wait, and which instances have not taken it."""

    call: Call
    until: float
    key: int
    begun: float = field(default_factory=lambda: clock.now())
    tried: set[str] = field(default_factory=set)
    refused: int = 0
    sent: int = 0  # how often an instance may have had it

    @property
    def left(self) -> float:
        return max(0.0, self.until - clock.now())

    def headers(self) -> Headers:
        """What the instance is told besides: among its callers, each of ours is one."""
        caller = self.call.caller
        session = f"{caller.kind}:{caller.name}"[:LONGEST]
        return [
            (b"x-request-id", self.call.request.id),
            (b"x-wait-timeout", b"%d" % max(1, min(3600, round(self.left)))),
            (SESSION, session.encode()),
        ]

    async def failed(self, relay: Relay, hold: Hold, error: UpstreamError) -> None:
        """The request goes to another instance, or the error is raised: once a byte of the answer
        has come, or where the request cannot be sent again."""
        member = hold.member
        self.tried.add(member.task)
        self.refused += 1
        self.sent += hold.use is not Use.UNSENT
        if isinstance(error, NotConnectedError):  # perhaps after it had been sent by a connection
            member.lost(str(error))  # that broke, and could not be sent by another one
            again = self.call.body.pieces is not None and self.refused < TRIES and self.sent < 2
        elif isinstance(error, DeclinedError):
            await member.look()
            again = True
            relay.elsewhere = False  # the next one's word counts
        else:
            again = self.call.body.whole is not None and not relay.status
            again = again and self.sent < 2 and self.refused < TRIES
        if not again:
            raise error
        logger.info("%s: sent to another instance: %s", self.call.model, error)
        relay.again()


class Through:
    """A model of an instance, for one request: `passing.Upstream`. `headers` go with it."""

    def __init__(self, member: Member, model: str, headers: Headers) -> None:
        self._member = member
        self._model = model
        self._headers = headers

    async def exchange(
        self,
        head: tuple[str, str, Headers],
        body: bytes | None,
        sink: Sink,
        length: int | None = None,
        *,
        waits: Waits = Waits.CLIENT,
    ) -> Exchange:
        """As `engine.http.Client.exchange`; whatever an instance answers shows that it lives."""
        method, target, headers = head
        below = f"/{quote(self._model)}{target}"
        client = self._member.client
        return await client.exchange((method, below, headers + self._headers), body, sink, length)
