"""Method and target → what to serve: a page of ours, or a model and a llama-server path. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from app.errors import RequestError

# The paths of llama-server that the front passes on. Its slots, properties, metrics, tools and
# adapters are not among them: they show or change what belongs to other callers.
UPSTREAM_PATHS = (
    "/v1/chat/completions",
    "/v1/chat/completions/input_tokens",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/rerank",
    "/v1/reranking",
    "/v1/audio/transcriptions",
    "/chat/completions",
    "/chat/completions/input_tokens",
    "/completions",
    "/completion",
    "/embeddings",
    "/embedding",
    "/responses",
    "/responses/input_tokens",
    "/rerank",
    "/reranking",
    "/audio/transcriptions",
    "/infill",
    "/tokenize",
    "/detokenize",
    "/apply-template",
)
CACHED = 512  # targets of 16 KiB at most: callers ask for the same few all day
MULTIPART = ("/v1/audio/transcriptions", "/audio/transcriptions")
HEALTH, READY, STATUS = "/health", "/ready", "/api/status"
PAGE, EVENTS, METRICS = "/", "/api/events", "/metrics"
PROOF, KEEP = "/api/proof", "/api/keep"  # for the doors of a route
HISTORY = "/api/history"
ACTIONS_BELOW = "/api/models/"
ACTION = "/api/models/{{model}}/{action}"
ACTIONS = ("load", "park", "unload", "pin", "unpin")
ACTION_PATH = re.compile(rf"/api/models/(?P<model>.+)/(?P<action>{'|'.join(ACTIONS)})")
MODELS, MODEL = "/v1/models", "/v1/models/{model}"
MODELS_SPELLINGS = ("/v1/models", "/models")
OPTIONS, EVERYWHERE = "OPTIONS", "*"
LONGEST_SHOWN = 200  # characters of a name in an error message: a body may have a long one
# Every name by which callers may choose a model, and the endpoint name of that model: in the form's
# order, a model's endpoint name before its aliases.
ModelNames = Mapping[str, str]
# What a caller of the keys file may see of ours: all else shows or changes what belongs to others.
FOR_CALLERS = (HEALTH, READY, PAGE, PROOF, MODELS, MODEL, STATUS, HISTORY)
MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")  # Anthropic's
READS, ACTS = ("GET", "HEAD"), ("POST",)  # methods that our pages answer, and all else


@dataclass(frozen=True)
class Own:
    """One of our own pages, or the part of it on one model: by its endpoint name, but of the list
    of models by the name that was asked for."""

    page: str
    model: str | None = None


@dataclass(frozen=True)
class ToModel:
    """A path of llama-server, query included. `model` is None if the body names the model; `name`
    is what the path calls it, "" for nothing."""

    model: str | None
    path: str
    multipart: bool
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class Options:
    """The question which methods a path answers: these."""

    methods: tuple[str, ...]

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"allow", ", ".join(self.methods).encode())]


def route(
    method: str, target: str, names: ModelNames, prefixes: Sequence[str] = ()
) -> Own | ToModel | Options:
    """Raises RequestError 404 or 405. Models are told by their endpoint names.

    `prefixes` are paths that a gateway may leave before ours, besides /service/<segment>.
    """
    if (method, target) == ("OPTIONS", EVERYWHERE):
        return Options((*READS, *ACTS, OPTIONS))
    path, query = split_target(target)
    path = strip(path, prefixes)
    found = _find(path, query, tuple(names.items()))
    acts = isinstance(found, Own) and (found.page == KEEP or found.page.startswith(ACTIONS_BELOW))
    reads = isinstance(found, Own) and not acts
    answered = READS if reads else ACTS
    if method == OPTIONS:
        return Options((*answered, OPTIONS))
    if method not in answered:
        allowed = Options((*answered, OPTIONS)).headers()  # RFC 9110, 15.5.6
        raise RequestError(405, f"{path} answers {answered[0]}, not {method}", headers=allowed)
    return found


@lru_cache(CACHED)
def _find(path: str, query: str, called: tuple[tuple[str, str], ...]) -> Own | ToModel:
    names = dict(called)
    return _own(path, names) or _action(path, names) or _to_model(path, query, names)


def _own(path: str, names: ModelNames) -> Own | None:
    if path in (HEALTH, READY, STATUS, HISTORY, PAGE, EVENTS, METRICS, PROOF, KEEP):
        return Own(path)
    for models in MODELS_SPELLINGS:
        found = _models(path, models, names)
        if found is not None:
            return found
    if path.endswith(HEALTH) and path[1 : -len(HEALTH)] in names:
        return Own(HEALTH, names[path[1 : -len(HEALTH)]])
    return None


def _models(path: str, models: str, names: ModelNames) -> Own | None:
    """The list of all models or below one model's path of that one, or a model of the list."""
    if path == models:
        return Own(MODELS)
    if path.startswith(f"{models}/"):
        return _model(path[len(models) + 1 :], names)
    for name, model in names.items():
        if path == f"/{name}{models}":
            return Own(MODELS, model)
        if path.startswith(f"/{name}{models}/"):
            own = {other: named for other, named in names.items() if named == model}
            return _model(path[len(f"/{name}{models}/") :], own)
    return None


def _model(name: str, names: ModelNames) -> Own:
    check_model(name, names)
    return Own(MODEL, name)


def _action(path: str, names: ModelNames) -> Own | None:
    found = ACTION_PATH.fullmatch(path)
    if found is None:
        return None
    return Own(ACTION.format(action=found["action"]), check_model(found["model"], names))


def _to_model(path: str, query: str, names: ModelNames) -> ToModel:
    upstream = max((p for p in UPSTREAM_PATHS if path.endswith(p)), key=len, default=None)
    if upstream is None:
        raise RequestError(404, f"there is no {path} here: chat is at /v1/chat/completions")
    name = path[: -len(upstream)].lstrip("/")
    model = check_model(name, names) if name else None
    return ToModel(model, upstream + query, upstream in MULTIPART, name)


@lru_cache(CACHED)
def split_target(target: str) -> tuple[str, str]:
    """The decoded path, and the query with its "?" as it came. Raises RequestError 400."""
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            raise RequestError(400, "the request's target is not a path")
        target = "/" + rest.partition("/")[2]
    raw, mark, query = target.partition("?")
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise RequestError(400, "the path is not UTF-8") from None
    return path, mark + query


def strip(path: str, prefixes: Sequence[str]) -> str:
    """The path without what a gateway put before it; "/" if nothing else is left."""
    for prefix in prefixes:
        if prefix and f"{path}/".startswith(prefix.rstrip("/") + "/"):
            return path[len(prefix.rstrip("/")) :] or PAGE
    if path.startswith("/service/"):
        _, slash, rest = path[len("/service/") :].partition("/")
        return slash + rest or PAGE
    return path


def check_model(name: str, names: ModelNames) -> str:
    """The endpoint name of the model that has this name. Raises RequestError 404."""
    if name in names:
        return names[name]
    shown = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…"
    raise RequestError(404, f"there is no model {shown!r}; there are: {', '.join(names) or 'none'}")


def named_in_body(fields: Mapping[str, object], names: ModelNames) -> str:
    """The model that a body asks for. A body that names none asks for the only one."""
    model = fields.get("model")
    if model is None or model == "":
        only, *others = dict.fromkeys(names.values())
        if not others:
            return only
        raise RequestError(400, f"`model` is missing; there are: {', '.join(names)}")
    if not isinstance(model, str):
        raise RequestError(400, "`model` is not a string")
    return check_model(model, names)
