import asyncio

import pytest

from app.errors import RequestError
from app.memory.ledger import ModelState
from tests.fakes import until
from tests.memory.world import World


def test_what_other_programs_hold_is_nobodys_room(run):
    """Two models fit together, until another program comes; and again once it has gone."""

    async def scenario():
        world = World(a=10, b=10)
        world.others = 0
        await world.use("a")
        await world.use("b")
        assert world.log == ["start a", "start b"]
        world.pool.unload("b")
        await until(lambda: world.view("b").state is ModelState.COLD)
        world.others, world.now = 8, 10.0
        await world.use("b")
        assert world.log[2:] == ["stop b", "stop a", "start b"]
        world.others, world.now = 0, 20.0
        await world.use("a")
        assert world.log[5:] == ["start a"]

    run(scenario)


def test_where_others_hold_too_much_callers_are_told_after_a_moment(run):
    """It is no failure of the model: nothing is tried, nothing is counted."""

    async def scenario():
        world = World(a=10)
        world.others = 20
        asking = asyncio.create_task(world.use("a"))
        await until(lambda: world.view("a").waiting)
        assert not asking.done()
        world.now = 5.5
        world.pool._schedule()
        with pytest.raises(RequestError, match="other programs hold 0.00 GiB of d") as refused:
            await asking
        assert refused.value.retry_after == 10 and refused.value.status == 503
        assert world.log == [] and world.view("a").state is ModelState.COLD
        world.others, world.now = 14, 10.0
        await world.use("a")

    run(scenario)


def test_callers_of_a_moment_are_served_when_the_room_comes_free(run):
    """What a process held that has just ended may come free a little later."""

    async def scenario():
        world = World(a=10)
        world.others = 20
        asking = asyncio.create_task(world.use("a"))
        await until(lambda: world.view("a").waiting)
        world.others, world.now = 0, 1.5
        await asyncio.wait_for(asking, 5)  # it looks again by itself
        assert world.log == ["start a"]

    run(scenario)


def test_a_model_that_nearly_fits_is_tried(run):
    """Its size is only predicted."""

    async def scenario():
        world = World(a=20)
        world.others = 5  # 19 are free, of 24
        world.servers["a"].size = 18
        await world.use("a")
        assert world.log == ["start a"]

    run(scenario)
