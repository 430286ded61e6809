"""A real front and its routes; the instances are scripted."""

import asyncio
import contextlib
import json

from app.fleet.config import Route
from app.fleet.listing import Listed
from app.fleet.routes import Routes
from app.gateway import trust
from app.gateway.admission import Keys
from app.gateway.body.reading import Reading
from app.gateway.body.sizes import allowance
from app.gateway.body.workers import Workers
from app.gateway.proxy import Proxy
from app.gateway.rules import Rules
from tests.fakes import RawClient, body_of, reply, serving

SECRET = "a secret of more than 16 characters"
ANSWER = reply(b'{"usage":{}}', extra=b"content-type: application/json\r\n")
DRAINING = reply(
    b'{"error":{"message":"the instance is stopping","type":"unavailable_error"}}', 503
)


class ScriptedInstance:
    """`answers`: what it sends to requests for models, one each, the last one to all others: bytes,
    or None to break the connection. `state` and `models` are its /api/status. `asked` are (method,
    target, headers) of all requests. `proves`: it has the secret."""

    def __init__(self, task, answers=(ANSWER,), slots=2, proves=True):
        self.task, self.answers, self.slots, self.proves = task, list(answers), slots, proves
        self.state, self.models, self.asked, self.kept = "active", {"m": "ready"}, [], []
        self.version = self.order = ""
        self.says = None  # to whatever it is asked
        self.machine = {}  # what /api/status tells besides
        self.silent = None  # an event, before which it answers nothing
        self.others = 0  # requests of other doors
        self.held = asyncio.Event()
        self.held.set()
        self._writers = set()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    async def stop(self):
        self._server.close()
        self.break_off()
        await self._server.wait_closed()

    def break_off(self):
        """All connections, as a machine that dies."""
        for writer in self._writers:
            writer.transport.abort()

    @property
    def listed(self):
        told = "in_progress", 0.0, self.address
        return Listed(self.task, self.task, "chat", *told, version=self.version, order=self.order)

    @property
    def requests(self):
        return [target for method, target, _ in self.asked if target.endswith("/completions")]

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.decode().split(" ", 2)
                body = await body_of(reader, head)
                self.asked.append((method, target, head.decode().lower()))
                answer = await self._answer(target, body)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def _answer(self, target, body):
        path, _, query = target.partition("?")
        if self.silent is not None:
            await self.silent.wait()
        if self.says is not None:
            return reply(self.says)
        if path == "/api/proof":
            nonce = query.removeprefix("nonce=")
            told = trust.proof(SECRET, nonce, self.task, self.address)
            return reply(json.dumps({"proof": told if self.proves else "0" * 64}).encode())
        if path == "/api/status":
            models = [
                {
                    "name": name,
                    "state": state,
                    "tier": "gpu",
                    "slots": self.slots,
                    "in_flight": self.others,
                    "queued": 0,
                }
                for name, state in self.models.items()
            ]
            told = {"status": self.state, "models": models, **self.machine}
            return reply(json.dumps(told).encode())
        if path == "/api/keep":
            self.kept.append(json.loads(body)["seconds"])
            return reply(b"{}")
        await self.held.wait()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Front:
    """`async with Front(instances) as front`: a door before them, which has looked at each."""

    def __init__(self, *instances, route=None, wait=5.0, secret=SECRET):
        self.instances, self.samples = instances, []
        self.routes = Routes(wait, secret)
        self.routes.configure([route or Route("chat", template="t", max=1)])
        self.state = self.routes.states["chat"]
        self.state.models = ("m",)
        self.routes.rename()

    async def __aenter__(self):
        for instance in self.instances:
            await instance.start()
        await self.look()
        self.workers = Workers()
        reading = Reading(self.workers, lambda _: allowance(None), allow_remote=True)
        self.routes.read_by(reading)
        self.proxy = Proxy(
            self.routes,
            self.routes.names,
            Rules(Keys([]), prefixes=["/service"]),
            {},
            self.samples.append,
            reading,
        )
        self._stack = contextlib.AsyncExitStack()
        self.port = await self._stack.enter_async_context(serving(self.proxy))
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()
        await self.workers.close()
        for member in self.state.members.values():
            member.close()
        for instance in self.instances:
            await instance.stop()

    async def look(self):
        """As the watch does."""
        self.routes.update([instance.listed for instance in self.instances])
        for member in self.state.members.values():
            await member.look()
        self.routes.rename()
        self.state.tell()

    def member(self, instance):
        return self.state.members[instance.task]

    async def ask(self, path="/v1/completions", body=b'{"model":"m"}', headers=b""):
        client = await self.begin(path, body, headers)
        return await client.response()

    async def begin(self, path="/v1/completions", body=b'{"model":"m"}', headers=b""):
        client = await RawClient.to(self.port)
        size = len(body)
        head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n%b\r\n"
        await client.send(head % (path.encode(), size, headers) + body)
        return client
