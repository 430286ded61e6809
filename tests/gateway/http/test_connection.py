import asyncio
import contextlib
from random import Random

import pytest

from app.gateway.http.limits import Limits
from app.machine import clock
from tests.fakes import RawClient, serving
from tests.gateway.http.asking import GET, POST, ask, echo
from tests.gateway.http.wired import Wire, rest, talk


def test_keep_alive_answers_one_after_the_other(run):
    async def scenario():
        async with serving(echo) as port:
            client = await RawClient.to(port)
            for number in range(3):
                await client.send(POST % (1, b"%d" % number))
                status, headers, body = await client.response()
                assert (status, body) == (200, b"POST /p %d" % number)
                assert "connection" not in headers and "date" in headers
            await client.close()

    run(scenario)


def test_pipelined_requests_are_answered_in_order_one_at_a_time(run):
    async def scenario():
        running = most = 0

        async def slow(request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            await echo(request)

        async with serving(slow) as port:
            client = await RawClient.to(port)
            await client.send(b"".join(POST % (1, b"%d" % n) for n in range(5)))
            bodies = [(await client.response())[2] for _ in range(5)]
            assert bodies == [b"POST /p %d" % n for n in range(5)]
            assert most == 1
            await client.close()

    run(scenario)


def test_who_does_not_take_an_answer_gets_no_further_one_made(run):
    """Or a client could fill memory with answers that it never reads. Result: the others are made
    once it reads, each whole and in its place."""

    async def scenario():
        made = []

        async def large(request):
            made.append(request.target)
            request.reply(200, request.target.encode() * (4 << 20))

        async with serving(large) as port:
            client = await RawClient.to(port)
            for number in range(8):
                await client.send(GET % b"/%d" % number)
            assert (await ask(port, GET % b"/x"))[0] == 200  # the front has read all that it reads
            assert made in (["/0", "/x"], ["/0", "/1", "/x"])
            for number in range(8):
                _, _, body = await client.response()
                assert body == b"/%d" % number * (4 << 20)

    run(scenario)


def test_too_many_pipelined_requests_end_the_connection(run):
    async def scenario():
        async with serving(echo, pipelined=2) as port:
            client = await RawClient.to(port)
            await client.send(b"".join(GET % b"/x" for _ in range(10)))
            text = await client.rest()
            assert text.count(b"HTTP/1.1 200") == 3
            assert text.count(b"HTTP/1.1 429") == 1

    run(scenario)


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, id="two-hosts"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 405, id="a tunnel"),
        pytest.param(b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505, id="version-2"),
        pytest.param(b"GET / HTTP/0.9\r\nhost: a\r\n\r\n", 505, id="version-0.9"),
        pytest.param(
            b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="te-in-1.0"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            400,
            id="te-gzip",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\n"
            b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            id="cl-and-te",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            400,
            id="two-lengths",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", 400, id="obs-fold"),
        pytest.param(b"GET / HTTP/1.1\nhost: a\n\n", 400, id="bare-lf"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\x00\r\n\r\n", 400, id="nul"),
        pytest.param(b"rubbish\r\n\r\n", 400, id="rubbish"),
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, id="target"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, id="headers"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431, id="head"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000, 431, id="endless-head"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(run, request_bytes, status):
    async def scenario():
        async with serving(echo) as port:
            client = await RawClient.to(port)
            await client.send(request_bytes)
            text = await client.rest()
            assert text.startswith(b"HTTP/1.1 %d " % status), text
            assert text.count(b"HTTP/1.1 ") == 1 and b'"error"' in text
            await client.close()

    run(scenario)


def test_a_wish_to_upgrade_is_ignored(run):
    async def scenario():
        async with serving(echo) as port:
            client = await RawClient.to(port)
            wish = b"connection: upgrade\r\nupgrade: h2c\r\n"
            for data in (GET % b"/a", POST % (2, b"hi")):
                head, end, body = data.partition(b"\r\n\r\n")
                await client.send(head + b"\r\n" + wish + b"\r\n" + body + GET % b"/b")
                assert (await client.response())[0] == 200
                assert (await client.response())[2] == b"GET /b "

    run(scenario)


def test_a_head_that_grows_without_end_is_refused_and_what_still_comes_dropped(run):
    async def scenario():
        async with serving(echo, linger=1.0, sweep=0.05) as port:
            client = await RawClient.to(port)
            await client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
            with contextlib.suppress(ConnectionError):
                for _ in range(200):
                    await client.send(b"y" * 1024)
                    await asyncio.sleep(0)
            assert (await client.response())[0] == 431
            assert not await client.rest()

    run(scenario)


def test_a_client_that_leaves_cancels_its_request(run):
    async def scenario():
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def forever(request):
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

        async with serving(forever) as port:
            client = await RawClient.to(port)
            await client.send(GET % b"/")
            await begun.wait()
            await client.close()
            await asyncio.wait_for(cancelled.wait(), 5)

    run(scenario)


def test_what_comes_for_a_client_that_has_left_is_dropped(run):
    async def scenario():
        begun, failures = asyncio.Event(), asyncio.Queue()

        async def late(request):
            request.start(200, [])
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                try:
                    request.write(b"a token that was on its way")
                    failures.put_nowait(None)
                except RuntimeError as error:
                    failures.put_nowait(error)

        async with serving(late) as port:
            client = await RawClient.to(port)
            await client.send(GET % b"/")
            await begun.wait()
            client.writer.transport.abort()
            assert await asyncio.wait_for(failures.get(), 5) is None

    run(scenario)


def test_a_fault_of_ours_is_a_500_and_ends_only_its_request(run, caplog):
    async def faulty(request):
        if request.target == "/bad":
            raise ZeroDivisionError
        await echo(request)

    async def scenario():
        async with serving(faulty) as port:
            client = await RawClient.to(port)
            await client.send(GET % b"/bad" + GET % b"/good")
            assert (await client.response())[0] == 500
            assert (await client.response())[0] == 200
            await client.close()

    run(scenario)


@pytest.mark.parametrize(
    "data, limits",
    [
        pytest.param(b"", {"head_time": 0.1}, id="says-nothing"),
        pytest.param(b"GET / HT", {"head_time": 0.1}, id="slow-head"),
        pytest.param(POST % (10, b"x"), {"body_pause": 0.1}, id="slow-body"),
        pytest.param(GET % b"/", {"keep_alive": 0.1}, id="idle"),
    ],
)
def test_a_client_that_takes_too_long_is_left(run, data, limits):
    async def scenario():
        async with serving(echo, sweep=0.05, **limits) as port:
            client = await RawClient.to(port)
            await client.send(data)
            await asyncio.wait_for(client.rest(), 5)
            await client.close()

    run(scenario)


@pytest.mark.parametrize(
    "data, limits",
    [
        pytest.param(b"GET / HT", {"head_time": 0.1}, id="head"),
        pytest.param(POST % (10, b"x"), {"body_pause": 0.1}, id="pause"),
        pytest.param(POST % (10, b"x"), {"body_time": 0.1, "body_grace": 60}, id="time"),
        pytest.param(POST % (10, b"x"), {"body_grace": 0.1, "body_rate": 1e3}, id="rate"),
    ],
)
def test_what_takes_too_long_to_arrive_is_408(run, data, limits):
    async def scenario():
        async with serving(echo, sweep=0.05, linger=0.1, **limits) as port:
            client = await RawClient.to(port)
            await client.send(data)
            status, headers, body = await client.response()
            assert (status, headers["connection"]) == (408, "close") and b"took too long" in body
            assert await client.rest() in (b"", None)

    run(scenario)


def test_a_body_that_drips_has_its_time_and_its_least_rate(run):
    """A byte now and then keeps no body alive, nor do chunk extensions."""

    async def scenario():
        async with serving(echo, sweep=0.02, body_grace=0.1, body_rate=1e4) as port:
            client = await RawClient.to(port)
            await client.send(CHUNKED)
            answer = asyncio.create_task(client.response())
            while not answer.done():
                with contextlib.suppress(ConnectionError):
                    await client.send(b"1;a=b\r\nx\r\n")
                await asyncio.wait([answer], timeout=0.01)
            assert answer.result()[0] == 408

    run(scenario)


def test_while_the_front_holds_a_body_back_its_time_stands_still(monkeypatch):
    async def scenario():
        now = 1000.0
        monkeypatch.setattr(clock, "now", lambda: now)
        wire = Wire(Limits(buffered=100, body_rate=0))
        wire.feed(POST % (300, b"x" * 200))  # more than is held
        assert not wire.reading
        now += 100_000
        wire.connection.hurry(now)
        await rest(lambda: wire.reading)
        now += Limits.body_time
        wire.feed(b"x" * 50)
        wire.connection.hurry(now)
        await rest(lambda: wire.closed)
        assert wire.outcome().statuses == ()
        now += 1
        wire.connection.hurry(now)
        await rest(lambda: wire.closed)
        assert wire.outcome().statuses == (408,)
        wire.leave()

    asyncio.run(scenario())


CHUNKED = b"POST /p HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "start, piece",
    [
        pytest.param(b"5;a=", b"y" * 1000, id="one-extension"),
        pytest.param(b"", b"1;a=" + b"y" * 500 + b"\r\nx\r\n", id="many-extensions"),
        pytest.param(b"0\r\n", b"x: " + b"y" * 500 + b"\r\n", id="many-trailers"),
        pytest.param(b"0\r\nx: ", b"y" * 1000, id="one-trailer"),
    ],
)
def test_extensions_and_trailers_are_bounded_and_get_one_answer(start, piece):
    async def scenario():
        outcome = await talk(CHUNKED, start, *[piece] * 30, b"\r\n0\r\n\r\n" + GET % b"/next")
        assert (outcome.statuses, outcome.closed, outcome.requests) == ((431,), True, ())

    asyncio.run(scenario())


def test_many_small_chunks_earn_no_large_trailer():
    async def scenario():
        trailer = b"0\r\n" + b"x: y\r\n" * 5000
        outcome = await talk(CHUNKED, b"1\r\nx\r\n" * 9000, trailer, b"\r\n")
        assert (outcome.statuses, outcome.requests) == ((431,), ())

    asyncio.run(scenario())


def test_a_chunk_may_have_its_extension():
    """Signed chunks have one of 80 bytes each, however many they are."""

    async def scenario():
        chunk = b"400;chunk-signature=" + b"0" * 30 + b"\r\n" + b"x" * 1024 + b"\r\n"
        outcome = await talk(CHUNKED, *[chunk] * 500, b"0\r\n\r\n")
        assert outcome.statuses == (200,)

    asyncio.run(scenario())


@pytest.mark.parametrize("trailers, statuses", [(1, (200, 200)), (300, (200, 200)), (400, (431,))])
def test_trailers_are_no_headers_of_this_request_nor_of_the_next(trailers, statuses):
    """And there is one answer, however many they are."""

    async def scenario():
        body = b"0\r\n" + b"authorization: Bearer k\r\n" * trailers + b"\r\n"
        outcome = await talk(CHUNKED + body + GET % b"/next")
        assert outcome.statuses == statuses
        for _, _, headers, _ in outcome.requests:
            assert b"authorization" not in dict(headers)

    asyncio.run(scenario())


def test_half_a_head_behind_an_answer_that_takes_long_breaks_nothing(run):
    async def scenario():
        release = asyncio.Event()

        async def late(request):
            request.start(200, [], 2)
            await release.wait()
            request.write(b"ok")
            request.finish()

        async with serving(late, head_time=0.1, sweep=0.02) as port:
            client = await RawClient.to(port)
            await client.send(GET % b"/" + b"GET / HT")
            await asyncio.sleep(0.3)
            release.set()
            assert (await client.response())[2] == b"ok"
            assert (await client.response())[0] == 408

    run(scenario)


PIECES = [
    b"GET /a HTTP/1.1\r\n",
    b"POST /p HTTP/1.1\r\n",
    b"HEAD /h HTTP/1.0\r\n",
    b"host: h\r\n",
    b"content-length: 5\r\n",
    b"content-length: -1\r\n",
    b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"expect: 100-continue\r\n",
    b"\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"\x00\xff\x16\x03\x01",
    b"x" * 5000,
]


def test_rubbish_of_every_kind_leaves_the_front_as_it_was(run, caplog):
    """Seeded: requests put together at random, cut anywhere, left anywhere. Result: nothing but
    answers and closed connections, and the next proper request is served."""

    async def scenario():
        random = Random(7)
        async with serving(echo, linger=0.05, sweep=0.02, head_time=0.2, body_pause=0.2) as port:

            async def rubbish():
                client = await RawClient.to(port)
                with contextlib.suppress(ConnectionError):
                    for _ in range(random.randint(1, 12)):
                        data = random.choice(PIECES)
                        await client.send(data[: random.randint(0, 2 * len(data))])
                        if random.random() < 0.2:
                            await asyncio.sleep(0)
                    if random.random() < 0.3:
                        client.writer.transport.abort()
                    elif random.random() < 0.5:
                        await asyncio.wait_for(client.rest(), 5)
                await client.close()

            for _ in range(12):
                await asyncio.gather(*(rubbish() for _ in range(20)))
            status, _, body = await ask(port, POST % (2, b"ok"))
            assert (status, body) == (200, b"POST /p ok")

    run(scenario)
    assert caplog.records == []
