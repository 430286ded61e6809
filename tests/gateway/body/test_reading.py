"""Bodies on their whole way, through a real front to a scripted child."""

import asyncio
import gzip
import json

import pytest

from app.errors import RequestError
from app.gateway.body.examine import FEW, SMALL
from app.gateway.body.reading import DECODED_AT_ONCE, PIECE, Body, Reading, gather
from app.gateway.body.room import UNCOUNTED, Holding, Room
from app.gateway.body.sizes import Allowance
from tests.fakes import Child, RawClient, body_of, reply, until
from tests.gateway.front import Front, echo, head

TEXT = b'{"prompt":"%b"}' % (b"word " * (SMALL // 4))
MANY = b'{"a":[%b0]}' % (b"[]," * FEW)
REPAIRED = b"\xef\xbb\xbf" + TEXT
PATH = "/tiny/v1/completions"


async def whole_of(reader, told):
    """A request's body by its chunks or its Content-Length."""
    if b"transfer-encoding: chunked" not in told.lower():
        return await body_of(reader, told)
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(pieces)


class Keeping:
    """A child that keeps what it gets."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, reader, writer, told):
        self.bodies.append(await whole_of(reader, told))
        writer.write(reply(b"{}"))


class Blocked:
    """Examines nothing until it may."""

    def __init__(self, workers):
        self.workers, self.asked, self.may = workers, asyncio.Event(), asyncio.Event()

    async def examine(self, pieces, **options):
        self.asked.set()
        await self.may.wait()
        return await self.workers.examine(pieces, **options)


@pytest.mark.parametrize(
    "body",
    [b"{}", TEXT[: SMALL // 2] + b'"}', TEXT, MANY, REPAIRED],
    ids=["small", "moderate", "large", "many", "repaired"],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_child_gets_every_byte(run, socket, body, compressed):
    async def scenario():
        child, front = Keeping(), Front(("tiny",))
        headers = b"content-encoding: gzip\r\n" if compressed else b""
        async with Child(socket, child), front.before(socket):
            sent = gzip.compress(body, 1) if compressed else body
            assert (await front.ask(PATH, sent, headers=headers))[0] == 200
            assert child.bodies == [body.removeprefix(b"\xef\xbb\xbf")]

    run(scenario)


@pytest.mark.parametrize("body", [REPAIRED, MANY], ids=["large", "many"])
def test_a_body_that_takes_long_is_examined_aside(run, socket, body):
    """Result: others are answered while it is, however long that takes."""

    async def scenario():
        front = Front(("tiny",))
        front.reading._aside = aside = Blocked(front.workers)
        async with Child(socket, Keeping()), front.before(socket):
            client = await front.begin(PATH, body)
            await asyncio.wait_for(aside.asked.wait(), 20)
            for _ in range(5):
                assert (await front.ask(PATH, b'{"prompt":"a"}'))[0] == 200
            aside.may.set()
            assert (await client.response())[0] == 200

    run(scenario)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_large_body_of_few_values_is_examined_as_it_arrives(run, socket, compressed):
    async def scenario():
        front = Front(("tiny",))
        front.reading._aside = None
        headers = b"content-encoding: gzip\r\n" if compressed else b""
        sent = gzip.compress(TEXT, 1) if compressed else TEXT
        async with Child(socket, Keeping()), front.before(socket):
            assert (await front.ask(PATH, sent, headers=headers))[0] == 200

    run(scenario)


def limited(size, **options):
    front = Front(("tiny",), **options)
    front.allow = lambda name: Allowance(size)
    return front


@pytest.mark.parametrize("path", [PATH, "/tiny/v1/audio/transcriptions"])
def test_a_length_over_the_limit_is_refused_before_the_body_comes(run, socket, path):
    async def scenario():
        front = limited(1000)
        async with Child(socket, echo) as child, front.before(socket):
            client = await RawClient.to(front.port)
            length = "0" * 5000 + "1001"  # int() takes no text of so many digits
            await client.send(head(path, b"expect: 100-continue\r\n", length=length))
            status, headers, body = await client.response()
            assert (status, headers["connection"]) == (413, "close")
            assert "1000 bytes" in json.loads(body)["error"]["message"]
            assert await client.rest() == b"" and child.heads == []

    run(scenario)


def test_a_length_that_begins_with_many_zeros_is_a_number(run, socket):
    """Python reads no integer of more than 4,300 digits."""

    async def scenario():
        front = limited(1000)
        async with Child(socket, echo), front.before(socket):
            client = await RawClient.to(front.port)
            line = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\n"
            await client.send(line.encode() + b"content-length: %b2\r\n\r\n{}" % (b"0" * 5000))
            assert (await client.response())[::2] == (200, b"{}")

    run(scenario)


@pytest.mark.parametrize("path", [PATH, "/tiny/v1/audio/transcriptions"])
def test_chunks_over_the_limit_are_refused(run, socket, path):
    async def scenario():
        front = limited(1000)
        async with Child(socket, echo), front.before(socket):
            client = await RawClient.to(front.port)
            line = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            await client.send(line.encode() + b"3e9\r\n" + b"a" * 1001 + b"\r\n")
            status, headers, _ = await client.response()
            assert (status, headers["connection"]) == (413, "close")

    run(scenario)


def test_the_limit_is_that_of_the_model_that_the_body_names(run, socket):
    async def scenario():
        front = Front(("one", "two"))
        sizes = {"one": Allowance(100), "two": Allowance(200)}
        front.allow = sizes.__getitem__
        async with Child(socket, echo), front.before(socket):
            for model, size, status in (("one", 150, 413), ("two", 150, 200), ("two", 250, 413)):
                body = json.dumps({"model": model, "prompt": "a" * (size - 30)}).encode()
                assert (await front.ask("/v1/completions", body))[0] == status, (model, size)

    run(scenario)


def test_text_has_no_use_of_the_room_for_media(run, socket):
    async def scenario():
        front = Front(("tiny",))
        front.allow = lambda name: Allowance(SMALL, 3 * SMALL)
        data = "A" * 2 * SMALL
        async with Child(socket, Keeping()), front.before(socket):
            media = {"messages": [{"content": [{"image_url": {"url": data}}]}]}
            text = {"messages": [{"content": [{"text": data}]}]}
            for body, status in ((media, 200), (text, 413)):
                assert (await front.ask(PATH, json.dumps(body).encode()))[0] == status

    run(scenario)


def test_unfinished_bodies_take_a_bounded_memory(run, socket):
    """Twenty clients send the most of a body each, and wait. Result: no more is held than the
    bound; the others are refused with Retry-After; small requests are served; those that end make
    room."""

    async def scenario():
        room = Room(total=SMALL, of_an_address=SMALL)
        front = Front(("tiny",), room=room)
        begun = b'{"prompt":"' + b"a" * (SMALL // 4)
        async with Child(socket, Keeping()), front.before(socket):
            clients = []
            for _ in range(20):
                client = await RawClient.to(front.port)
                await client.send(head(PATH, length=len(begun) + 2) + begun)
                clients.append(client)
            answers = [asyncio.ensure_future(client.response()) for client in clients]
            await until(lambda: sum(answer.done() for answer in answers) >= 15)
            assert room.taken <= SMALL
            assert (await front.ask(PATH))[0] == 200
            kept = [i for i, answer in enumerate(answers) if not answer.done()]
            for i in kept:
                await clients[i].send(b'"}')
                assert (await answers[i])[0] == 200
            refused = [await answer for i, answer in enumerate(answers) if i not in kept]
            assert kept and {answer[0] for answer in refused} == {503}
            assert all(int(headers["retry-after"]) > 0 for _, headers, _ in refused)
            await until(lambda: room.taken == 0)
            assert (await front.ask(PATH, begun + b'"}'))[0] == 200

    run(scenario)


def test_a_body_gives_way_while_it_arrives_and_not_once_it_is_whole():
    """Or slow bodies would take all places for connections."""

    class Sent:
        headers, length, address, gives_way = [], None, "", False

        def take_whole(self, below):
            return None

        async def chunks(self):
            for chunk in (b"{", b"}"):
                seen.append(self.gives_way)
                yield chunk

    async def scenario():
        reading = Reading(None, lambda name: Allowance(100), allow_remote=False)
        request = Sent()
        with reading.holding(request) as holding:
            await reading.body(request, ("a",), holding, multipart=False)
        assert not request.gives_way

    seen = []
    asyncio.run(scenario())
    assert seen == [True, True]


def test_the_addresses_of_one_ipv6_network_share_a_bound():
    class Asked:
        def __init__(self, address):
            self.address = address

    async def scenario():
        room = Room(total=100, of_an_address=50)
        reading = Reading(None, None, allow_remote=False, room=room)
        with reading.holding(Asked("2001:db8::1")) as first:
            first.grow(UNCOUNTED + 30)
            reading.holding(Asked("2001:db8:1::1")).grow(UNCOUNTED + 30)
            with pytest.raises(RequestError):
                reading.holding(Asked("2001:db8::2")).grow(UNCOUNTED + 30)

    asyncio.run(scenario())


def test_who_leaves_while_its_body_is_decoded_counts_until_the_thread_ends(run, monkeypatch):
    class Asked:
        headers = ()

    async def scenario():
        begun, end = [], asyncio.Event()

        async def slowly(*_):
            begun.append(1)
            await end.wait()
            raise RequestError(413, "too large")

        monkeypatch.setattr("app.gateway.body.reading.decoded", slowly)
        reading = Reading(None, None, allow_remote=False)
        tasks = [asyncio.create_task(reading._decode(Asked(), [], 1)) for _ in range(9)]
        await until(lambda: len(begun) == DECODED_AT_ONCE)
        for task in tasks[:-1]:
            task.cancel()
        await asyncio.gather(*tasks[:-1], return_exceptions=True)
        assert len(begun) == DECODED_AT_ONCE
        end.set()
        with pytest.raises(RequestError):
            await tasks[-1]
        assert len(begun) == DECODED_AT_ONCE + 1

    run(scenario)


def test_a_client_that_leaves_makes_room(run, socket):
    async def scenario():
        room = Room()
        front = Front(("tiny",), room=room)
        async with Child(socket, Keeping()), front.before(socket):
            client = await RawClient.to(front.port)
            await client.send(head(PATH, length=len(TEXT)) + TEXT[:-1])
            await until(lambda: room.taken > SMALL - UNCOUNTED)
            await client.close()
            await until(lambda: room.taken == 0)

    run(scenario)


def test_what_the_child_has_got_is_given_up(run):
    async def scenario():
        room = Room()
        reading = Reading(None, None, allow_remote=False, room=room)
        with Holding(room, "a") as holding:
            holding.grow(UNCOUNTED + 3)
            body = Body([b"a", b"b", b"c"], holding=holding)
            found = []
            async for piece in reading.pieces(None, body, "tiny"):
                found.append((piece, len(body.pieces), room.taken))
            assert found == [(b"a", 2, 3), (b"b", 1, 3), (b"c", 0, 3)]
            assert room.taken == 0  # though the answer may take long
        assert room.taken == 0

    run(scenario)


async def crumbs(size):
    for _ in range(size // 16):
        yield b"a" * 16


def test_a_body_that_comes_in_crumbs_takes_no_more_memory(run):
    async def scenario():
        with Holding(Room(), "a") as holding:
            size = SMALL + PIECE + 16
            pieces = await gather(crumbs(size), Allowance(size), holding)
            assert {len(piece) for piece in pieces[:-1]} == {PIECE}
            assert sum(map(len, pieces)) == size
            with pytest.raises(RequestError):
                await gather(crumbs(32), Allowance(31), holding)

    run(scenario)
