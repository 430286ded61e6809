"""Many conversations that grow, several turns at a time: what of their prompts was cached, and how
long their first tokens took."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.models.tiny_writer import WORDS
from scripts.bench.fronts.load import percentile
from tests.end_to_end.test_fleet import KEY

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Size:
    """Of what is asked; lengths in words, of about five tokens each."""

    conversations: int = 32
    turns: int = 8
    at_once: int = 4
    system: int = 80
    question: int = 60
    answer: int = 16


@dataclass
class Found:
    """Tokens of all prompts, those of them that were cached, and seconds to each first token."""

    prompt: int = 0
    cached: int = 0
    firsts: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.cached / max(1, self.prompt)

    def __str__(self) -> str:
        p50, p95 = (1000 * percentile(self.firsts, share) for share in (0.5, 0.95))
        told = f"{self.share:.1%} of {self.prompt} prompt tokens cached"
        return f"{told}, first token p50 {p50:.0f} ms, p95 {p95:.0f} ms"


async def converse(urls: Sequence[str], size: Size, name: str) -> Found:
    """All turns, in an order of their own each time; the addresses take turns. `name` makes these
    conversations unlike all others."""
    dice, found, following = random.Random(name), Found(), itertools.cycle(urls)
    system = {"role": "system", "content": words(dice, size.system)}
    chats = [[system] for _ in range(size.conversations)]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(timeout=600, headers=headers) as http:
        for _ in range(size.turns):
            dice.shuffle(chats)
            for chat in chats:
                chat.append({"role": "user", "content": words(dice, size.question)})
            left = iter(chats)

            async def caller(left: Iterator[list[dict[str, str]]] = left) -> None:
                for chat in left:
                    text = await turn(http, next(following), chat, size.answer, found)
                    chat.append({"role": "assistant", "content": text})

            await asyncio.gather(*(caller() for _ in range(size.at_once)))
    return found


async def turn(
    http: httpx.AsyncClient, url: str, chat: list[dict[str, str]], limit: int, found: Found
) -> str:
    """One answer's text."""
    body = {"model": "tiny", "messages": chat, "max_tokens": limit, "stream": True}
    begun, text, first = time.monotonic(), "", None
    async with http.stream("POST", url + CHAT, json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{url}: {answer.status_code} {await answer.aread()!r}")
        async for line in answer.aiter_lines():
            event = read(line)
            for choice in event.get("choices", ()):
                text += choice["delta"].get("content") or ""
            if text and first is None:
                first = time.monotonic() - begun
                found.firsts.append(first)
            if timings := event.get("timings"):
                last = timings
    found.cached += last["cache_n"]
    found.prompt += last["cache_n"] + last["prompt_n"]
    return text


def read(line: str) -> dict[str, Any]:
    """An event of a stream; nothing where the line is none."""
    data = line.removeprefix("data: ")
    return json.loads(data) if data != line and data != "[DONE]" else {}


def words(dice: random.Random, count: int) -> str:
    return " ".join(dice.choices(WORDS, k=count))
