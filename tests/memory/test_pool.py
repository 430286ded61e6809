import asyncio
import itertools
import random

import pytest

from app.errors import LoadError, RequestError
from app.memory.caller import Caller
from app.memory.kv_budget import KvBudget
from app.memory.lease import MAX_WAITING, Ask
from app.memory.ledger import Model, ModelState, Tier
from app.memory.line import ASKS, AT_ONCE
from app.memory.pool import Pool
from app.memory.seat import Demand, Use
from tests.fakes import until
from tests.memory.world import VirtualWorld, World, in_virtual_time, passing


def test_requests_for_one_model_share_one_load(run):
    async def scenario():
        world = World(a=10)
        assert await asyncio.gather(*(world.use("a") for _ in range(5))) == ["to a"] * 5
        assert world.log == ["start a"]
        assert world.view("a").requests == 5 and world.view("a").leased == 0

    run(scenario)


def test_the_least_recently_used_is_evicted(run):
    async def scenario():
        world = World(a=10, b=10, c=10)
        for name in "abac":
            await world.use(name)
        assert world.log == ["start a", "start b", "stop b", "start c"]
        assert world.view("b").state is ModelState.COLD and world.view("b").tier is Tier.DISK

    run(scenario)


def test_a_streaming_request_is_never_evicted(run):
    async def scenario():
        world = World(a=20, b=20)
        await asyncio.gather(world.use("a", 0.05), world.use("b"))
        assert world.log == ["start a", "stop a", "start b"]

    run(scenario)


def test_a_request_for_a_model_being_evicted_waits_and_reloads_it(run):
    async def scenario():
        world = World(a=20, b=20)
        await world.use("a")
        await asyncio.gather(world.use("b"), world.use("a"))
        assert world.log == ["start a", "stop a", "start b", "stop b", "start a"]

    run(scenario)


def test_a_model_larger_than_the_budget_is_refused(run):
    async def scenario():
        with pytest.raises(RequestError, match="a needs 0.00 GiB on d, which has"):
            await World(a=25).use("a")

    run(scenario)


def test_a_request_during_a_crash_waits_for_the_next_process(run):
    async def scenario():
        world = World(a=20)
        await world.use("a")
        world.servers["a"].crash()
        await world.pool.gone("a", patience=2.0)
        assert await world.use("a") == "to a"

    run(scenario)


def test_a_request_waits_for_files_no_longer_than_it_may(run):
    async def scenario():
        pool = Pool([Model("a")], {"d": 24}, asyncio.get_running_loop().time)
        pool.downloading("a", 0.25)
        with pytest.raises(RequestError, match="still downloading") as raised:
            async with pool.lease("a", 0.02):
                pass
        assert raised.value.status == 503 and raised.value.retry_after
        assert pool.view()[0].progress == 0.25

    run(scenario)


def test_a_request_waits_for_a_load_no_longer_than_it_may_and_the_load_goes_on(run):
    async def scenario():
        world = World(a=20)
        with pytest.raises(RequestError, match="still loading"):
            await world.use("a", wait=0)
        assert world.view("a").progress == 0.5
        await world.use("a")
        assert world.log == ["start a"]

    run(scenario)


@pytest.mark.parametrize("ram", [None, 100])
def test_who_may_not_wait_is_not_told_of_a_load_that_nobody_has_begun(run, ram):
    async def scenario():
        world = World(a=20, b=20)
        world.ram = ram
        await world.use("b")
        async with world.pool.lease("a"):
            with pytest.raises(RequestError, match="b did not come into memory") as raised:
                await world.use("b", wait=0)
        state = ModelState.PARKED if ram else ModelState.COLD
        assert raised.value.status == 503 and world.view("b").state is state

    run(scenario)


def test_what_exceeds_the_limit_is_denied_also_while_loading(run):
    async def scenario():
        world = World(limits={"a": 2}, a=20)
        running = [asyncio.create_task(world.use("a")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as raised:
            await world.use("a")
        assert raised.value.status == 429 and raised.value.retry_after
        await asyncio.gather(*running)
        await world.use("a")
        view = world.view("a")
        assert (view.requests, view.denied, view.admitted) == (3, 1, 0)

    run(scenario)


def test_a_model_whose_files_never_came_says_why(run):
    async def scenario():
        pool = Pool([Model("a"), Model("b")], {"d": 24}, asyncio.get_running_loop().time)
        waiting = asyncio.create_task(pool.lease("a").__aenter__())
        await asyncio.sleep(0)
        pool.fail("a", "cut off")
        with pytest.raises(RequestError, match="cut off"):
            await waiting

    run(scenario)


def test_a_bring_up_that_failed_leaves_the_load_of_a_later_request_alone(run):
    """The preload fails; before bring-up says so, a request has begun the next load. Result: the
    model counts as loading, and its request is served."""

    async def scenario():
        world = World(a=20, b=20)
        world.servers["a"].fail = 1
        preload = asyncio.create_task(world.pool.load("a"))
        await until(lambda: world.log == ["fail a"])
        later = asyncio.create_task(world.use("a"))
        await until(lambda: world.view("a").state is ModelState.LOADING)
        world.pool.fail("a", "broken")
        assert world.view("a").state is ModelState.LOADING
        assert await later == "to a"
        with pytest.raises(LoadError):
            await preload

    run(scenario)


def test_to_wait_for_the_end_of_a_process_leaves_no_task(run):
    async def scenario():
        world = World(a=20)
        await world.use("a")
        before = asyncio.all_tasks()
        await world.pool.gone("a", patience=0.001)
        assert asyncio.all_tasks() == before

    run(scenario)


def test_a_drain_lets_holders_go_on_and_nobody_else_in(run):
    async def scenario():
        world = World(a=20, b=20)
        holder = asyncio.create_task(world.use("a", 0.05))
        await until(lambda: world.view("a").state is ModelState.READY)
        waiting = asyncio.create_task(world.use("b"))  # for the place that a holds
        await asyncio.sleep(0)
        world.pool.refuse_new()
        with pytest.raises(RequestError) as raised:
            await world.use("a")
        assert raised.value.status == 503
        with pytest.raises(RequestError, match="stopping"):
            await waiting
        await world.pool.drained()
        assert holder.done()
        await world.pool.close()
        assert world.log == ["start a", "stop a"]

    run(scenario)


def test_who_comes_while_others_are_told_comes_after_them(run):
    async def scenario():
        world, order = World(a=10, b=10), []

        async def use(name):
            async with world.pool.lease("a"):
                order.append(name)

        crowd = [asyncio.create_task(use(number)) for number in range(4 * AT_ONCE)]
        while not order:  # no timer: a busy machine would come back to us when all are told
            await asyncio.sleep(0)
        await use("late")
        await asyncio.gather(*crowd)
        assert order == [*range(4 * AT_ONCE), "late"]

    run(scenario)


def test_a_cancelled_request_leaves_the_model_free_whenever_it_is_cancelled(run):
    """In the line, granted and not told, and while it leases."""

    async def scenario():
        world = World(a=20, b=20)

        async def use():
            async with world.pool.lease("a"):
                await asyncio.sleep(1000)

        crowd = [asyncio.create_task(use()) for _ in range(3 * AT_ONCE)]
        await asyncio.sleep(0)
        crowd[0].cancel()
        await until(lambda: world.view("a").leased)
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert (world.view("a").leased, world.view("a").waiting) == (0, 0)
        await world.use("b")

    run(scenario)


def test_what_others_wait_for_is_decided_once_a_model_is_idle_not_at_each_release(run):
    async def scenario():
        world, decisions = World(a=20, b=20), 0
        await world.use("a")
        waiting = asyncio.create_task(world.use("b", 0.0))
        holders = [world.pool.lease("a") for _ in range(3)]
        for holder in holders:
            await holder.__aenter__()
        schedule = world.pool._schedule

        def counted():
            nonlocal decisions
            decisions += 1
            schedule()

        await asyncio.sleep(0)
        world.pool._leases._schedule = counted
        assert world.view("b").waiting == 1
        for holder in holders[:2]:
            await holder.__aexit__(None, None, None)
        assert decisions == 0
        await holders[2].__aexit__(None, None, None)
        assert decisions == 1
        assert await waiting == "to b"

    run(scenario)


def test_a_model_that_drained_for_a_request_that_left_takes_requests_again(run):
    async def scenario():
        world = World(a=20, b=20)
        await world.use("a")
        holder = world.pool.lease("a")
        await holder.__aenter__()
        world.now = 100.0  # its quantum is over
        other = asyncio.create_task(world.use("b"))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(world.use("a"))
        await asyncio.sleep(0)
        assert (world.view("a").waiting, world.view("b").waiting) == (1, 1)
        other.cancel()
        assert await asyncio.wait_for(waiting, 5) == "to a"
        await holder.__aexit__(None, None, None)

    run(scenario)


def test_who_was_held_back_for_a_request_that_left_is_not_any_more(run):
    """Nobody else waits: the next one would find a trace of it."""

    async def scenario():
        world = World(a=20, b=20)
        ends = asyncio.Event()

        async def use_until_it_ends():
            with world.pool.admit("a"):
                async with world.pool.lease("a"):
                    await ends.wait()

        using = asyncio.create_task(use_until_it_ends())
        model = world.pool._ledger["a"]
        await until(lambda: model.line.leased)
        world.now += 10
        asked = asyncio.create_task(world.use("b"))
        await until(lambda: model.held_back_since)
        asked.cancel()
        await until(lambda: not model.held_back_since)
        ends.set()
        await using

    run(scenario)


def test_random_traffic_never_over_commits(run):
    async def scenario():
        world = World(a=4, b=8, c=12, d=16, e=20)
        names = itertools.islice(itertools.cycle("abcdeedcbaacebd"), 120)
        await asyncio.gather(*(world.use(name, 0.001) for name in names))
        assert all(view.leased == view.admitted == 0 for view in world.pool.view())

    run(scenario)


async def passes(world, use):
    """Time passes until it has been served."""
    asked = asyncio.ensure_future(use)
    while not asked.done():
        await asyncio.sleep(0.005)
        world.now += 0.05
    await asked


def test_a_model_in_demand_yields_after_its_quantum(run):
    """Callers keep a busy without a pause; one asks for b. Result: a is held back, drains, and b
    gets its turn while a is still asked for. a counts as a hog until it leaves unasked,
    or pauses."""

    async def scenario():
        world = World(a=20, b=20)
        asking = True

        async def hog():
            while asking:
                await world.use("a", 0.01)

        hogs = [asyncio.create_task(hog()) for _ in range(4)]
        await until(lambda: world.view("a").requests > 4)
        await passes(world, world.use("b"))
        assert world.log[:3] == ["start a", "stop a", "start b"]
        assert 0 < world.view("a").stages["drain"] < 1 and not world.view("b").stages["drain"]
        a, b = (world.pool._ledger[name] for name in "ab")
        assert a.standing().hog and not b.standing().hog
        asking = False
        await asyncio.gather(*hogs)
        await world.use("a")
        assert a.standing().hog
        world.now += 1.1
        await world.use("a")
        assert not a.standing().hog
        a.line.hog = True
        await passes(world, world.use("b"))
        assert not a.standing().hog

    run(scenario)


@pytest.mark.parametrize("size", [10, 20])
def test_one_of_two_that_never_rest_yields_or_both_do(run, size):
    """Four callers each keep a and b busy, and end their requests in turns; c needs the place of
    one, or of both."""

    async def scenario():
        world = World(a=10, b=10, c=size)
        asking = True

        async def hog(name, seconds):
            while asking:
                await world.use(name, seconds)

        hogs = [asyncio.create_task(hog("ab"[n % 2], 0.007 + n / 1000)) for n in range(8)]
        await until(lambda: all(world.view(name).requests > 4 for name in "ab"))
        await asyncio.wait_for(passes(world, world.use("c")), 5)
        asking = False
        await asyncio.gather(*(passes(world, each) for each in hogs))

    run(scenario)


def test_a_pinned_model_never_leaves(run):
    async def scenario():
        world = World(a=20, b=20)
        await world.use("a")
        world.pool.pin("a", True)
        with pytest.raises(RequestError, match="pinned models take"):
            await world.use("b")
        world.pool.pin("a", False)
        await world.use("b")

    run(scenario)


def test_unload_and_load_by_hand(run):
    async def scenario():
        world = World(a=20)
        await world.pool.load("a")
        assert world.view("a").switches == 1
        holding = asyncio.create_task(world.use("a", 0.02))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as raised:
            world.pool.unload("a")
        assert raised.value.status == 409
        await holding
        world.pool.unload("a")
        await until(lambda: world.log == ["start a", "stop a"])
        await world.pool.load("a")

    run(scenario)


def test_so_many_may_wait_and_no_more(run):
    async def scenario():
        pool = Pool([Model("a")], {"d": 24}, asyncio.get_running_loop().time)

        async def ask():
            async with pool.lease("a"):
                pass

        asking = [asyncio.create_task(ask()) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="are waiting for it already"):
            await ask()
        pool.fail("a", "gone")
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(end, RequestError) for end in ends)

    run(scenario)


@pytest.mark.parametrize("seed", range(2))
def test_random_callers_are_all_served_within_the_budget(run, seed):
    """The simulator's invariants on the real pool: the fake servers fail on over-commit, and stop
    slowly. Some callers leave while they wait."""

    async def scenario():
        dice = random.Random(seed)
        world = World(**{f"m{n}": dice.randint(3, 12) for n in range(6)})
        served = left = 0

        async def caller():
            nonlocal served, left
            for _ in range(8):
                name = f"m{dice.randint(0, 5)}"
                try:
                    patience = 0.05 if dice.random() < 0.1 else 30
                    await asyncio.wait_for(world.use(name, dice.random() * 0.01), patience)
                    served += 1
                except asyncio.TimeoutError:
                    left += 1

        clock = asyncio.create_task(passing(world))
        await asyncio.gather(*(caller() for _ in range(8)))
        clock.cancel()
        assert served + left == 64 and served > 32
        assert all(v.leased == v.admitted == v.waiting == 0 for v in world.pool.view())

    run(scenario)


HALF_AN_HOUR = 1800.0


def test_a_model_that_nobody_uses_leaves_and_comes_back(caplog):
    """a is used, and then not for its time. Result: it leaves, tells why, does not touch the idle
    clock, and serves the next request."""

    async def scenario():
        caplog.set_level("INFO")
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10)
        await world.use("a", 5.0)
        ended = world.clock()
        await asyncio.sleep(HALF_AN_HOUR - 1)
        assert world.view("a").state is ModelState.READY
        await asyncio.sleep(2)
        view = world.view("a")
        assert (view.state, view.tier) == (ModelState.COLD, Tier.DISK)
        assert (view.reason, view.unused) == ("unused for 30 minutes", True)
        assert view.last_used == ended
        assert "leaves memory: unused for 30 minutes" in caplog.text
        assert await world.use("a") == "to a"
        assert (world.view("a").reason, world.view("a").unused) == ("", False)
        assert world.log == ["start a", "stop a", "start a"]

    assert in_virtual_time(scenario) < 20  # nobody polls


def test_a_model_that_was_only_preloaded_leaves_unused():
    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10)
        await world.pool.load("a")
        await asyncio.sleep(HALF_AN_HOUR + 1)
        assert world.log == ["start a", "stop a"]

    in_virtual_time(scenario)


def test_no_model_leaves_unused_once_the_drain_has_begun():
    """Of two, one has a stream for two hours more, the other nothing. Result: both are there until
    the pool stops them."""

    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10, b=10)
        await world.use("b")
        stream = asyncio.create_task(world.use("a", 7200.0))
        await asyncio.sleep(60)
        world.pool.refuse_new()
        await world.pool.drained()
        assert await stream == "to a" and world.clock() >= 7200.0
        assert {*world.log} == {"start a", "start b"}
        await world.pool.close()
        assert {*world.log} == {"start a", "start b", "stop a", "stop b"}

    in_virtual_time(scenario)


def test_a_model_leaves_unused_to_the_tier_where_it_would_make_room():
    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10)
        world.ram = 10
        await world.use("a")
        await asyncio.sleep(HALF_AN_HOUR + 1)
        view = world.view("a")
        assert (view.state, view.tier, view.unused) == (ModelState.PARKED, Tier.RAM, True)
        await world.use("a")
        assert world.log == ["start a", "park a", "start a"]

    in_virtual_time(scenario)


def test_a_request_keeps_its_model_however_long_it_takes():
    """A stream of two hours, and one that begins a second before the model would leave. Result: the
    time counts from the last one's end."""

    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10)
        await world.use("a", 7200.0)
        await asyncio.sleep(HALF_AN_HOUR - 1)
        await world.use("a", 7200.0)
        await asyncio.sleep(HALF_AN_HOUR - 1)
        assert world.log == ["start a"] and world.view("a").state is ModelState.READY
        await asyncio.sleep(2)
        assert world.log == ["start a", "stop a"]

    assert in_virtual_time(scenario) < 30


def test_a_request_that_comes_as_its_model_leaves_unused_brings_it_back():
    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10)
        await world.use("a")
        await asyncio.sleep(HALF_AN_HOUR - 0.1)
        while world.view("a").state is ModelState.READY:
            await asyncio.sleep(0.01)
        assert world.view("a").state is ModelState.PARKING
        assert await world.use("a") == "to a"
        assert world.log == ["start a", "stop a", "start a"]

    in_virtual_time(scenario)


def test_a_model_that_a_person_pins_stays_until_it_is_unpinned():
    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10)
        await world.use("a")
        world.pool.pin("a", True)
        await asyncio.sleep(3 * HALF_AN_HOUR)
        assert world.log == ["start a"]
        world.pool.pin("a", False)
        await asyncio.sleep(1)
        assert world.log == ["start a", "stop a"]

    in_virtual_time(scenario)


@pytest.mark.parametrize("others", [{"b": 10}, {}], ids=["one-of-two", "the-only-one"])
def test_one_that_crashed_while_it_was_unused_has_failed(others):
    """Parked. Result: it is told, and nobody loads it before it is asked for."""

    async def scenario():
        world = VirtualWorld(ttl=HALF_AN_HOUR, a=10, **others)
        world.ram = 10
        await world.use("a")
        await asyncio.sleep(HALF_AN_HOUR + 1)
        world.servers["a"].crash()
        await asyncio.sleep(60)
        view = world.view("a")
        assert (view.reason, view.unused) == ("killed by signal 9", False)
        assert world.log == ["start a", "park a"]
        assert await world.use("a") == "to a"

    in_virtual_time(scenario)


def test_a_seat_shows_that_its_stream_has_begun(run):
    """llama-server finds out about the client of such a one by itself."""

    async def scenario():
        world = World(a=10)
        lease = world.pool.lease("a")
        async with lease:
            assert not lease.seat.streams
            lease.streams()
            lease.begun()
            assert lease.seat.streams

    run(scenario)


def test_a_stream_of_several_prompts_has_not_begun_with_its_first_event(run):
    """Others of them may be read yet, in slots that hold what they held."""

    async def scenario():
        world = World(a=10)
        world.pool._ledger["a"].line.budget = KvBudget(4, 4096)
        for together in (False, True):
            ask = Ask(counted(10, 5, 2)._replace(together=together))
            lease = world.pool.lease("a", None, ask)
            async with lease:
                lease.begun()
                assert lease.seat.begun == together

    run(scenario)


async def visits(world, who, demand, *, holds=1.0, clearing=0.0, reading=0.0):
    """A request of this caller; how long it waited. Clearing takes a time, reading the prompt too,
    and then it holds its seat."""
    begun = world.clock()
    lease = world.pool.lease("a", None, Ask(demand, Caller("address", who)))
    async with lease:
        waited = world.clock() - begun
        if lease.seat.clears:
            await asyncio.sleep(clearing)
            lease.cleared()
        await asyncio.sleep(reading)
        lease.begun()
        await asyncio.sleep(holds)
        lease.use = Use.WHOLE
    return waited


def with_slots():
    """A model whose slots have held a long conversation."""
    world = VirtualWorld(a=20)
    world.pool._ledger["a"].line.budget = KvBudget(4, 4096)
    return world, counted(4000, 10)


def counted(prompt, limit, slots=1):
    return Demand(slots, prompt, limit, exact=True, together=True)


def test_who_counts_tokens_slowly_holds_nobody_up():
    """One reads the answer of /tokenize for a minute; the next ones want four answers, and one."""

    async def scenario():
        world, long = with_slots()
        await visits(world, "x", long)
        slow = asyncio.create_task(visits(world, "x", ASKS, holds=60))
        await asyncio.sleep(1)
        others = visits(world, "y", counted(100, 100, 4)), visits(world, "z", counted(20, 20))
        assert max(await asyncio.gather(*others)) < 2
        await slow

    in_virtual_time(scenario)


def test_who_waits_for_slots_to_be_cleared_does_not_wait_for_the_prompt():
    """Two answers to a prompt that is read for 40 seconds, and a small request behind it."""

    async def scenario():
        world, long = with_slots()
        await visits(world, "x", long)
        several = visits(world, "y", counted(300, 30, 2), clearing=0.5, reading=40)
        waits = await asyncio.gather(several, visits(world, "z", counted(10, 10)))
        assert waits[0] == 0 and 0.4 < waits[1] < 1

    in_virtual_time(scenario)
