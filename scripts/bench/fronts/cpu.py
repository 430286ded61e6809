"""What a relayed chunk and a small request cost, in CPU time of the relaying process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import uvloop

from scripts.bench.fronts import load, peers
from scripts.bench.fronts.bench import Bench, Row, row
from scripts.bench.fronts.peers import OTHERS, Make, Peer


def chunks(bench: Bench) -> Iterator[Row]:
    streams, events = bench.size(128, 4), bench.size(300, 10)

    def measure(peer: Peer) -> float:
        before = peer.cpu()
        wish = load.request(peer.prefix, f"{events}x10")
        came = sum(s.events for s in uvloop.run(load.streams(peer.port, wish, streams)))
        assert came == streams * events, f"{came} of {streams * events} events came"
        return (peer.cpu() - before) / came

    found = bench.compare(ours(bench) | OTHERS, measure)
    what = f"CPU per relayed chunk, {streams} streams × 100/s"
    yield row(what, found, "µs", "≤ 1.45 × nginx", ours="classes", ratio_to="nginx")


def requests(bench: Bench) -> Iterator[Row]:
    connections, each = bench.size(32, 4), bench.size(200, 5)

    def measure(peer: Peer) -> float:
        before = peer.cpu()
        uvloop.run(load.many(peer.port, load.request(peer.prefix), connections, each))
        return (peer.cpu() - before) / (connections * each)

    found = bench.compare({"app": peers.app} | ours(bench) | OTHERS, measure)
    if "app" not in found:
        return
    what = f"CPU per small request, {connections} connections, whole app"
    yield row(what, found, "µs", "≤ 0.9 × aiohttp", ours="app", ratio_to="aiohttp")
    alone = {name: found[name] for name in ("app", "classes")}
    what = "the same, of the gateway's classes alone"
    yield row(what, alone, "µs", "≤ 1.08", ours="app", ratio_to="classes")


def ours(bench: Bench) -> dict[str, Make]:
    found: dict[str, Make] = {"classes": peers.classes}
    if bench.beside:
        found["beside"] = partial(peers.classes, checkout=bench.beside)
    return found
