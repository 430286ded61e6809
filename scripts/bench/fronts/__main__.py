"""The front's table: what it costs and how late it is, beside nginx, HAProxy, llama-swap, a proxy
on aiohttp and llama-server's router, in one run (ABBA order; ratios of medians).

CPU time is that of the relaying process alone, so a busy machine disturbs it little. The latencies
want an idle machine. "classes" are the gateway's classes without the app around them, "app" is the
whole app; both before a stub of llama-server.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.bench.fronts import cpu, latency, machine, peers, resting, tokens, waiting
from scripts.bench.fronts.bench import Bench, Row

ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "chunk": cpu.chunks,
    "request": cpu.requests,
    "streams": latency.streams,
    "body": latency.bodies,
    "gap": latency.gaps,
    "waiting": waiting.waiting,
    "tokens": tokens.tokens,
    "idle": resting.resting,
}
HEADINGS = Row("what", "ours", "others", "ratio", "target")


def line(row: Row) -> str:
    return f"| {row.what} | {row.ours} | {row.others} | {row.ratio} | {row.target} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench/front", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--rounds", type=int, default=3, help="of ABBA")
    parser.add_argument("--small", action="store_true", help="all rows in a few seconds, for tests")
    parser.add_argument("--beside", type=Path, help="another checkout of ours, in the same run")
    options = parser.parse_args()
    print(machine.describe(), flush=True)
    print(f"\n{line(HEADINGS)}\n| --- | --- | --- | --- | --- |", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        bench = Bench(Path(name), options.rounds, options.small, options.beside)
        with peers.upstream(bench.folder):
            for wanted in options.only:
                for row in ROWS[wanted](bench):
                    print(line(row), flush=True)
    for missing in sorted(bench.missing):
        print(f"\nleft out, for it is not here: {missing}")
    print(f"\nin {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
