"""How many tokens a finished request used, read from the ends of its answer. Pure.

llama-server puts `timings` or `usage` near the end of an answer (JSON, or the last events of a
stream), and for embeddings and Anthropic's message_start near its beginning. Inside a JSON string
a quote is escaped, so the bytes `"usage":{` are never a model's words.

A request for several choices (`n`, or several prompts) is counted by llama-server choice by choice:
a stream tells of each, an answer that comes whole only of the first.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

HEAD = 4 * 1024  # bytes kept of an answer's beginning
TAIL = 16 * 1024  # and of its end
WHOLE = 1 << 20  # bytes kept of an answer with several choices
TIMINGS, USAGE = b'"timings":', b'"usage":'
DECODER = json.JSONDecoder()
CACHE_READ = "cache_read_input_tokens"


@dataclass(frozen=True)
class Tokens:
    prompt: int = 0  # cached ones included
    cached: int = 0
    generated: int = 0
    drafted: int = 0  # guessed in advance (speculative decoding)
    accepted: int = 0  # of those, that were right
    prefill: float | None = field(default=None, compare=False)  # seconds for the prompt
    seconds: float = 0.0  # that the generation took, as llama-server measured it
    estimated: bool = False  # the client left before llama-server told of them

    @property
    def acceptance(self) -> float | None:
        """The share of the guesses that were right, in percent."""
        return 100 * self.accepted / self.drafted if self.drafted else None


@dataclass(kw_only=True, slots=True)  # not frozen: one is made for each request
class Sample:
    """A finished request, times in seconds from its first byte: `latency` to our last byte,
    `first_token` to the first token of a stream (None for an answer that comes whole), `wait`
    until it leased its model (None where it never did), `woke`: how much of that the model took
    to come into memory.

    `status` is what the client was told; 499 where it left before the end. `size` in bytes of
    the answer's body; `request` is the name that the client knows it by; `project` is what it says
    of itself, `caller` the name of its key in the keys file; `operation` what was asked for, in
    OpenTelemetry's words ("": nothing of a model). `overflows`: how often llama-server
    failed it beside all others, its KV cache full. `prompt` is the beginning of its body, where
    the instance is told to keep prompts.
    """

    model: str
    status: int
    latency: float
    first_token: float | None
    tokens: Tokens
    wait: float | None = None
    woke: float = 0.0
    size: int = 0
    request: str = ""
    project: str = ""
    caller: str = ""
    operation: str = ""
    overflows: int = 0
    answers: int = 1
    prompt: str = ""

    @property
    def prefill(self) -> float | None:
        """Seconds for the prompt: until a stream began, or as llama-server tells it."""
        if self.wait is None:
            return None
        if self.first_token is None:
            return self.tokens.prefill
        return max(0.0, self.first_token - self.wait)

    @property
    def per_token(self) -> float | None:
        """Seconds between two tokens of a stream, after the first one. None for a request of
        several answers, which come side by side."""
        more = self.tokens.generated - 1
        if self.first_token is None or self.status >= 400 or more < 1 or self.answers > 1:
            return None
        return max(0.0, self.latency - self.first_token) / more


@dataclass(frozen=True)
class Several:
    """How many answers a request asks for: `choices` for each of its prompts."""

    prompts: int = 1
    choices: int = 1

    @property
    def answers(self) -> int:
        return self.prompts * self.choices

    def __bool__(self) -> bool:
        return self.answers > 1


class Passed(Protocol):
    """What of a body was not fed."""

    size: int  # in bytes

    def take_last(self) -> list[bytes]:
        """Its last pieces, each told once."""


class Ends:
    """Keeps the beginning and the end of a body that is fed to it in pieces."""

    def __init__(self) -> None:
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._size = 0
        self._fed = 0  # bytes of the whole body
        self.passage: Passed | None = None

    def feed(self, chunk: bytes) -> None:
        passed = self.passage
        if passed is not None:
            self._keep_up(passed)
        if self._fed < HEAD and not (passed and passed.size):  # else this is not the beginning
            self._head += chunk[: HEAD - self._fed]
        self._fed += len(chunk)
        self._add(chunk)

    def _keep_up(self, passage: Passed) -> None:
        for chunk in passage.take_last():
            self._add(chunk)

    def _add(self, chunk: bytes) -> None:
        self._tail.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._tail[0]) >= TAIL:
            self._size -= len(self._tail.popleft())

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self._fed + (self.passage.size if self.passage else 0)

    @property
    def tail(self) -> bytes:
        if self.passage is not None:
            self._keep_up(self.passage)
        return b"".join(self._tail)[-TAIL:]

    def tokens(self) -> Tokens:
        return read_tokens(self._head, self.tail)


class Whole(Ends):
    """Keeps the whole body, up to a bound: several answers have to be counted in it."""

    def __init__(self, asked: Several) -> None:
        super().__init__()
        self._asked = asked
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        super().feed(chunk)
        if self.size <= WHOLE:
            self._pieces.append(chunk)

    def tokens(self) -> Tokens:
        if self.size > WHOLE:
            return _times(super().tokens(), self._asked)
        body = b"".join(self._pieces)
        told = _all(body, TIMINGS)
        if len(told) > 1:
            return _sum(told, self._asked)
        return _of_choices(super().tokens(), body, self._asked)


def _sum(told: list[dict[str, Any]], asked: Several) -> Tokens:
    """The sum of every choice's own timings; the choices of one prompt share the prompt."""
    cached = [_count(timings, "cache_n") for timings in told]
    prompt = sum(cached) + sum(_count(timings, "prompt_n") for timings in told)
    generated = sum(_count(timings, "predicted_n") for timings in told)
    shared = min(cached) if asked.prompts == 1 else sum(cached) // asked.choices
    drafted = sum(_count(timings, "draft_n") for timings in told)
    accepted = sum(_count(timings, "draft_n_accepted") for timings in told)
    seconds = sum(_seconds(timings, "predicted_ms") or 0.0 for timings in told)
    guesses = drafted, accepted
    return Tokens(prompt // asked.choices, shared, generated, *guesses, seconds=seconds)


def _of_choices(first: Tokens, body: bytes, asked: Several) -> Tokens:
    """An answer that comes whole counts the first choice only. Others that ended at the same limit
    are as long; the rest is estimated from the length of its text."""
    try:
        choices = json.loads(body)["choices"]
        said = [(choice["finish_reason"], _text(choice)) for choice in choices]
    except (ValueError, KeyError, TypeError, RecursionError):
        return first if not first.generated else _times(first, asked)
    if not said:
        return first
    (end, text), *others = said
    generated = first.generated
    for its_end, its_text in others:
        full = its_end == end == "length"
        share = 1.0 if full else len(its_text) / max(1, len(text))
        generated += round(first.generated * share)
    return _of(first, asked, generated)


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message") or {}
    parts = (choice.get("text"), message.get("content"), message.get("reasoning_content"))
    calls = message.get("tool_calls")
    return "".join(part or "" for part in parts) + (json.dumps(calls) if calls else "")


def _times(first: Tokens, asked: Several) -> Tokens:
    return _of(first, asked, first.generated * asked.answers)


def _of(first: Tokens, asked: Several, generated: int) -> Tokens:
    """All choices, by the first one: of guesses, only its own are told, and of the time."""
    prompt, cached = first.prompt * asked.prompts, first.cached * asked.prompts
    return replace(first, prompt=prompt, cached=cached, generated=generated, seconds=0.0)


def read_tokens(head: bytes, tail: bytes) -> Tokens:
    timings = _last(tail, TIMINGS)
    if timings:
        cached = _count(timings, "cache_n")
        prompt = cached + _count(timings, "prompt_n")
        guesses = _count(timings, "draft_n"), _count(timings, "draft_n_accepted")
        generated, spent = _count(timings, "predicted_n"), _seconds(timings, "predicted_ms") or 0.0
        prefill = _seconds(timings, "prompt_ms")
        return Tokens(prompt, cached, generated, *guesses, prefill=prefill, seconds=spent)
    ended, begun = _last(tail, USAGE), _first(head, USAGE)
    generated = _count(ended, "completion_tokens", "output_tokens")
    # Anthropic's input_tokens leave out what came from the cache; a stream tells of it in
    # message_start.
    for told in (ended, begun):
        if CACHE_READ in told:
            cached = _count(told, CACHE_READ)
            return Tokens(cached + _count(told, "input_tokens"), cached, generated)
    details = ended.get("prompt_tokens_details") or ended.get("input_tokens_details") or {}
    prompt = _count(ended, "prompt_tokens", "input_tokens") or _count(begun, "prompt_tokens")
    return Tokens(prompt, _count(details, "cached_tokens"), generated)


def _first(text: bytes, key: bytes) -> dict[str, Any]:
    """The object behind the first `key` in `text`, or {}."""
    return _object(text.partition(key)[2])


def _last(text: bytes, key: bytes) -> dict[str, Any]:
    """The object behind the last `key` in `text`, or {}."""
    position = text.rfind(key)
    return _object(text[position + len(key) :]) if position >= 0 else {}


def _all(text: bytes, key: bytes) -> list[dict[str, Any]]:
    """The objects behind every `key` in `text`."""
    return [found for rest in text.split(key)[1:] if (found := _object(rest))]


def _object(text: bytes) -> dict[str, Any]:
    """The object that `text` begins with, or {}."""
    rest = text.decode(errors="replace").lstrip()
    try:
        found, _ = DECODER.raw_decode(rest)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(timings: dict[str, Any], key: str) -> float | None:
    spent = timings.get(key)
    return spent / 1000 if isinstance(spent, int | float) and spent >= 0 else None


def _count(counts: Any, *keys: str) -> int:
    """The first of these counts that is there."""
    for key in keys:
        value = counts.get(key) if isinstance(counts, dict) else None
        if isinstance(value, int) and value >= 0:
            return value
    return 0
