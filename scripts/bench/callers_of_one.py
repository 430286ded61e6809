"""Many callers of one model whose slots share a KV cache: through the app, and beside it the same
llama-server asked directly, in turns. Prints what failed, tokens per second, and how long an
interactive caller waits beside a batch. `--line`: what it costs that our line, and not
llama-server's, has the requests beyond its slots, on a model of 722 MB."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.models import tiny_writer
from scripts.bench.fronts.bench import Bench
from scripts.bench.fronts.machine import describe
from scripts.bench.fronts.peers import ROOT, serving
from scripts.bench.fronts.tokens import model

CONTEXT, SLOTS, CALLERS = 4096, 4, 16
LIMITS = (None, 1, 30, 300, 700)
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


def drawn(dice: random.Random, limits: Sequence[int | None]) -> Job:
    """A prompt of any length, with any limit or none; a letter is a token."""
    size = dice.choice([5, 60, 300, 1200, 2500, 4300])
    limit = dice.choice(limits)
    body: dict[str, Any] = {} if limit is None else {"max_tokens": limit}
    if dice.random() < 0.5:
        return "/v1/completions", {**body, "prompt": "a" * size}
    return CHAT, {**body, "messages": [{"role": "user", "content": "a" * size}]}


async def mixed(http: httpx.AsyncClient, jobs: list[Job], found: Found) -> None:
    left = iter(jobs)

    async def caller() -> None:
        for path, body in left:
            answer = await http.post(path, json=body)
            if answer.status_code == 200:
                found.served += 1
                found.tokens += answer.json()["usage"]["completion_tokens"]
            elif answer.status_code == 400 and "context" in answer.text:
                found.refused += 1
            else:
                found.failed += 1

    begun = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    found.seconds += time.monotonic() - begun


async def beside_a_batch(
    http: httpx.AsyncClient, own: httpx.AsyncClient, requests: int, found: Found
) -> None:
    """A batch of requests at once, and a person who asks again and again with a client of its
    `own`."""
    body = {"messages": [{"role": "user", "content": "a" * 20}], "max_tokens": 60, "stream": True}

    async def ask(who: str, http: httpx.AsyncClient) -> None:
        begun, first = time.monotonic(), None
        async with http.stream("POST", CHAT, json=body) as answer:
            async for line in answer.aiter_lines():
                if first is None and line.startswith("data:"):
                    first = time.monotonic() - begun
                    found.waits[who].append(first)

    batch = [asyncio.create_task(ask("batch", http)) for _ in range(requests)]
    await asyncio.sleep(0.05)
    await ask("person", own)
    while not all(task.done() for task in batch):
        await asyncio.sleep(0.05)
        await ask("person", own)
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
    found = {name: Found() for name in ("app", "direct")}
    rounds = []
    for number in range(options.rounds):
        limits = [1, 30] if options.small else LIMITS
        jobs = [drawn(dice, limits) for _ in range(options.requests)]
        rates = {}
        for name in sorted(found, reverse=bool(number % 2)):
            before = found[name].tokens, found[name].seconds
            await mixed(peers[name], jobs, found[name])
            took = found[name].seconds - before[1]
            rates[name] = (found[name].tokens - before[0]) / took
            own = peers.get(f"{name}, elsewhere", peers[name])
            await beside_a_batch(peers[name], own, options.batch, found[name])
        rounds.append((rates["app"], rates["direct"]))
    for line in lines(found["app"], found["direct"], rounds):
        print(line)


async def line(peers: dict[str, httpx.AsyncClient], options: argparse.Namespace) -> None:
    """Four times as many callers as slots, each with one request; the second arm of llama-server
    itself shows how far equal things differ."""
    body = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": options.tokens,
        "ignore_eos": True,
    }

    async def rate(http: httpx.AsyncClient) -> float:
        begun = time.monotonic()
        asks = (http.post(CHAT, json=body) for _ in range(4 * SLOTS))
        answers = await asyncio.gather(*asks)
        tokens = sum(answer.json()["usage"]["completion_tokens"] for answer in answers)
        return float(tokens) / (time.monotonic() - begun)

    arms = {"app": peers["app"], "directly": peers["direct"], "again": peers["direct"]}
    for http in arms.values():
        await rate(http)
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(options.rounds):
        order = list(arms)
        for name in order[number % 3 :] + order[: number % 3]:
            found[name].append(await rate(arms[name]))
    for name, rates in found.items():
        print(f"{name}: median {statistics.median(rates):.1f} tokens/s")
    for ours in ("app", "again"):
        ratios = [math.log(a / b) for a, b in zip(found[ours], found["directly"], strict=True)]
        half = 2.1 * statistics.stdev(ratios) / math.sqrt(len(ratios))  # t for 20 pairs, 95 %
        low, mean, high = (math.exp(statistics.mean(ratios) + x) for x in (-half, 0, half))
        print(f"{ours} / directly: {mean:.3f}, 95 % within {low:.3f} to {high:.3f}")


async def compare(port: int, socket: str, key: str, options: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=None)
    here = f"http://127.0.0.1:{port}"
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with (
        httpx.AsyncClient(base_url=here, timeout=600, limits=limits) as app,
        httpx.AsyncClient(base_url=here, timeout=600, transport=elsewhere) as person,
        httpx.AsyncClient(
            base_url="http://llama-server",
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=limits),
            headers={"authorization": f"Bearer {key}"},
            timeout=600,
        ) as direct,
    ):
        wanted = line if options.line else measure
        await wanted({"app": app, "app, elsewhere": person, "direct": direct}, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--line", action="store_true")
    parser.add_argument("--tokens", type=int, default=12, help="of each answer, with --line")
    parser.add_argument("--rounds", type=int, default=0, help="default: 6, with --line 20")
    parser.add_argument("--requests", type=int, default=160, help="of each round")
    parser.add_argument("--batch", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.rounds = options.rounds or (20 if options.line else 6)
    if options.small:
        options.requests, options.batch = 8, 4
        options.rounds = 3 if options.line else 1
    print(describe(), f"seed {options.seed}", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "callers.gguf"
        if options.line:
            path = model(Bench(Path(folder), small=options.small))
        else:
            tiny_writer.write(path, context=CONTEXT)
        listed = [{"model": str(path), "endpoint_name": "a", "parallel": SLOTS, "threads": 1}]
        sets = ["--set", f"General/models={json.dumps(listed)}"]
        with serving(Path(folder), ROOT, sets) as app:
            (child,) = app.process.children()
            line = child.cmdline()
            where, key = line[line.index("--host") + 1], child.environ()["LLAMA_API_KEY"]
            asyncio.run(compare(app.port, where, key, options))


if __name__ == "__main__":
    main()
