"""Stand-ins at seams of ours: a raw client, and a child that answers as a script says."""

import asyncio
import contextlib
import gc
import socket

from app.gateway.http.limits import Limits
from app.gateway.http.server import HttpServer


class Port(int):
    """Where a `server` listens."""

    def __new__(cls, port, server):
        made = super().__new__(cls, port)
        made.server = server
        return made


@contextlib.asynccontextmanager
async def serving(handler, **limits):
    """A front with this handler on a free port of this machine."""
    server = HttpServer(handler, Limits(**limits))
    _, port = await server.start("127.0.0.1", None, fallback=0)
    try:
        yield Port(port, server)
    finally:
        await server.close()
        while RawClient.open:
            await RawClient.open.pop().close()


class RawClient:
    """A TCP client that sends bytes as they are; `serving` closes those left open."""

    open = []

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.open.append(self)

    @classmethod
    async def to(cls, port, kernel=None):
        """`kernel`: bytes that the client's kernel may take before it reads them."""
        if kernel is None:
            return cls(*await asyncio.open_connection("127.0.0.1", port))
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel)
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=end))

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def response(self):
        """Status, headers, and the body by its Content-Length or chunks."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int((await self.reader.readline()).strip(), 16):
                pieces.append(await self.reader.readexactly(size))
                await self.reader.readline()
            await self.reader.readline()
            body = b"".join(pieces)
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return status, headers, body

    async def rest(self):
        """Everything until the server closes; None where it breaks the connection."""
        try:
            return await self.reader.read(-1)
        except ConnectionResetError:
            return None

    async def rest_of_answer(self):
        """What is left of an answer in chunks; the connection takes another request after it."""
        told = await self.reader.readuntil(b"0\r\n\r\n")
        await self.send(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert (await self.response())[0] in (200, 404, 503)
        return told

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def until(condition, timeout=10):
    """Wait for what must come about, however long the machine takes for it."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "did not come about"
        await asyncio.sleep(0.002)


def without_collector(body):
    """Run `body` while Python's collector of cycles does not look."""
    gc.collect()
    gc.disable()
    try:
        body()
    finally:
        gc.enable()


def alive(kind):
    """The identities of a class's objects that are in memory."""
    return {id(each) for each in gc.get_objects() if type(each) is kind}


class Child:
    """An HTTP server on a Unix socket: `answer(reader, writer, head)` answers each request."""

    def __init__(self, path, answer):
        self.path, self.answer = str(path), answer
        self.heads, self.connections = [], 0
        self.left = asyncio.Event()
        self._tasks = set()  # nobody else has one that waits for what never comes

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self._client, self.path)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self._tasks:
            task.cancel()

    async def _client(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.decode("latin-1"))
                await self.answer(reader, writer, head)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()


def reply(body, status=200, extra=b""):
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), extra, body)


async def body_of(reader, head):
    """A request's body by its Content-Length."""
    for line in head.decode("latin-1").lower().split("\r\n"):
        if line.startswith("content-length:"):
            return await reader.readexactly(int(line.split(":")[1]))
    return b""
