"""500 callers wait for a model that sleeps: what it costs the callers of another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import uvloop

from scripts.bench.fronts import load, peers
from scripts.bench.fronts.bench import Bench, Found, Row, row
from scripts.bench.fronts.peers import Peer


def waiting(bench: Bench) -> Iterator[Row]:
    callers, each = bench.size(500, 10), bench.size(200, 5)
    costs: Found = {"without them": [], "waiting": []}
    gaps: Found = {"classes": []}
    for _ in range(bench.turns):
        with peers.classes(bench.folder) as peer:
            uvloop.run(one(peer, callers, each, costs, gaps))
    what = f"{callers} callers wait for a sleeping model: CPU per request for a resident one"
    yield row(what, costs, "µs", "≤ 1.1", ours="waiting", ratio_to="without them")
    what = "the same: the longest gap of the resident model's stream as they are granted"
    yield row(what, gaps, "ms", "≤ 10 ms", ours="classes", ratio_to="")


async def one(peer: Peer, callers: int, each: int, costs: Found, gaps: Found) -> None:
    async def cost() -> float:
        before = peer.cpu()
        asked = await load.many(peer.port, load.request(peer.prefix), 8, each)
        return (peer.cpu() - before) / len(asked)

    await cost()
    costs["without them"].append(await cost())
    asleep = load.request("/asleep", model="asleep")
    readers = [await load.connect(peer.port) for _ in range(callers)]
    crowd = [asyncio.create_task(reader.ask(asleep)) for reader in readers]
    await asyncio.sleep(0.5)
    costs["waiting"].append(await cost())
    stream = asyncio.create_task(load.streams(peer.port, load.request(peer.prefix, "100x10"), 1))
    await asyncio.sleep(0.3)
    peer.wake()
    await asyncio.gather(*crowd)
    ((told,),) = await asyncio.gather(stream)
    gaps["classes"].append(max(told.late[5:]))
    for reader in readers:
        reader.transport.close()
