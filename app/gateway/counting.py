"""Has llama-server count the tokens of a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from app.engine.http import Client
from app.gateway.body.asked import TEXTS
from app.gateway.demand import TOKENIZE
from app.machine import threads

SHORT = 128 << 10  # bytes that are parsed between two turns of the loop
PATIENCE = 60.0  # seconds


async def count(upstream: Client, path: str, pieces: Sequence[bytes], prompts: int) -> int | None:
    """The tokens of the prompt in a body, which llama-server counts at `path`; of a list of prompts
    those of the longest, as many as are worked at together. None if it does not say. Raises
    UpstreamError."""
    if path == TOKENIZE:
        body = b"".join(pieces)
        short = len(body) <= SHORT
        texts = longest(body, prompts) if short else await threads.run(longest, body, prompts)
        pieces = [json.dumps({"content": texts, "add_special": True}).encode()]
    reply = await upstream.post_json(path, pieces, PATIENCE)
    if reply.status != 200:
        return None  # it will say what is wrong when it gets the request itself
    if path == TOKENIZE:
        return reply.body.count(b",") + 1
    try:
        told = reply.json()["input_tokens"]
    except (ValueError, KeyError, TypeError):
        return None
    return told if isinstance(told, int) else None


def longest(body: bytes, prompts: int) -> list[str | int]:
    """Texts and token numbers of the longest prompts in a body."""
    fields = json.loads(body)
    found = [prompt for name in TEXTS if name in fields for prompt in _prompts(fields[name])]
    found.sort(key=_size, reverse=True)
    return [part for prompt in found[: max(1, prompts)] for part in prompt]


def _prompts(value: Any) -> Iterator[list[str | int]]:
    """A list of token numbers (with texts between them) is one prompt."""
    if isinstance(value, list) and not any(isinstance(part, int) for part in value):
        for part in value:
            yield from _prompts(part)
    else:
        parts = value if isinstance(value, list) else [value]
        yield [part for part in parts if isinstance(part, str | int)]


def _size(prompt: list[str | int]) -> int:
    return sum(len(part) if isinstance(part, str) else 1 for part in prompt)
