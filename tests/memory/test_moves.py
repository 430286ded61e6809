"""When models came and left: as the pool moves them, and how much of it is kept."""

import asyncio

from app.memory.ledger import ModelState, Tier
from app.memory.moves import KEPT, LASTING, LONGEST, Moves
from tests.memory.world import World


def states(world, name):
    return [(m.state, m.tier, m.reason) for m in world.view(name).moves.after(0, 0.0)]


def test_every_move_is_noted_with_its_reason_and_counted(run):
    async def scenario():
        world = World(a=20, b=20)
        await world.use("a")
        await world.use("b")
        found = states(world, "a")
        assert found[0][0] in ("pending", "cold")
        assert found[-4:] == [
            ("loading", "disk", ""),
            ("ready", "ram", ""),
            ("parking", "ram", "room"),
            ("cold", "disk", ""),
        ]
        a, b = world.view("a").moves, world.view("b").moves
        assert a.departures["room"] == 1 and sum(b.departures.values()) == 0
        assert a.loads == {"ram": 0, "disk": 1} and a.load_seconds["disk"] > 0

    run(scenario)


def test_a_download_and_that_it_failed_are_moves(run):
    async def scenario():
        world = World(a=10, b=10, absent=["a"])
        world.pool.downloading("a")
        world.pool.downloading("a", 0.5)
        world.pool.fail("a", "no such file")
        found = states(world, "a")[-2:]
        assert found == [("downloading", "none", ""), ("failed", "none", "no such file")]
        assert world.view("a").moves.failures == 1

    run(scenario)


def test_a_persons_act_is_a_reason_of_its_own(run):
    async def scenario():
        world = World(a=10)
        await world.use("a")
        world.pool.unload("a")
        await asyncio.sleep(0.1)
        assert states(world, "a")[-2:] == [("stopping", "ram", "asked"), ("cold", "disk", "")]

    run(scenario)


def test_a_crash_says_why_and_counts_as_a_failure(run):
    async def scenario():
        world = World(a=10, b=10)
        await world.use("a")
        world.servers["a"].crash()
        await asyncio.sleep(0.1)
        state, tier, reason = states(world, "a")[-1]
        assert (state, tier) == ("cold", "disk") and reason == world.view("a").reason != ""
        assert world.view("a").moves.failures == 1
        assert world.view("a").moves.departures["ended"] == 1

    run(scenario)


def test_from_where_a_model_came_is_counted(run):
    async def scenario():
        world = World(a=20, b=20)
        world.ram = 100
        for name in "aba":
            await world.use(name)
        assert world.view("a").moves.loads == {"ram": 1, "disk": 1}
        assert states(world, "a")[-3:] == [
            ("parked", "ram", ""),
            ("waking", "ram", ""),
            ("ready", "ram", ""),
        ]

    run(scenario)


def test_the_moves_of_the_last_hour_are_told_and_the_one_before_it():
    moves = Moves()
    for at, state in enumerate((ModelState.LOADING, ModelState.READY, ModelState.COLD)):
        moves.note(1000.0 * at, state, Tier.DISK)
    assert [m.at for m in moves.after(0, 2000.0)] == [0.0, 1000.0, 2000.0]
    assert [m.at for m in moves.after(0, 1500.0 + LASTING)] == [1000.0, 2000.0]
    assert [m.at for m in moves.after(0, 1e6)] == [2000.0]
    assert [m.number for m in moves.after(2, 2000.0)] == [3]
    assert moves.after(3, 2000.0) == []


def test_what_is_kept_is_bounded():
    moves = Moves()
    for at in range(3 * KEPT):
        moves.failed("x" * 5000)
        moves.note(float(at), (ModelState.COLD, ModelState.READY)[at % 2], Tier.DISK)
    found = moves.after(0, 0.0)
    assert len(found) == KEPT and found[-1].number == 3 * KEPT
    assert {len(move.reason) for move in found} == {LONGEST}


def test_a_request_knows_how_long_its_model_took_to_come(run):
    async def scenario():
        world = World(a=10)
        async with world.pool.lease("a") as _:
            pass
        first, second = world.pool.lease("a"), world.pool.lease("a")
        async with first, second:
            assert first.woke == second.woke == 0.0  # it was there
        world.pool.unload("a")
        late = world.pool.lease("a")
        async with late:
            assert 0.0 < late.woke <= world.view("a").moves.load_seconds["disk"]

    run(scenario)
