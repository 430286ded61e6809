"""A pool over servers that are not there: starts and stops are recorded, and over-commit fails."""

import asyncio
import contextlib
import selectors
from functools import cached_property

from app.errors import LoadError, RequestError
from app.memory.ledger import Free, Model, ModelState, Tier
from app.memory.pool import Pool
from app.memory.stages import Stages
from app.planning.amounts import HOST


class FakeServer:
    """Records starts and stops, and fails on memory over-commit."""

    def __init__(self, world, name, size):
        self.world, self.name, self.size = world, name, size
        self.fail = 0  # so many of the next starts
        self.takes = 0  # seconds that one of them takes
        self.delay = 0.01  # seconds of a start
        self.exit = None
        self.progress = 0.5
        self.holds, self.measured, self.problem = {}, {}, "broken"
        self.taken = []
        self.parked = False
        self.keeps = 0  # of its memory while it is parked: it shares that with those that serve

    def took(self, sizes):
        self.taken.append(sizes)

    async def start(self):
        await asyncio.sleep(self.delay)
        if self.fail:
            self.fail -= 1
            self.world.now += self.takes
            self.world.log.append(f"fail {self.name}")
            raise LoadError(self.problem)
        came_from = Tier.RAM if self.parked else Tier.DISK
        self.world.memory += self.size - (self.keeps if self.parked else 0)
        assert self.world.memory <= self.world.limit, "out of memory"
        if not self.parked:
            self.exit = asyncio.get_running_loop().create_future()
        self.parked = False
        self.world.log.append(f"start {self.name}")
        return came_from

    def expect(self):
        self.expected_after = list(self.world.log)

    async def stop(self):
        if self.exit is None or self.exit.done():
            return
        await asyncio.sleep(0.03)  # slower than a start, so that over-commit shows
        if self.exit.done():  # it has crashed meanwhile
            return
        if self.parked:
            self.parked = False
            self.world.memory -= self.keeps
            self.world.log.append(f"end {self.name}")
            return self.exit.set_result(-9)
        self.world.memory -= self.size
        self.exit.set_result(0)
        self.world.log.append(f"stop {self.name}")

    async def leave(self):
        if not self.parked_size():
            await self.stop()
            return Tier.DISK
        await asyncio.sleep(0.03)
        if self.exit.done():  # it has crashed meanwhile
            return Tier.RAM
        self.world.memory -= self.size - self.keeps
        self.parked = True
        self.world.log.append(f"park {self.name}")
        return Tier.RAM

    def forget(self):
        self.world.log.append(f"forget {self.name}")

    async def leave_for_disk(self):
        if self.parked:
            self.world.log.append(f"go on {self.name}")
        await self.stop()
        return Tier.DISK

    template = None

    @cached_property
    def stages(self):
        return Stages()

    async def slots(self):
        return None

    def parked_size(self):
        return self.size if self.world.ram is not None else self.keeps

    async def measure(self):
        await asyncio.sleep(0)
        self.measured = self.holds

    def usage(self):
        return self.measured

    async def exited(self):
        return await asyncio.shield(self.exit)

    def explain(self, code):
        return f"killed by signal {-code}"

    def crash(self):
        self.world.memory -= self.keeps if self.parked else self.size
        self.parked = False
        self.exit.set_result(-9)


class World:
    limit = 24

    def __init__(self, limits=None, absent=(), ttl=None, **sizes):
        """Models by size; `absent` ones are still to be set up."""
        self.memory, self.log, self.now, self.reads = 0, [], 0.0, 0
        self.others = None  # what other programs hold, where the driver tells
        self.ram = None  # for parked models, where the machine can do that
        models = [Model(name, limit=(limits or {}).get(name), ttl=ttl) for name in sizes]
        self.pool = Pool(
            models,
            {"d": self.limit},
            self.clock,
            free=Free(self.free, self.ram_left),
        )
        self.servers = {name: FakeServer(self, name, size) for name, size in sizes.items()}
        for name in sizes.keys() - {*absent}:
            server = self.servers[name]
            self.pool.provide(name, server, f"to {name}", {"d": server.size})

    def clock(self):
        self.reads += 1
        return self.now + self.reads * 1e-6

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


class OneMemory(World):
    """Without a GPU: parked models take of the memory that the others serve from. Each keeps
    `keeps` of its size."""

    def __init__(self, keeps, **sizes):
        super().__init__(absent=sizes, **sizes)
        models = [Model(name) for name in sizes]
        self.pool = Pool(models, {HOST: self.limit}, self.clock)
        for name, server in self.servers.items():
            server.keeps = keeps
            self.pool.provide(name, server, f"to {name}", {HOST: server.size})


class VirtualTime(selectors.DefaultSelector):
    """Of a loop that waits for nothing but its timers: it takes no time until one is due."""

    def __init__(self):
        super().__init__()
        self.now, self.waits = 0.0, 0

    def select(self, timeout=None):
        assert timeout is not None, "nobody will ever wake the loop"
        self.now += timeout
        self.waits += timeout > 0
        return super().select(0)


def in_virtual_time(scenario):
    """Run it; how often the loop has waited for a timer."""
    time = VirtualTime()
    loop = asyncio.SelectorEventLoop(time)
    loop.time = lambda: time.now
    try:
        loop.run_until_complete(scenario())
        return time.waits
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()


class VirtualWorld(World):
    """The pool's clock is the loop's."""

    def clock(self):
        return asyncio.get_running_loop().time()


class Parked(FakeServer):
    """Leaves to CPU RAM: its process stays."""

    async def leave(self):
        self.world.log.append(f"park {self.name}")
        return Tier.RAM


async def served_in_the_end(world, name):
    """A crash is noticed a moment later; what failed several times is not tried again at once."""
    await asyncio.sleep(0.02)
    while True:
        try:
            return await world.use(name, wait=20)
        except RequestError as error:
            assert error.retry_after is not None, error
            await asyncio.sleep(0.05)


CRASHES = (ModelState.READY, ModelState.PARKING, ModelState.PARKED, ModelState.WAKING)


async def mischief(world, dice, names):
    pool = world.pool
    deeds = [pool.park, pool.unload, lambda name: pool.pin(name, True)]
    deeds += [lambda name: pool.pin(name, False)] * 2
    while True:
        await asyncio.sleep(dice.random() * 0.04)
        name = dice.choice(names)
        exit = world.servers[name].exit
        alive = exit is not None and not exit.done() and world.view(name).state in CRASHES
        if dice.random() < 0.4 and alive:
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


@contextlib.asynccontextmanager
async def after_trouble(world, dice):
    """Callers of all models, and beside them mischief; then the block, with no model pinned."""
    names = [*world.servers]

    async def caller():
        for _ in range(12):
            with contextlib.suppress(RequestError, asyncio.TimeoutError):
                use = world.use(dice.choice(names), dice.random() * 0.01)
                await asyncio.wait_for(use, dice.choice([0.02, 5]))
            await asyncio.sleep(dice.random() * 0.02)

    clock = asyncio.create_task(passing(world))
    doing = asyncio.create_task(mischief(world, dice, names))
    try:
        await asyncio.gather(*(caller() for _ in range(6)))
        doing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await doing
        for name in names:
            world.pool.pin(name, False)
        yield
    finally:
        doing.cancel()
        clock.cancel()
