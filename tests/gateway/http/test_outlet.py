"""Clients who do not read what they are sent."""

import asyncio
import contextlib
import socket
import ssl
import time

import pytest

from app.engine.passage import Passage
from app.gateway.http import server as server_of
from app.gateway.http.limits import Limits
from app.gateway.http.outlet import Outlet
from app.gateway.http.server import HttpServer
from app.gateway.http.shares import Shares
from app.gateway.tls import Certificate
from app.machine import network
from tests.fakes import until
from tests.gateway.http.asking import GET
from tests.gateway.test_tls import made

SIZE = 2 << 20  # of an answer, much more than the kernels take
KERNEL = 32768  # bytes that each side's kernel takes, about
PIECE = b"x" * 4096
TOKENS = [b"7\r\ndata: %d\r\n" % number for number in range(3)]
CLOSING = (GET % b"/")[:-2] + b"connection: close\r\n\r\n"


class Source:
    """Sends `size` bytes while it may; to kernels that take little."""

    def __init__(self, size=SIZE, length=None, kept=True):
        self.size, self.length, self.kept = size, length, kept
        self.sent, self.running, self.over = 0, asyncio.Event(), False

    def pause(self):
        self.running.clear()

    def resume(self):
        self.running.set()

    def begin(self, request):
        end = request._connection._transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
        request.flow_from(self, kept=self.kept)
        request.start(200, [], self.length)

    async def answer(self, request):
        self.running.set()
        self.begin(request)
        while self.sent < self.size:
            await self.running.wait()
            request.write(PIECE)
            self.sent += len(PIECE)
            await asyncio.sleep(0)
        request.flow_from(None)
        request.finish()
        self.over = True


@contextlib.asynccontextmanager
async def serving(handler, tls=None, **limits):
    """As the fake's; the server, too."""
    server = HttpServer(handler, Limits(**{"sweep": 0.02, **limits}), tls=tls)
    _, port = await server.start("127.0.0.1", None, fallback=0)
    try:
        yield port, server
    finally:
        await server.close()


class Client:
    """Reads when it is asked to, in threads: TLS of an event loop loses what it has not told."""

    def __init__(self, port, tls):
        self._end = socket.socket()
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
        self._end.settimeout(5)
        self._end.connect(("127.0.0.1", port))
        if tls is not None:
            self._end = tls.wrap_socket(self._end, server_hostname="h")

    def _read(self, pause, size):
        got = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while not got.endswith(b"0\r\n\r\n") and (piece := self._end.recv(size)):
                got += piece
                time.sleep(pause)
        return bytes(got)

    async def reads(self, pause=0.0, size=1 << 16):
        """The rest of what it is sent, a piece at a time."""
        return await asyncio.to_thread(self._read, pause, size)

    def close(self):
        self._end.close()


@contextlib.asynccontextmanager
async def connected(port, request=GET % b"/", tls=None):
    """A client that has sent a request."""
    client = await asyncio.to_thread(Client, port, tls)
    try:
        await asyncio.to_thread(client._end.sendall, request)
        yield client
    finally:
        client.close()


def body_of(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    pieces = body.split(b"\r\n")
    assert pieces[-4:] == [PIECE, b"0", b"", b""]
    return b"".join(pieces[1::2])


def everybody():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
def ends(request, tmp_path):
    """The server's and the client's TLS, or none."""
    if not request.param:
        return None, None
    return Certificate(*made(tmp_path)).context, everybody()


@pytest.mark.parametrize("size", [SIZE, SIZE // 4, 48 * 4096, 40 * 4096, SIZE // 16])
@pytest.mark.parametrize("closes", [False, True], ids=["keep-alive", "close"])
def test_an_answer_comes_whole_while_its_client_does_not_read(run, ends, closes, size):
    """The client reads after longer than a connection may be idle. Result: it gets all, also what
    never was too much for the transport; and its connection may be idle for as long as ever from
    then on, or is closed."""

    async def scenario():
        source = Source(size, length=size if closes else None)
        again = not closes and size >= SIZE // 4  # of less the kernels may have had all
        idle = 1.5 if again else 0.3  # on a busy machine the next request may come late
        limits = {"keep_alive": idle, "linger": 0.1}
        async with serving(source.answer, ends[0], **limits) as (port, server):
            async with connected(port, CLOSING if closes else GET % b"/", ends[1]) as client:
                await until(lambda: source.over)
                await asyncio.sleep(idle + 0.3)
                assert body_of(await client.reads(0.005)) == b"x" * size
                assert server.backlog.taken == 0
                if again:
                    await asyncio.sleep(0.1)
                    source.sent = 0
                    await asyncio.to_thread(client._end.sendall, GET % b"/")
                    assert body_of(await client.reads()) == b"x" * size
                await until(lambda: not server._connections)

    run(scenario)


def test_who_has_read_its_answer_is_told_that_no_more_comes(run, ends):
    async def scenario():
        source = Source(length=SIZE)
        async with serving(source.answer, ends[0], linger=60) as (port, server):
            async with connected(port, CLOSING, ends[1]) as client:
                await until(lambda: source.over)
                assert body_of(await client.reads()) == b"x" * SIZE

    run(scenario)


def test_the_next_request_begins_once_the_answer_before_it_is_read(run):
    async def scenario():
        sources = [Source(), Source(4096)]
        of_requests = iter(sources)

        async def handler(request):
            await next(of_requests).answer(request)

        async with serving(handler) as (port, server):
            async with connected(port, 2 * (GET % b"/")) as client:
                await until(lambda: sources[0].over)
                await asyncio.sleep(0.05)
                assert not sources[1].sent
                got = await client.reads()
                while got.count(b"\r\n0\r\n\r\n") < 2:
                    got += await client.reads()
                first, second = got.split(b"\r\n0\r\n\r\n")[:2]
                assert first.count(PIECE) == SIZE // 4096 and second.count(PIECE) == 1

    run(scenario)


@pytest.mark.parametrize("kept", [True, False], ids=["answer", "page"])
def test_the_source_of_what_is_too_much_is_held_back(run, ends, kept):
    async def scenario():
        source = Source(8 << 20, kept=kept)
        async with serving(source.answer, ends[0], unread=1 << 20, sweep=60) as (port, server):
            async with connected(port, tls=ends[1]) as client:
                await until(lambda: source.sent and not source.running.is_set())
                most = (1 << 20) * kept
                assert most <= server.backlog.taken <= most + (1 << 18) and not source.over
                assert source.sent - server.backlog.taken < 1 << 19  # TLS counts as well
                assert len(body_of(await client.reads())) == 8 << 20 and source.over
                assert server.backlog.taken == 0

    run(scenario)


def test_who_leaves_makes_room_for_an_answer_that_was_held_back(run):
    async def scenario():
        sources = [Source(length=SIZE) for _ in range(2)]
        of_clients = iter(sources)

        async def handler(request):
            await next(of_clients).answer(request)

        async with serving(handler, unread_together=5 << 20) as (port, server):
            async with connected(port) as first:
                await until(lambda: sources[0].over)
                async with connected(port):
                    await until(lambda: sources[1].sent and not sources[1].running.is_set())
                    first.close()
                    await until(lambda: sources[1].over)
            await until(lambda: not server.backlog.taken)

    run(scenario)


@pytest.mark.parametrize(
    "limits",
    [{"write_pause": 0.3}, {"write_hold": 0.3, "unread": 1 << 20}],
    ids=["all-has-come", "held-back"],
)
def test_a_client_that_reads_nothing_is_left(run, ends, limits):
    async def scenario():
        source = Source()
        async with serving(source.answer, ends[0], **limits) as (port, server):
            async with connected(port, tls=ends[1]) as client:
                await until(lambda: source.sent and not server._connections)
                assert server.backlog.taken == 0
                assert len(await client.reads()) < SIZE

    run(scenario)


def test_a_client_that_reads_nothing_is_left_while_more_comes(run):
    async def scenario():
        async def handler(request):
            Source().begin(request)
            while True:
                request.write(PIECE)
                await asyncio.sleep(0.001)

        async with serving(handler, write_pause=0.3) as (port, server), connected(port):
            await until(lambda: server._connections)
            await until(lambda: not server._connections)

    run(scenario)


def test_what_a_client_has_not_read_is_still_sent_when_the_server_ends(run, ends):
    async def scenario():
        source = Source(length=SIZE)
        async with serving(source.answer, ends[0]) as (port, server):
            async with (
                connected(port, tls=ends[1]) as client,
                connected(port, b"", ends[1]) as idle,
            ):
                await until(lambda: source.over)
                ending = asyncio.ensure_future(server.close())
                assert await idle.reads() == b"" and not ending.done()
                assert body_of(await client.reads()) == b"x" * SIZE
                await ending
                assert server.backlog.taken == 0

    run(scenario)


@pytest.mark.parametrize("reading", [True, False])
def test_at_the_end_clients_that_read_are_waited_for(run, ends, monkeypatch, reading):
    monkeypatch.setattr(server_of, "READING", 1.0)

    async def scenario():
        source = Source(SIZE // 4)
        async with serving(source.answer, ends[0]) as (port, server):
            async with connected(port, tls=ends[1]) as client:
                await until(lambda: source.over)
                if not reading:
                    begun = time.monotonic()
                    await asyncio.wait_for(server.read(), 20)
                    assert time.monotonic() - begun > 0.9 and list(server._connections)
                    return
                body = asyncio.ensure_future(client.reads(0.03, 8192))
                await server.read()
                await server.close()
                assert body_of(await body) == b"x" * source.size

    run(scenario)


def test_clients_that_have_read_all_keep_no_end_waiting(run, ends, monkeypatch):
    """One goes on asking; TLS cannot tell that it has all. Result: that is nobody to wait for."""
    monkeypatch.setattr(server_of, "READING", 0.2)

    async def scenario():
        async def handler(request):
            request.reply(200, b"{}")

        async def asks(client):
            while True:
                await asyncio.to_thread(client._end.sendall, GET % b"/")
                await asyncio.to_thread(client._end.recv, 4096)

        async with serving(handler, ends[0]) as (port, server):
            async with connected(port, b"", ends[1]) as client:
                asking = asyncio.ensure_future(asks(client))
                await asyncio.sleep(0.3)
                await asyncio.wait_for(server.read(), 10)
                asking.cancel()
                await asyncio.sleep(0.1)  # its thread

    run(scenario)


def test_who_reads_a_page_without_end_keeps_no_end_waiting(run, ends, monkeypatch):
    """It reads more slowly than there is to read."""
    monkeypatch.setattr(server_of, "READING", 0.2)

    async def scenario():
        source = Source(1 << 40, kept=False)
        async with serving(source.answer, ends[0]) as (port, server):
            async with connected(port, tls=ends[1]) as client:
                reading = asyncio.ensure_future(client.reads(0.01, 8192))
                await until(lambda: not source.running.is_set() and source.sent)
                await asyncio.wait_for(server.read(), 10)
                assert not reading.done()
                await server.close()
                await reading

    run(scenario)


def test_who_sleeps_where_others_have_taken_all_room_holds_no_model_back(run, ends):
    async def scenario():
        source = Source()
        async with serving(source.answer, ends[0], write_hold=0.3) as (port, server):
            server.backlog.add("127.0.0.1", server.limits.unread_together // 2)
            async with connected(port, tls=ends[1]):
                await until(lambda: not source.running.is_set() and source.sent)
                assert [each._outlet._kept for each in server._connections] == [b""]
                await until(lambda: not server._connections)

    run(scenario)


def test_who_has_slept_for_longest_makes_room(run):
    """1. One sleeps, and has read nothing for longer than another one. 2. Room is short. Result:
    the first one is left, the second one is not; and nobody is, as long as there is room."""

    async def scenario():
        sources = [Source() for _ in range(3)]
        of_clients = iter(sources)

        async def handler(request):
            await next(of_clients).answer(request)

        limits = {"unread": SIZE, "unread_together": 6 * SIZE, "write_hold": 0.3}
        async with serving(handler, **limits) as (port, server):
            async with connected(port) as first:
                await until(lambda: sources[0].over)
                await asyncio.sleep(0.6)
                async with connected(port) as second:
                    await until(lambda: sources[1].over)
                    await asyncio.sleep(0.6)
                    assert len(list(server._connections)) == 2
                    async with connected(port) as third:
                        await until(lambda: sources[2].over and len(list(server._connections)) == 2)
                        assert len(body_of(await third.reads())) == SIZE
                    assert len(body_of(await second.reads())) == SIZE
                assert len(await first.reads()) < SIZE

    run(scenario)


def test_time_to_read_begins_anew_when_an_answer_is_held_back(run):
    """A client has slept for longer than one may that holds a model back."""
    now, limits = 100.0, Limits(write_pause=50.0, write_hold=10.0)

    async def scenario():
        async with on_a_unix_socket() as (outlet, _):
            outlet._limits = limits
            outlet.write(b"x" * SIZE)
            await asyncio.sleep(0.05)
            assert not outlet.stalls(now) and not outlet.stalls(now + 40)
            assert not outlet.stalls(now + 45, held=now + 40) and outlet.asleep(now + 45) == 45
            assert outlet.stalls(now + 50.1, held=now + 40) and not outlet.stalls(now + 50)
            assert outlet.stalls(now + 50.1, held=now + 50)  # two minutes are two minutes

    run(scenario)


def test_a_loop_breaks_a_tls_connection_that_it_closes_when_it_is_told_to(
    run, tmp_path, monkeypatch
):
    """Of its own accord it would after 30 s, whoever still reads."""
    assert network.SHUTDOWN > 3600
    monkeypatch.setattr(network, "SHUTDOWN", 0.3)

    async def scenario():
        source = Source(44 * 4096, length=44 * 4096)
        context = Certificate(*made(tmp_path)).context
        async with serving(source.answer, context, linger=60) as (port, server):
            async with connected(port, CLOSING, everybody()) as client:
                await until(lambda: source.over and not server._connections)
                assert len(await client.reads()) < 44 * 4096

    run(scenario)


def test_a_request_that_is_refused_ends_its_connection_without_a_fault(run, ends, caplog):
    """TLS cannot tell that nothing more comes without closing."""

    async def scenario():
        async with serving(Source().answer, ends[0], linger=0.1) as (port, server):
            async with connected(port, b"nonsense\r\n\r\n", ends[1]) as client:
                assert (await client.reads()).startswith(b"HTTP/1.1 400 ")
                await until(lambda: not server._connections)
        assert not caplog.records

    run(scenario)


class End(asyncio.Protocol):
    """The server's end of a connection, with its outlet."""

    def connection_made(self, transport):
        limits = Limits(write_pause=1.0, write_least=1000)
        self.outlet = Outlet(transport, limits, Shares(1 << 28, 1 << 27), "", lambda: None)
        end = transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)

    def pause_writing(self):
        self.outlet.pause()

    def resume_writing(self):
        self.outlet.resume()


async def look(outlet, client):
    """A client that reads nothing stalls; one that reads a little does not."""
    outlet.write(b"x" * SIZE)
    await asyncio.sleep(0.1)
    assert outlet.behind and outlet.waits
    assert not outlet.stalls(0.0) and not outlet.stalls(0.9) and outlet.stalls(1.1)
    now = 2.0
    for _ in range(5):
        await asyncio.to_thread(client.recv, 1 << 16)
        read = outlet.taken()
        while abs(outlet.taken() - read) < 1000:  # its kernel waits until it has room for a packet
            await asyncio.to_thread(client.recv, 4096)
        assert not outlet.stalls(now) and not outlet.stalls(now + 0.9)
        now += 1.5
    assert outlet.stalls(now)
    outlet._limits = Limits(write_pause=1.0, write_least=SIZE)
    await asyncio.to_thread(client.recv, 1 << 16)
    assert outlet.stalls(now)


def test_reading_is_seen_in_what_the_clients_kernel_acknowledges(run):
    async def scenario():
        loop, made = asyncio.get_running_loop(), []
        server = await loop.create_server(lambda: made.append(End()) or made[0], "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = await asyncio.to_thread(Client, port, None)
        await until(lambda: made and hasattr(made[0], "outlet"))
        await look(made[0].outlet, client._end)
        made[0].outlet._transport.abort()
        client.close()
        server.close()
        await server.wait_closed()

    run(scenario)


@contextlib.asynccontextmanager
async def on_a_unix_socket():
    """An outlet, and the client's end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    transport, end = await asyncio.get_running_loop().connect_accepted_socket(End, ours)
    try:
        yield end.outlet, theirs
    finally:
        end.outlet.drop()
        transport.abort()
        theirs.close()
        await asyncio.sleep(0.01)


def test_on_a_unix_socket_reading_is_seen_too(run):
    """Nobody acknowledges anything there."""

    async def scenario():
        async with on_a_unix_socket() as (outlet, client):
            await look(outlet, client)

    run(scenario)


def test_tokens_that_go_their_own_way_wait_behind_what_waits(run):
    async def scenario():
        async with on_a_unix_socket() as (outlet, client):
            outlet.followed_by(passage := Passage(outlet))
            outlet.write(b"x" * SIZE)
            await asyncio.sleep(0.05)
            assert passage.takes(TOKENS[0]) and passage.takes(TOKENS[1])
            assert bytes(outlet._kept) == TOKENS[0] + TOKENS[1]
            got = bytearray()
            while len(got) < SIZE + 2 * len(TOKENS[0]):
                got += await asyncio.to_thread(client.recv, 1 << 16)
            assert got.lstrip(b"x") == TOKENS[0] + TOKENS[1]
            await until(lambda: not outlet.behind)
            assert passage.takes(TOKENS[2]) and not outlet._kept
            assert await asyncio.to_thread(client.recv, 1 << 16) == TOKENS[2]

    run(scenario)
