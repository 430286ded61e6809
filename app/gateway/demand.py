"""What a request may come to use of its llama-server, by its path and its body. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from app.errors import RequestError
from app.gateway.body.asked import MOST
from app.gateway.body.beginning import beginnings
from app.gateway.body.reading import Body
from app.memory.line import ASKS
from app.memory.seat import MARK, Demand, Seat

UNLIMITED = -1
OF_INFILL = 128  # tokens that an infill without a limit may generate
MOST_PROMPTS = 128  # of one request that generates
MOST_TEXTS = 2048  # of one that does not; OpenAI's limit
OWN_SLOT = ("id_slot", -1)  # a client may not choose a slot: it may be another caller's


@dataclass(frozen=True)
class Kind:
    """How llama-server treats the bodies of a path. `limit` is the field that has the most tokens
    of an answer, over all others ("": it generates none); `marked`: unknown fields reach the slot;
    `templated`: messages go through the chat template; `counted` is the path that counts a prompt;
    `default`: the limit of a body that has none (None: what there is room for). `texts` are the
    fields that have a prompt, or a list of them: each takes a slot. `operation` is OpenTelemetry's
    name for it, or ours where OpenTelemetry has none. `task` is llama-server's word for what it
    does."""

    operation: str
    limit: str = ""
    marked: bool = False
    templated: bool = False
    counted: str = ""
    default: int | None = None
    texts: tuple[str, ...] = ()
    task: str = "completion"


TOKENIZE = "/tokenize"
CHAT = Kind("chat", "n_predict", True, True, "/v1/chat/completions/input_tokens")
RESPONSES = Kind("chat", "n_predict", True, True, "/v1/responses/input_tokens")
MESSAGES = Kind("chat", "max_tokens", False, True, "/v1/messages/count_tokens")
COMPLETION = Kind("text_completion", "n_predict", True, counted=TOKENIZE, texts=("prompt",))
EMBEDDING = Kind("embeddings", counted=TOKENIZE, texts=("input", "content"), task="embedding")
RERANK = Kind("rerank", texts=("documents", "texts"), task="rerank")
KINDS = {
    "/chat/completions": CHAT,
    "/responses": RESPONSES,
    "/messages": MESSAGES,
    "/completions": COMPLETION,
    "/completion": COMPLETION,
    "/infill": Kind("text_completion", "n_predict", True, default=OF_INFILL, task="infill"),
    "/embeddings": EMBEDDING,
    "/embedding": EMBEDDING,
    "/rerank": RERANK,
    "/reranking": RERANK,
    "/audio/transcriptions": Kind("transcription"),
}


@lru_cache(maxsize=64)  # callers ask for few paths, each several times
def kind_of(path: str) -> Kind | None:
    """None for a path of llama-server that needs no slot."""
    return KINDS.get(path.partition("?")[0].removeprefix("/v1"))


def operation(path: str) -> str:
    """What a request for this path asks of a model; "" for one that needs no slot."""
    kind = kind_of(path)
    return "" if kind is None else kind.operation


def demand(kind: Kind | None, body: Body) -> Demand:
    """Raises RequestError 400."""
    if kind is None:
        return ASKS
    size = body.length
    # Of a picture's or a sound's bytes nothing follows for its tokens.
    known = size is not None and body.is_json and not body.media
    prompts = _prompts(kind, body)
    return Demand(
        slots=prompts * body.asked.choices,
        prompt=size if known else None,
        limit=_limit(kind, body) if kind.limit else 0,
        templated=kind.templated,
        countable=bool(kind.counted) and body.is_json,
        marked=kind.marked and body.is_json,
        begins=beginnings(body.pieces or ()) if kind.limit else (),
        separate=not kind.limit,
        together=prompts == 1,
        task=kind.task,
    )


def _prompts(kind: Kind, body: Body) -> int:
    """Raises RequestError 400: a list is worked off without a turn for anybody else."""
    found = max([1, *(body.asked.prompts.get(name, 1) for name in kind.texts)])
    most = MOST_PROMPTS if kind.limit else MOST_TEXTS
    if found > most:
        message = f"{found} prompts: one request may have {most}, send the rest in further ones"
        raise RequestError(400, message)
    return found


def _limit(kind: Kind, body: Body) -> int | None:
    name, value = _named(kind, body)
    if value is None:
        return 0  # llama-server refuses it
    if not UNLIMITED <= value <= MOST:  # that it would refuse, too, is lost under our own limit
        raise RequestError(400, f"{name}: must be a whole number from {UNLIMITED} to {MOST}")
    return kind.default if value < 0 else value


def _named(kind: Kind, body: Body) -> tuple[str, int | None]:
    """The field that llama-server heeds of those that limit an answer, and its value."""
    limits = body.asked.limits
    named = limits if kind.limit == "n_predict" else {kind.limit: limits.get(kind.limit, UNLIMITED)}
    if kind is not RESPONSES:
        named = {name: value for name, value in named.items() if name != "max_output_tokens"}
    return next(iter(named.items()), ("", UNLIMITED))


def fields(kind: Kind, body: Body, seat: Seat) -> dict[str, int]:
    """What is added to the body, over what it says itself."""
    if not body.is_json or not seat.slots:
        return {}
    added = dict([OWN_SLOT] if body.asked.chooses_slot else [])
    if seat.marked:
        added[MARK] = seat.number
    if kind.limit and seat.limit is not None and _named(kind, body)[1] is not None:
        added[kind.limit] = seat.limit
    return added


def _last(body: list[bytes]) -> bytes:
    """Take its last piece that is not blank, without blanks behind it."""
    piece = b""
    while not piece:
        piece = body.pop().rstrip()
    return piece


def added(body: list[bytes], more: dict[str, int]) -> None:
    """Add members at the end of a JSON object in pieces: of two with one name the last one counts
    for llama-server, also where a name is escaped."""
    if not more:
        return
    members = b",".join([b'"%b":%d' % (name.encode(), value) for name, value in more.items()])
    end = _last(body)
    before = end[:-1].rstrip() or _last(body)  # the brace may be the first of its piece
    comma = b"" if before.endswith(b"{") else b","
    body.append(before + comma + members + b"}")
