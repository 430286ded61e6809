import asyncio
from dataclasses import dataclass, field

import pytest

from app.memory import departures
from app.memory.departures import Departures
from app.memory.kv_budget import KvBudget
from app.memory.ledger import Ledger, Model, ModelState
from app.memory.seat import Demand, SlotState, Use
from app.memory.stages import Stages
from tests.fakes import until


@dataclass
class Server:
    """Says what it is told to say of its slots."""

    shown: list[SlotState] | None = None
    asked: int = 0
    changes: list[str] = field(default_factory=list)

    stages = Stages()

    async def slots(self):
        self.asked += 1
        return self.shown


class World:
    def __init__(self):
        self.now = 0.0
        self.server, self.changes = Server(), 0
        self.model = Model("a", server=self.server, state=ModelState.READY)
        self.model.line.budget = KvBudget(2, 4096)
        self.ledger = Ledger([self.model], {}, lambda: self.now)
        self.departures = Departures(self.ledger, self.changed)

    def changed(self):
        self.changes += 1

    @property
    def budget(self):
        return self.model.line.budget

    def left(self, *, streams=False):
        """A request whose client has just left."""
        seat = self.budget.seat(Demand(1, 1, 1, exact=True, marked=True), self.now)
        seat.streams = streams
        self.budget.end(seat, Use.LEFT, self.now)
        self.server.shown = [SlotState(seat.number, True)]
        self.departures.watch(self.model)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(departures, "POLL", 0.001)
    monkeypatch.setattr(departures, "HUSH", 0.001)


def test_it_asks_until_the_slot_is_free_and_then_no_more(run, often):
    async def scenario():
        world = World()
        world.departures.watch(world.model)
        world.left()
        await until(lambda: world.server.asked > 3)
        assert world.budget.taken == 1 and not world.changes
        world.server.shown = []
        await until(lambda: world.changes == 1)
        assert world.budget.taken == 0
        asked = world.server.asked
        await asyncio.sleep(0.01)
        assert world.server.asked == asked
        world.left()  # at once after the one before
        world.server.shown = []
        world.now += 10
        await until(lambda: world.changes == 2)

    run(scenario)


@pytest.fixture
def hush(monkeypatch):
    monkeypatch.setattr(departures, "POLL", 0.001)
    monkeypatch.setattr(departures, "HUSH", 1000)


def test_who_needs_a_silent_second_is_asked_nothing_meanwhile(run, hush):
    """llama-server finds out about a stream's client when it sends the next part. About others it
    does when it has told nobody anything for a second, which is in vain beside a stream."""

    async def scenario():
        world = World()
        world.left()
        await until(lambda: world.server.asked)
        await asyncio.sleep(0.05)
        assert world.server.asked == 1
        world.departures.close()
        streams = World()
        streams.left(streams=True)
        await until(lambda: streams.server.asked > 3)
        streams.departures.close()
        beside = World()
        live = beside.budget.seat(Demand(1, 1, 1, exact=True, marked=True), beside.now)
        live.streams = True
        beside.left()
        await until(lambda: beside.server.asked > 3)
        beside.departures.close()

    run(scenario)


def test_a_stream_that_is_left_breaks_the_silence_for_a_moment(run, hush):
    async def scenario():
        world = World()
        world.left()
        await until(lambda: world.server.asked == 1)
        world.now += 10
        world.left(streams=True)
        world.server.shown = [SlotState(1, True), SlotState(2, True)]
        await until(lambda: world.server.asked > 3)
        world.now += 10
        await asyncio.sleep(0.05)
        asked = world.server.asked
        await asyncio.sleep(0.05)
        assert world.server.asked == asked
        world.departures.close()

    run(scenario)


def test_a_model_that_is_away_is_not_asked(run):
    async def scenario():
        world = World()
        world.model.state = ModelState.COLD
        world.left()
        await asyncio.sleep(0.01)
        assert world.server.asked == 0

    run(scenario)


def test_of_a_server_that_says_nothing_slots_are_free_in_the_end(run, often, caplog):
    async def scenario():
        world = World()
        world.left()
        world.server.shown = None
        await until(lambda: world.server.asked > 3)
        assert world.budget.taken == 1
        world.now += departures.SILENT + 1
        await until(lambda: world.changes == 1)
        assert world.budget.taken == 0 and "does not say" in caplog.text

    run(scenario)


def test_of_a_server_that_says_nothing_nothing_is_said_where_nobody_has_left(run, often, caplog):
    async def scenario():
        world = World()
        world.budget.seat(Demand(1, 1, 1, exact=True, marked=True), world.now)
        world.model.line.join(world.now)
        world.departures.watch(world.model)
        await until(lambda: world.server.asked > 3)
        world.now += departures.SILENT + 1
        asked = world.server.asked
        await until(lambda: world.server.asked > asked + 3)
        assert not world.changes and not caplog.text

    run(scenario)


def test_at_the_end_nobody_is_watched(run):
    async def scenario():
        world = World()
        world.left()
        world.departures.close()
        world.ledger.closed = True
        world.left()
        await asyncio.sleep(0.01)
        assert world.server.asked <= 1

    run(scenario)
