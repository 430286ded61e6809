"""Has llama-server count the tokens of a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence

from app.engine.exchange import Waits
from app.engine.http import Client
from app.gateway.body.asked import prompts_in
from app.gateway.demand import TOKENIZE, Kind
from app.machine import threads

SHORT = 128 << 10  # bytes that are read between two turns of the loop
PATIENCE = 180.0  # seconds: longer than a llama-server that sleeps is borne (`stuck.Patience`)


async def count(upstream: Client, kind: Kind, pieces: Sequence[bytes], prompts: int) -> int | None:
    """The tokens of the prompt in a body, which llama-server counts; of a list of prompts those of
    the longest, as many as are worked at together. None if nobody can say. Raises UpstreamError."""
    if kind.counted != TOKENIZE:
        return await _told(upstream, kind.counted, pieces)
    body = b"".join(pieces)
    short = len(body) <= SHORT
    texts = _texts(body, kind, prompts) if short else await threads.run(_texts, body, kind, prompts)
    if texts is None:
        return None
    reply = await upstream.post_json(TOKENIZE, [texts], PATIENCE, Waits.ASIDE)
    return reply.body.count(b",") + 1 if reply.status == 200 else None


async def _told(upstream: Client, path: str, pieces: Sequence[bytes]) -> int | None:
    reply = await upstream.post_json(path, pieces, PATIENCE, Waits.ASIDE)
    try:  # an error it will say once more, when it gets the request itself
        told = reply.json()["input_tokens"] if reply.status == 200 else None
    except (ValueError, KeyError, TypeError):
        return None
    return told if isinstance(told, int) else None


def _texts(body: bytes, kind: Kind, prompts: int) -> bytes | None:
    """What /tokenize is to be asked for the longest prompts in a body; None if one is neither text
    nor token numbers."""
    fields = json.loads(body)
    found = [_parts(p) for name in kind.texts if name in fields for p in prompts_in(fields[name])]
    parts = sorted((each for each in found if each), key=_size, reverse=True)
    if not parts or len(parts) < len(found):
        return None
    texts = [part for prompt in parts[: max(1, prompts)] for part in prompt]
    return json.dumps({"content": texts, "add_special": True}).encode()


def _parts(prompt: object) -> list[str | int]:
    """Its texts and token numbers; none if there is anything else in it."""
    parts = prompt if isinstance(prompt, list) else [prompt]
    known = [part for part in parts if isinstance(part, str | int)]
    return known if len(known) == len(parts) else []


def _size(prompt: list[str | int]) -> int:
    return sum(len(part) if isinstance(part, str) else 1 for part in prompt)
