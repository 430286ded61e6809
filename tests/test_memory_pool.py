import asyncio
import itertools

import pytest

from app.errors import LoadError, RequestError
from app.memory.ledger import Model, ModelState, Tier
from app.memory.pool import Pool
from tests.fakes import until


class FakeServer:
    """Records starts and stops, and fails on memory over-commit."""

    def __init__(self, world, name, size):
        self.world, self.name, self.size = world, name, size
        self.fail = 0  # so many of the next starts
        self.exit = None
        self.progress = 0.5

    async def start(self):
        await asyncio.sleep(0.01)
        if self.fail:
            self.fail -= 1
            self.world.log.append(f"fail {self.name}")
            raise LoadError("broken")
        self.world.memory += self.size
        assert self.world.memory <= self.world.limit, "out of memory"
        self.exit = asyncio.get_running_loop().create_future()
        self.world.log.append(f"start {self.name}")

    async def stop(self):
        if self.exit is None or self.exit.done():
            return
        await asyncio.sleep(0.03)  # slower than a start, so that over-commit shows
        self.world.memory -= self.size
        self.exit.set_result(0)
        self.world.log.append(f"stop {self.name}")

    async def exited(self):
        return await asyncio.shield(self.exit)

    def explain(self, code):
        return f"killed by signal {-code}"

    def crash(self):
        self.world.memory -= self.size
        self.exit.set_result(-9)


class World:
    limit = 24

    def __init__(self, limits=None, **sizes):
        self.memory, self.log, self.now = 0, [], 0.0
        ticks = itertools.count()
        models = [Model(name, limit=(limits or {}).get(name)) for name in sizes]
        self.pool = Pool(models, self.limit, lambda: self.now + next(ticks) * 1e-6)
        self.servers = {name: FakeServer(self, name, size) for name, size in sizes.items()}
        for name, server in self.servers.items():
            self.pool.provide(name, server, f"to {name}", server.size)

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
        with pytest.raises(RequestError, match="25 bytes of 24"):
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
        pool = Pool([Model("a")], 24, asyncio.get_running_loop().time)
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
        pool = Pool([Model("a"), Model("b")], 24, asyncio.get_running_loop().time)
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
        with pytest.raises(asyncio.CancelledError):
            await loading

    run(scenario)


def test_random_traffic_never_over_commits(run):
    async def scenario():
        world = World(a=4, b=8, c=12, d=16, e=20)
        names = itertools.islice(itertools.cycle("abcdeedcbaacebd"), 120)
        await asyncio.gather(*(world.use(name, 0.001) for name in names))
        assert all(view.leased == view.admitted == 0 for view in world.pool.view())

    run(scenario)
