"""What open pages are told, over real connections."""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest

from app.gateway.pages import events
from app.gateway.pages.events import Live, Sources
from app.machine import clock
from app.memory.ledger import ModelState, Tier
from app.memory.moves import Moves
from app.telemetry.history import History
from app.telemetry.logs import LogBook
from app.telemetry.past import Past
from tests.fakes import RawClient, serving, until
from tests.telemetry.examples import sample, view

NAMES = ["hello", "status", "history", "requests", "moves", "log"]
ASK = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Watched:
    """A Live whose sources a test changes."""

    def __init__(self):
        self.status = {"status": "active", "uptime": 1, "models": []}
        self.logs = LogBook()
        self.history = History([("tokens", "total")])
        self.values = 0
        self.views = []
        self.past = Past(lambda: self.views)
        self.live = Live(
            Sources(
                hello=lambda request: {"admin": bool(request.address)},
                status=lambda: dict(self.status),
                values=self._values,
                history=self.history,
                past=self.past,
                logs=self.logs,
                renew=self._renew,
            )
        )

    async def _renew(self):
        pass

    def _values(self):
        self.values += 1
        return [self.values]

    @contextlib.asynccontextmanager
    async def serving(self, **limits):
        self.live.start()
        async with serving(self.live.show, **limits) as self.port:
            yield
            self.live.stop()

    async def viewer(self):
        client = await RawClient.to(self.port)
        await client.send(ASK)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"text/event-stream" in head
        return client


async def event(client):
    """Name and data of the next event."""
    text = b""
    while not text.endswith(b"\n\n"):
        size = int(await client.reader.readline(), 16)
        if not size:
            return None
        text += await client.reader.readexactly(size)
        await client.reader.readline()
    return [parse(block) for block in text.decode().strip().split("\n\n")]


def parse(block):
    name, data = block.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def next_of(client, wanted):
    """The data of the next event of this name."""
    while True:
        for name, data in await asyncio.wait_for(event(client), 10):
            if name == wanted:
                return data


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(events, "TICK", 0.01)
    monkeypatch.setattr(events, "INTERVAL", 0.02)
    monkeypatch.setattr(events, "CALM", 60)


def test_a_viewer_is_told_everything_and_then_what_is_new(run):
    async def scenario():
        watched = Watched()
        watched.logs.add(1.0, "info", "a", "before")
        watched.history.add(1000, [5])
        async with watched.serving():
            client = await watched.viewer()
            first = await event(client)
            assert [name for name, _ in first] == NAMES
            told = dict(first)
            assert told["hello"]["admin"] and told["hello"]["columns"] == [["tokens", "total"]]
            assert told["history"][0] == [1000, 5]
            assert told["log"] == [[1.0, "info", "a", "before"]]
            watched.status["status"] = "idle"
            assert (await next_of(client, "status"))["status"] == "idle"
            watched.logs.add(2.0, "error", "a", "after")
            assert await next_of(client, "log") == [[2.0, "error", "a", "after"]]
            row = await next_of(client, "row")
            assert row[1] == (await next_of(client, "row"))[1] - 1

    run(scenario)


def test_only_new_requests_and_moves_are_told(run):
    async def scenario():
        watched, moves = Watched(), Moves()
        watched.views = [view("a", moves=moves)]
        moves.note(clock.now(), ModelState.COLD, Tier.DISK)
        watched.past.add(sample("a", status=200))
        async with watched.serving():
            client = await watched.viewer()
            first = dict(await event(client))
            assert [row["status"] for row in first["requests"]] == [200]
            assert [row["state"] for row in first["moves"]] == ["cold"]
            watched.past.add(sample("a", status=502))
            assert [row["status"] for row in await next_of(client, "requests")] == [502]
            moves.note(clock.now(), ModelState.LOADING, Tier.DISK)
            assert [row["state"] for row in await next_of(client, "moves")] == ["loading"]
            late = dict(await event(await watched.viewer()))
            assert [row["status"] for row in late["requests"]] == [200, 502]
            assert [row["state"] for row in late["moves"]] == ["cold", "loading"]

    run(scenario)


def test_clocks_alone_are_no_news(run, monkeypatch):
    monkeypatch.setattr(events, "INTERVAL", 60)

    async def scenario():
        watched = Watched()
        async with watched.serving():
            client = await watched.viewer()
            await event(client)
            watched.status["uptime"] = 2
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.2)

    run(scenario)


def test_who_does_not_read_is_left_out_and_later_told_everything(run):
    async def scenario():
        watched = Watched()
        async with watched.serving():
            slow, quick = await watched.viewer(), await watched.viewer()
            await event(slow)
            viewers = watched.live._viewers
            number = 0
            while not any(viewer.paused for viewer in viewers):  # until the buffers are full
                for _ in range(50):
                    number += 1
                    watched.logs.add(1.0, "info", "a", f"{number} " + "x" * 900)
                await event(quick)
            (left,) = [viewer for viewer in viewers if viewer.paused]
            size = 0
            for _ in range(20):
                watched.logs.add(1.0, "info", "a", "more")
                await next_of(quick, "log")
                size = max(size, left.request._connection._transport.get_write_buffer_size())
            assert left.fresh and size < 4 << 20
            assert await next_of(slow, "hello")  # once it reads again

    run(scenario)


def test_the_end_ends_every_response(run):
    async def scenario():
        watched = Watched()
        async with watched.serving():
            client = await watched.viewer()
            await event(client)
            watched.status["status"] = "stopping"
            watched.live.stop()
            assert (await next_of(client, "status"))["status"] == "stopping"
            assert await event(client) is None
            late = await RawClient.to(watched.port)
            await late.send(ASK)
            assert (await late.response())[0] == 503

    run(scenario)


def test_so_many_viewers_and_no_more(run, monkeypatch):
    monkeypatch.setattr(events, "MAX_VIEWERS", 2)

    async def scenario():
        watched = Watched()
        async with watched.serving():
            first, _ = await watched.viewer(), await watched.viewer()
            third = await RawClient.to(watched.port)
            await third.send(ASK)
            assert (await third.response())[0] == 503
            await first.close()
            await until(lambda: len(watched.live._viewers) == 1)
            await watched.viewer()

    run(scenario)


def test_one_fault_does_not_leave_the_viewers_in_the_dark(run, caplog):
    async def scenario():
        watched = Watched()
        async with watched.serving():
            client = await watched.viewer()
            await event(client)
            told = watched.status
            watched.status = None  # cannot be read
            await until(lambda: "could not be told" in caplog.text)
            watched.status = {**told, "status": "again"}
            assert (await next_of(client, "status"))["status"] == "again"

    run(scenario)


def test_nothing_is_asked_while_nobody_looks(run):
    async def scenario():
        watched = Watched()
        asked = []

        def status():
            asked.append(1)
            return dict(watched.status)

        watched.live = Live(replace(watched.live._sources, status=status))
        async with watched.serving():
            await until(lambda: watched.values > 3)  # rows are made all the same
            assert not asked
            client = await watched.viewer()
            await event(client)
            assert asked
            await client.close()
            await until(lambda: watched.live._telling is None)

    run(scenario)


def test_the_end_ends_every_response_even_if_the_last_of_it_cannot_be_told(run, caplog):
    async def scenario():
        watched = Watched()
        async with watched.serving():
            client = await watched.viewer()
            await event(client)
            watched.live._telling.cancel()  # so that only the end finds the fault
            watched.status = None  # cannot be read
            watched.live.stop()
            assert "could not be told" in caplog.text
            while await event(client):
                pass

    run(scenario)
