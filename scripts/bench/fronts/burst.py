"""Asks for many streams at once, again and again, until it is ended: `burst.py PORT PREFIX COUNT`.
A process of its own, as `heavy.py` is."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from scripts.bench.fronts import load

PAUSE = 0.3  # seconds between two bursts


async def main(port: int, prefix: str, count: int) -> None:
    while True:
        await load.streams(port, load.request(prefix, "5x100"), count)
        await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
