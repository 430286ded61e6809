"""Simulated callers: each sends one request after the other, and looks closely at the answers."""

import asyncio
import json
from dataclasses import dataclass, field

import httptools

PATHS = ("/v1/chat/completions", "/v1/chat/completions", "/v1/completions")
EMBEDDINGS = "/v1/embeddings"
# What is wrong with a request, and the statuses that may answer it.
WRONG = {
    "no JSON": {400},
    "no such model": {404},
    "no model": {400, 404},
    "no such path": {404},
    "no wait": {400},
    "too large": {413},
    "no HTTP": {400},
    "slow head": {408},
    "too long": {400},
    "nothing in it": {400},
    "remote media": {400},
}
HOST = "127.0.0.1:8080"


@dataclass
class Call:
    """One request, and what became of it. Times are of the loop."""

    name: str
    model: str
    path: str
    streams: bool
    length: int  # words of the answer, if nobody cuts it
    limit: int | None
    words: int  # of the prompt
    wait: float | None
    wrong: str = ""
    leaves_after: float | None = None
    reads_slowly: bool = False
    key: str = ""
    sent: float = 0.0
    began: float | None = None  # the first byte of the answer
    ended: float | None = None
    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    left: bool = False  # by us
    refused: bool = False  # nobody listens
    stale: bool = False  # the connection had been closed meanwhile

    def bytes(self):
        """As they are sent."""
        if self.wrong == "no HTTP":
            return b"GET / HTTP/1.1\r\nbad header\r\n\r\n"
        path = "/v1/nothing" if self.wrong == "no such path" else self.path
        body = self._body()
        size = 1 << 30 if self.wrong == "too large" else len(body)
        lines = [f"POST {path} HTTP/1.1", f"host: {HOST}", f"x-request-id: {self.name}"]
        lines += ["content-type: application/json", f"content-length: {size}"]
        lines += [f"authorization: Bearer {self.key}"] if self.key else []
        wait = -1 if self.wrong == "no wait" else self.wait
        lines += [f"x-wait-timeout: {wait}"] if wait is not None else []
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _body(self):
        if self.wrong == "no JSON":
            return b'{"model": "' + self.model.encode()
        model = {"no such model": "nobody", "no model": 7}.get(self.wrong, self.model)
        words = 1_000_000 // 8 if self.wrong == "too long" else self.words
        text = f"{self.name} {self.length} " + "word " * words
        if self.path == EMBEDDINGS:
            asked = {"input": text}
        elif "chat" in self.path:
            asked = {"messages": [{"role": "user", "content": text}]}
        else:
            asked = {"prompt": text}
        if self.wrong == "nothing in it":
            asked = {}
        if self.wrong == "remote media":
            image = {"type": "image_url", "image_url": {"url": "http://elsewhere/cat.png"}}
            asked = {"messages": [{"role": "user", "content": [image]}]}
        limit = {} if self.limit is None else {"max_tokens": self.limit}
        return json.dumps({"model": model, "stream": self.streams, **asked, **limit}).encode()


class Answers(asyncio.Protocol):
    """The client's end of one connection."""

    def __init__(self, loop):
        self.loop, self.call, self.done = loop, None, None
        self.closed, self.extra = False, 0
        self.transport = None

    def begin(self, call):
        self.call, self.done = call, self.loop.create_future()
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.call is None:
            self.extra += len(data)
            return
        if self.call.began is None:
            self.call.began = self.loop.time()
        self._parser.feed_data(data)

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.closed = True
        self._end()

    def pause_writing(self): ...

    def resume_writing(self): ...

    def on_header(self, name, value):
        self.call.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self):
        self.call.status = self._parser.get_status_code()

    def on_body(self, body):
        self.call.body += body

    def on_message_complete(self):
        self.call.whole = True
        if self.call.headers.get("connection") == "close":
            self.transport.close()
        self._end()

    def _end(self):
        if self.call is not None:
            self.call.ended = self.loop.time()
            self.call = None
            if not self.done.done():
                self.done.set_result(None)


class Client:
    """One caller, with connections that are kept. `habits` says how it is."""

    def __init__(self, world, number, habits):
        self.world, self.number, self.habits = world, number, habits
        self.draw = world.draw(f"client {number}")
        self.address = f"127.0.0.{1 + number % 4}"
        self.delay = self.draw.choice((0.0002, 0.002, 0.03))
        self.connection = None
        self._numbers = 0

    async def live(self):
        """Until the world stops asking."""
        await asyncio.sleep(self.draw.uniform(0, self.habits.begin))
        while not self.world.quiet:
            await self.ask(self.next_call())
            await asyncio.sleep(self.draw.expovariate(1 / self.habits.pause))
        if self.connection is not None:
            self.connection.transport.close()

    def next_call(self):
        draw, self._numbers = self.draw, self._numbers + 1
        wrong = draw.choice(list(WRONG)) if draw.random() < self.habits.wrong else ""
        leaves = draw.random() < self.habits.leaves
        model = draw.choice(self.world.models)
        path = PATHS[0] if wrong else draw.choice(PATHS)
        if model in self.world.scene.embedding and draw.random() < 0.7:
            path = EMBEDDINGS
        return Call(
            name=f"c{self.number}-{self._numbers}",
            model=model,
            path=path,
            streams=draw.random() < 0.6 and wrong != "remote media" and path != EMBEDDINGS,
            length=1 + int(draw.expovariate(1 / self.habits.length)),
            limit=draw.choice((None, None, 5, 40, 200)),
            words=int(draw.choice((3, 30, 300, 900))),
            wait=draw.choice((None, None, 2.0, 15.0, 60.0)),
            wrong=wrong,
            leaves_after=draw.expovariate(1 / self.habits.patience) if leaves else None,
            reads_slowly=draw.random() < self.habits.slow,
        )

    async def ask(self, call):
        self.world.calls.append(call)
        try:
            connection, fresh = await self._connected()
        except OSError:
            call.sent = call.ended = self.world.loop.time()
            call.refused = True
            await asyncio.sleep(2)
            return
        connection.begin(call)
        call.key = self.world.key
        call.sent = self.world.loop.time()
        await self._send(connection, call)
        await self._wait(connection, call)
        call.stale = not fresh and call.began is None and not call.left
        self.connection = None if connection.closed else connection

    async def _connected(self):
        """A connection, and whether it is a new one."""
        if self.connection is not None and not self.connection.closed and self.draw.random() < 0.8:
            return self.connection, False
        if self.connection is not None:
            self.connection.transport.close()
        network, loop = self.world.network, self.world.loop
        made = Answers(loop)
        await network.reach(lambda: made, self.world.port, self.address, self.delay)
        return made, True

    async def _send(self, connection, call):
        told = call.bytes()
        pieces = [told]
        if call.wrong == "slow head":
            pieces = [told[:20]]
        elif self.draw.random() < 0.2:
            cut = self.draw.randrange(1, len(told))
            pieces = [told[:cut], told[cut:]]
        for piece in pieces:
            connection.transport.write(piece)
            if len(pieces) > 1:
                await asyncio.sleep(self.draw.uniform(0, 2))
        call.sent = self.world.loop.time()
        if call.reads_slowly:
            connection.transport.pause_reading()
            self.world.loop.call_later(self.draw.uniform(0, 8), connection.transport.resume_reading)

    async def _wait(self, connection, call):
        await asyncio.wait({connection.done}, timeout=call.leaves_after or self.habits.most)
        if not connection.done.done():
            call.left, call.ended = True, self.world.loop.time()
            connection.call = None
            connection.transport.abort()
            connection.closed = True
