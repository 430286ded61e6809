"""How late events come and how long large bodies take, beside nginx. Wants an idle machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import uvloop

from scripts.bench.fronts import load, peers
from scripts.bench.fronts.bench import Bench, Found, Row, row
from scripts.bench.fronts.cpu import ours
from scripts.bench.fronts.load import percentile
from scripts.bench.fronts.peers import Make, Peer

MB = 1_000_000


def against(bench: Bench) -> dict[str, Make]:
    return ours(bench) | {"nginx": peers.nginx}


def streams(bench: Bench) -> Iterator[Row]:
    count, events = bench.size(1000, 20), bench.size(30, 3)
    firsts: Found = {}

    def measure(peer: Peer) -> float:
        wish = load.request(peer.prefix, f"{events}x100")
        found = uvloop.run(load.streams(peer.port, wish, count))
        name = "classes" if peer.prefix else "nginx"
        firsts.setdefault(name, []).append(percentile([s.first for s in found], 0.5))
        return percentile([late for s in found for late in s.late[2:]], 0.99)

    found = bench.compare(against(bench), measure)
    what = f"{count:,} streams × 10/s: how late events come, p99"
    yield row(what, found, "ms", "≤ 1.2 × nginx", ours="classes", ratio_to="nginx")
    what = "the same: first byte at the opening, p50"
    yield row(what, firsts, "ms", "≤ 1.3 × nginx", ours="classes", ratio_to="nginx")


def bodies(bench: Bench) -> Iterator[Row]:
    for size in (MB // 10,) if bench.small else (MB, 10 * MB):
        each = bench.size(20 if size == MB else 5, 1)

        def measure(peer: Peer, size: int = size, each: int = each) -> float:
            asked = load.many(peer.port, load.request(peer.prefix, size=size), 1, each)
            return percentile(uvloop.run(asked), 0.5)

        found = bench.compare(against(bench), measure)
        what = f"a JSON body of {size / MB:g} MB, until the answer"
        yield row(what, found, "ms", "≤ 1.3 × nginx", ours="classes", ratio_to="nginx")


def gaps(bench: Bench) -> Iterator[Row]:
    events, size = bench.size(300, 10), bench.size(10 * MB, MB // 10)

    def measure(peer: Peer) -> float:
        return uvloop.run(beside_large(peer, events, size))

    found = bench.compare(against(bench), measure)
    what = "another stream beside bodies and answers of 10 MB: how late its events come, p99"
    yield row(what, found, "ms", "≤ 10 ms", ours="classes", ratio_to="nginx")


async def beside_large(peer: Peer, events: int, size: int) -> float:
    async def large(data: bytes) -> None:
        reader = await load.connect(peer.port)
        try:
            while True:
                await reader.ask(data)
        finally:
            reader.transport.close()

    wishes = [load.request(peer.prefix, size=size), load.request(peer.prefix, f"size{size}")]
    others = [asyncio.create_task(large(data)) for data in wishes]
    await asyncio.sleep(0.2)
    (stream,) = await load.streams(peer.port, load.request(peer.prefix, f"{events}x10"), 1)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return percentile(stream.late, 0.99)
