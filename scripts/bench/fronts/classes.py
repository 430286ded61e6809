"""Our gateway's classes alone, without the app around them: `classes.py CHECKOUT SOCKET PORT`.

Besides `bench`, which is always in memory, there is a model `asleep`: it comes into memory when
this process gets SIGUSR1.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from types import SimpleNamespace

import uvloop

sys.path.insert(0, sys.argv[1])

from app.engine.http import Address, Client  # noqa: E402
from app.gateway.admission import Keys  # noqa: E402
from app.gateway.body.reading import Reading  # noqa: E402
from app.gateway.body.sizes import MOST, allowance  # noqa: E402
from app.gateway.body.workers import Workers  # noqa: E402
from app.gateway.http.server import HttpServer  # noqa: E402
from app.gateway.passing import OfPool  # noqa: E402
from app.gateway.proxy import Proxy  # noqa: E402
from app.gateway.rules import Rules  # noqa: E402
from app.machine import garbage  # noqa: E402
from app.memory.ledger import Model, Tier  # noqa: E402
from app.memory.pool import Pool  # noqa: E402


class Running:
    """A server that is up once `awake` is set."""

    progress = template = None
    stages = SimpleNamespace(seconds={})  # no import: it also runs checkouts that have none

    def __init__(self, awake: asyncio.Event) -> None:
        self.awake = awake

    async def start(self) -> Tier:
        await self.awake.wait()
        return Tier.DISK

    async def stop(self) -> None: ...

    async def exited(self) -> int:
        await asyncio.get_running_loop().create_future()
        return 0

    def explain(self, code: int) -> str:
        return str(code)

    def expect(self) -> None: ...

    def parked_size(self) -> int:
        return 0

    async def measure(self) -> None: ...

    async def slots(self) -> None:
        return None

    def usage(self) -> dict[str, int]:
        return {}

    def took(self, sizes: object) -> None: ...


async def main(path: str, port: int) -> None:
    pool: Pool[Client] = Pool([Model("bench"), Model("asleep")], {"host": 1 << 40}, time.monotonic)
    awake, asleep = asyncio.Event(), asyncio.Event()
    awake.set()
    for name, event in (("bench", awake), ("asleep", asleep)):
        pool.provide(name, Running(event), Client(Address(path), "key"), {"host": 1})
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asleep.set)
    await pool.load("bench")
    workers = Workers()
    reading = Reading(workers, lambda name: allowance(None, limit=MOST), allow_remote=False)
    names, rules = {"bench": "bench", "asleep": "asleep"}, Rules(Keys([]))
    models = OfPool(pool, rules.wait_timeout, reading)
    proxy = Proxy(models, names, rules, {}, lambda sample: None, reading)
    await HttpServer(proxy).start("127.0.0.1", port)
    garbage.settle()
    await asyncio.get_running_loop().create_future()


uvloop.run(main(sys.argv[2], int(sys.argv[3])))
