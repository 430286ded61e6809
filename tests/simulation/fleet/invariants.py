"""What must hold in every fleet."""

import asyncio

from app.fleet.arrivals import SEEK, STRAYED
from tests.simulation.fleet.clearml import QUEUE

LOOK = 1.0  # seconds


def counted(world):
    """Tasks that are to serve, or do: queued, starting and serving, but for those that a fault has
    met, and those that are about to end."""
    found = []
    for task in world.clearml.living("queued", "in_progress"):
        instance = world.instances.get(task["id"])
        if instance is None or (
            instance.here and not instance.touched and not leaves(world, instance)
        ):
            found.append(task["id"])
    return found


def leaves(world, instance):
    """No door needs it any more."""
    if instance.state == "stopping":
        return True
    members = [door.state.members.get(instance.task) for door in world.doors]
    return any(member is not None and member.let_go for member in members)


def coming(world):
    there = (world.instances.get(task) for task in counted(world))
    return [each for each in there if each is None or each.state == "setting up"]


def at_an_order(world, task, who):
    """Called before a task is enqueued: is it one too many, or ordered beside another one?"""
    known = counted(world)
    if task in known or len(known) >= world.route.max:
        world.violated(f"{who} orders {task} beside {known}")
    if coming(world) and len(known) >= max(1, world.route.min):
        world.violated(f"{who} orders {task} while one is to come")


def at_an_end(world, instance):
    """Called when an instance ends for want of use: do all doors know?"""
    if instance.touched or leaves(world, instance):
        return
    for door in world.doors:
        member = door.state.members.get(instance.task)
        if member is not None and member.serves and not door.routes.closed:
            world.violated(f"{instance.task} ends, and {door.name} has not let it go")


async def watch(world):
    while True:
        await asyncio.sleep(LOOK)
        if len(counted(world)) > world.route.max:
            world.violated(f"{counted(world)} are more than {world.route.max}")
        for door in world.doors:
            state = door.state
            loads = [member.in_flight for member in state.members.values()]
            if min([0, state.admitted, *loads]) < 0 or sum(loads) > state.admitted:
                world.violated(f"{door.name}: {state.admitted} admitted, in flight {loads}")


def _serving(world):
    return [each for each in world.instances.values() if each.here and each.state == "active"]


def missing(world):
    """How many are to serve, and do not."""
    return max(0, min(world.route.min, world.scene.agents) - len(_serving(world)))


def running(world):
    return [each.task for each in world.instances.values() if each.here]


def at_rest(world):
    """No faults and no requests, for a while."""
    here = _serving(world)
    if missing(world):
        world.violated(f"{len(here)} serve, and min is {world.route.min}")
    if len(here) > world.route.max and not any(each.touched for each in here):
        world.violated(f"{len(here)} serve, and max is {world.route.max}")
    for door in world.doors:
        if door.state.admitted or door.state.waiting:
            world.violated(f"{door.name}: {door.state.admitted} requests are left")


def strays(world, task):
    """It was given to nobody, and doors had no time to find out."""
    when = world.clearml.strayed.get(task)
    return when is not None and world.loop.time() - when < STRAYED + 3 * SEEK


def without_doors(world):
    """The last door has ended."""
    left = [task["id"] for task in world.clearml.living("queued") if not strays(world, task["id"])]
    if left:
        world.violated(f"{left} wait in the queue for nobody")
    queues = [queue["name"] for queue in world.clearml.state.queues.values()]
    if queues != [QUEUE] and not world.happened:
        world.violated(f"the queues are {queues}")


def afterwards(world):
    """Nobody keeps the instances."""
    if here := running(world):
        world.violated(f"{here} run for nobody")
    drafts = [t for t in world.clearml.living("created") if t["name"] != "template"]
    if len(drafts) > world.clearml.unknown:
        world.violated(f"drafts are left: {[each['name'] for each in drafts]}")
    if world.network.open:
        world.violated(f"{len(world.network.open)} ends of connections are open")
    others = [t for t in asyncio.all_tasks(world.loop) if not t.get_name().startswith("sim ")]
    others.remove(asyncio.current_task(world.loop))
    if others:
        world.violated(f"tasks are left: {others}")
