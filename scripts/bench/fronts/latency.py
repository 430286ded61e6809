"""How late events come and how long large bodies take, beside nginx. Wants an idle machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import uvloop

from scripts.bench.fronts import load, peers
from scripts.bench.fronts.bench import Bench, Found, Row, row
from scripts.bench.fronts.cpu import ours
from scripts.bench.fronts.load import percentile
from scripts.bench.fronts.peers import ROOT, Make, Peer

MB = 1_000_000
BEGUN = 1.0  # seconds after which the other process's requests are under way


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
    found = beside(bench, "heavy", bench.size(10 * MB, MB // 10))
    what = "another stream beside bodies and answers of 10 MB: how late its events come, p99"
    yield row(what, found, "ms", "≤ 10 ms", ours="classes", ratio_to="nginx")
    count = bench.size(900, 20)
    found = beside(bench, "burst", count)
    what = f"another stream beside {count} that begin at once: how late its events come, p99"
    yield row(what, found, "ms", "≤ 2 × nginx", ours="classes", ratio_to="nginx")


def beside(bench: Bench, load_of: str, size: int) -> Found:
    """How late the events of one stream come, p99, beside what another process asks for."""
    events = bench.size(300, 10)

    def measure(peer: Peer) -> float:
        command = [sys.executable, "-m", f"scripts.bench.fronts.{load_of}", str(peer.port)]
        with subprocess.Popen([*command, peer.prefix, str(size)], cwd=ROOT) as other:
            try:
                time.sleep(BEGUN)
                asked = load.streams(peer.port, load.request(peer.prefix, f"{events}x10"), 1)
                (stream,) = uvloop.run(asked)
                assert other.poll() is None, f"{load_of} has ended: there was nothing beside it"
            finally:
                other.kill()
        return percentile(stream.late, 0.99)

    return bench.compare(against(bench), measure)
