"""One instance, as a door sees it: it proves who it is, tells how it stands, and is kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.engine.exchange import Waits
from app.engine.http import Address, Client
from app.errors import FormError, UpstreamError
from app.fleet.listing import NAME, Listed
from app.fleet.proven import NotProvenError, ProvenClient
from app.form.checks import check_endpoint_name
from app.gateway.routes import KEEP, STATUS
from app.machine import clock

TIMEOUT = 5.0  # seconds for each small request
KEEP_FOR, RENEWED = 120.0, 40.0  # seconds of one keep, and until the next one
FAILURES, SILENT = 2, 6  # probes in a row: it gets nothing more; what it has is given up
LONGEST = 10.0  # seconds between two looks at one that never told anything
LARGEST = 256 << 10  # bytes of an answer
MOST_GPUS = 32  # that are shown
MOST_SLOTS = 1 << 16
SERVES, STOPPING = ("active", "idle"), "stopping"  # what an instance says of itself
SERVABLE = ("ready", "cold", "parking", "parked", "waking", "loading")  # models' states
RESIDENT = "ready"


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
        self.machine = listed.machine or listed.host
        self.gpus: tuple[str, ...] = ()  # their names
        self.in_flight = 0  # requests of this door
        self.used = clock.now()
        self.let_go = False  # this door needs it no more
        self.problem = ""  # why it serves nobody, if it should
        self._failures = 0
        self._served = False  # it has served, at some time
        self._retired = False
        self._others = 0  # requests that it had of others, when it last told
        self._still = 0  # the client's progress when it last answered
        self._kept = -math.inf
        self._next = -math.inf  # when it is to be looked at again
        where = Address(port=listed.port, host=listed.host)
        self.client = (
            ProvenClient(where, LARGEST, secret=secret, task=listed.task, told=listed.address)
            if secret
            else Client(where, listed.key, f"task {listed.task}", LARGEST)
        )

    @property
    def task(self) -> str:
        return self.listed.task

    @property
    def where(self) -> str:
        """The machine and its GPUs, for people."""
        counts = Counter(self.gpus)
        gpus = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())
        return f"{self.machine} ({gpus})" if gpus else self.machine

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
    def due(self) -> bool:
        """Whether it is to be looked at: seldom, where nothing of use was ever told."""
        return clock.now() >= self._next

    @property
    def comes(self) -> bool:
        """Whether it is to serve, as far as is known."""
        known = self.state in ("", "setting up") and self._failures < FAILURES
        return known and not self.let_go

    @property
    def useless(self) -> bool:
        """Whether another one is to take its place: it drains, or has served and does so no more.
        One that never did is not replaced: the next one would do no better."""
        return not (self.serves or self.comes) and (self._served or self.leaving)

    @property
    def load(self) -> int:
        """Requests that it has, those of others by what it told last."""
        return self.in_flight + self._others

    def has(self, model: str) -> bool:
        seen = self.models.get(model)
        return self.serves and seen is not None and seen.state in SERVABLE

    def resident(self, model: str) -> bool:
        seen = self.models.get(model)
        return seen is not None and seen.state == RESIDENT

    def lost(self, problem: str) -> None:
        """It took no connection: it gets no request until it has answered again."""
        self._failures, self.problem = FAILURES, problem

    async def look(self) -> None:
        """Ask how it stands. Whatever goes wrong is in `problem`: anybody may be at its address."""
        try:
            self._take(await self._ask(STATUS))
        except NotProvenError as error:
            self._failed(str(error))
            self.state = ""
        except UpstreamError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 what it answers must not end all looks
            self._failed(f"its answer cannot be read: {type(error).__name__}")
        else:
            self._failures, self.problem, self._next = 0, "", -math.inf
            self._still = self.client.progress
            self._served = self._served or self.state in SERVES

    def _failed(self, problem: str) -> None:
        """A machine that died says nothing, not even that: what it was sent is given up."""
        self._failures += 1
        self.problem = problem
        if not self._served:
            self._next = clock.now() + min(LONGEST, 2.0 ** min(self._failures - FAILURES, 10))
        if self.client.progress != self._still:
            self._still, self._failures = self.client.progress, min(self._failures, FAILURES)
        elif self._failures >= SILENT:
            self.client.give_up(UpstreamError(f"task {self.task} does not answer any more"))
            self.client.reopen()  # it may come back

    def _take(self, told: Any) -> None:
        try:
            models = {each["name"]: _seen(each) for each in told["models"] if _named(each)}
            requests = sum(int(m["in_flight"]) + int(m["queued"]) for m in told["models"])
            state = str(told["status"])
            machine, gpus = _machine(told)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise UpstreamError("its /api/status is not an instance's") from None
        self.state, self.models = state, models
        self.machine = self.listed.machine or machine or self.listed.host
        self.gpus = gpus
        self._others = max(0, requests - self.in_flight)

    async def _ask(self, target: str) -> Any:
        reply = await self.client.get(target, TIMEOUT)
        if reply.status == 401:
            raise NotProvenError(f"task {self.task} takes another key than it tells")
        try:
            return reply.json()
        except (ValueError, RecursionError):
            raise UpstreamError(f"task {self.task}: its {target} is not JSON") from None

    async def keep(self, door: str) -> None:
        """See to it that the instance does not end for want of requests; or that it may, once it is
        let go: said again and again, since a word may be lost. Raises UpstreamError."""
        now = clock.now()
        if self.alive and now - self._kept >= RENEWED:
            self._kept = now
            await self._say(door, 0 if self.let_go else KEEP_FOR)

    def release(self) -> None:
        """It gets nothing more, and may end, as the next `keep` says."""
        self.let_go, self._kept = True, -math.inf

    def take_back(self) -> None:
        """It is needed again, and has not ended: another door may keep it."""
        self.let_go, self._kept = False, -math.inf

    async def _say(self, door: str, seconds: float) -> None:
        await self.client.post(KEEP, {"door": door, "seconds": seconds}, TIMEOUT, Waits.US)

    def taken(self) -> None:
        """A request is sent to it."""
        self.in_flight += 1
        self.used = clock.now()

    def given_back(self) -> None:
        """That request has ended."""
        self.in_flight -= 1
        self.used = clock.now()
        if self._retired and not self.in_flight:
            self.close()

    def retire(self) -> None:
        """It is no longer of the route. Requests that it is at go on."""
        self._retired = True
        if not self.in_flight:
            self.close()

    def close(self) -> None:
        self.client.close()


def _named(told: Mapping[str, Any]) -> bool:
    """Whether a model has a name such as instances give."""
    try:
        check_endpoint_name(told["name"])
    except FormError:
        return False
    return True


def _seen(told: Mapping[str, Any]) -> Seen:
    slots, context = told.get("slots"), told.get("context")
    return Seen(
        state=str(told["state"]),
        tier=str(told.get("tier") or ""),
        slots=min(MOST_SLOTS, max(1, int(slots or 1))),
        context=int(context) if context else None,
    )


def _machine(told: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Its name, and those of its GPUs."""
    devices = list(told.get("devices") or ())[:MOST_GPUS]
    gpus = tuple(str(device["name"])[:NAME] for device in devices)
    return str((told.get("host") or {}).get("name") or "")[:NAME], gpus
