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


async def count(upstream: Client, path: str, pieces: Sequence[bytes]) -> int | None:
    """The tokens of the prompts in a body, which llama-server counts at `path`; None if it does not
    say. Raises UpstreamError."""
    if path == TOKENIZE:
        body = b"".join(pieces)
        short = len(body) <= SHORT
        pieces = [_texts(body) if short else await threads.run(_texts, body)]
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


def _texts(body: bytes) -> bytes:
    """A body for /tokenize with all texts of a body."""
    fields = json.loads(body)
    texts = [text for name in TEXTS if name in fields for text in _parts(fields[name])]
    return json.dumps({"content": texts, "add_special": True}).encode()


def _parts(value: Any) -> Iterator[str | int]:
    """Texts and token numbers, at any depth."""
    if isinstance(value, str | int):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _parts(part)
