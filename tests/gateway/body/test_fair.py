import asyncio

from app.gateway.body.fair import MODERATE, FairQueue
from tests.fakes import until


class Crowd:
    """Bodies at a queue with one place, which the first one keeps until it may go."""

    def __init__(self):
        self.queue, self.order, self.go = FairQueue(1), [], asyncio.Event()
        self.tasks, self.then = [], lambda: None

    async def _use(self, name, caller, size):
        async with self.queue.place(caller, size):
            self.order.append(name)
            if name == "first":
                await self.go.wait()
        if name == "first":  # its place has just been granted to the next one
            self.then()

    async def come(self, *bodies):
        for name, caller, size in bodies:
            self.tasks.append(asyncio.create_task(self._use(name, caller, size)))
        await until(lambda: len(self.queue._waiting) + len(self.order) == len(self.tasks))

    async def end(self):
        self.go.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert (self.queue._free, self.queue._waiting, dict(self.queue._under_way)) == (1, [], {})
        return self.order


def test_who_sends_many_waits_behind_who_sends_one(run):
    async def scenario():
        crowd = Crowd()
        many = [(f"many {number}", "a", 10) for number in range(5)]
        await crowd.come(("first", "a", 10), *many, ("one", "b", 30))
        assert await crowd.end() == ["first", "one", *(name for name, _, _ in many)]

    run(scenario)


def test_of_one_caller_the_smallest_goes_first(run):
    async def scenario():
        crowd = Crowd()
        await crowd.come(("first", "a", 1), ("large", "a", 9), ("small", "a", 2))
        assert await crowd.end() == ["first", "small", "large"]

    run(scenario)


def test_who_leaves_holds_up_nobody(run):
    """In the queue; and with a place that it was granted at the moment it left."""

    async def scenario():
        crowd = Crowd()
        await crowd.come(("first", "a", 1), ("gone", "b", 1), ("granted", "c", 2), ("last", "d", 3))
        crowd.tasks[1].cancel()
        await until(lambda: len(crowd.queue._waiting) == 2)
        crowd.then = crowd.tasks[2].cancel
        assert await crowd.end() == ["first", "last"]

    run(scenario)


def test_a_place_that_is_free_is_taken_at_once(run):
    async def scenario():
        queue = FairQueue(2)
        async with queue.place("a", 1), queue.place("a", 1):
            assert queue._free == 0
        assert queue._free == 2

    run(scenario)


def test_large_bodies_leave_a_place_to_moderate_ones(run):
    async def scenario():
        queue = FairQueue(2)
        async with queue.place("a", MODERATE + 1):
            second = asyncio.ensure_future(enter(queue, "b", MODERATE + 1))
            await asyncio.wait_for(enter(queue, "c", MODERATE), 10)
            assert not second.done()
        await asyncio.wait_for(second, 10)

    async def enter(queue, caller, size):
        async with queue.place(caller, size):
            pass

    run(scenario)
