"""Callers of a door, and what must hold for their requests."""

import asyncio

from tests.simulation.clients import Answers, Call

SLACK = 150.0  # seconds beyond its wait: a frozen instance is given up late
HOLD = 60.0  # seconds that the answers themselves may take, at instances that are well


class Caller:
    def __init__(self, world, number, pause):
        self.world, self.number, self.pause = world, number, pause
        self.draw = world.draw(f"caller {number}")
        self._count = 0

    async def live(self):
        await asyncio.sleep(self.draw.uniform(0, 60))
        while not self.world.quiet:
            await self.ask()
            await asyncio.sleep(self.draw.expovariate(1 / self.pause))

    async def ask(self):
        world, self._count = self.world, self._count + 1
        call = Call(
            name=f"c{self.number}-{self._count}",
            model=self.draw.choice(("m", "chat", "chat/m")),
            path="/v1/chat/completions",
            streams=self.draw.random() < 0.5,
            length=1,
            limit=None,
            words=3,
            wait=self.draw.choice((None, 2.0, 30.0, 120.0)),
            leaves_after=self.draw.uniform(0.1, 20) if self.draw.random() < 0.1 else None,
        )
        world.calls.append(call)
        connection, door = Answers(world.loop), self.draw.choice(world.doors)
        call.sent = world.loop.time()
        try:
            await world.network.reach(
                lambda: connection, door.port, f"127.0.0.{self.number}", 0.001
            )
        except OSError:
            call.refused = True
            return
        connection.begin(call)
        connection.transport.write(call.bytes())
        longest = (world.wait if call.wait is None else call.wait) + SLACK + HOLD
        await asyncio.wait({connection.done}, timeout=call.leaves_after or longest)
        if not connection.done.done():
            call.left = True
            if call.leaves_after is None:
                world.violated(f"{call.name}: no answer in {longest:g} s")
        connection.call = None
        connection.transport.abort()
        if not call.left:
            check(world, call)


def check(world, call):
    """One answer or one clear error, of its own request."""
    text = bytes(call.body).decode()
    world.counts[call.status] += 1
    world.trace(f"{call.name}: {call.status}")
    runs = len(world.begun[call.name])
    if runs > 2:
        world.violated(f"{call.name}: ran {runs} times")
    if call.status == 200:
        fine = call.whole and _is_answer(call, text)
    elif call.status == 503:
        fine = "retry-after" in call.headers and '"message"' in text and 'yet: "' not in text
    else:
        fine = call.status == 502 and world.happened  # it had been sent, and may have had an effect
    if not fine:
        world.violated(f"{call.name}: {call.status} {call.headers} {text}")


def _is_answer(call, text):
    """Its own one, once; or the error event of a stream that has begun."""
    if '"error"' in text:
        return call.streams and '"message"' in text
    return text.count(f'"said": "{call.name}"') == 1
