"""What goes wrong in a world, and for how long."""

import asyncio
import signal


async def befall(world):
    """Each fault of the scene, in its time."""
    for at, name in world.scene.faults:
        await asyncio.sleep(max(0.0, at - world.loop.time()))
        if world.quiet:
            return
        world.trace(f"fault: {name}")
        world.happened[name] += 1
        world.task(FAULTS[name](world, world.draw("faults")), f"fault {name}")


async def kill(world, draw):
    _signal(world, draw, signal.SIGKILL)


async def segfault(world, draw):
    _signal(world, draw, signal.SIGSEGV)


async def freeze(world, draw):
    """A process that is stopped for a while."""
    child = _signal(world, draw, signal.SIGSTOP)
    if child is not None:
        world.stood_still(child.program.alias)
        await asyncio.sleep(draw.uniform(0.5, 20))
        child.signal(signal.SIGCONT)


async def wedge(world, draw):
    """A llama-server that says that it is well, and does nothing any more."""
    alive = [child for child in world.machine.alive if child.program.ready]
    if alive:
        child = draw.choice(alive)
        child.program.wedged = True
        world.stood_still(child.program.alias)


def _signal(world, draw, signum):
    alive = world.machine.alive
    child = draw.choice(alive) if alive else None
    if child is not None:
        child.signal(signum)
    return child


def manners(**changed):
    async def fault(world, draw):
        before = {key: getattr(world.manners, key) for key in changed}
        vars(world.manners).update(changed)
        await asyncio.sleep(draw.uniform(2, 40))
        vars(world.manners).update(before)

    return fault


async def others(world, draw):
    """Another program takes some of the GPU's memory."""
    free = world.machine.capacity - world.machine.held
    size = int(free * draw.uniform(0.3, 1.0))
    world.machine.others += size
    await asyncio.sleep(draw.uniform(1, 60))
    world.machine.others -= size


async def disk_full(world, draw):
    world.machine.disk = 0
    await asyncio.sleep(draw.uniform(1, 60))
    world.machine.disk = 1 << 40


async def no_processes(world, draw):
    world.machine.broken = True
    await asyncio.sleep(draw.uniform(1, 20))
    world.machine.broken = False


def weather(kind):
    async def fault(world, draw):
        world.clearml.weather = kind
        world.weathers.append((world.loop.time(), kind))
        await asyncio.sleep(draw.choice((5, 40, 200)) * draw.random())
        world.clearml.weather = "fine"
        world.cleared.append(world.loop.time())

    return fault


async def token_expires(world, draw):
    world.clearml.token = f"token-{draw.randrange(1 << 30)}"


FAULTS = {
    "ClearML is down": weather("down"),
    "ClearML is silent": weather("silent"),
    "ClearML fails": weather("failing"),
    "ClearML is slow": weather("slow"),
    "the token expires": token_expires,
    "kill": kill,
    "segfault": segfault,
    "freeze": freeze,
    "wedge": wedge,
    "crash on load": manners(crash_on_load=0.8),
    "break": manners(breaks=0.5),
    "slow": manners(token=0.4, load=12.0),
    "stubborn": manners(stubborn=True),
    "others": others,
    "disk full": disk_full,
    "no processes": no_processes,
}
