"""The simulated parts themselves: time, threads, connections."""

import asyncio

import pytest

from tests.simulation.lockstep import Lockstep
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.wire import HIGH, KERNEL, Network


@pytest.fixture
def loop():
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    asyncio.set_event_loop(None)


def test_time_jumps_to_the_next_timer(loop):
    loop.run_until_complete(asyncio.sleep(1_000_000))
    assert 1_000_000 <= loop.time() < 1_000_001


def test_waiting_for_nothing_is_told(loop):
    with pytest.raises(Stuck, match="no timer is left"):
        loop.run_until_complete(loop.create_future())


def test_going_round_in_circles_is_told(loop):
    async def circle():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="turns of the loop"):
        loop.run_until_complete(circle())


def test_threads_take_turns_in_virtual_time(loop):
    failed, order = [], []
    steps = Lockstep(loop, failed.append)

    def work(name, seconds):
        for _ in range(2):
            order.append((name, round(loop.time())))
            steps.sleep(seconds)

    steps.call(work, "slow", 100)
    steps.call(work, "fast", 30)
    loop.run_until_complete(asyncio.sleep(1000))
    steps.end()
    assert order == [("slow", 0), ("fast", 0), ("fast", 30), ("slow", 100)]
    assert failed == []


def test_a_thread_that_waits_is_ended_with_its_world(loop):
    steps = Lockstep(loop, None)
    queue = steps.queue()
    steps.call(queue.get)
    loop.run_until_complete(asyncio.sleep(1))
    steps.end()
    assert not any(thread.alive for thread in steps.threads)


class End(asyncio.Protocol):
    def __init__(self):
        self.got, self.paused, self.lost = b"", False, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += data

    def eof_received(self):
        return False

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False

    def connection_lost(self, error):
        self.lost = (error,)


async def connected(loop, delay=0.01):
    network, near, far = Network(loop), End(), End()
    listener = await network.listen(lambda: far, "127.0.0.1", 1)
    await network.reach(lambda: near, 1, "10.0.0.1", delay)
    listener.close()
    return network, near, far


def test_bytes_arrive_in_their_order_after_the_delay(loop):
    async def scenario():
        _, near, far = await connected(loop, delay=0.5)
        near.transport.write(b"a")
        near.transport.write(b"b")
        await asyncio.sleep(0.4)
        assert far.got == b""
        await asyncio.sleep(0.2)
        assert far.got == b"ab"
        near.transport.close()
        await asyncio.sleep(2)
        assert near.lost == far.lost == (None,)

    loop.run_until_complete(scenario())


def test_a_sender_is_held_back_by_who_does_not_read(loop):
    async def scenario():
        _, near, far = await connected(loop)
        far.transport.pause_reading()
        near.transport.write(b"x" * (KERNEL + HIGH + 1))
        assert near.paused
        far.transport.resume_reading()
        await asyncio.sleep(1)
        assert not near.paused and len(far.got) == KERNEL + HIGH + 1
        far.transport.abort()
        await asyncio.sleep(1)

    loop.run_until_complete(scenario())


def test_whoever_closes_with_unread_bytes_resets_the_connection(loop):
    async def scenario():
        network, near, far = await connected(loop)
        far.transport.pause_reading()
        near.transport.write(b"x")
        await asyncio.sleep(0.1)
        far.transport.abort()
        await asyncio.sleep(1)
        assert isinstance(near.lost[0], ConnectionResetError) and not network.open

    loop.run_until_complete(scenario())
