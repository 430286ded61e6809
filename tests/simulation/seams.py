"""Puts the parts of a world in the place of the clock, the network, the processes and the machine,
at the seams that the app has for that."""

import contextlib
import os
import queue

from app import console
from app.machine import activity, chance, children, clock, garbage, gpu, host, network, threads

EPOCH = 1_800_000_000.0  # seconds


class Chance:
    """Keys and names that are not secret at all."""

    def __init__(self, draw):
        self._draw = draw

    def name(self, size):
        return self._draw.randbytes(size).hex()

    key = name


async def in_a_moment(world, function, *arguments, **named):
    """What a thread of the pool does, after a drawn time. Who is cancelled goes on at once."""
    done = world.loop.create_future()

    def work():
        try:
            result = function(*arguments, **named)
        except Exception as error:  # noqa: BLE001 it is the caller's
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(result)

    world.loop.call_later(world.draw("threads").uniform(0.0001, 0.02), work)
    return await done


def replacements(world):
    """Module, name, and what takes its place."""
    machine, wire, steps, loop = world.machine, world.network, world.steps, world.loop
    random = Chance(world.draw("chance"))

    async def run(function, *arguments, **named):
        return await in_a_moment(world, function, *arguments, **named)

    return [
        (clock, "now", loop.time),
        (clock, "wall", lambda: EPOCH + loop.time()),
        (clock, "sleep", steps.sleep),
        (threads, "run", run),
        (threads, "result", steps.result),
        (threads, "after", lambda seconds, function: loop.call_later(seconds, function).cancel),
        (threads, "daemon", steps.daemon),
        (threads, "Queue", steps.queue),
        (threads, "Full", queue.Full),
        (activity, "of", machine.activity),
        (children, "run", machine.run),
        (children, "spawn", machine.spawn),
        (children, "outlive", machine.outlive),
        (children, "exit_status", machine.exit_status),
        (children, "signal_group", machine.signal_group),
        (network, "listen", wire.listen),
        (network, "connect", wire.connect),
        (network, "connect_unix", wire.connect_unix),
        (network, "hold", wire.hold),
        (network, "answers", lambda host, port, timeout: world.file_server_answers()),
        (network, "own_address", lambda: "10.0.0.1"),
        (chance, "name", random.name),
        (chance, "key", random.key),
        (host, "psutil", machine.psutil),
        (host, "name", lambda: "simulated"),
        (host, "limit_of", lambda path: None),
        (host, "thread_count", lambda: 8),
        (activity, "of", machine.activity),
        (gpu, "pynvml", machine.pynvml),
        (gpu, "_visible", machine.visible),
        (console, "confide", lambda text: None),
        (garbage, "settle", lambda: None),  # it would keep all worlds
    ]


@contextlib.contextmanager
def replaced(world):
    """Everything is as it was, afterwards."""
    kept = [(module, name, getattr(module, name)) for module, name, _ in replacements(world)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(world.folder)
    for module, name, ours in replacements(world):
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, theirs in kept:
            setattr(module, name, theirs)
        del os.environ["XDG_RUNTIME_DIR"]
        if runtime is not None:
            os.environ["XDG_RUNTIME_DIR"] = runtime
