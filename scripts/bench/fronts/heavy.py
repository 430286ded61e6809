"""Sends large bodies and asks for large answers until it is ended: `heavy.py PORT PREFIX SIZE`. A
process of its own, so that it does not hold up the client whose events are timed."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from scripts.bench.fronts import load


async def main(port: int, prefix: str, size: int) -> None:
    async def repeat(data: bytes) -> None:
        reader = await load.connect(port)
        while True:
            await reader.ask(data)

    wishes = load.request(prefix, size=size), load.request(prefix, f"size{size}")
    await asyncio.gather(*map(repeat, wishes))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
