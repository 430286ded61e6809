"""Many callers of one model whose slots share a KV cache: through the app, and beside it the same
llama-server asked directly, in turns. Prints what failed, tokens per second, and how long an
interactive caller waits beside a batch."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.models import tiny_writer
from scripts.bench.fronts.machine import describe
from scripts.bench.fronts.peers import ROOT, serving

CONTEXT, SLOTS, CALLERS = 4096, 4, 16
CHAT = "/v1/chat/completions"
Job = tuple[str, dict[str, Any]]


@dataclass
class Found:
    """What one peer has done."""

    failed: int = 0
    refused: int = 0  # prompts longer than the context
    served: int = 0
    tokens: int = 0
    seconds: float = 0.0
    waits: dict[str, list[float]] = field(default_factory=lambda: {"batch": [], "person": []})


def drawn(dice: random.Random) -> Job:
    """A prompt of any length, with any limit or none; a letter is a token."""
    size = dice.choice([5, 60, 300, 1200, 2500, 4300])
    limit = dice.choice([None, 1, 30, 300, 700])
    body: dict[str, Any] = {} if limit is None else {"max_tokens": limit}
    if dice.random() < 0.5:
        return "/v1/completions", {**body, "prompt": "a" * size}
    return CHAT, {**body, "messages": [{"role": "user", "content": "a" * size}]}


async def mixed(http: httpx.AsyncClient, jobs: list[Job], found: Found) -> None:
    left = iter(jobs)

    async def caller(number: int) -> None:
        for path, body in left:
            answer = await http.post(path, json=body, headers={"session": f"caller {number}"})
            if answer.status_code == 200:
                found.served += 1
                found.tokens += answer.json()["usage"]["completion_tokens"]
            elif answer.status_code == 400 and "context" in answer.text:
                found.refused += 1
            else:
                found.failed += 1

    begun = time.monotonic()
    await asyncio.gather(*map(caller, range(CALLERS)))
    found.seconds += time.monotonic() - begun


async def beside_a_batch(http: httpx.AsyncClient, requests: int, found: Found) -> None:
    """A batch of requests at once, and a person who asks again and again."""
    body = {"messages": [{"role": "user", "content": "a" * 20}], "max_tokens": 60, "stream": True}

    async def ask(session: str) -> None:
        begun, first = time.monotonic(), None
        async with http.stream("POST", CHAT, json=body, headers={"session": session}) as answer:
            async for line in answer.aiter_lines():
                if first is None and line.startswith("data:"):
                    first = time.monotonic() - begun
                    found.waits[session].append(first)

    batch = [asyncio.create_task(ask("batch")) for _ in range(requests)]
    await asyncio.sleep(0.1)
    while not all(task.done() for task in batch):
        await ask("person")
        await asyncio.sleep(0.05)
    await asyncio.gather(*batch)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def lines(app: Found, direct: Found, rounds: list[tuple[float, float]]) -> Iterator[str]:
    for name, found in (("app", app), ("directly", direct)):
        total = found.served + found.refused + found.failed
        yield (
            f"{name}: {found.failed} of {total} failed, {found.refused} prompts were too long; "
            f"{found.tokens / found.seconds:.0f} tokens/s of answers that were served"
        )
    ratios = [ours / theirs for ours, theirs in rounds if theirs]
    yield f"tokens per second, app / directly: median {statistics.median(ratios):.3f} of {ratios}"
    for session in ("person", "batch"):
        for name, found in (("app", app), ("directly", direct)):
            waits = found.waits[session]
            yield (
                f"{session}, {name}: first token p50 {1000 * quantile(waits, 0.5):.0f} ms, "
                f"p95 {1000 * quantile(waits, 0.95):.0f} ms"
            )


async def measure(peers: dict[str, httpx.AsyncClient], options: argparse.Namespace) -> None:
    dice = random.Random(options.seed)
    found = {name: Found() for name in peers}
    rounds = []
    for number in range(options.rounds):
        jobs = [drawn(dice) for _ in range(options.requests)]
        rates = {}
        for name in sorted(peers, reverse=bool(number % 2)):
            before = found[name].tokens, found[name].seconds
            await mixed(peers[name], jobs, found[name])
            took = found[name].seconds - before[1]
            rates[name] = (found[name].tokens - before[0]) / took
            await beside_a_batch(peers[name], options.batch, found[name])
        rounds.append((rates["app"], rates["direct"]))
    for line in lines(found["app"], found["direct"], rounds):
        print(line)


async def compare(port: int, socket: str, key: str, options: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits) as app,
        httpx.AsyncClient(
            base_url="http://llama-server",
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=limits),
            headers={"authorization": f"Bearer {key}"},
            timeout=600,
        ) as direct,
    ):
        await measure({"app": app, "direct": direct}, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=160, help="of each round")
    parser.add_argument("--batch", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.small:
        options.rounds, options.requests, options.batch = 1, 16, 12
    print(describe(), f"seed {options.seed}", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "callers.gguf"
        tiny_writer.write(path, context=CONTEXT)
        listed = [{"model": str(path), "endpoint_name": "a", "parallel": SLOTS}]
        sets = ["--set", f"General/models={json.dumps(listed)}"]
        with serving(Path(folder), ROOT, sets) as app:
            (child,) = app.process.children()
            line = child.cmdline()
            where, key = line[line.index("--host") + 1], child.environ()["LLAMA_API_KEY"]
            asyncio.run(compare(app.port, where, key, options))


if __name__ == "__main__":
    main()
