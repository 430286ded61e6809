"""The port before the models are known."""

import asyncio
import contextlib
import json

from app.gateway.admission import Keys
from app.gateway.rules import Rules
from app.instance.callers import Callers
from app.instance.doorway import Doorway
from app.instance.ending import Ending
from tests.fakes import RawClient
from tests.gateway.http.asking import ask, echo

AS_LOCAL = b"%s %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.asynccontextmanager
async def listening(keys=()):
    ending = Ending()
    doorway = Doorway(Callers(Rules(Keys(list(keys))), ""))
    _, port = await doorway.listen("127.0.0.1", 0, ending)
    yield doorway, ending, port
    await ending.run()
    await doorway.close()
    while RawClient.open:
        await RawClient.open.pop().close()


def test_our_first_pages_answer_at_once_and_all_else_waits_for_the_front(run):
    async def scenario():
        async with listening() as (doorway, ending, port):
            for path in (b"/health", b"/ready"):
                status, _, body = await ask(port, AS_LOCAL % (b"GET", path))
                assert (status, json.loads(body)) == (503, {"status": "loading"})
            status, _, body = await ask(port, AS_LOCAL % (b"GET", b"/"))
            assert status == 200 and b"<html" in body
            waiting = [await RawClient.to(port) for _ in range(3)]
            for client, path in zip(waiting, (b"/v1/models", b"/api/status", b"/a"), strict=True):
                await client.send(AS_LOCAL % (b"GET", path))
            posts = await RawClient.to(port)
            await posts.send(AS_LOCAL % (b"POST", b"/health"))
            asks = await RawClient.to(port)
            await asks.send(AS_LOCAL % (b"OPTIONS", b"*"))
            await asyncio.sleep(0.05)
            doorway.open(echo, ending)
            bodies = [(await client.response())[2] for client in (*waiting, posts, asks)]
            assert bodies[:3] == [b"GET /v1/models ", b"GET /api/status ", b"GET /a "]
            assert bodies[3:] == [b"POST /health ", b"OPTIONS * "]
            assert (await ask(port, AS_LOCAL % (b"GET", b"/health")))[2] == b"GET /health "
            assert not ending._steps  # who opens it closes it

    run(scenario)


def test_without_a_key_only_this_machine_is_answered(run):
    async def scenario():
        async with listening() as (_, ending, port):
            evil = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
            status, _, body = await ask(port, evil)
            assert status == 403 and b"evil.example" in body
        async with listening(keys=["k" * 20]) as (_, ending, port):
            assert (await ask(port, evil))[0] == 200
            assert (await ask(port, AS_LOCAL % (b"GET", b"/v1/models")))[0] == 401

    run(scenario)


def test_who_waits_when_it_ends_is_told_so(run):
    """As where the plan is refused."""

    async def scenario():
        async with listening() as (_, ending, port):
            client = await RawClient.to(port)
            await client.send(AS_LOCAL % (b"GET", b"/v1/models"))
            await asyncio.sleep(0.05)
            answer = asyncio.create_task(client.response())
            await ending.run()
            status, _, body = await answer
            assert status == 503 and b"stopping" in body

    run(scenario)
