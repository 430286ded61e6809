"""The child is stuck and is ended, or ends by itself: what its callers get."""

import asyncio
import contextlib
import json

import pytest

from app.errors import StuckError
from app.gateway import passing, waiting
from tests.fakes import Child, body_of, reply, until
from tests.gateway.front import CHUNKED, EVENTS, Front

WHY = "llama-server was ended: stopped"


def piece(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stuck:
    """A child that begins an answer, and then does no more, or ends by itself after a while; the
    next one answers."""

    def __init__(self, begins, then=None, ends_after=None):
        self.begins, self.then, self.asked = begins, then, []
        self.ends_after = ends_after  # seconds

    async def __call__(self, reader, writer, head):
        self.asked.append(await body_of(reader, head))
        if len(self.asked) > 1 and self.then is not None:
            writer.write(self.then)
            return
        writer.write(self.begins)
        await writer.drain()
        if self.ends_after is not None:
            await asyncio.sleep(self.ends_after)
            writer.close()


ANSWER = EVENTS + piece(b"data: all\n\n") + b"0\r\n\r\n"


async def ended(front, client, child, times=1):
    """Let the child be ended as its guard does it, once it has been asked so often."""
    await until(lambda: len(child.asked) == times)
    await asyncio.sleep(0.05)  # what it began is here by then
    upstream = front.pool._ledger["tiny"].upstream
    upstream.give_up(StuckError(WHY))
    front.servers["tiny"].ended.set_result(-9)
    front.servers["tiny"].ended = asyncio.get_running_loop().create_future()
    upstream.reopen()  # as it does when it is started again


@pytest.mark.parametrize(
    "begins",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(EVENTS, id="the head of a stream"),
        pytest.param(EVENTS + piece(b":\n\n"), id="and a comment"),
    ],
)
def test_who_got_nothing_yet_is_served_again(run, socket, begins):
    async def scenario():
        child, front = Stuck(begins, ANSWER), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin(body=b'{"stream":true}')
            await ended(front, client, child)
            status, headers, body = await client.response()
            assert status == 200 and headers["content-type"] == "text/event-stream"
            assert body.replace(b":\n\n", b"") == b"data: all\n\n"
            assert child.asked[0] == child.asked[1]
            assert [sample.status for sample in front.samples] == [200]
            assert front.pool.view()[0].admitted == front.pool.view()[0].leased == 0

    run(scenario)


@pytest.mark.parametrize(
    "begins, told",
    [
        pytest.param(b"", True, id="nothing"),
        pytest.param(EVENTS, True, id="the head of a stream"),
        pytest.param(EVENTS + piece(b"data: a\n\n"), False, id="an event"),
        pytest.param(CHUNKED + b"\r\n" + piece(b'{"a":'), False, id="part of a whole answer"),
    ],
)
def test_who_got_nothing_of_one_that_is_killed_is_served_again(
    run, socket, monkeypatch, begins, told
):
    """It ends by itself, and closes its connections."""
    monkeypatch.setattr(passing, "GONE", 0.1)

    async def scenario():
        child, front = Stuck(begins, ANSWER, ends_after=0.05), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin(body=b'{"stream":true}')
            if told:
                assert (await client.response())[::2] == (200, b"data: all\n\n")
            else:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
                    status, _, body = await client.response()
                    assert (status, body[:9]) == (200, b"data: a\n\n") and b"before its" in body
            assert len(child.asked) == 1 + told

    run(scenario)


def test_who_is_served_again_is_not_left_in_silence(run, socket, monkeypatch):
    """llama-server has sent the head of a stream, and dies while it reads the prompt. Result: the
    client gets comments until the next one answers."""
    monkeypatch.setattr(waiting, "FIRST_PING", 0.02)
    monkeypatch.setattr(waiting, "PING_INTERVAL", 0.02)
    monkeypatch.setattr(passing, "GONE", 0.3)

    async def scenario():
        child, front = Stuck(EVENTS, ANSWER, ends_after=0.1), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin(body=b'{"stream":true}')
            status, _, body = await client.response()
            assert status == 200 and body.endswith(b"data: all\n\n")
            assert body.count(b": ping") > 2

    run(scenario)


def test_one_answer_that_is_no_stream(run, socket):
    async def scenario():
        child, front = Stuck(b"", reply(b'{"a":1}')), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin()
            await ended(front, client, child)
            assert (await client.response())[::2] == (200, b'{"a":1}')

    run(scenario)


@pytest.mark.parametrize("before", [b"", b":\n\n"], ids=["", "a comment in the same piece"])
def test_who_got_the_beginning_is_told_in_the_stream(run, socket, before):
    async def scenario():
        begins = EVENTS + piece(before + b"data: a\n\n")
        child, front = Stuck(begins, ANSWER), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin(body=b'{"stream":true}')
            await ended(front, client, child)
            status, _, body = await client.response()
            first, _, error = body.removeprefix(before).partition(b"\n\n")
            assert (status, first) == (200, b"data: a")
            told = json.loads(error.strip().removeprefix(b"data: "))["error"]
            assert told["code"] == 502 and WHY in told["message"]
            assert len(child.asked) == 1

    run(scenario)


@pytest.mark.parametrize("begins", [b"", EVENTS], ids=["nothing", "the head of a stream"])
def test_a_request_is_served_again_only_once(run, socket, begins):
    async def scenario():
        child, front = Stuck(begins), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin(body=b'{"stream":true}')
            await ended(front, client, child)
            await ended(front, client, child, times=2)
            status, _, body = await client.response()
            assert status == (200 if begins else 502) and WHY.encode() in body
            assert len(child.asked) == 2

    run(scenario)


def test_part_of_a_whole_answer_cannot_be_told_twice(run, socket):
    """Its client sees that the answer is not whole."""

    async def scenario():
        child, front = Stuck(CHUNKED + b"\r\n" + piece(b'{"a":'), ANSWER), Front(("tiny",))
        async with Child(socket, child), front.before(socket):
            client = await front.begin()
            await ended(front, client, child)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
                await client.response()
            assert len(child.asked) == 1

    run(scenario)
