"""What we say of ourselves: /health, /ready, /v1/models, /api/status. Wakes no model."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from app.gateway.proxy import Page
from app.gateway.request import Request
from app.gateway.routes import HEALTH, MODEL, MODELS, READY, STATUS
from app.machine.gpu import Device
from app.memory.budget import HOST
from app.memory.ledger import ModelState, Tier, View
from app.telemetry.idle import idle_for

SERVABLE = (
    ModelState.READY,
    ModelState.COLD,
    ModelState.PARKING,
    ModelState.PARKED,
    ModelState.WAKING,
)


class Phase(enum.Enum):
    SETTING_UP = "setting up"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Held:
    """Bytes that a model holds: by GPU, and of host memory."""

    gpu: Mapping[str, int] = field(default_factory=dict)
    host: int = 0

    @property
    def total(self) -> int:
        return sum(self.gpu.values()) + self.host


@dataclass
class Details:
    """What the set-up found out of one model; `memory` tells what it holds now, each GPU by
    llama-server's name for it and only where the driver says it; `cache` are the bytes of what it
    is counted with that prompts may come to take."""

    reference: str = ""
    context: int | None = None
    slots: int | None = None
    endpoint: str = ""
    embedding: bool = False
    placed: str = ""  # where its memory lies, for people
    cache: int = 0
    memory: Callable[[], Held] = Held


@dataclass
class Overview:
    """The instance, as it is seen from outside. Only instance.py writes it.

    `idle_limit` and `active_for` (how long after a request the status stays active) in seconds;
    `host` tells how many bytes of host memory are used, and how many there are.
    """

    version: str
    models: dict[str, Details]
    idle_limit: float | None
    active_for: float
    devices: Callable[[], Sequence[Device]]
    view: Callable[[], Sequence[View]]
    host: Callable[[], tuple[int, int]]
    phase: Phase = Phase.SETTING_UP
    endpoint: str = ""
    begun: float = field(default_factory=time.monotonic)
    begun_at: float = field(default_factory=time.time)
    serving_since: float = field(default_factory=time.monotonic)

    def memory(self, view: View) -> Held:
        """What a model holds now, each GPU by its `id`; what it is counted with where the driver
        does not say that (in containers it does not)."""
        held = self.models[view.name].memory()
        gpu = held.gpu
        if not gpu and view.tier is Tier.GPU:
            gpu = {device: size for device, size in view.need.items() if device != HOST}
        ids = {device.cuda: device.id for device in self.devices()}
        return Held({ids.get(name, name): size for name, size in gpu.items()}, held.host)

    def idle(self, now: float) -> float:
        """Seconds; nothing is idle that is not serving yet."""
        if self.phase is Phase.SETTING_UP:
            return 0.0
        return idle_for(self.view(), self.serving_since, now)

    def status(self, now: float) -> str:
        if self.phase is not Phase.SERVING:
            return str(self.phase.value)
        return "active" if self.idle(now) < self.active_for else "idle"


def health(overview: Overview) -> tuple[int, dict[str, object]]:
    views = overview.view()
    if overview.phase is Phase.STOPPING:
        return 503, {"status": "draining"}
    if any(view.state in SERVABLE for view in views):
        return 200, {"status": "ok"}
    if all(view.state is ModelState.FAILED for view in views):
        return 503, {"status": "failed"}
    return 503, {"status": "loading"}


def ready(overview: Overview) -> tuple[int, dict[str, object]]:
    views = overview.view()
    if overview.phase is Phase.SERVING and all(_as_it_should_be(v) for v in views):
        return 200, {"status": "ready"}
    progress = {v.name: {"state": v.state.value, "progress": v.progress} for v in views}
    return 503, {"status": health(overview)[1]["status"], "models": progress}


def _as_it_should_be(view: View) -> bool:
    """In memory, or out of it because that is another's turn: not because it failed."""
    on_request = (*SERVABLE, ModelState.LOADING)
    return view.state is ModelState.READY or (view.state in on_request and not view.reason)


def model_object(overview: Overview, view: View) -> dict[str, object]:
    """OpenAI's model object, with our state and tier."""
    return {
        "id": view.name,
        "object": "model",
        "created": int(overview.begun_at),
        "owned_by": "llamacpp",
        "state": view.state.value,
        "tier": view.tier.value,
    }


def last_activity(overview: Overview, now: float) -> datetime:
    last = overview.begun_at + (now - overview.begun) - overview.idle(now)
    return datetime.fromtimestamp(last, timezone.utc)


def status(overview: Overview, now: float) -> dict[str, object]:
    views = overview.view()
    idle = overview.idle(now)
    used, total = overview.host()
    return {
        "version": overview.version,
        "status": overview.status(now),
        "uptime": round(now - overview.begun, 3),
        "endpoint": overview.endpoint,
        "idle": {"seconds": round(idle, 3), "limit": overview.idle_limit},
        "last_activity": last_activity(overview, now).isoformat(),
        "models": [_model(overview, view) for view in views],
        "devices": [
            {"id": d.id, "name": d.name, "used": d.used, "total": d.total}
            for d in overview.devices()
        ],
        "host": {"used": used, "total": total},
    }


def _model(overview: Overview, view: View) -> dict[str, object]:
    details, held = overview.models[view.name], overview.memory(view)
    return {
        "name": view.name,
        "reference": details.reference,
        "state": view.state.value,
        "tier": view.tier.value,
        "reason": view.reason,
        "progress": view.progress,
        "context": details.context,
        "slots": details.slots,
        "memory": {"gpu": dict(held.gpu), "host": held.host},
        "need": dict(view.need),
        "prompt_cache": details.cache,
        "placed": details.placed,
        "embedding": details.embedding,
        "in_flight": view.leased,
        "queued": view.admitted - view.leased,
        "requests": view.requests,
        "denied": view.denied,
        "switches": view.switches,
        "pinned": view.pinned,
        "endpoint": details.endpoint,
    }


def pages(overview: Overview) -> dict[str, Page]:
    """By path, what answers a request for it (or for the part of it on one model)."""

    def answer(request: Request, code: int, body: object) -> None:
        request.reply(code, json.dumps(body).encode())

    def show_health(request: Request, _: str | None) -> None:
        answer(request, *health(overview))

    def show_ready(request: Request, _: str | None) -> None:
        answer(request, *ready(overview))

    def show_models(request: Request, name: str | None) -> None:
        kept = [view for view in overview.view() if name in (None, view.name)]
        data = [model_object(overview, view) for view in kept]
        answer(request, 200, {"object": "list", "data": data})

    def show_model(request: Request, name: str | None) -> None:
        view = next(view for view in overview.view() if view.name == name)
        answer(request, 200, model_object(overview, view))

    def show_status(request: Request, _: str | None) -> None:
        answer(request, 200, status(overview, time.monotonic()))

    return {
        HEALTH: show_health,
        READY: show_ready,
        MODELS: show_models,
        MODEL: show_model,
        STATUS: show_status,
    }
