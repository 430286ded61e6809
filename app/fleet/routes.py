"""The models of all routes, as the proxy sees them: a request waits for an instance of its route,
is sent there, and to another one if that one cannot take it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from app.errors import RequestError, UpstreamError
from app.fleet.affinity import conversation
from app.fleet.config import Route
from app.fleet.journey import Hold, Journey, Through
from app.fleet.listing import Listed
from app.fleet.member import Member
from app.fleet.standing import RouteState
from app.gateway.body.reading import Reading
from app.gateway.call import Call
from app.gateway.passing import send
from app.gateway.relay import Relay
from app.gateway.waiting import HEADER, wait_timeout
from app.machine import clock

STOPPING = "the door is stopping"
MOST_WAITING = 2048  # requests of a route
NONE = "none is on its way yet"
UNNAMED = "?"  # the model of a route whose template could not be read yet
LOOK = 1.0  # seconds after which one that waits looks again, if nothing is said to have changed


class Admitted:
    """A request among those of its route."""

    def __init__(self, state: RouteState, left: Callable[[], None]) -> None:
        """`left` is called when the request has ended."""
        self._state = state
        self._left = left

    def __enter__(self) -> None:
        if self._state.admitted >= MOST_WAITING:
            message = f"{self._state.route.name}: {MOST_WAITING} requests are here, the limit"
            raise RequestError(503, message, retry_after=10)
        self._state.admitted += 1
        self._state.demand.arrived(clock.now(), self._state.admitted)

    def __exit__(self, *_: object) -> None:
        self._state.admitted -= 1
        self._left()


class Routes:
    """The models of all routes by "route/model": `proxy.Models`. `names` are all by which callers
    may choose one; it changes while the door runs."""

    def __init__(self, wait: float, secret: str) -> None:
        """`wait`: seconds for an instance, of a request that says nothing of it; `secret`: what the
        door and its instances share."""
        self.states: dict[str, RouteState] = {}
        self.names: dict[str, str] = {}
        self.closed = False
        self.unlisted = ""  # why ClearML's server does not tell which instances there are
        self.on_wait: Callable[[], None] = lambda: None  # called when a request has to wait
        self._wait = wait
        self._secret = secret
        self._empty = asyncio.Event()
        self._reading: Reading

    def read_by(self, reading: Reading) -> None:
        self._reading = reading

    # Which routes and instances there are.

    def configure(self, routes: Sequence[Route]) -> list[RouteState]:
        """These routes are served from now on, and no others: those that are no more."""
        kept = dict(self.states)
        self.states.clear()
        for route in routes:
            state = kept.pop(route.name, None) or RouteState(route, self._secret)
            state.route = route
            self.states[route.name] = state
        for state in kept.values():
            state.retire()
        self.rename()
        return list(kept.values())

    def update(self, listed: Sequence[Listed]) -> None:
        for name, state in self.states.items():
            state.update([each for each in listed if each.route == name])

    def rename(self) -> None:
        """An instance may serve other models than the template says now: all of them are here."""
        names: dict[str, str] = {}
        for route, state in self.states.items():
            for model in state.names():
                names[f"{route}/{model}"] = f"{route}/{model}"
        models = list(names.items())
        for route in self.states:  # before a model's name, which may be another route's
            first = (target for _, target in models if target.startswith(f"{route}/"))
            names[route] = next(first, f"{route}/{UNNAMED}")
        for name, target in models:
            names.setdefault(name.partition("/")[2], target)
        if names != self.names:
            self.names.clear()
            self.names.update(names)

    def split(self, name: str) -> tuple[RouteState, str]:
        """The route of a model, and the model's name there. Raises RequestError 404 for a route
        that has been taken out meanwhile."""
        route, _, model = name.partition("/")
        if route not in self.states:
            raise RequestError(404, f"there is no route {route!r} any more")
        return self.states[route], model

    # `proxy.Models`.

    def below(self, name: str) -> Mapping[str, str] | None:
        """The path names a route: of several models the body chooses."""
        prefix = f"{name}/"
        models = [model for model in self.names if model.startswith(prefix)]
        if name not in self.states or len(models) < 2:
            return None
        short = {model.removeprefix(prefix): model for model in models}
        return short | {model: model for model in models}

    def deny_if_full(self, name: str) -> None:
        self.split(name)
        if self.closed:
            raise RequestError(503, STOPPING, retry_after=10)

    def admit(self, name: str) -> AbstractContextManager[None]:
        self.deny_if_full(name)
        return Admitted(self.split(name)[0], self._left)

    def _left(self) -> None:
        if not self._requests:
            self._empty.set()

    @property
    def _requests(self) -> int:
        return sum(state.admitted for state in self.states.values())

    def broken(self, name: str, error: UpstreamError) -> RequestError:
        return RequestError(502, f"{name}: {error}")

    def finished(self, name: str, *, served: bool) -> None:
        state = self.states.get(name.partition("/")[0])
        if state is None:
            return
        if served:
            state.served += 1
            state.demand.served(clock.now())
        else:
            state.failed += 1

    async def pass_on(self, call: Call, relay: Relay) -> None:
        wait = wait_timeout(call.request.header(HEADER), self._wait)
        key = conversation(call.body.pieces or ())
        journey = Journey(call, clock.now() + wait, key)
        relay.elsewhere = call.body.whole is not None
        state, model = self.split(call.model)
        while True:
            member, model = await self._instance(state, model, journey)
            relay.leased_at = relay.leased_at or clock.now()
            hold = Hold(member)
            try:
                with hold:
                    through = Through(member, model, journey.headers())
                    await send(self._reading, call, through, relay, hold)
                return
            except UpstreamError as error:
                await journey.failed(relay, hold, error)

    async def _instance(
        self, state: RouteState, model: str, journey: Journey
    ) -> tuple[Member, str]:
        """The one that the request is sent to, and the model's name there; waits for one. Raises
        RequestError 503."""
        while True:
            if self.closed:
                raise RequestError(503, STOPPING, retry_after=10)
            if model == UNNAMED:
                model = next(iter(state.names()), UNNAMED)  # the template was read meanwhile
            found = state.choose(model, journey.key, journey.tried)
            if found is None and journey.tried and state.serving():
                journey.tried.clear()  # none but those: they may take it now
                found = state.choose(model, journey.key, journey.tried)
            if found is not None:
                return found, model
            self._check_hope(state, model)
            if not journey.left:
                name = state.route.name
                what = "its model" if model == UNNAMED else model
                why = "; ".join(filter(None, (state.on_the_way(), self.unlisted))) or NONE
                told = f"{name} has no instance that serves {what} yet: {why}"
                raise RequestError(503, told, retry_after=10)
            self.on_wait()
            await state.change(min(journey.left, LOOK), journey.call.caller, journey.begun)

    def _check_hope(self, state: RouteState, model: str) -> None:
        """Raises RequestError 503 where waiting would be in vain."""
        name, standing = state.route.name, state.standing()
        if model == UNNAMED:
            if state.unreadable:
                raise RequestError(503, f"{name}: {state.unreadable}", retry_after=10)
            return
        if not state.route.max and not state.members:
            raise RequestError(503, f"{name}: max is 0, so no instance is started for requests")
        if standing.instances:
            self._check_model(state, model)
            return
        wait = state.retry_at - clock.now()
        if state.problem and wait > 0 and not standing.coming:
            raise RequestError(503, f"{name}: {state.problem}", retry_after=wait)
        hopeless = [each.text for each in state.coming.values() if each.hopeless]
        if hopeless and standing.coming <= len(hopeless):
            problems = [m.problem for m in state.members.values() if m.problem]
            told = "; ".join([hopeless[0], *problems])
            raise RequestError(503, f"{name}: {told}", retry_after=30)

    def _check_model(self, state: RouteState, model: str) -> None:
        serving = state.serving()
        states = {m.models[model].state if model in m.models else "absent" for m in serving}
        if states <= {"failed", "absent"}:
            problem = f"{model} has failed on all instances, or is not there"
            raise RequestError(503, f"{state.route.name}: {problem}", retry_after=30)

    async def drained(self) -> None:
        """Return when no request is here."""
        while self._requests:
            self._empty.clear()
            await self._empty.wait()

    def close(self) -> None:
        """No request is taken any more."""
        self.closed = True
        for state in self.states.values():
            state.tell()
