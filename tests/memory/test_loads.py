import asyncio
import contextlib
import random

import pytest

from app.errors import RequestError
from app.memory import loads
from app.memory.kv_budget import KvBudget
from app.memory.ledger import ModelState, Tier
from app.memory.seat import Demand, Use
from app.planning.amounts import HOST
from tests.fakes import until
from tests.memory.world import (
    OneMemory,
    Parked,
    VirtualWorld,
    World,
    after_trouble,
    in_virtual_time,
    passing,
    served_in_the_end,
)


def test_memory_of_an_evicted_model_counts_until_it_has_stopped(run):
    async def scenario():
        world = World(x=20, t=8, u=10)
        await world.use("x")
        await asyncio.gather(world.use("t"), world.use("u"))
        assert world.log[:2] == ["start x", "stop x"]
        assert set(world.log[2:]) == {"start t", "start u"}

    run(scenario)


def test_a_model_is_expected_before_those_that_make_room_for_it_have_left(run):
    async def scenario():
        world = World(a=20, b=20)
        await world.use("a")
        await world.use("b")
        assert world.log == ["start a", "stop a", "start b"]
        assert world.servers["b"].expected_after == ["start a"]

    run(scenario)


def test_a_failed_load_frees_its_place_and_tells_its_callers_the_cause(run):
    async def scenario():
        world = World(a=20, b=20)
        world.servers["a"].fail = 1
        results = await asyncio.gather(world.use("a"), world.use("a"), return_exceptions=True)
        assert [(e.status, e.message) for e in results] == [(503, "a: broken")] * 2
        assert results[0].retry_after == 1
        assert await world.use("b") == "to b"

    run(scenario)


def test_a_client_that_leaves_does_not_abort_the_load(run):
    async def scenario():
        world = World(a=20)
        impatient = asyncio.create_task(world.use("a"))
        await asyncio.sleep(0)
        impatient.cancel()
        await world.use("a")
        assert world.log == ["start a"]
        assert world.view("a").admitted == 0

    run(scenario)


def test_a_load_that_fails_after_all_have_left_raises_nowhere(run):
    async def scenario():
        world = World(a=20, b=1)
        world.servers["a"].fail = 1
        impatient = asyncio.create_task(world.use("a"))
        await asyncio.sleep(0)
        impatient.cancel()
        await until(lambda: world.log)
        assert world.log == ["fail a"]
        assert await world.use("a") == "to a"

    run(scenario)


def test_a_crash_while_resident_frees_the_place_and_the_only_model_comes_back_by_itself(run):
    async def scenario():
        world = World(a=20)
        await world.use("a")
        world.servers["a"].crash()
        await until(lambda: world.log == ["start a", "start a"])
        await until(lambda: world.view("a").state is ModelState.READY)

    run(scenario)


@pytest.mark.parametrize("names", ["a", "ab"], ids=["only", "pinned"])
def test_every_crash_is_noticed_not_just_the_first(run, names):
    """The only model, and a pinned one, come back by themselves: each of their processes is
    watched, also those that came so."""

    async def scenario():
        world = World(**dict.fromkeys(names, 10))
        world.pool.pin("a", True)
        for number in range(1, 4):
            await world.use("a")  # which forgives the crash before
            world.servers["a"].crash()
            await until(lambda n=number: world.log.count("start a") == n + 1)
            await until(lambda: world.view("a").state is ModelState.READY)

    run(scenario)


def test_a_crash_of_one_of_several_is_repaired_by_the_next_request(run):
    async def scenario():
        world = World(a=20, b=20)
        await world.use("a")
        world.servers["a"].crash()
        await until(lambda: world.view("a").reason)
        assert world.log == ["start a"]
        assert world.view("a").reason == "killed by signal 9"
        assert await world.use("b") == "to b"  # the dead one holds no memory
        assert await world.use("a") == "to a"

    run(scenario)


def test_failures_in_a_row_are_put_off_and_a_served_request_forgives_them(run):
    async def scenario():
        world = World(a=20, b=1)
        world.servers["a"].fail = 3
        for status, retry in ((503, 1), (503, 1), (503, 1)):
            with pytest.raises(RequestError) as raised:
                await world.use("a")
            assert raised.value.status == status and round(raised.value.retry_after) == retry
        # Two failures: one second of back-off, in which callers are told at once.
        assert world.log == ["fail a", "fail a"]
        world.now += 1
        with pytest.raises(RequestError):
            await world.use("a")
        assert world.log == ["fail a"] * 3
        world.now += 2
        assert await world.use("a") == "to a"
        world.servers["a"].crash()
        await until(lambda: world.view("a").state is not ModelState.READY)
        assert await world.use("a") == "to a"  # at once: it is the first failure again

    run(scenario)


@pytest.mark.parametrize("takes, longest", [(0.0, 8), (1.0, 8), (4.0, 16), (60.0, 30)])
def test_how_long_a_failing_model_is_put_off_follows_from_what_an_attempt_takes(
    run, takes, longest
):
    async def scenario():
        world = World(a=20, b=1)
        failing = world.servers["a"]
        failing.fail, failing.takes = 100, takes
        for _ in range(12):
            with pytest.raises(RequestError) as raised:
                await world.use("a")
            world.now += 30
        assert round(raised.value.retry_after) == longest
        failing.fail = 0
        assert await world.use("a") == "to a"

    run(scenario)


@pytest.mark.parametrize("crashes", [False, True])
def test_an_attempt_costs_also_the_way_back_of_those_that_leave_for_it(crashes):
    """A load that fails, or a process that ends, at once; for it another model leaves that is back
    after 5 seconds."""

    async def scenario():
        world = VirtualWorld(a=20, b=20)
        failing = world.servers["a"]
        failing.fail, world.servers["b"].delay = 0 if crashes else 100, 5.0
        for _ in range(10):
            await world.use("b")
            if crashes:
                await world.pool.load("a")
                failing.crash()
                await asyncio.sleep(0.01)
            else:
                with pytest.raises(RequestError):
                    await world.use("a")
            put_off = world.pool._ledger["a"].retry_at - world.clock()
            await asyncio.sleep(40)
        assert 19 < put_off < 22

    in_virtual_time(scenario)


def test_callers_are_not_told_in_which_folder_a_file_lies(run, caplog):
    async def scenario():
        world = World(absent=["b"], a=20, b=20, c=1)
        world.pool.fail("b", "/home/ann/b.gguf: corrupt")
        world.servers["a"].fail, world.servers["a"].problem = 1, "/home/ann/a.gguf: gone"
        for name in "ab":
            with pytest.raises(RequestError) as raised:
                await world.use(name)
            assert f"{name}.gguf: " in raised.value.message and "ann" not in raised.value.message
            assert world.view(name).reason.startswith(f"{name}.gguf: ")
        assert "/home/ann/a.gguf: gone" in caplog.text  # whoever reads the log may know

    run(scenario)


def test_five_failures_of_every_model_are_a_loss(run):
    async def scenario():
        world = World(a=20, b=1)
        world.servers["a"].fail = world.servers["b"].fail = 100
        for name in "ab" * 5:
            assert not world.pool.lost.done()
            with pytest.raises(RequestError):
                await world.use(name)
            world.now += 60
        assert "5 times" in await asyncio.wait_for(world.pool.lost, 1)

    run(scenario)


@pytest.mark.parametrize("set_up_fails_first", [True, False])
def test_a_model_that_will_never_come_counts_as_given_up(run, set_up_fails_first):
    async def scenario():
        world = World(absent="b", a=20, b=1)
        world.servers["a"].fail = 5
        if set_up_fails_first:
            world.pool.fail("b", "cut off")
        for _ in range(5):
            assert not world.pool.lost.done()
            with pytest.raises(RequestError):
                await world.use("a")
            world.now += 60
        if not set_up_fails_first:
            assert not world.pool.lost.done()  # it may still come
            world.pool.fail("b", "cut off")
        assert "5 times, or will never come" in world.pool.lost.result()

    run(scenario)


def test_that_no_model_was_set_up_is_no_loss(run):
    """Whoever set them up tells why."""

    async def scenario():
        world = World(absent="ab", a=20, b=1)
        for name in "ab":
            world.pool.fail(name, "cut off")
        assert not world.pool.lost.done()

    run(scenario)


def test_a_pinned_model_that_finds_no_room_is_tried_again_later_and_not_all_the_time(
    run, monkeypatch
):
    """a and b are pinned and fit together. a crashes, runs out of memory as it comes back, and is
    now known to be too large beside b. Result: it waits between its tries, and comes back once b
    may leave."""
    monkeypatch.setattr(loads, "AGAIN", 0.2)

    async def scenario():
        world = World(a=12, b=10)
        for name in "ab":
            await world.use(name)
            world.pool.pin(name, True)
        world.servers["a"].fail, world.servers["a"].problem = 1, "cudaMalloc: out of memory"
        world.servers["a"].crash()
        await until(lambda: world.view("a").need == {"d": 15})
        for _ in range(10):
            await asyncio.sleep(0)
        reads = world.reads
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.reads == reads
        world.pool.pin("b", False)
        await until(lambda: world.view("a").state is ModelState.READY)

    run(scenario)


def test_a_load_that_takes_long_is_told_again_until_it_ends(monkeypatch, caplog):
    monkeypatch.setattr(loads, "STILL", 0.002)
    caplog.set_level("INFO")

    async def scenario():
        world = VirtualWorld(a=20)
        world.servers["a"].fail = 1
        with contextlib.suppress(RequestError):
            await world.use("a")
        await world.use("a")
        told = [text for text in caplog.messages if text.startswith("still loading after")]
        assert len(told) > 2 and told[0].endswith("seconds, 50%")
        caplog.clear()
        await asyncio.sleep(0.02)
        assert not caplog.messages

    in_virtual_time(scenario)


def test_close_stops_a_load_under_way(run):
    async def scenario():
        world = World(a=20)
        loading = asyncio.create_task(world.pool.load("a"))
        await asyncio.sleep(0)
        await world.pool.close()
        assert world.memory == 0
        with pytest.raises(RequestError, match="stopping"):
            await loading

    run(scenario)


def test_more_memory_than_was_predicted_counts_and_the_idle_make_room(run):
    """a holds 30 % more than was said. Result: it is noticed when it is loaded, and b leaves."""

    async def scenario():
        world = World(a=12, b=10)
        await world.use("b")
        world.servers["a"].holds = {"d": 16}
        await world.use("a")
        await until(lambda: "stop b" in world.log)
        assert world.view("a").need == {"d": 16}

    run(scenario)


def test_what_a_model_has_come_to_use_counts_before_it_is_loaded_again(run):
    """a grows while it serves, and leaves. Result: it counts for what it used in the end."""

    async def scenario():
        world = World(a=12, b=20)
        await world.use("a")
        world.servers["a"].holds = {"d": 16}
        await world.use("b")
        assert world.view("a").need == {"d": 16}

    run(scenario)


def test_a_load_that_runs_out_of_memory_beside_others_is_tried_with_more_room(run):
    async def scenario():
        world = World(a=12, b=12)
        await world.use("b")
        world.servers["a"].fail, world.servers["a"].problem = 1, "cudaMalloc: out of memory"
        assert await world.use("a") == "to a"  # the caller has not seen it
        assert world.log == ["start b", "fail a", "stop b", "start a"]

    run(scenario)


def test_parked_by_hand_keeps_its_process_and_unloaded_ends_it(run):
    async def scenario():
        world = World(a=20)
        server = Parked(world, "a", 20)
        world.pool.provide("a", server, "to a", {"d": 20})
        await world.pool.load("a")
        world.pool.park("a")
        assert world.view("a").state is ModelState.PARKING
        await until(lambda: world.view("a").state is ModelState.PARKED)
        assert world.view("a").tier is Tier.RAM and not server.exit.done()
        world.pool.park("a")  # it is
        world.pool.unload("a")
        assert world.view("a").state is ModelState.STOPPING
        await until(lambda: world.view("a").state is ModelState.COLD)
        assert world.log == ["start a", "park a", "stop a"]
        assert world.view("a").tier is Tier.DISK and not world.view("a").reason
        await world.pool.load("a")
        world.pool.unload("a")
        await until(lambda: world.log[-2:] == ["start a", "stop a"])

    run(scenario)


def test_what_a_lone_load_took_is_told(run):
    async def scenario():
        world = World(a=7, b=8, c=9)
        world.others = 0
        await world.use("a")
        assert world.servers["a"].taken == [{"d": 7}]
        await asyncio.gather(world.use("b"), world.use("c"))
        assert world.servers["b"].taken == world.servers["c"].taken == []

    run(scenario)


def test_what_a_lone_load_took_counts_at_once(run):
    """The driver shows no process of ours: all that is known is what was told."""

    async def scenario():
        world = World(a=9)
        world.others = 0
        server = world.servers["a"]
        world.pool.provide("a", server, "to a", {"d": 5})
        server.took = lambda sizes: setattr(server, "holds", sizes)
        await world.use("a")
        assert world.view("a").need == {"d": 9}

    run(scenario)


def test_who_was_parked_longest_ago_goes_on_to_disk(run):
    """Room for two on the GPU and for one and a half in CPU RAM. Result: who leaves the GPU is kept
    in CPU RAM, as the one that was used last; who was there goes on to disk, and its process ends.
    """

    async def scenario():
        world = World(a=10, b=10, c=10, d=10)
        world.ram = 15
        for name in "abcd":
            await world.use(name)
        await until(lambda: world.view("b").tier is Tier.RAM)
        assert (world.view("a").state, world.view("a").tier) == (ModelState.COLD, Tier.DISK)
        assert world.view("b").state is ModelState.PARKED
        assert world.log.index("end a") < world.log.index("park b")
        await world.use("b")
        assert world.log[-1] == "start b" and not world.servers["b"].parked

    run(scenario)


def test_many_at_once_never_take_more_cpu_ram_than_there_is(run):
    """The fakes fail on over-commit of either memory."""

    async def scenario():
        world = World(a=6, b=6, c=6, d=6, e=12, f=12)
        world.ram = 14
        clock = asyncio.create_task(passing(world))
        for _ in range(3):
            await asyncio.gather(*(world.use(name) for name in "abcd"))
            await asyncio.gather(world.use("e"), world.use("f"))
        clock.cancel()
        assert {"park a", "end a"} <= {*world.log}

    run(scenario)


def test_without_a_gpu_parked_models_take_of_the_same_memory(run):
    """Of 24, each needs 15 to serve and keeps 4 while it is parked: beside one that serves there is
    room for two. Result: who was used longest ago goes on to disk, before the next one comes."""

    async def scenario():
        world = OneMemory(4, a=15, b=15, c=15, d=15)
        for name in "abc":
            await world.use(name)
        assert world.log == ["start a", "park a", "start b", "park b", "start c"]
        await world.use("a")
        assert world.log[5:] == ["park c", "start a"]
        await world.use("d")
        assert world.log[7:] == ["go on b", "end b", "park a", "start d"]
        assert [world.view(name).tier for name in "abcd"] == [Tier.RAM, Tier.DISK, *[Tier.RAM] * 2]
        assert world.view("a").state is world.view("c").state is ModelState.PARKED
        assert world.view("b").moves.departures["ram"] == 1

    run(scenario)


def test_without_a_gpu_one_that_comes_into_free_memory_lets_parked_ones_go_on(run):
    """b needs nobody to leave, but what is parked is in its way. Result: it goes on to disk."""

    async def scenario():
        world = OneMemory(6, a=10, b=20)
        await world.use("a")
        world.pool.park("a")
        await until(lambda: world.view("a").state is ModelState.PARKED)
        await world.use("b")
        assert world.log == ["start a", "park a", "go on a", "end a", "start b"]

    run(scenario)


def test_without_a_gpu_one_that_cannot_be_parked_beside_who_comes_goes_to_disk(run, caplog):
    """The console says what is lacking."""

    async def scenario():
        world = OneMemory(6, a=20, b=20)
        await world.use("a")
        await world.use("b")
        assert world.log == ["start a", "stop a", "start b"]
        assert world.view("a").tier is Tier.DISK
        assert "goes to disk: host memory: " in caplog.text

    caplog.set_level("INFO")
    run(scenario)


def test_without_a_gpu_a_pinned_one_that_a_person_parked_stays_where_it_is(run):
    """Others that were used later go on to disk before it."""

    async def scenario():
        world = OneMemory(4, a=15, b=15, c=15, d=15)
        await world.use("a")
        world.pool.park("a")
        await until(lambda: world.view("a").state is ModelState.PARKED)
        world.pool.pin("a", True)
        for name in "bcd":
            await world.use(name)
        assert world.view("a").state is ModelState.PARKED
        assert world.view("b").tier is Tier.DISK

    run(scenario)


def test_without_a_gpu_one_that_nobody_uses_frees_all_of_its_memory(run, caplog):
    async def scenario():
        world = OneMemory(4, a=15)
        await world.use("a")
        model = world.pool._ledger["a"]
        world.pool._loads.leave_unused(model, "unused for 5 minutes")
        await until(lambda: world.view("a").state is ModelState.COLD)
        assert world.log == ["start a", "stop a"] and world.view("a").reason

    run(scenario)


def test_without_a_gpu_a_parked_one_that_nobody_uses_goes_on_to_disk(run):
    async def scenario():
        world = OneMemory(4, a=15)
        model = world.pool._ledger["a"]
        model.ttl = 0.05
        await world.use("a")
        world.pool.park("a")
        clock = asyncio.create_task(passing(world))
        await until(lambda: world.view("a").state is ModelState.COLD)
        assert world.log == ["start a", "park a", "go on a", "end a"]
        assert world.view("a").unused
        clock.cancel()

    run(scenario)


def test_with_a_gpu_one_that_nobody_uses_is_parked(run):
    async def scenario():
        world = World(a=10)
        world.ram = 20
        await world.use("a")
        world.pool._loads.leave_unused(world.pool._ledger["a"], "unused for 5 minutes")
        await until(lambda: world.view("a").state is ModelState.PARKED)

    run(scenario)


def test_what_one_holds_that_leaves_is_what_it_held_before(run):
    """Whatever its server says of itself meanwhile: it may be on its way already."""

    async def scenario():
        world = OneMemory(4, a=15, b=15)
        model, server = world.pool._ledger["a"], world.servers["a"]
        await world.use("a")
        await world.use("b")
        go, stop = asyncio.Event(), server.stop

        async def stops():
            server.keeps = 0  # as that of one that goes to disk
            await go.wait()
            server.keeps = 4
            await stop()

        server.stop = stops
        world.pool.unload("a")
        await until(lambda: server.keeps == 0)
        assert model.ram_held() == 4 and model.standing().need == {HOST: 4}
        go.set()
        await until(lambda: model.state is ModelState.COLD)
        assert model.ram_held() == 0

    run(scenario)


def test_one_that_has_grown_holds_all_of_it_until_it_is_gone(run):
    """It is measured as it leaves."""

    async def scenario():
        world = OneMemory(0, a=10)
        model, server = world.pool._ledger["a"], world.servers["a"]
        await world.use("a")
        go, leave = asyncio.Event(), server.leave

        async def leaves():
            await go.wait()
            return await leave()

        server.leave, server.holds = leaves, {HOST: 14}
        world.pool.park("a")
        await until(lambda: model.need[HOST] == 14)
        assert model.ram_held() == 14
        go.set()
        await until(lambda: model.state is ModelState.COLD)

    run(scenario)


def test_one_that_goes_on_to_disk_is_not_measured_and_tells_nothing_of_a_switch(run):
    async def scenario():
        world = OneMemory(4, a=15)
        model, server = world.pool._ledger["a"], world.servers["a"]
        await world.use("a")
        world.pool.park("a")
        await until(lambda: model.state is ModelState.PARKED)
        cost, server.holds = model.leave_cost, {HOST: 19}
        world.now += 5
        stop = server.stop

        async def stops():
            world.now += 7
            await stop()

        server.stop = stops
        world.pool._loads.leave_unused(model, "unused")
        await until(lambda: model.state is ModelState.COLD)
        assert model.leave_cost == cost and model.need[HOST] == 15

    run(scenario)


def test_two_that_are_parked_at_once_both_count_for_what_they_will_hold(run):
    async def scenario():
        world = OneMemory(9, a=10, b=10)
        await asyncio.gather(world.use("a"), world.use("b"))
        world.pool.park("a")
        world.pool.park("b")
        first, second = (world.pool._ledger[name] for name in "ab")
        assert world.pool._ledger.ram_left(first) == world.limit - 9
        await until(lambda: not (first.leaving or second.leaving))

    run(scenario)


def test_a_death_on_the_way_back_is_not_taken_for_that_of_the_next_process(run):
    """It is seen only once the next one serves."""

    async def scenario():
        world = World(a=20)
        world.ram = 30
        model, server = world.pool._ledger["a"], world.servers["a"]
        await world.use("a")
        world.pool.park("a")
        await until(lambda: model.state is ModelState.PARKED)
        start, measure = server.start, server.measure

        async def at_once():
            """All in one turn of the loop."""

        async def dies():
            server.crash()
            server.exit = asyncio.get_running_loop().create_future()
            world.memory += server.size
            return Tier.DISK

        server.start, server.measure = dies, at_once
        await world.use("a")
        await asyncio.sleep(0.05)
        assert model.state is ModelState.READY and model.moves.failures == 0
        server.start, server.measure = start, measure
        server.crash()
        await until(lambda: model.moves.failures == 1)
        await world.use("a")

    run(scenario)


@pytest.mark.parametrize("at_work", [False, True])
def test_a_crash_ends_a_turn(run, at_work):
    async def scenario():
        world = World(a=20)
        model = world.pool._ledger["a"]
        using = asyncio.create_task(world.use("a", 0.2 if at_work else 0.02))
        await until(lambda: model.line.leased)
        world.now += 3
        if not at_work:
            await using
        world.servers["a"].crash()
        await until(lambda: model.state is not ModelState.READY)
        assert model.turn() == pytest.approx(3, abs=0.01)
        await using

    run(scenario)


def test_the_turn_before_an_idle_moment_counts_until_a_request_after_it_has_ended(run):
    async def scenario():
        world = World(a=20)
        model = world.pool._ledger["a"]
        for seconds in (3, 2):
            using = asyncio.create_task(world.use("a", 0.02))
            await until(lambda: model.line.leased)
            assert model.turn() == pytest.approx(0 if seconds == 3 else 3, abs=0.01)
            world.now += seconds
            await using
            assert model.turn() == pytest.approx(seconds, abs=0.01)
            world.now += 100
        seat = model.line.lease(world.now)
        model.here_since = world.now  # it has left and come back meanwhile
        assert model.turn() == 0 and seat is not None

    run(scenario)


def test_a_turn_that_has_ended_is_told_while_requests_wait_for_the_next_one(run):
    async def scenario():
        world = World(a=20, b=20)
        model = world.pool._ledger["a"]
        using = asyncio.create_task(world.use("a", 0.02))
        await until(lambda: model.line.leased)
        world.now += 3
        await using
        using = asyncio.create_task(world.use("b"))
        await until(lambda: world.view("b").waiting)
        world.now += 1
        await using
        world.now += 100
        model.line.join(world.now)
        assert model.standing().turn == pytest.approx(3, abs=0.01)

    run(scenario)


def test_one_that_is_on_disk_is_forgotten_by_an_unload(run):
    async def scenario():
        world = World(a=20, b=20)
        for name in "ab":
            await world.use(name)
        world.pool.unload("a")
        assert world.log[-1] == "forget a"

    run(scenario)


def test_without_a_gpu_one_that_comes_does_not_wait_for_who_leaves_slowly(run):
    """a is being ended and takes its time, p is parked, and b does not fit beside p. Result: p goes
    on to disk at once, and that is enough."""

    async def scenario():
        world = OneMemory(4, p=15, a=2, b=21)
        for name in "pa":
            await world.use(name)
        world.pool.park("p")
        await until(lambda: world.view("p").state is ModelState.PARKED)
        await world.use("a")
        slow, stop = asyncio.Event(), world.servers["a"].stop

        async def stops():
            await slow.wait()
            await stop()

        world.servers["a"].stop = stops
        world.pool.unload("a")
        using = asyncio.create_task(world.use("b"))
        await until(lambda: "start b" in world.log, 2)
        slow.set()
        await using
        assert world.log[-3:] == ["go on p", "end p", "start b"]

    run(scenario)


def test_without_a_gpu_one_that_grows_lets_parked_ones_go_on(run):
    async def scenario():
        world = OneMemory(4, a=15, b=15)
        await world.use("a")
        world.servers["b"].holds = {HOST: 22}  # more than was predicted
        await world.use("b")
        await until(lambda: world.view("a").state is ModelState.COLD)
        assert world.view("b").need == {HOST: 22}
        assert world.log == ["start a", "park a", "start b", "go on a", "end a"]

    run(scenario)


def test_without_a_gpu_one_that_is_being_parked_has_all_of_its_memory_until_then(run):
    """p is parked, and a is on its way. b fits beside a, but not with p as well. Result: it waits
    until a is parked."""

    async def scenario():
        world = OneMemory(4, p=15, a=16, b=7)
        for name in "pa":
            await world.use(name)
        world.pool.park("a")
        await world.use("b")
        assert world.log == ["start p", "park p", "start a", "park a", "start b"]
        assert not world.pool.lost.done()

    run(scenario)


def test_what_a_switch_costs_is_what_the_last_one_took(run):
    """One that has come from disk, in ten seconds, is not taken to need as long from CPU RAM."""

    async def scenario():
        world = OneMemory(4, a=15, b=15)
        model = world.pool._ledger["a"]
        assert model.switch_cost() == 0.0
        model.come_cost, model.state = 10.0, ModelState.READY
        assert model.switch_cost() == 0.0  # it may be parked, and has never left
        world.servers["a"].keeps = 0
        assert model.switch_cost() == 10.0
        model.leave_cost, model.has_left, world.servers["a"].keeps = 0.25, True, 4
        for state, cost in (
            (ModelState.READY, 10.25),
            (ModelState.COLD, 10.25),
            (ModelState.PARKED, 0.5),
            (ModelState.WAKING, 0.5),
        ):
            model.state = state
            assert model.switch_cost() == cost, state
        model.come_cost, model.woke = 0.125, True
        assert model.switch_cost() == 0.375

    run(scenario)


def test_models_that_are_never_parked_for_want_of_room_keep_their_places(run):
    """Each may be parked, but beside the other there is no room. Result: after the first trip they
    count for what they really cost."""

    async def scenario():
        world = OneMemory(6, a=20, b=20)
        for name in "ab":
            world.servers[name].delay = 0.05
        for name in "abab":
            await world.use(name)
            world.now += 1
        for name in "ab":
            model = world.pool._ledger[name]
            assert model.switch_cost() == model.leave_cost + model.come_cost, name
        assert not any(line.startswith("park") for line in world.log)

    run(scenario)


def test_where_a_model_came_from_is_kept_with_what_that_cost(run):
    async def scenario():
        world = OneMemory(4, a=15, b=15)
        for name, woke in (("a", False), ("b", False), ("a", True)):
            await world.use(name)
            assert world.pool._ledger[name].woke is woke

    run(scenario)


def test_a_turn_is_the_time_of_use_and_not_that_of_being_there(run):
    async def scenario():
        world = World(a=10)
        await world.use("a")
        world.now += 3600
        using = asyncio.create_task(world.use("a", 0.02))
        await asyncio.sleep(0.01)
        world.now += 2
        await using
        assert world.pool._ledger["a"].turn() == pytest.approx(2, abs=0.01)

    run(scenario)


def test_one_that_dies_as_it_is_parked_is_not_taken_for_parked(run, caplog):
    async def scenario():
        world = OneMemory(4, a=15, b=15)
        await world.use("a")
        server = world.servers["a"]

        async def leave():
            server.crash()
            await asyncio.sleep(0.01)
            return Tier.RAM

        server.leave = leave
        world.pool.park("a")
        await until(lambda: world.view("a").state is not ModelState.PARKING)
        assert (world.view("a").state, world.view("a").tier) == (ModelState.COLD, Tier.DISK)
        assert world.view("a").reason == "killed by signal 9"
        assert world.view("a").moves.departures["ended"] == 1
        assert await world.use("a") == "to a"

    caplog.set_level("INFO")
    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_without_a_gpu_nothing_is_ever_over_committed(run, seed, caplog):
    """Callers, crashes and a person's mischief. The fakes fail on over-commit."""

    async def scenario():
        dice = random.Random(seed)
        sizes = {name: dice.randint(8, 16) for name in "abcde"}
        world = OneMemory(dice.randint(1, 5), **sizes)
        ledger = world.pool._ledger
        async with after_trouble(world, dice):
            for name in "abcde":
                assert await served_in_the_end(world, name) == f"to {name}"
        await until(lambda: not any(model.leaving for model in ledger))
        assert ledger.ram_lacking() == (0, 0)
        assert sum(model.ram_held() for model in ledger) == world.memory
        assert not world.pool.lost.done()
        parked = any(line.startswith("park") for line in world.log)
        # Models that were killed as they loaded count for more, and may fit beside none any more.
        assert parked or "killed by signal" in caplog.text

    run(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_after_crashes_and_a_persons_mischief_everybody_is_served(run, seed):
    """Callers, and beside them crashes, pins, parks and unloads; every second machine parks.
    Result: once it is over each model is served, and nothing is counted that is not there."""

    async def scenario():
        dice = random.Random(seed)
        world = World(**{name: dice.randint(6, 12) for name in "abc"})
        world.ram = 15 if seed % 2 else None
        async with after_trouble(world, dice):
            for name in "abc" * 2:
                await served_in_the_end(world, name)
                assert not world.servers[name].exit.done(), "nobody noticed"
                world.servers[name].crash()
        assert all(v.leased == v.admitted == v.waiting == 0 for v in world.pool.view())

    run(scenario)


def test_one_that_cannot_be_stopped_costs_the_others_nothing(run, caplog):
    async def scenario():
        world = World(a=10, b=10)
        await world.use("a")
        await world.use("b")

        async def stuck():
            raise OSError("is stuck")

        world.servers["a"].stop = stuck
        await world.pool.close()
        return world.log

    assert run(scenario)[-1] == "stop b"


@pytest.mark.parametrize("how", ["makes room", "is parked", "is killed"])
def test_what_clients_left_is_not_reserved_once_the_model_is_away(run, how):
    """A client leaves in mid-answer, and then the model leaves memory, or its process ends. Result:
    the model says that nothing is reserved, though it is asked nothing until it is back. A process
    that stays may still work for that client then, so the seat is not given to another one."""

    async def scenario():
        world = World(a=20, b=20)
        world.ram = 30 if how == "is parked" else None
        await world.use("a")
        budget = world.pool._ledger["a"].line.budget = KvBudget(2, 4096)
        budget.end(budget.seat(Demand(1, 100, 50, exact=True), world.now), Use.LEFT, world.now)
        assert world.view("a").reserved and world.view("a").kv_usage
        if how == "is killed":
            world.servers["a"].crash()
        else:
            await world.use("b")
        await until(lambda: not (world.view("a").reserved or world.view("a").kv_usage))
        if how == "is parked":
            assert world.view("a").state is ModelState.PARKED and budget.used

    run(scenario)
