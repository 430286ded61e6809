"""What the door adds to a small request, and to each chunk of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import httpx
import psutil

from scripts.bench.fleets.chats import CHAT, read
from scripts.bench.fleets.machines import Machines, server_of
from scripts.bench.fronts.bench import in_turns, median
from scripts.bench.fronts.peers import cpu_seconds
from tests.end_to_end.agent import wait_for
from tests.end_to_end.test_fleet import KEY, get

STREAMS = 8
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


def measure(machines: Machines, requests: int, tokens: int, rounds: int) -> Iterator[str]:
    instance = machines.serve("chat", STREAMS, STREAMS * 4096, 16)
    door = machines.door(machines.routes(min=0, max=1))
    wait_for(lambda: get(door)["routes"][0]["serving"] == 1, lambda: door.output)
    socket, key = server_of(instance)
    transport = httpx.HTTPTransport(uds=socket)
    clients = {
        "llama-server": httpx.Client(transport=transport, base_url="http://x", headers=bearer(key)),
        "instance": httpx.Client(base_url=instance.url, headers=bearer(KEY)),
        "door": httpx.Client(base_url=door.url, headers=bearer(KEY)),
    }
    for client in clients.values():
        client.timeout = 60
        once(client)
    each = {name: partial(once, client) for name, client in clients.items()}
    found = {n: 1000 * median(values) for n, values in in_turns(each, requests).items()}
    for client in clients.values():
        client.close()
    yield "small request, median: " + ", ".join(f"{n} {ms:.2f} ms" for n, ms in found.items())
    by_instance = found["instance"] - found["llama-server"]
    by_door = found["door"] - found["instance"]
    yield f"added by the instance's front {by_instance:.2f} ms, by the door {by_door:.2f} ms"
    yield f"added, door / instance's front: {by_door / by_instance:.2f} (target ≤ 1.3)"
    processes = {n: psutil.Process(a.process.pid) for n, a in (("door", door), ("i", instance))}
    ratios = []
    for number in range(rounds):
        before = {name: cpu_seconds(process) for name, process in processes.items()}
        chunks = asyncio.run(streams(door.url, tokens))
        used = {n: (cpu_seconds(p) - before[n]) / chunks * 1e6 for n, p in processes.items()}
        ratios.append(used["door"] / used["i"])
        told = f"door {used['door']:.1f} µs, instance {used['i']:.1f} µs of {chunks} chunks"
        yield f"CPU per chunk, round {number + 1}: {told}"
    yield f"CPU per chunk, door / instance: {median(ratios):.2f} (target ≤ 1)"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def once(client: httpx.Client) -> float:
    begun = time.monotonic()
    client.post(CHAT, json={**BODY, "max_tokens": 1}).raise_for_status()
    return time.monotonic() - begun


async def streams(url: str, tokens: int) -> int:
    """How many chunks came."""
    body = {**BODY, "max_tokens": tokens, "stream": True}

    async def one(http: httpx.AsyncClient) -> int:
        async with http.stream("POST", url + CHAT, json=body) as answer:
            return len([line async for line in answer.aiter_lines() if read(line)])

    async with httpx.AsyncClient(timeout=600, headers=bearer(KEY)) as http:
        return sum(await asyncio.gather(*[one(http) for _ in range(STREAMS)]))
