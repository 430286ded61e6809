"""What goes wrong in a fleet."""

import asyncio


async def befall(world):
    for at, name in world.scene.faults:
        await asyncio.sleep(max(0.0, at - world.loop.time()))
        world.trace(f"fault: {name}")
        world.happened[name] += 1
        world.task(FAULTS[name](world, world.draw("faults")), f"fault {name}")


def _one(world, draw):
    here = [each for each in world.instances.values() if each.here]
    return draw.choice(here) if here else None


def killed(*, machine):
    async def fault(world, draw):
        if (instance := _one(world, draw)) is not None:
            instance.kill(machine=machine)

    return fault


async def freeze(world, draw):
    """It takes connections, and never answers, for a while."""
    if (instance := _one(world, draw)) is not None:
        instance.touched = True
        instance.awake.clear()
        await asyncio.sleep(draw.uniform(1, 90))
        instance.awake.set()


def weather(kind, *longest):
    async def fault(world, draw):
        world.clearml.weather = kind
        await asyncio.sleep(draw.choice(longest) * draw.uniform(0.2, 1))
        if world.clearml.weather == kind:
            world.clearml.weather = "fine"

    return fault


async def slow_starts(world, draw):
    world.start = 8
    await asyncio.sleep(draw.uniform(20, 120))
    world.start = 1


async def templates_fail(world, draw):
    world.fails = 0.9
    await asyncio.sleep(draw.uniform(10, 60))
    world.fails = 0.0


FAULTS = {
    "an instance is killed": killed(machine=False),
    "a machine is lost": killed(machine=True),
    "an instance freezes": freeze,
    "ClearML is down": weather("down", 10, 60, 200),
    "ClearML is silent": weather("silent", 30, 100),
    "ClearML is slow": weather("slow", 30, 100),
    "answers are lost": weather("lossy", 10, 60),
    "starts are slow": slow_starts,
    "the template fails": templates_fail,
}
