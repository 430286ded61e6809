import asyncio
import contextlib
import itertools
import random

import pytest

from app.errors import LoadError, RequestError
from app.memory.ledger import Free, Model, ModelState, Tier
from app.memory.pool import MAX_WAITING, Pool
from tests.fakes import until

READY, PARKED = ModelState.READY, ModelState.PARKED


class FakeServer:
    """Records starts and stops, and fails on memory over-commit."""

    def __init__(self, world, name, size):
        self.world, self.name, self.size = world, name, size
        self.fail = 0  # so many of the next starts
        self.exit = None
        self.progress = 0.5
        self.holds, self.problem = {}, "broken"
        self.taken = []
        self.parked = False

    def took(self, sizes):
        self.taken.append(sizes)

    async def start(self):
        await asyncio.sleep(0.01)
        if self.fail:
            self.fail -= 1
            self.world.log.append(f"fail {self.name}")
            raise LoadError(self.problem)
        self.world.memory += self.size
        assert self.world.memory <= self.world.limit, "out of memory"
        if not self.parked:
            self.exit = asyncio.get_running_loop().create_future()
        self.parked = False
        self.world.log.append(f"start {self.name}")

    async def stop(self):
        if self.exit is None or self.exit.done():
            return
        await asyncio.sleep(0.03)  # slower than a start, so that over-commit shows
        if self.parked:
            self.parked = False
            self.world.log.append(f"end {self.name}")
            return self.exit.set_result(-9)
        self.world.memory -= self.size
        self.exit.set_result(0)
        self.world.log.append(f"stop {self.name}")

    async def leave(self):
        if self.world.ram is None or self.size > self.world.ram_left():
            await self.stop()
            return Tier.DISK
        await asyncio.sleep(0.03)
        self.world.memory -= self.size
        self.parked = True
        self.world.log.append(f"park {self.name}")
        return Tier.RAM

    def parks(self):
        return self.size if self.world.ram is not None else 0

    def measured(self):
        return self.holds

    async def exited(self):
        return await asyncio.shield(self.exit)

    def explain(self, code):
        return f"killed by signal {-code}"

    def crash(self):
        if not self.parked:
            self.world.memory -= self.size
        self.parked = False
        self.exit.set_result(-9)


class World:
    limit = 24

    def __init__(self, limits=None, **sizes):
        self.memory, self.log, self.now = 0, [], 0.0
        self.others = None  # what other programs hold, where the driver tells
        self.ram = None  # for parked models, where the machine can do that
        ticks = itertools.count()
        models = [Model(name, limit=(limits or {}).get(name)) for name in sizes]
        self.pool = Pool(
            models,
            {"d": self.limit},
            lambda: self.now + next(ticks) * 1e-6,
            free=Free(self.free, self.ram_left),
        )
        self.servers = {name: FakeServer(self, name, size) for name, size in sizes.items()}
        for name, server in self.servers.items():
            self.pool.provide(name, server, f"to {name}", {"d": server.size})

    def free(self):
        if self.others is None:
            return {}
        return {"d": self.limit - self.others - self.memory}

    def ram_left(self):
        left = self.ram - sum(server.size for server in self.servers.values() if server.parked)
        assert left >= 0, "out of CPU RAM"
        return left

    async def use(self, name, seconds=0.0, wait=None):
        with self.pool.admit(name):
            async with self.pool.lease(name, wait) as upstream:
                await asyncio.sleep(seconds)
            self.pool.finished(name, served=True)
            return upstream

    def view(self, name):
        return next(view for view in self.pool.view() if view.name == name)


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


def test_memory_of_an_evicted_model_counts_until_it_has_stopped(run):
    async def scenario():
        world = World(x=20, t=8, u=10)
        await world.use("x")
        await asyncio.gather(world.use("t"), world.use("u"))
        assert world.log[:2] == ["start x", "stop x"]
        assert set(world.log[2:]) == {"start t", "start u"}

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


def test_a_request_during_a_crash_waits_for_the_next_process(run):
    async def scenario():
        world = World(a=20)
        await world.use("a")
        world.servers["a"].crash()
        await world.pool.gone("a")
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


def test_random_traffic_never_over_commits(run):
    async def scenario():
        world = World(a=4, b=8, c=12, d=16, e=20)
        names = itertools.islice(itertools.cycle("abcdeedcbaacebd"), 120)
        await asyncio.gather(*(world.use(name, 0.001) for name in names))
        assert all(view.leased == view.admitted == 0 for view in world.pool.view())

    run(scenario)


def test_a_model_in_demand_yields_after_its_quantum(run):
    """Callers keep a busy without a pause; one asks for b. Result: a is held back, drains, and b
    gets its turn while a is still asked for."""

    async def scenario():
        world = World(a=20, b=20)
        asking = True

        async def hog():
            while asking:
                await world.use("a", 0.01)

        hogs = [asyncio.create_task(hog()) for _ in range(4)]
        await until(lambda: world.view("a").requests > 4)
        asked = asyncio.create_task(world.use("b"))
        while not asked.done():
            await asyncio.sleep(0.005)
            world.now += 0.05
        assert world.log[:3] == ["start a", "stop a", "start b"]
        asking = False
        await asyncio.gather(*hogs)

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


def test_a_load_that_runs_out_of_memory_beside_others_is_tried_with_more_room(run):
    async def scenario():
        world = World(a=12, b=12)
        await world.use("b")
        world.servers["a"].fail, world.servers["a"].problem = 1, "cudaMalloc: out of memory"
        assert await world.use("a") == "to a"  # the caller has not seen it
        assert world.log == ["start b", "fail a", "stop b", "start a"]

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


class Parked(FakeServer):
    """Leaves to CPU RAM: its process stays."""

    async def leave(self):
        self.world.log.append(f"park {self.name}")
        return Tier.RAM


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
        await asyncio.sleep(0.01)
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
        await asyncio.sleep(0.01)
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


def test_what_a_lone_load_took_is_told(run):
    async def scenario():
        world = World(a=7, b=8, c=9)
        world.others = 0
        await world.use("a")
        assert world.servers["a"].taken == [{"d": 7}]
        await asyncio.gather(world.use("b"), world.use("c"))
        assert world.servers["b"].taken == world.servers["c"].taken == []

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


@pytest.mark.parametrize("seed", range(4))
def test_after_crashes_and_a_persons_mischief_everybody_is_served(run, seed):
    """Callers, and beside them crashes, pins, parks and unloads; every second machine parks.
    Result: once it is over each model is served, and nothing is counted that is not there."""

    async def scenario():
        dice = random.Random(seed)
        world = World(**{name: dice.randint(6, 12) for name in "abc"})
        world.ram = 15 if seed % 2 else None

        async def caller():
            for _ in range(12):
                with contextlib.suppress(RequestError, asyncio.TimeoutError):
                    use = world.use(dice.choice("abc"), dice.random() * 0.01)
                    await asyncio.wait_for(use, dice.choice([0.02, 5]))
                await asyncio.sleep(dice.random() * 0.02)

        clock = asyncio.create_task(passing(world))
        doing = asyncio.create_task(mischief(world, dice))
        await asyncio.gather(*(caller() for _ in range(6)))
        doing.cancel()
        for name in "abc":
            world.pool.pin(name, False)
        for name in "abc" * 2:
            await served_in_the_end(world, name)
            assert not world.servers[name].exit.done(), "nobody noticed"
            world.servers[name].crash()
        clock.cancel()
        assert all(v.leased == v.admitted == v.waiting == 0 for v in world.pool.view())

    run(scenario)


async def served_in_the_end(world, name):
    """A crash is noticed a moment later; what failed several times is not tried again at once."""
    await asyncio.sleep(0.02)
    while True:
        try:
            return await world.use(name, wait=20)
        except RequestError as error:
            assert error.retry_after is not None, error
            await asyncio.sleep(0.05)


async def mischief(world, dice):
    pool = world.pool
    deeds = [pool.park, pool.unload, lambda name: pool.pin(name, True)]
    deeds += [lambda name: pool.pin(name, False)] * 2
    while True:
        await asyncio.sleep(dice.random() * 0.04)
        name = dice.choice("abc")
        if dice.random() < 0.4 and world.view(name).state in (READY, PARKED):
            world.servers[name].crash()
        else:
            with contextlib.suppress(RequestError):
                dice.choice(deeds)(name)


async def passing(world):
    """Time passes for the pool as it does for the rest."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        await asyncio.sleep(0.005)
        world.now = loop.time() - begun
