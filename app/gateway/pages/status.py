"""/health, /ready, /v1/models and /api/status. None of them wakes a model."""

from __future__ import annotations

import enum
import json

from app.gateway.admission import Keys
from app.gateway.callers import own
from app.gateway.http.request import Request
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.proxy import Page
from app.gateway.routes import HEALTH, MODEL, MODELS, READY, STATUS
from app.machine import clock, host
from app.memory.ledger import ModelState, View
from app.models.reference import without_folder
from app.telemetry.overview import SERVABLE, Details, Overview, Phase, last_activity
from app.telemetry.speculation import Speculation


class Health(enum.Enum):
    OK = "ok"
    LOADING = "loading"
    FAILED = "failed"
    DRAINING = "draining"


def health(overview: Overview) -> Health:
    views = overview.view()
    if overview.phase is Phase.STOPPING:
        return Health.DRAINING
    if any(view.state in SERVABLE for view in views):
        return Health.OK
    if all(view.state is ModelState.FAILED for view in views):
        return Health.FAILED
    return Health.LOADING


def is_ready(overview: Overview) -> bool:
    return overview.phase is Phase.SERVING and all(map(_as_it_should_be, overview.view()))


def _as_it_should_be(view: View) -> bool:
    """Whether the model is in memory, or out of it to make room or unused, and not because it
    failed."""
    on_request = (*SERVABLE, ModelState.LOADING)
    failed = view.reason and not view.unused
    return view.state is ModelState.READY or (view.state in on_request and not failed)


def model_objects(overview: Overview, view: View) -> list[dict[str, object]]:
    """A model in OpenAI's list: an entry for each of its names, since clients look among the ids
    for the name that they were given. Each entry names all of them, as llama-server's does."""
    names = [view.name, *overview.models[view.name].aliases]
    entry = _model_object(overview, view)
    return [{"id": name, "aliases": names, **entry} for name in names]


def _model_object(overview: Overview, view: View) -> dict[str, object]:
    """What OpenAI's model object has but names, with the model's state and tier, and what it can:
    `meta` as llama-server has it. None of it is there before the set-up knows it."""
    details = overview.models[view.name]
    return {
        "object": "model",
        "created": int(overview.begun_at),
        "owned_by": "llamacpp",
        "state": view.state.value,
        "tier": view.tier.value,
        "context": details.context,
        "slots": details.slots,
        "capabilities": capabilities(details),
        "meta": dict(details.meta()) or None,
    }


def capabilities(details: Details) -> list[str]:
    """In llama-server's words; it calls a model for embeddings one for completion, too."""
    kind = "embedding" if details.embedding else "completion"
    return [kind, "multimodal"] if details.multimodal else [kind]


def views_for(overview: Overview, holder: Holder) -> list[View]:
    """Of the models that it may use."""
    models = set(own(holder, overview.names).values())
    return [view for view in overview.view() if view.name in models]


def status(overview: Overview, now: float, holder: Holder = UNNAMED) -> dict[str, object]:
    """`holder`: whom it is told."""
    views = views_for(overview, holder)
    idle = overview.idle(now)
    used, total = overview.host()
    machine = "" if holder.name else host.name()
    return {
        "version": overview.version,
        "time": round(clock.wall(), 3),
        "status": overview.status(now),
        "uptime": round(now - overview.begun, 3),
        "endpoint": overview.endpoint,
        "idle": {"seconds": round(idle, 3), "limit": overview.idle_limit},
        "last_activity": last_activity(overview, now).isoformat(),
        "models": [_model(overview, view, holder) for view in views],
        "devices": [
            {"id": d.id, "name": d.name, "used": d.used, "total": d.total}
            for d in overview.devices()
        ],
        "host": {"name": machine, "used": used, "total": total},
        "callers": _callers(overview, holder),
    }


def _callers(overview: Overview, holder: Holder) -> list[dict[str, object]]:
    """What each caller of the keys file has used; a caller is told of itself alone."""
    found = overview.by_caller.used if overview.by_caller is not None else {}
    return [
        {
            "name": name,
            "requests": used.requests,
            "denied": used.denied,
            "prompt_tokens": used.prompt,
            "cached_tokens": used.cached,
            "generated_tokens": used.generated,
        }
        for name, used in found.items()
        if holder.name in ("", name)
    ]


def _model(overview: Overview, view: View, holder: Holder) -> dict[str, object]:
    details, memory = overview.models[view.name], overview.memory(view)
    reference = without_folder(details.reference) if holder.name else details.reference
    return {
        "name": view.name,
        "aliases": details.aliases,
        "reference": reference,
        "state": view.state.value,
        "tier": view.tier.value,
        "reason": view.reason,
        "unused": view.unused,
        "progress": view.progress,
        "context": details.context,
        "slots": details.slots,
        "memory": {"gpu": dict(memory.gpu), "host": memory.host},
        "need": dict(view.need),
        "prompt_cache": details.cache,
        "placed": details.placed,
        "embedding": details.embedding,
        "speculation": _speculation(details.speculation),
        "in_flight": view.leased,
        "queued": view.admitted - view.leased,
        "requests": view.requests,
        "denied": view.denied,
        "switches": view.switches,
        "pinned": view.pinned,
        "endpoint": details.endpoint,
    }


def _speculation(found: Speculation | None) -> dict[str, object] | None:
    """In percent, how many guesses of the last requests were right; and why they make the model
    slower, where they do."""
    if found is None:
        return None
    share = found.acceptance
    return {"acceptance": None if share is None else round(share, 1), "slower": found.slower}


def _coming(overview: Overview, holder: Holder) -> dict[str, object]:
    views = views_for(overview, holder)
    return {"models": {v.name: {"state": v.state.value, "progress": v.progress} for v in views}}


def pages(overview: Overview, keys: Keys) -> dict[str, Page]:
    """What answers each path, or its part on one model. Whoever has none of the keys is told
    nothing of the models, and a caller of the keys file only of those that it may use."""

    def answer(request: Request, code: int, body: object) -> None:
        request.reply(code, json.dumps(body).encode())

    def show_health(request: Request, _: str | None, __: Holder) -> None:
        found = health(overview)
        answer(request, 200 if found is Health.OK else 503, {"status": found.value})

    async def show_ready(request: Request, _: str | None, __: Holder) -> None:
        if is_ready(overview):
            answer(request, 200, {"status": "ready"})
            return
        holder = await keys.known(request)
        models = {} if holder is None else _coming(overview, holder)
        answer(request, 503, {"status": health(overview).value, **models})

    def show_models(request: Request, name: str | None, holder: Holder) -> None:
        kept = [view for view in views_for(overview, holder) if name in (None, view.name)]
        data = [entry for view in kept for entry in model_objects(overview, view)]
        answer(request, 200, {"object": "list", "data": data})

    def show_model(request: Request, name: str | None, _: Holder) -> None:
        every = [entry for view in overview.view() for entry in model_objects(overview, view)]
        answer(request, 200, next(entry for entry in every if entry["id"] == name))

    async def show_status(request: Request, _: str | None, holder: Holder) -> None:
        await overview.readings.renew()
        answer(request, 200, status(overview, clock.now(), holder))

    return {
        HEALTH: show_health,
        READY: show_ready,
        MODELS: show_models,
        MODEL: show_model,
        STATUS: show_status,
    }
