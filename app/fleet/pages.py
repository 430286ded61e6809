"""What a door itself answers: /health, /ready, /v1/models, /api/status, /metrics and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from app.fleet.member import Member
from app.fleet.metrics import CONTENT_TYPE, Metrics
from app.fleet.routes import Routes
from app.fleet.standing import RouteState
from app.gateway.callers import own
from app.gateway.http.request import Request
from app.gateway.keys_file import Holder
from app.gateway.pages.document import Document
from app.gateway.proxy import Page
from app.gateway.routes import HEALTH, METRICS, MODEL, MODELS, PAGE, READY, STATUS
from app.machine import clock


class Pages:
    def __init__(
        self,
        routes: Routes,
        listed_at: Callable[[], float | None],
        metrics: Metrics,
        document: Document,
        version: str,
    ) -> None:
        """`listed_at`: when ClearML's server last told which instances there are."""
        self._routes = routes
        self._listed_at = listed_at
        self._metrics = metrics
        self._document = document
        self._version = version
        self._begun = clock.now()
        self._begun_at = clock.wall()
        self.endpoint = ""

    def by_path(self) -> Mapping[str, Page]:
        return {
            HEALTH: lambda request, *_: self._health(request),
            READY: lambda request, *_: self._ready(request),
            MODELS: lambda request, _, holder: self._models(request, holder),
            MODEL: lambda request, name, holder: self._model(request, name or "", holder),
            STATUS: lambda request, _, holder: self._status(request, holder),
            METRICS: lambda request, *_: request.reply(
                200, self._metrics.text(), [(b"content-type", CONTENT_TYPE.encode())]
            ),
            PAGE: lambda request, *_: self._document.show(request),
        }

    def _health(self, request: Request) -> None:
        if self._routes.closed:
            _answer(request, 503, {"status": "draining"})
        else:
            _answer(request, 200, {"status": "ok"})

    def _ready(self, request: Request) -> None:
        """Ready with as many instances as there are always to be: none where none is wanted."""
        short = any(len(s.serving()) < s.route.min for s in self._routes.states.values())
        if self._routes.closed or self._listed_at() is None or short:
            _answer(request, 503, {"status": "loading"})
        else:
            _answer(request, 200, {"status": "ready"})

    def _models(self, request: Request, holder: Holder) -> None:
        names = own(holder, self._routes.names)
        _answer(request, 200, {"object": "list", "data": [self._entry(n, names) for n in names]})

    def _model(self, request: Request, name: str, holder: Holder) -> None:
        _answer(request, 200, self._entry(name, own(holder, self._routes.names)))

    def _entry(self, name: str, names: Mapping[str, str]) -> dict[str, object]:
        state, model = self._routes.split(names[name])
        told = [member.models[model] for member in state.serving() if model in member.models]
        best = next((seen for seen in told if seen.state == "ready"), next(iter(told), None))
        return {
            "id": name,
            "object": "model",
            "created": int(self._begun_at),
            "owned_by": "llamacpp",
            "state": best.state if best else "cold",
            "tier": best.tier if best else "none",
            "context": best.context if best else None,
            "slots": sum(seen.slots for seen in told),
            "instances": len(told),
        }

    def _status(self, request: Request, holder: Holder) -> None:
        allowed = {name.partition("/")[0] for name in own(holder, self._routes.names).values()}
        everything = not holder.name
        states = [
            state for name, state in self._routes.states.items() if everything or name in allowed
        ]
        listed = self._listed_at()
        told = {
            "version": self._version,
            "status": "stopping" if self._routes.closed else "serving",
            "uptime": round(clock.now() - self._begun, 3),
            "endpoint": self.endpoint,
            "listed": None if listed is None else round(clock.now() - listed, 3),
            "routes": [_route(state, whole=everything) for state in states],
        }
        _answer(request, 200, told)


def _route(state: RouteState, *, whole: bool) -> dict[str, object]:
    """`whole`: for who may see where instances are, too."""
    members = list(state.members.values())
    told: dict[str, object] = {
        "name": state.route.name,
        "models": list(state.models),
        "min": state.route.min,
        "max": state.route.max,
        "serving": len(state.serving()),
        "slots": state.slots,
        "in_flight": sum(member.in_flight for member in members),
        "waiting": state.waiting,
        "history": state.demand.history(),
        "queue_wait": round(state.demand.queue_wait(clock.now()), 3),
        "served": state.served,
        "failed": state.failed,
    }
    if whole:
        told["problem"] = state.problem or state.unreadable
        told["coming"] = [_coming(state, task) for task in state.listed]
        told["instances"] = [_instance(member) for member in members]
    return told


def _coming(state: RouteState, task: str) -> dict[str, object]:
    listed, coming = state.listed[task], state.coming.get(task)
    return {"task": task, "status": listed.status, "text": coming.text if coming else ""}


def _instance(member: Member) -> dict[str, object]:
    return {
        "task": member.task,
        "name": member.listed.name,
        "address": member.listed.address,
        "machine": member.where,
        "state": "leaving" if member.leaving else member.state or "unknown",
        "serves": member.serves,
        "slots": member.slots,
        "in_flight": member.in_flight,
        "problem": member.problem,
        "models": {
            name: {"state": seen.state, "tier": seen.tier} for name, seen in member.models.items()
        },
    }


def _answer(request: Request, status: int, body: object) -> None:
    request.reply(status, json.dumps(body).encode())
