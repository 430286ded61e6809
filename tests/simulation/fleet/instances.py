"""Agents that run tasks, and the instances that these are."""

import asyncio
import contextlib
import json
from urllib.parse import urlsplit

import httptools

from app.gateway import trust
from app.task.live import ADDRESS, ROUTE, belongs
from tests.clearml_api.state import ApiError
from tests.simulation.fleet import invariants

SECRET = "a secret of more than 16 characters"
POLL, PING = 3.0, 60.0  # seconds
IDLE_LIMIT = 60.0  # seconds without a request and without a door, until an instance ends


class Agent:
    """One machine: it takes a task from the queue, and runs it to its end."""

    def __init__(self, world, number):
        self.world, self.name = world, f"agent {number}"
        self.draw = world.draw(self.name)

    async def live(self):
        server = self.world.clearml
        server.state.workers[self.name] = {"queues": [server.queue], "reports": 0}
        while True:
            await asyncio.sleep(POLL * self.draw.uniform(0.5, 1.5))
            answer = await self._ask("queues.get_next_task", queue=server.queue)
            if answer and answer["entry"]:
                await self._run(answer["entry"]["task"])

    async def _run(self, task):
        if await self._ask("tasks.started", task=task) is None:
            return  # it was deleted meanwhile
        instance = Instance(self.world, task, self)
        self.world.instances[task] = instance
        end = await instance.live()
        if end is None:  # the machine is lost, for a while; nobody tells of the task
            return await asyncio.sleep(self.draw.uniform(10, 200))
        await self._ask(f"tasks.{end}", task=task, status_reason="the reason", force=True)

    async def _ask(self, call, **fields):
        """None if it is refused."""
        with contextlib.suppress(ApiError):
            return await self.world.clearml.patiently(call, fields, self.name)


class Instance:
    """`end` is what its agent tells of it: None if it was killed with its machine."""

    def __init__(self, world, task, agent):
        self.world, self.task, self.agent = world, task, agent
        self.draw = world.draw(f"instance {task}")
        self.slots = world.scene.slots
        self.state, self.in_flight, self.used = "setting up", 0, world.loop.time()
        self.kept = {}  # by door, until when
        self.connections = {}
        self.key = trust.key(SECRET, task)
        self.touched = False  # a fault has met it
        self.awake = asyncio.Event()
        self.awake.set()
        self.over = asyncio.Event()
        self.end = "completed"
        self.free = asyncio.Semaphore(self.slots)

    @property
    def here(self):
        return not self.over.is_set()

    async def live(self):
        """Until its end."""
        running = [self.world.task(self._come(), f"{self.task} comes")]
        running.append(self.world.task(self._ping(), f"{self.task} pings"))
        await self.over.wait()
        for task in running:
            task.cancel()
        return self.end

    async def _come(self):
        await asyncio.sleep(self.draw.uniform(2, 20) * self.world.start)
        if self.draw.random() < self.world.fails:
            self.touched = True
            return self._finish("failed")
        listener = await self.world.network.listen(lambda: Served(self), "", 0)
        self.port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        told = {ROUTE: belongs("chat", self.task), ADDRESS: self.address}
        change = {"task": self.task, "add_or_update": told}
        try:
            await self.world.clearml.patiently("tasks.edit_runtime", change, self.task)
            await asyncio.sleep(self.draw.uniform(0.5, 10))
            self.state, self.used = "active", self.world.loop.time()
            self.world.trace(f"{self.task} serves")
            await self._serve()
        finally:
            listener.close()

    async def _serve(self):
        """Until nobody has needed it for a while, and no door keeps it."""
        while True:
            await asyncio.sleep(1)
            now = self.world.loop.time()
            kept = any(until > now for until in self.kept.values())
            if not kept and not self.in_flight and now - self.used > IDLE_LIMIT:
                invariants.at_an_end(self.world, self)
                self.state = "stopping"
                await asyncio.sleep(1)
                while self.in_flight:
                    await asyncio.sleep(0.1)
                return self._finish("completed")

    async def _ping(self):
        while True:
            await asyncio.sleep(PING)
            with contextlib.suppress(OSError, ApiError):
                await self.world.clearml.act("tasks.ping", {"task": self.task}, self.task)

    def _finish(self, end):
        self.world.trace(f"{self.task} ends: {end}")
        self.end = end
        self.over.set()
        for connection in list(self.connections):
            connection.transport.abort()

    def kill(self, *, machine):
        self.touched = True
        self._finish(None if machine else "failed")


class Served(asyncio.Protocol):
    """One connection to an instance."""

    def __init__(self, instance):
        self.instance, self.transport = instance, None
        self._begin()

    def _begin(self):
        self._parser, self._body, self._headers = httptools.HttpRequestParser(self), b"", {}

    def connection_made(self, transport):
        self.transport = transport
        self.instance.connections[self] = None

    def connection_lost(self, error):
        self.instance.connections.pop(self, None)

    def eof_received(self):
        return False

    def pause_writing(self): ...

    def resume_writing(self): ...

    def data_received(self, data):
        self._parser.feed_data(data)

    def on_url(self, url):
        self._url = url.decode()

    def on_header(self, name, value):
        self._headers[name.lower()] = value

    def on_body(self, body):
        self._body += body

    def on_message_complete(self):
        given = self._parser.get_method().decode(), self._url, self._headers, self._body
        self._begin()
        self.instance.world.task(self._answer(*given), f"{self.instance.task} answers")

    async def _answer(self, method, url, headers, body):
        instance, parts = self.instance, urlsplit(url)
        await instance.awake.wait()
        if parts.path == "/api/proof":
            nonce = parts.query.removeprefix("nonce=")
            proof = trust.proof(SECRET, nonce, instance.task, instance.address)
            return self._tell(200, {"proof": proof})
        if headers.get(b"authorization") != f"Bearer {instance.key}".encode():
            instance.world.violated(f"{instance.task} gets {url} with another key")
        if parts.path == "/api/keep":
            told = json.loads(body)
            instance.kept[told["door"]] = instance.world.loop.time() + told["seconds"]
            return self._tell(200, {})
        if parts.path == "/api/status":
            return self._tell(200, self._status())
        await self._compute(headers, json.loads(body))

    def _status(self):
        instance = self.instance
        ready = instance.state == "active"
        model = {"name": "m", "state": "ready" if ready else "loading", "tier": "gpu"}
        running = min(instance.in_flight, instance.slots)
        counts = {"in_flight": running, "queued": instance.in_flight - running}
        return {"status": instance.state, "models": [{**model, **counts, "slots": instance.slots}]}

    async def _compute(self, headers, body):
        instance, world = self.instance, self.instance.world
        name = headers[b"x-request-id"].decode()
        if instance.state != "active":
            error = {"message": "the instance is stopping", "type": "unavailable_error"}
            return self._tell(503, {"error": error})
        instance.in_flight += 1
        try:
            async with instance.free:
                if self.transport.is_closing():
                    return
                world.began(name, instance.task)
                await asyncio.sleep(instance.draw.expovariate(1 / 2.0))
                await instance.awake.wait()
                if body.get("stream"):
                    return self._stream(name)
                self._tell(200, {"said": name, "usage": {}})
        finally:
            instance.in_flight -= 1
            instance.used = world.loop.time()

    def _stream(self, name):
        event = f'data: {{"said": "{name}"}}\n\ndata: [DONE]\n\n'.encode()
        head = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked"
        self.transport.write(
            f"{head}\r\n\r\n{len(event):x}\r\n".encode() + event + b"\r\n0\r\n\r\n"
        )

    def _tell(self, status, body):
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: "
        self.transport.write(f"{head}{len(text)}\r\n\r\n".encode() + text)
