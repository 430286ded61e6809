"""What one finished request used, read from the ends of its answer. Pure.

llama-server puts `timings` or `usage` near the end of an answer (JSON, or the last events of a
stream), and for embeddings and Anthropic's message_start near its beginning. Inside a JSON string
a quote is escaped, so the bytes `"usage":{` are never a model's words.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

HEAD = 4 * 1024  # bytes kept of an answer's beginning
TAIL = 16 * 1024  # and of its end


@dataclass(frozen=True)
class Tokens:
    prompt: int = 0  # cached ones included
    cached: int = 0
    generated: int = 0


@dataclass(frozen=True)
class Sample:
    """A finished request, times in seconds from its first byte: `latency` to our last byte,
    `first_token` to the first event of a stream (None for an answer that comes whole), `wait`
    until it held its model (None where it never did).

    `status` is what the client was told; 499 where it left before the end.
    """

    model: str
    status: int
    latency: float
    first_token: float | None
    tokens: Tokens
    wait: float | None = None


class Ends:
    """Keeps the beginning and the end of a body that passes by, in pieces as they come."""

    def __init__(self) -> None:
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        if len(self._head) < HEAD:
            self._head += chunk[: HEAD - len(self._head)]
        self._tail.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._tail[0]) >= TAIL:
            self._size -= len(self._tail.popleft())

    def tokens(self) -> Tokens:
        return read_tokens(self._head, b"".join(self._tail)[-TAIL:])


def read_tokens(head: bytes, tail: bytes) -> Tokens:
    timings = _last(tail, b'"timings":')
    if timings:
        cached = _count(timings, "cache_n")
        prompt = cached + _count(timings, "prompt_n")
        return Tokens(prompt, cached, _count(timings, "predicted_n"))
    begun, ended = _last(head, b'"usage":'), _last(tail, b'"usage":')
    details = ended.get("prompt_tokens_details") or {}
    cached = _count(begun, "cache_read_input_tokens") or _count(details, "cached_tokens")
    prompt = _count(ended, "prompt_tokens", "input_tokens")
    # Anthropic's input_tokens leaves out what came from the cache, and comes in message_start.
    prompt = prompt or _count(begun, "prompt_tokens") or cached + _count(begun, "input_tokens")
    return Tokens(prompt, cached, _count(ended, "completion_tokens", "output_tokens"))


def _last(text: bytes, key: bytes) -> dict[str, Any]:
    """The object behind the last `key` in `text`, or {}."""
    position = text.rfind(key)
    if position < 0:
        return {}
    rest = text[position + len(key) :].decode(errors="replace").lstrip()
    try:
        found, _ = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(counts: Any, *keys: str) -> int:
    """The first of these counts that is there."""
    for key in keys:
        value = counts.get(key) if isinstance(counts, dict) else None
        if isinstance(value, int) and value >= 0:
            return value
    return 0
