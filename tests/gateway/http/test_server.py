import asyncio
import weakref

import pytest

from app.errors import ConfigError
from app.gateway.http.connection import Connection
from app.gateway.http.reader import Reader
from app.gateway.http.server import HttpServer
from tests.fakes import RawClient, alive, serving, until, without_collector
from tests.gateway.http.asking import GET, POST, ask, echo


def held(release):
    """A handler that answers once `release` is set."""

    async def handler(request):
        await release.wait()
        request.reply(200, b"")

    return handler


async def to(port, address):
    """A client with this address of its own."""
    return RawClient(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))


def test_idle_connections_give_way_to_new_ones(run):
    async def scenario():
        async with serving(echo, connections=40) as port:
            idle = [await RawClient.to(port) for _ in range(40)]
            await idle[0].send(GET % b"/")
            assert (await idle[0].response())[0] == 200
            assert (await ask(port, GET % b"/new"))[2] == b"GET /new "
            assert await idle[1].rest() in (b"", None)  # idle for longest
            await idle[0].send(GET % b"/again")  # and this one not
            assert (await idle[0].response())[2] == b"GET /again "

    run(scenario)


def test_half_a_head_gives_way_too(run):
    async def scenario():
        async with serving(echo, connections=4) as port:
            for _ in range(4):
                await (await RawClient.to(port)).send(b"GET / HT")
            assert (await ask(port, GET % b"/new"))[2] == b"GET /new "

    run(scenario)


def test_requests_under_way_give_no_way_and_the_503_says_when_to_come_back(run):
    async def scenario():
        release = asyncio.Event()
        async with serving(held(release), connections=2, linger=0.2, sweep=0.05) as port:
            busy = [await RawClient.to(port), await RawClient.to(port)]
            for client in busy:
                await client.send(GET % b"/")
            third = await RawClient.to(port)
            await third.send(POST % (200_000, b"x" * 200_000))  # it can still read the answer
            status, headers, body = await third.response()
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert b"too many connections" in body
            assert await third.rest() in (b"", None)
            release.set()
            assert [(await client.response())[0] for client in busy] == [200, 200]

    run(scenario)


def test_a_request_that_is_made_to_wait_gives_way(run):
    """As a guess of a key is: or those who guess would take all places."""

    async def scenario():
        release, paused = asyncio.Event(), asyncio.Semaphore(0)

        async def pause(request):
            if request.target == "/guess":
                request.gives_way = True
                paused.release()
                await release.wait()
            request.reply(200, b"")

        async with serving(pause, connections=2) as port:
            for _ in range(2):
                await (await RawClient.to(port)).send(GET % b"/guess")
                await paused.acquire()
            assert (await ask(port, GET % b"/new"))[0] == 200

    run(scenario)


def test_at_the_end_who_has_no_answer_is_told_why(run):
    """One whose body still arrives, and one that waits for something else."""

    async def scenario():
        asked, both = [], asyncio.Event()

        async def never(request):
            asked.append(request)
            if len(asked) == 2:
                both.set()
            async for _ in request.chunks():
                pass
            await asyncio.Event().wait()

        async with serving(never) as port:
            clients = [await RawClient.to(port) for _ in range(2)]
            await clients[0].send(POST % (100, b"x"))
            await clients[1].send(GET % b"/")
            await both.wait()
            answers = [asyncio.ensure_future(client.response()) for client in clients]
            await asyncio.sleep(0)
        for answer in answers:
            status, headers, body = await answer
            assert (status, headers["retry-after"]) == (503, "10") and b"is stopping" in body

    run(scenario)


def test_what_a_client_that_left_had_sent_is_freed_at_once(run):
    """Not only when the collector of cycles looks: that is seldom, and a body may be large."""

    async def scenario():
        begun, left = asyncio.Event(), []

        async def never(request):
            left.append(weakref.ref(request))
            begun.set()
            async for _ in request.chunks():
                pass

        async with serving(never) as port:
            client = await RawClient.to(port)
            await client.send(POST % (100_000, b"x" * 50_000))
            await begun.wait()
            await client.close()
            await until(lambda: left[0]() is None)

    without_collector(lambda: run(scenario))


def test_a_connection_that_has_ended_is_freed_without_the_collector(run):
    """What thousands of them left would hold everybody up when the collector looks."""

    async def scenario():
        before = alive(Reader), alive(Connection)  # of other tests

        def ours():
            return alive(Reader) - before[0], alive(Connection) - before[1]

        async with serving(echo) as port:
            client = await RawClient.to(port)
            await client.send(POST % (5, b"hello"))
            assert (await client.response())[2]
            assert all(ours())
            await client.close()
            await until(lambda: not any(ours()))

    without_collector(lambda: run(scenario))


def test_one_address_has_a_bound_and_the_others_have_places(run):
    async def scenario():
        release = asyncio.Event()
        async with serving(held(release), of_one_address=2) as port:
            for _ in range(2):
                await (await to(port, "127.0.0.2")).send(GET % b"/")
            status, headers, body = await (await to(port, "127.0.0.2")).response()
            assert (status, headers["retry-after"]) == (503, "1") and b"your address" in body
            other = await to(port, "127.0.0.3")
            await other.send(GET % b"/")
            release.set()
            assert (await other.response())[0] == 200

    run(scenario)


def test_a_given_port_that_is_taken_is_an_error_and_none_given_finds_a_free_one(run):
    async def scenario():
        async with serving(echo) as port:
            with pytest.raises(ConfigError, match=f"General/port: 127.0.0.1:{port}"):
                await HttpServer(echo).start("127.0.0.1", port)
            other = HttpServer(echo)
            _, found = await other.start("127.0.0.1", None, fallback=port)
            assert found != port
            await other.close()

    run(scenario)


def test_port_0_is_any_free_port(run):
    async def scenario():
        async with serving(echo) as taken:
            other = HttpServer(echo)
            _, found = await other.start("127.0.0.1", 0, fallback=taken)
            assert found not in (0, taken)
            await other.close()

    run(scenario)


def test_a_host_that_is_not_ours_is_an_error(run):
    async def scenario():
        with pytest.raises(ConfigError, match="General/"):
            await HttpServer(echo).start("192.0.2.1", None)

    run(scenario)
