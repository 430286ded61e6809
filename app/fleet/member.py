"""One instance, as a door sees it: it proves who it is, tells how it stands, and is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from app.engine.exchange import Exchange, Headers, Sink
from app.engine.http import Address, Client
from app.errors import UpstreamError
from app.fleet.listing import Listed
from app.gateway import trust
from app.gateway.routes import KEEP, PROOF, STATUS
from app.machine import chance, clock

TIMEOUT = 5.0  # seconds for each small request
KEEP_FOR, RENEWED = 120.0, 40.0  # seconds of one keep, and until the next one
FAILURES = 2  # probes in a row
SERVES, STOPPING = ("active", "idle"), "stopping"  # what an instance says of itself
SERVABLE = ("ready", "cold", "parking", "parked", "waking", "loading")  # models' states
RESIDENT = "ready"


class NotProvenError(Exception):
    """It has not shown that it is what its task says."""


@dataclass(frozen=True)
class Seen:
    """What an instance told of one model."""

    state: str
    tier: str
    slots: int
    context: int | None


class Member:
    def __init__(self, listed: Listed, secret: str) -> None:
        """`secret`: what doors and instances share; "" without one."""
        self.listed = listed
        self.models: dict[str, Seen] = {}
        self.state = ""  # the instance's own word; "" until it has told
        self.in_flight = 0  # requests of this door
        self.used = clock.now()
        self.let_go = False  # this door needs it no more
        self.problem = ""  # why it serves nobody, if it should
        self._secret = secret
        self._failures = 0
        self._proven = not secret
        self._kept = 0.0
        key = trust.key(secret, listed.task) if secret else listed.key
        where, peer = Address(port=listed.port, host=listed.host), f"task {listed.task}"
        self.client = Client(where, key, peer)
        self._open = Client(where, "", peer)

    @property
    def task(self) -> str:
        return self.listed.task

    @property
    def slots(self) -> int:
        """Requests that it serves at once, as far as that is known."""
        return max([1, *(model.slots for model in self.models.values())])

    @property
    def alive(self) -> bool:
        """Whether it would serve, if it were not let go."""
        return self.state in SERVES and self._failures < FAILURES

    @property
    def serves(self) -> bool:
        return self.alive and not self.let_go

    @property
    def leaving(self) -> bool:
        return self.let_go or self.state == STOPPING

    @property
    def comes(self) -> bool:
        """Whether it is to serve, as far as is known."""
        return self.state in ("", "setting up") and not self.problem and not self.let_go

    def has(self, model: str) -> bool:
        seen = self.models.get(model)
        return self.serves and seen is not None and seen.state in SERVABLE

    def resident(self, model: str) -> bool:
        seen = self.models.get(model)
        return seen is not None and seen.state == RESIDENT

    def lost(self) -> None:
        """It took no connection: it gets no request until it has answered again."""
        self._failures = FAILURES

    async def look(self) -> None:
        """Ask how it stands. Whatever goes wrong is in `problem`."""
        try:
            if not self._proven:
                await self._prove()
            self._take(await self._ask(self.client, STATUS))
        except (UpstreamError, NotProvenError) as error:
            self._failures += 1
            self.problem = str(error)
            if isinstance(error, NotProvenError):
                self.state = ""
        else:
            self._failures = 0
            self.problem = ""

    def _take(self, told: Any) -> None:
        try:
            models = {str(each["name"]): _seen(each) for each in told["models"]}
            self.state, self.models = str(told["status"]), models
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UpstreamError("its /api/status is not an instance's") from None

    async def _prove(self) -> None:
        """Before any key or prompt is sent (see `trust`). Raises NotProvenError, UpstreamError."""
        nonce = chance.name(32)
        told = await self._ask(self._open, f"{PROOF}?nonce={nonce}")
        wanted = trust.proof(self._secret, nonce, self.task, self.listed.address)
        if not (isinstance(told, Mapping) and trust.same(told.get("proof"), wanted)):
            raise NotProvenError(
                f"{self.listed.address} does not prove that it is the instance of task {self.task}:"
                f" set {trust.SECRET_VARIABLE} to the same secret here and there"
            )
        self._proven = True

    async def _ask(self, client: Client, target: str) -> Any:
        reply = await client.get(target, TIMEOUT)
        if reply.status == 401:
            raise NotProvenError(f"{self.listed.address} takes another key than its task tells")
        if reply.status != 200 and client is self._open:
            raise NotProvenError(f"{self.listed.address} answers {reply.status} to {PROOF}")
        try:
            return reply.json()
        except ValueError:
            raise UpstreamError(f"{self.listed.address}: {target} is not JSON") from None

    async def keep(self, door: str) -> None:
        """See to it that the instance does not end for want of requests. Raises UpstreamError."""
        now = clock.now()
        if self.serves and now - self._kept >= RENEWED:
            self._kept = now
            await self._say(door, KEEP_FOR)

    async def release(self, door: str) -> None:
        """It gets nothing more, and may end. Raises UpstreamError."""
        self.let_go = True
        await self._say(door, 0)

    def take_back(self) -> None:
        """It is needed again, and has not ended: another door may keep it."""
        self.let_go, self._kept = False, 0.0

    async def _say(self, door: str, seconds: float) -> None:
        await self.client.post(KEEP, {"door": door, "seconds": seconds}, TIMEOUT)

    def retire(self) -> None:
        """It is no longer of the route. Requests that it is at go on."""
        if not self.in_flight:
            self.close()

    def close(self) -> None:
        self.client.close()
        self._open.close()


def _seen(told: Mapping[str, Any]) -> Seen:
    slots, context = told.get("slots"), told.get("context")
    return Seen(
        state=str(told["state"]),
        tier=str(told.get("tier") or ""),
        slots=max(1, int(slots or 1)),
        context=int(context) if context else None,
    )


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
    ) -> Exchange:
        """As `engine.http.Client.exchange`."""
        method, target, headers = head
        below = f"/{quote(self._model)}{target}"
        client = self._member.client
        return await client.exchange((method, below, headers + self._headers), body, sink, length)
