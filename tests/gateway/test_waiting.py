import asyncio
import contextlib
import json

import pytest

from app.gateway import waiting
from app.gateway.admission import Keys
from app.gateway.rules import Rules
from app.memory.ledger import ModelState
from tests.fakes import Child, body_of, reply, serving, until
from tests.gateway.front import Front, answering

STREAM = json.dumps({"stream": True}).encode()


@contextlib.asynccontextmanager
async def waking(socket, answer, monkeypatch):
    """A front whose only model does not come before `servers["tiny"].may_start` is set."""
    monkeypatch.setattr(waiting, "FIRST_PING", 0.01)
    monkeypatch.setattr(waiting, "PING_INTERVAL", 0.01)
    front = Front(("tiny",))
    async with Child(socket, answer), front.before(socket):
        front.servers["tiny"].may_start.clear()
        yield front


def test_the_caller_of_a_stream_is_kept_alive_while_its_model_comes(run, socket, monkeypatch):
    async def scenario():
        async with waking(socket, answering, monkeypatch) as front:
            client = await front.begin(body=STREAM)
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head and b"text/event-stream" in head
            assert b": ping" in await client.reader.readuntil(b": ping")
            await asyncio.sleep(0.02)  # a timer may be a millisecond early
            front.servers["tiny"].may_start.set()
            rest = await client.reader.readuntil(b"\r\n0\r\n\r\n")
            assert rest.count(b"data: a") == 1 and b"HTTP/" not in rest
            await until(lambda: front.samples)
            assert front.samples[0].status == 200 and front.samples[0].wait > 0.01

    run(scenario)


def test_an_error_after_a_ping_is_an_event(run, socket, monkeypatch):
    """Its wait ends before the model comes; and a child that refuses. Result: an event each."""

    async def refusing(reader, writer, head):
        await body_of(reader, head)
        writer.write(reply(b'{"error":{"message":"no","type":"x"}}', status=400))

    async def scenario():
        async with waking(socket, refusing, monkeypatch) as front:
            client = await front.begin(body=STREAM, headers=b"x-wait-timeout: 0.1\r\n")
            told = await client.rest_of_answer()
            assert b'data: {"error": {"message": "tiny is still loading' in told
            assert told.endswith(b"0\r\n\r\n")
            client = await front.begin(body=STREAM)
            await client.reader.readuntil(b": ping")
            front.servers["tiny"].may_start.set()
            assert (
                b'data: {"error": {"message": "no", "type": "x"}}\n\n'
                in await client.rest_of_answer()
            )
            await until(lambda: len(front.samples) == 2)
            assert [sample.status for sample in front.samples] == [503, 400]

    run(scenario)


def test_who_wants_no_stream_gets_a_bounded_wait(run, socket, monkeypatch):
    async def scenario():
        async with waking(socket, answering, monkeypatch) as front:
            status, headers, body = await front.ask(headers=b"x-wait-timeout: 0.05\r\n")
            assert status == 503 and headers["retry-after"] == "10" and b"loading" in body
            for wrong in (b"x", b"-1", b"nan", b"99999"):
                status, _, body = await front.ask(headers=b"x-wait-timeout: %b\r\n" % wrong)
                assert status == 400 and b"X-Wait-Timeout" in body

    run(scenario)


def test_who_leaves_while_waiting_is_dropped_and_the_load_goes_on(run, socket, monkeypatch):
    async def scenario():
        async with waking(socket, answering, monkeypatch) as front:
            client = await front.begin(body=STREAM)
            await client.reader.readuntil(b": ping")
            await client.close()
            await until(lambda: not front.pool.view()[0].admitted)
            view = front.pool.view()[0]
            assert view.waiting == 0 and view.state is ModelState.LOADING
            front.servers["tiny"].may_start.set()
            await until(lambda: front.pool.view()[0].state is ModelState.READY)

    run(scenario)


def test_a_wait_that_is_too_long_is_503(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys([]), wait_timeout=0.05))
        async with serving(front.proxy) as front.port:
            status, headers, body = await front.ask()
            assert status == 503 and headers["retry-after"] == "10" and b"pending" in body

    run(scenario)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"])
def test_a_child_that_dies_after_a_ping_is_an_event(run, socket, monkeypatch, head):
    """Before its head, and in the middle of an answer that comes whole."""

    async def dying(reader, writer, _):
        await body_of(reader, _)
        writer.write(head)
        await asyncio.sleep(0.05)
        writer.close()

    async def scenario():
        async with waking(socket, dying, monkeypatch) as front:
            client = await front.begin(body=STREAM)
            await client.reader.readuntil(b": ping")
            front.servers["tiny"].may_start.set()
            told = await client.rest_of_answer()
            assert b'data: {"error": {"message": ' in told and told.endswith(b"0\r\n\r\n")
            await until(lambda: front.samples)
            assert front.samples[0].status == 502

    run(scenario)
