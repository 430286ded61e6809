"""What is kept for clients who do not keep up."""

import asyncio

import pytest

from app.gateway.http.backlog import AHEAD, Backlog
from app.gateway.http.limits import Limits
from app.gateway.http.server import HttpServer
from tests.fakes import RawClient, serving, until
from tests.gateway.http.asking import GET

EACH = 2 * AHEAD
PIECE = b"x" * 65536


def backlog(of_all=2 * EACH):
    return Backlog(Limits(unread=EACH, unread_together=of_all))


@pytest.mark.parametrize(
    "unread, length, kept",
    [
        (0, None, True),
        (EACH - AHEAD, None, True),
        (EACH - AHEAD + 1, None, False),
        (0, EACH, True),
        (0, EACH + 1, False),
        (EACH + 1, 1, False),
    ],
)
def test_one_answer_has_a_bound(unread, length, kept):
    assert backlog().keep("a", unread, length) is kept


def test_all_together_have_a_bound_and_give_back_what_they_took():
    kept = backlog(EACH + AHEAD)
    assert kept.keep("a", 0, EACH) and kept.keep("b", 0, None)
    assert not kept.keep("c", 0, 1)
    assert kept.keep("a", EACH, EACH) and not kept.keep("b", 1, None)  # asked again
    kept.forget("b")
    kept.forget("b")
    assert kept.keep("c", 0, AHEAD) and not kept.keep("d", 0, 1)
    assert kept.keep("a", 0, EACH - 1) and kept.keep("d", 0, 1)


class Source:
    """Sends `size` bytes while it may."""

    def __init__(self, size, length=None, kept=True):
        self.size, self.length, self.kept = size, length, kept
        self.sent, self.running, self.over = 0, asyncio.Event(), False

    def pause(self):
        self.running.clear()

    def resume(self):
        self.running.set()

    async def answer(self, request):
        self.running.set()
        request.flow_from(self)
        if self.kept:
            request.keep(self.length)
        request.start(200, [], self.length)
        while self.sent < self.size:
            await self.running.wait()
            request.write(PIECE)
            self.sent += len(PIECE)
            await asyncio.sleep(0.001)  # a stream comes slowly, beside the looks at it
        request.flow_from(None)
        request.finish()
        self.over = True


async def stops_reading(port):
    client = await RawClient.to(port, kernel=65536)
    await client.send(GET % b"/")
    return client


@pytest.mark.parametrize("length", [None, 8 << 20], ids=["stream", "whole"])
def test_an_answer_comes_whole_while_its_client_does_not_read(run, length):
    async def scenario():
        source = Source(8 << 20, length)
        async with serving(source.answer, unread=16 << 20) as port:
            client = await stops_reading(port)
            await until(lambda: source.over)
            assert len((await client.response())[2]) == 8 << 20
            await client.close()

    run(scenario)


@pytest.mark.parametrize(
    "length, kept", [(None, True), (32 << 20, True), (None, False)], ids=["stream", "whole", "page"]
)
def test_the_source_of_what_is_too_much_is_held_back(run, length, kept):
    async def scenario():
        source = Source(32 << 20, length, kept)
        looks = 0.02 if kept and length is None else 60  # nobody knows how much a stream will have
        async with serving(source.answer, unread=1 << 20, sweep=looks) as port:
            client = await stops_reading(port)
            await until(lambda: source.sent and not source.running.is_set())
            await asyncio.sleep(0.1)
            assert source.sent < 24 << 20 and not source.running.is_set()
            assert len((await client.response())[2]) == 32 << 20
            await client.close()

    run(scenario)


def test_who_leaves_makes_room_for_an_answer_that_was_held_back(run):
    async def scenario():
        sources = [Source(8 << 20, 8 << 20) for _ in range(2)]
        of_clients = iter(sources)

        async def handler(request):
            await next(of_clients).answer(request)

        async with serving(handler, unread_together=12 << 20, sweep=0.02) as port:
            first = await stops_reading(port)
            await until(lambda: sources[0].over)
            second = await stops_reading(port)
            await until(lambda: sources[1].sent and not sources[1].running.is_set())
            await first.close()
            await until(lambda: sources[1].over)
            await second.close()

    run(scenario)


@pytest.mark.parametrize("size", [8 << 20, 32 << 20], ids=["all-has-come", "held-back"])
def test_a_client_that_reads_nothing_is_left(run, size):
    async def scenario():
        source = Source(size)
        limits = {"unread": 16 << 20, "write_pause": 0.2, "sweep": 0.02}
        async with serving(source.answer, **limits) as port:
            client = await stops_reading(port)
            await until(lambda: source.over or (source.sent and not source.running.is_set()))
            await asyncio.sleep(0.6)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.response()
            await client.close()

    run(scenario)


def test_a_client_is_not_left_while_more_comes_for_it_or_it_reads(run):
    """1. A stream goes on for three times as long as a client may read nothing, and it reads none.
    2. It reads a piece each tenth of that time. Result: it gets all."""

    async def scenario():
        async def handler(request):
            request.keep(None)
            request.start(200, [], None)
            request.write(b"x" * (8 << 20))
            for _ in range(60):
                request.write(b"x")
                await asyncio.sleep(0.02)
            request.finish()

        limits = {"unread": 16 << 20, "write_pause": 0.4, "sweep": 0.02}
        async with serving(handler, **limits) as port:
            client = await stops_reading(port)
            await asyncio.sleep(1.2)
            got = b""
            while not got.endswith(b"0\r\n\r\n"):
                got += await asyncio.wait_for(client.reader.read(1 << 20), 5)
                await asyncio.sleep(0.02)
            assert len(got) > 8 << 20
            await client.close()

    run(scenario)


def test_what_a_client_has_not_read_is_still_sent_when_the_server_ends(run):
    async def scenario():
        source = Source(8 << 20, 8 << 20)
        server = HttpServer(source.answer, Limits())
        _, port = await server.start("127.0.0.1", None, fallback=0)
        client = await stops_reading(port)
        await until(lambda: source.over)
        ending = asyncio.ensure_future(server.close())
        assert len((await client.response())[2]) == 8 << 20
        await ending
        await client.close()

    run(scenario)
