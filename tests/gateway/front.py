"""A real front, pool and client; the child is scripted."""

import asyncio
import contextlib
import time
from functools import cached_property

from app.engine.http import Address, Client
from app.gateway.admission import Admins, Keys
from app.gateway.body.reading import Reading
from app.gateway.body.sizes import allowance
from app.gateway.body.workers import Workers
from app.gateway.pages import admin
from app.gateway.pages.status import pages
from app.gateway.passing import OfPool
from app.gateway.proxy import Proxy
from app.gateway.rules import Rules
from app.memory.ledger import Model, Tier
from app.memory.pool import Pool
from app.memory.stages import Stages
from app.telemetry.overview import Details, Overview, Phase
from tests.fakes import RawClient, body_of, reply, serving

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
EVENTS = CHUNKED + b"content-type: text/event-stream\r\n\r\n"
TOKEN = "the-token"


class Running:
    """A server that is always up."""

    progress = None

    def __init__(self):
        self.shown = None  # by its slots
        self.ended = asyncio.get_running_loop().create_future()
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def start(self):
        await self.may_start.wait()
        return Tier.DISK

    async def measure(self):
        pass

    def usage(self):
        return {}

    template = None

    @cached_property
    def stages(self):
        return Stages()

    async def slots(self):
        return self.shown

    def parked_size(self):
        return 0

    def expect(self):
        pass

    def forget(self):
        pass

    async def leave(self):
        return Tier.DISK

    async def stop(self):
        if not self.ended.done():
            self.ended.set_result(0)

    async def exited(self):
        return await asyncio.shield(self.ended)

    def explain(self, code):
        return f"ended with {code}"


class Front:
    """A front before one child for every named model."""

    def __init__(self, names, limit=None, rules=None, aside=None, room=None, seats=None):
        self.seats = seats or (lambda: None)
        self.names, self.samples, self.servers = names, [], {}
        self.pool = Pool([Model(n, limit=limit) for n in names], {"d": 1}, time.monotonic)
        overview = Overview(
            "0",
            {name: Details() for name in names},
            idle_limit=None,
            active_for=60,
            devices=lambda: [],
            view=self.pool.view,
            host=lambda: (1, 2),
            phase=Phase.SERVING,
        )
        rules = rules or Rules(Keys([]))
        ours = pages(overview, rules.keys) | admin.pages(self.pool, Admins(rules.keys, TOKEN))
        self.workers = Workers()
        self.allow = lambda name: allowance(None)
        self.reading = Reading(
            aside or self.workers,
            lambda name: self.allow(name),
            allow_remote=rules.allow_remote_media,
            room=room,
        )
        models = OfPool(self.pool, rules.wait_timeout, self.reading)
        self.proxy = Proxy(models, overview.names, rules, ours, self.samples.append, self.reading)

    @contextlib.asynccontextmanager
    async def before(self, socket):
        client = Client(Address(str(socket)), "child-key")
        for name in self.names:
            self.servers[name] = Running()
            self.pool.provide(name, self.servers[name], client, {}, self.seats())
        async with serving(self.proxy) as self.port:
            yield
        await self.pool.close()
        await self.workers.close()
        client.close()

    async def ask(self, path="/tiny/v1/completions", body=b"{}", **options):
        client = await self.begin(path, body, **options)
        return await client.response()

    async def begin(
        self, path="/tiny/v1/completions", body=b"{}", headers=b"", host="127.0.0.1", version="1.1"
    ):
        client = await RawClient.to(self.port)
        await client.send(head(path, headers, host, len(body), version=version) + body)
        return client

    async def look(self, path, headers=b"", host="127.0.0.1", method="GET"):
        client = await RawClient.to(self.port)
        await client.send(head(path, headers, host, method=method))
        return await client.response()


def head(path, headers=b"", host="localhost", length=0, method="POST", version="1.1"):
    line = f"{method} {path} HTTP/{version}\r\nhost: {host}\r\ncontent-length: {length}\r\n"
    return line.encode() + headers + b"\r\n"


async def echo(reader, writer, head):
    writer.write(reply(await body_of(reader, head)))


async def answering(reader, writer, head):
    await body_of(reader, head)
    writer.write(EVENTS + b"9\r\ndata: a\n\n\r\n0\r\n\r\n")
