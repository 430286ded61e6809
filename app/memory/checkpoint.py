"""GPU memory of a process to CPU RAM and back: the CUDA driver's checkpoint calls.

One long-lived child (`memory.checkpoint_child`) makes the calls: `cuInit` is paid once, and a call
that hangs can be killed without us.

A restore that runs out of GPU memory leaves the process stuck for ever: whoever calls has to know
that there is room. After any failure or missed deadline the process is of no use any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from app.machine import children, clock
from app.memory import checkpoint_child
from app.memory.checkpoint_child import CHECKPOINTED, RUNNING, STATES
from app.memory.mover import MoveError, NoRoomError
from app.planning.amounts import GIB, Need
from app.planning.budget import LEAST_FREE

logger = logging.getLogger(__name__)

START = 30.0  # seconds for cuInit
LEAST = 20.0  # seconds for a move
RATE = 1 << 30  # bytes a second that a move has at least, else it counts as hung
PROBE = 30.0
FIRST_LOOK, LAST_LOOK = 0.01, 1.0  # seconds between looks whether what was killed has ended
PATIENCE = 5.0  # seconds for that, where it is waited for
GPU_TRIES, GPU_PAUSE = 50, 0.1  # for GPU memory that is just being let go of


class Helper:
    """The child that makes the calls: one at a time, each with a deadline."""

    def __init__(self, environment: Mapping[str, str], *words: str) -> None:
        self._environment = environment
        self._words = words
        self._lock = asyncio.Lock()
        self._child: children.Child | None = None
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._killed: list[children.Child] = []  # and not seen to end yet
        self._look: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    async def start(self, deadline: float = START) -> None:
        """Raises MoveError with what the driver says."""
        self.stop()  # what a helper that ended by itself has left
        self._child = self._spawn()
        assert self._child.stdout is not None
        self._reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self._reader)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, self._child.stdout)
        await self._answer(deadline)

    def _spawn(self) -> children.Child:
        return children.spawn(
            [sys.executable, "-I", "-S", checkpoint_child.__file__, *self._words],
            self._environment,
            stdin=children.PIPE,
            stdout=children.PIPE,
            stderr=children.NOWHERE,
        )

    async def ask(self, do: str, pid: int, deadline: float) -> Any:
        """Raises MoveError; after a missed deadline the helper is gone, and a new one comes
        with the next call."""
        async with self._lock:
            if self._child is None or self._child.poll() is not None:
                await self.start()
            assert self._child is not None and self._child.stdin is not None
            try:
                self._child.stdin.write(json.dumps({"do": do, "pid": pid}).encode() + b"\n")
                self._child.stdin.flush()
            except OSError as error:
                self.stop()
                raise MoveError(f"the helper is gone: {error}") from None
            return await self._answer(deadline)

    async def _answer(self, deadline: float) -> Any:
        assert self._reader is not None
        try:
            line = await asyncio.wait_for(self._reader.readline(), deadline)
        except asyncio.TimeoutError:
            self.stop()
            raise MoveError(f"no answer from the CUDA driver in {deadline:.0f} s") from None
        except asyncio.CancelledError:
            self.stop()  # its answer would be taken for that to the next question
            raise
        if not line:
            self.stop()
            raise MoveError("the helper has ended")
        told = json.loads(line)
        if not told["ok"]:
            raise MoveError(told["problem"])
        return told.get("found")

    def stop(self) -> None:
        """Kill it, and wait for nothing: stuck in the driver it does not end even then."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            assert child.stdin is not None
            with contextlib.suppress(OSError):  # what was not written is of no use
                child.stdin.close()
            self._killed.append(child)
            self._reap(FIRST_LOOK)
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _reap(self, pause: float) -> None:
        """Nothing stays a zombie, however late it ends. It is looked for at intervals: to await it
        takes a thread where there is no pidfd, and threads are few."""
        self._killed = [child for child in self._killed if child.poll() is None]
        if self._look is not None:
            self._look.cancel()
        if self._killed:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(pause, self._reap, min(2 * pause, LAST_LOOK))

    async def ended(self, patience: float = PATIENCE) -> None:
        """Return when everything that was killed has ended, at the latest after `patience` s."""
        until = clock.now() + patience
        while self._killed and clock.now() < until:
            await asyncio.sleep(FIRST_LOOK)
            self._reap(FIRST_LOOK)


class Checkpoints:
    """Moves processes between the GPU and CPU RAM."""

    def __init__(
        self,
        helper: Helper,
        room: Callable[[], int],
        gpu_room: Callable[[], Need] = dict,
        margin: int = LEAST_FREE,
        most_gpus: int = 1,
    ) -> None:
        """`room` reads how many bytes of host memory are free, `gpu_room` how many of each GPU of
        which that is known; so many bytes of host memory stay free as `margin`. A process on more
        than `most_gpus` is not to be moved: with so many a move was tried."""
        self.most_gpus = most_gpus
        self._helper = helper
        self._room = room
        self._gpu_room = gpu_room
        self._margin = margin

    async def park(self, pid: int, usage: Need) -> None:
        """`usage` in bytes by GPU, which have to find room. Raises MoveError."""
        free, size = self._room(), sum(usage.values())
        if size + self._margin > free:
            problem = f"{size / GIB:.1f} GiB are needed of host memory, {free / GIB:.1f} are free"
            raise NoRoomError(problem)
        await self._helper.ask("park", pid, deadline(size))

    async def restore(self, pid: int, usage: Need) -> None:
        """Waits until each GPU has room for the `usage` with which it was parked. Raises
        MoveError."""
        await self._until_room(usage)
        await self._helper.ask("restore", pid, deadline(sum(usage.values())))

    async def _until_room(self, usage: Need) -> None:
        """What others let go of comes free a little later; a restore that runs out is stuck for
        ever. Raises MoveError where it does not come free."""
        for _ in range(GPU_TRIES):
            free = self._gpu_room()
            short = {gpu: size for gpu, size in usage.items() if size > free.get(gpu, size)}
            if not short:
                return
            await asyncio.sleep(GPU_PAUSE)
        lack = (
            f"{size / GIB:.1f} GiB are needed on {gpu}, {free[gpu] / GIB:.1f} are free"
            for gpu, size in short.items()
        )
        raise MoveError("; ".join(lack))

    def stop(self) -> None:
        self._helper.stop()


def deadline(size: int) -> float:
    """Seconds that a move of so many bytes may take."""
    return LEAST + 2 * size / RATE


async def probe(environment: Mapping[str, str], gpus: int = 1) -> str:
    """Try a whole trip on a sibling that holds a context on so many GPUs: "" where this machine
    can, else why not."""
    helper, sibling = Helper(environment), Helper(environment, str(gpus))
    try:
        await helper.start()
        await sibling.start()
        await helper.ask("park", sibling.pid, PROBE)
        if await helper.ask("state", sibling.pid, PROBE) != CHECKPOINTED:
            return "the driver did not move a process's memory"
        await helper.ask("restore", sibling.pid, PROBE)
        found = await helper.ask("state", sibling.pid, PROBE)
        return "" if found == RUNNING else f"a process came back {STATES[found]}"
    except MoveError as error:
        return str(error)
    finally:
        for child in (helper, sibling):
            child.stop()
        for child in (helper, sibling):
            await child.ended()
