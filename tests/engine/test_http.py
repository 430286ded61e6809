import asyncio
import contextlib
import os
import resource
import shutil
import socket as sockets

import pytest
import uvloop

from app.engine import exchange as exchanging
from app.engine.exchange import ChildConnection, Waits
from app.engine.http import CONNECT_TIMEOUT, Address, Client
from app.errors import EndingError, NotConnectedError, UpstreamError
from app.machine import network
from tests.fakes import Child, alive, body_of, reply, until, without_collector


class Sink:
    passage = None

    def __init__(self):
        self.status, self.headers, self.chunks, self.flushed = 0, [], [], 0
        self.ended = asyncio.get_running_loop().create_future()
        self.first = asyncio.Event()

    def head(self, status, headers):
        self.status, self.headers = status, headers

    def flush(self):
        self.flushed += 1

    def data(self, chunk):
        self.chunks.append(chunk)
        self.first.set()

    def complete(self):
        self.ended.set_result(None)

    def failed(self, error):
        self.ended.set_exception(error)


POST = ("POST", "/v1/x", [(b"content-type", b"application/json")])


async def hello(reader, writer, head):
    await body_of(reader, head)
    writer.write(reply(b"hello"))


@pytest.fixture
def socket(tmp_path):
    return str(tmp_path / "x.sock")


def test_a_socket_that_is_held_is_found_when_its_folder_has_gone(run, tmp_path):
    """Until there is another child."""
    folder = tmp_path / "x"
    folder.mkdir()

    async def scenario():
        async with Child(folder / "s.sock", hello) as child:
            client = Client(Address(str(folder / "s.sock")), "k")
            client.hold()
            first = client._held
            client.hold()
            shutil.rmtree(folder)
            for _ in range(2):
                assert (await client.get("/health", 5)).body == b"hello"
                client.close()
            last = client._held
            client.reopen()
            with pytest.raises(NotConnectedError, match="No such file"):
                await client.get("/health", 5)
            assert child.connections == 2
            for descriptor in (first, last):
                closed = f"/proc/self/fd/{descriptor}"
                assert not os.path.exists(closed) or "s.sock" not in os.readlink(closed)

    run(scenario)


def test_where_nobody_can_connect_to_what_is_held_the_path_is_taken(run, socket, monkeypatch):
    """A sandbox may show it all the same."""

    async def scenario():
        async with Child(socket, hello):
            client = Client(Address(socket), "k")
            client.hold()
            monkeypatch.setattr(network, "held", lambda descriptor: f"{socket}.none")
            found = await asyncio.gather(*(client.get("/health", 5) for _ in range(3)))
            assert [each.body for each in found] == [b"hello"] * 3
            assert not client.refused
        os.unlink(socket)
        client.close()
        with pytest.raises(NotConnectedError, match="No such file"):
            await client.get("/health", 5)

    run(scenario)


def test_a_socket_is_not_held_where_no_descriptor_is_left(socket):
    end = sockets.socket(sockets.AF_UNIX)
    end.bind(socket)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        assert network.hold(socket) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        end.close()
    os.unlink(socket)
    with pytest.raises(FileNotFoundError):
        network.hold(socket)


def test_connections_are_used_again_and_carry_the_key(run, socket):
    async def scenario():
        async with Child(socket, hello) as child:
            client = Client(Address(socket), "secret")
            for _ in range(3):
                found = await client.get("/health", 5)
                assert (found.status, found.body) == (200, b"hello")
            assert child.connections == 1
            assert all("authorization: Bearer secret" in head for head in child.heads)
            client.close()

    run(scenario)


def test_a_connection_that_is_closed_is_freed_without_the_collector(run, socket):
    async def scenario():
        before = alive(ChildConnection)  # of other tests
        async with Child(socket, hello):
            client = Client(Address(socket), "secret")
            await client.get("/health", 5)
            assert alive(ChildConnection) - before
            client.close()
            await until(lambda: not alive(ChildConnection) - before)

    without_collector(lambda: run(scenario))


def test_concurrent_exchanges_have_connections_of_their_own(run, socket):
    async def scenario():
        async with Child(socket, hello) as child:
            client = Client(Address(socket), "k")
            await asyncio.gather(*(client.get("/", 5) for _ in range(5)))
            assert child.connections == 5
            client.close()

    run(scenario)


def test_no_more_idle_connections_are_kept_than_the_child_has_threads_for(run, socket):
    """A burst of requests. Those that wait for a thread get those of the others."""

    async def scenario():
        async with Child(socket, hello) as child:
            client = Client(Address(socket), "k", most_idle=3)
            await asyncio.gather(*(client.get("/", 5) for _ in range(9)))
            assert child.connections == 9 and len(client._idle) == 3
            await until(lambda: len(client._open) == 3)
            client.close()

    run(scenario)


def test_a_connection_for_a_body_in_pieces_takes_the_place_of_one_that_rests(run, socket):
    async def scenario():
        async with Child(socket, hello):
            client = Client(Address(socket), "k", most_idle=3)
            await asyncio.gather(*(client.get("/", 5) for _ in range(3)))
            await client.post_json("/", [b"{", b"}"], 5, Waits.CLIENT)
            await until(lambda: len(client._open) == 3)
            client.close()

    run(scenario)


def test_a_full_backlog_is_not_knocked_at_for_long(socket):
    """Whoever does not accept is busy: that is no refusal, and the doubt stays."""

    async def scenario():
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(sockets.socket(sockets.AF_UNIX))
            listener.bind(socket)
            listener.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    caller = stack.enter_context(sockets.socket(sockets.AF_UNIX))
                    caller.setblocking(False)
                    caller.connect(socket)
            client = Client(Address(socket), "k")
            client.doubtful = True
            await asyncio.wait_for(client.knock(), CONNECT_TIMEOUT - 1)
            assert client.doubtful and not client.refused
        await client.knock()
        assert client.refused and not client.doubtful

    uvloop.run(scenario())  # asyncio takes EAGAIN for a connection that is made


def test_connection_close_is_heeded(run, socket):
    async def closing(reader, writer, head):
        writer.write(reply(b"bye", 500, b"connection: close\r\n"))

    async def scenario():
        async with Child(socket, closing) as child:
            client = Client(Address(socket), "k")
            for _ in range(2):
                assert (await client.get("/", 5)).status == 500
            assert child.connections == 2

    run(scenario)


def test_a_kept_connection_that_the_child_had_closed_is_replaced_unseen(run, socket):
    async def scenario():
        answered = 0

        async def once(reader, writer, head):
            nonlocal answered
            await body_of(reader, head)
            answered += 1
            if answered == 2:  # the second request on the kept connection
                writer.close()
                return
            writer.write(reply(b"%d" % answered))

        async with Child(socket, once) as child:
            client = Client(Address(socket), "k")
            assert (await client.post("/", {}, 5, Waits.CLIENT)).body == b"1"
            assert (await client.post("/", {}, 5, Waits.CLIENT)).body == b"3"
            assert child.connections == 2
            client.close()

    run(scenario)


def test_what_a_kept_connection_has_worked_on_is_not_sent_again(run, socket, monkeypatch):
    monkeypatch.setattr(exchanging, "ENDING", 0.1)

    async def works(reader, writer, head):
        await body_of(reader, head)
        if len(child.heads) == 2:
            await asyncio.sleep(0.2)
            writer.close()
        writer.write(reply(b"whole"))

    async def scenario():
        client = Client(Address(socket), "k")
        async with child:
            await client.post("/", {}, 5, Waits.CLIENT)
            with pytest.raises(UpstreamError) as failure:
                await client.post("/", {}, 5, Waits.CLIENT)
            assert not isinstance(failure.value, NotConnectedError) and len(child.heads) == 2
        client.close()

    child = Child(socket, works)
    run(scenario)


def test_nothing_is_sent_again_on_a_connection_that_we_close(run, socket):
    """The child is to end, and would wait for the new connection."""

    async def scenario():
        arrived = asyncio.Event()

        async def once(reader, writer, head):
            if child.heads[1:]:
                arrived.set()
                await asyncio.Event().wait()
            await hello(reader, writer, head)

        child = Child(socket, once)
        async with child:
            client = Client(Address(socket), "secret")
            await client.get("/health", 5)
            asking = asyncio.ensure_future(client.get("/slots", 5))
            await arrived.wait()
            client.close()
            with pytest.raises(UpstreamError, match="closed the connection"):
                await asking
            assert (len(child.heads), child.connections) == (2, 1)

    run(scenario)


def test_a_first_request_is_never_sent_twice(run, socket):
    async def dying(reader, writer, head):
        writer.close()

    async def scenario():
        async with Child(socket, dying) as child:
            with pytest.raises(UpstreamError):
                await Client(Address(socket), "k").post("/", {}, 5, Waits.CLIENT)
            assert len(child.heads) == 1

    run(scenario)


@pytest.mark.parametrize(
    "between, ends",
    [
        ([], True),  # the next one came while the child ended
        (["answer"], False),  # one that has answered since did not end
        (["reopen"], False),  # of another child
        (["answer", "replay"], True),  # on a kept connection and on a new one, without a word
        (["begun"], False),  # it has answered in part
    ],
)
def test_what_a_child_that_ends_has_not_seen(run, socket, between, ends):
    """1. It breaks an answer off. 2. It closes the next one's connection without a word."""
    answers = []

    async def answer(reader, writer, head):
        await body_of(reader, head)
        data = answers.pop(0)
        writer.write(data)
        if not data.endswith(b"whole"):
            await writer.drain()
            writer.close()

    async def scenario():
        client = Client(Address(socket), "k")
        async with Child(socket, answer):
            part = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart"
            answers.append(part)
            with pytest.raises(UpstreamError):
                await client.post("/", {}, 5, Waits.CLIENT)
            if "answer" in between:
                answers.append(reply(b"whole"))
                await client.post("/", {}, 5, Waits.CLIENT)
            if "replay" not in between:
                client._idle.clear()
            if "reopen" in between:
                client.reopen()
            answers.extend([part if "begun" in between else b"", b""])
            with pytest.raises(UpstreamError) as failure:
                await client.post("/", {}, 5, Waits.CLIENT)
            assert isinstance(failure.value, EndingError) is ends
        client.close()

    run(scenario)


@pytest.mark.parametrize("who", ["the child, after a while", "we"])
def test_what_it_may_have_seen(run, socket, who, monkeypatch):
    """An answer was broken off, and another one does not begin."""
    monkeypatch.setattr(exchanging, "ENDING", 0.1)
    asked = []

    async def answer(reader, writer, head):
        await body_of(reader, head)
        asked.append(head)
        if len(asked) == 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
            await writer.drain()
        elif who == "we":
            client.close()
        else:
            await asyncio.sleep(0.2)
        writer.close()

    async def scenario():
        async with Child(socket, answer):
            for _ in range(2):
                with pytest.raises(UpstreamError) as failure:
                    await client.post("/", {}, 5, Waits.CLIENT)
                assert not isinstance(failure.value, EndingError)

    client = Client(Address(socket), "k")
    run(scenario)


def test_no_child_is_not_connected(run, socket):
    async def scenario():
        with pytest.raises(NotConnectedError):
            await Client(Address(socket), "k").get("/", 5)

    run(scenario)


def test_an_answer_that_takes_too_long(run, socket):
    async def silent(reader, writer, head):
        await asyncio.sleep(60)

    async def scenario():
        async with Child(socket, silent):
            with pytest.raises(UpstreamError, match="no answer"):
                await Client(Address(socket), "k").get("/", 0.05)

    run(scenario)


def test_chunks_arrive_as_they_are_sent(run, socket):
    async def scenario():
        go_on = asyncio.Event()

        async def streaming(reader, writer, head):
            await body_of(reader, head)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            await writer.drain()
            await go_on.wait()
            writer.write(b"3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")

        async with Child(socket, streaming) as child:
            client, sink = Client(Address(socket), "k"), Sink()
            await client.exchange(POST, b"{}", sink)
            await asyncio.wait_for(sink.first.wait(), 5)
            assert sink.chunks == [b"one"]
            go_on.set()
            await sink.ended
            assert b"".join(sink.chunks) == b"onetwothree"
            assert len(sink.chunks) == 2  # what comes in one read goes on as one
            assert child.connections == 1
            client.close()

    run(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour",
        b"HTTP/1.1 200 OK\r\nconten",
        b"rubbish\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_a_failure(run, socket, answer):
    async def breaking(reader, writer, head):
        await body_of(reader, head)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def scenario():
        async with Child(socket, breaking):
            sink = Sink()
            await Client(Address(socket), "k").exchange(POST, b"{}", sink)
            with pytest.raises(UpstreamError):
                await asyncio.wait_for(sink.ended, 5)

    run(scenario)


def test_a_body_that_ends_with_the_connection_is_whole(run, socket):
    async def old(reader, writer, head):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async def scenario():
        async with Child(socket, old):
            assert (await Client(Address(socket), "k").get("/", 5)).body == b"all of it"

    run(scenario)


def test_an_abort_is_seen_by_the_child_at_once(run, socket):
    async def endless(reader, writer, head):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def scenario():
        async with Child(socket, endless) as child:
            sink = Sink()
            exchange = await Client(Address(socket), "k").exchange(POST, b"{}", sink)
            await sink.first.wait()
            exchange.abort()
            await asyncio.wait_for(child.left.wait(), 5)
            assert not sink.ended.done()

    run(scenario)


def test_a_paused_exchange_holds_the_child_back(run, socket):
    async def scenario():
        sent = 0

        async def much(reader, writer, head):
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (16 << 20))
            for _ in range(256):
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536

        async with Child(socket, much):
            sink = Sink()
            client = Client(Address(socket), "k")
            exchange = await client.exchange(POST, b"{}", sink)
            exchange.pause()
            await asyncio.sleep(0.2)
            assert sent < 4 << 20
            exchange.resume()
            await asyncio.wait_for(sink.ended, 10)
            assert sum(map(len, sink.chunks)) == 16 << 20
            client.close()

    run(scenario)


def test_a_request_body_in_pieces_goes_no_faster_than_the_child_reads(run, socket):
    async def scenario():
        go_on, received = asyncio.Event(), b""

        async def slow(reader, writer, head):
            nonlocal received
            assert b"transfer-encoding: chunked" in head
            await go_on.wait()
            pieces = []
            while size := int(await reader.readline(), 16):
                pieces.append(await reader.readexactly(size + 2))
            received = b"".join(piece[:-2] for piece in pieces)
            await reader.readline()
            writer.write(reply(b"ok"))

        async with Child(socket, slow):
            sink = Sink()
            client = Client(Address(socket), "k")
            exchange = await client.exchange(POST, None, sink)
            written = 0

            async def upload():
                nonlocal written
                for number in range(256):
                    await exchange.write(bytes([number]) * 65536)
                    written += 1
                exchange.end()

            uploading = asyncio.create_task(upload())
            await asyncio.sleep(0.2)
            assert written < 100
            go_on.set()
            await uploading
            await asyncio.wait_for(sink.ended, 10)
            assert received == b"".join(bytes([n]) * 65536 for n in range(256))
            client.close()

    run(scenario)


def test_an_upload_ends_with_the_child_that_takes_it(run, socket):
    async def scenario():
        async def leaving(reader, writer, head):
            await asyncio.sleep(0.1)
            writer.close()

        async with Child(socket, leaving):
            sink = Sink()
            exchange = await Client(Address(socket), "k").exchange(POST, None, sink)

            async def upload():
                for _ in range(1000):
                    await exchange.write(b"x" * 65536)

            await asyncio.wait_for(upload(), 5)
            with pytest.raises(UpstreamError):
                await sink.ended

    run(scenario)


# asyncio's own loop takes such a connection for made; the app runs on uvloop.
@pytest.mark.parametrize("run", ["uvloop"], indirect=True)
def test_more_connections_at_once_than_the_childs_backlog_holds_wait(run, socket):
    async def scenario():
        import socket as sockets

        with sockets.socket(sockets.AF_UNIX) as listening:
            listening.bind(socket)
            listening.listen(1)
            client = Client(Address(socket), "k")
            asking = asyncio.gather(*(client.get("/", 5) for _ in range(10)))
            await asyncio.sleep(0.05)  # all ten have tried; the backlog holds two

            async def answer(reader, writer):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(reply(b"at last", extra=b"connection: close\r\n"))
                writer.close()

            server = await asyncio.start_unix_server(answer, sock=listening)
            assert [found.body for found in await asking] == [b"at last"] * 10
            server.close()

    run(scenario)
