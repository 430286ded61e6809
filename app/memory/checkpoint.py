"""The CUDA driver's checkpoint calls: they move a process's GPU memory to CPU RAM and back.

One long-lived child, the helper (`memory.checkpoint_child`), makes the calls: `cuInit` is done
once, and a call that hangs is killed with the helper and not with us.

A restore that runs out of GPU memory leaves the process stuck for ever, so there must be room
before it begins. After any failure or missed deadline the process is of no use any more.
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
from app.machine.deadline import within
from app.memory import checkpoint_child
from app.memory.checkpoint_child import CHECKPOINTED, RUNNING, STATES
from app.memory.mover import MoveError, NoRoomError
from app.planning.amounts import GIB, Need
from app.planning.budget import LEAST_FREE

logger = logging.getLogger(__name__)

START = 30.0  # seconds for cuInit
LEAST = 20.0  # seconds for a move
RATE = 1 << 30  # bytes a second: a slower move counts as hung
PROBE = 30.0
FIRST_LOOK, LAST_LOOK = 0.01, 1.0  # seconds between looks whether what was killed has ended
PATIENCE = 5.0  # seconds for that, where it is waited for
GPU_TRIES, GPU_PAUSE = 50, 0.1  # for GPU memory that comes free a moment later


class Helper:
    """The child that makes the calls: one at a time, each with a deadline. Its `words` are its
    arguments."""

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
        self.stop()  # cleans up after a helper that ended by itself
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
        """Raises MoveError. After a missed deadline the helper is killed; the next call starts a
        new one."""
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
            line = await within(deadline, self._reader.readline())
        except asyncio.TimeoutError:
            self.stop()
            raise MoveError(f"no answer from the CUDA driver in {deadline:.0f} s") from None
        except asyncio.CancelledError:
            self.stop()  # its answer would be taken for the answer to the next call
            raise
        if not line:
            self.stop()
            raise MoveError("the helper has ended")
        told = json.loads(line)
        if not told["ok"]:
            raise MoveError(told["problem"])
        return told.get("result")

    def stop(self) -> None:
        """Kill it without waiting: stuck in the driver, it does not even end by SIGKILL."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            assert child.stdin is not None
            with contextlib.suppress(OSError):  # the rest of a call that could not be written
                child.stdin.close()
            self._killed.append(child)
            self._reap(FIRST_LOOK)
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _reap(self, pause: float) -> None:
        """Leave no zombie, however late a killed helper ends. It is looked for at intervals: where
        there is no pidfd, to await it takes a thread, and threads are few."""
        self._killed = [child for child in self._killed if child.poll() is None]
        if self._look is not None:
            self._look.cancel()
        if self._killed:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(pause, self._reap, min(2 * pause, LAST_LOOK))

    async def ended(self, patience: float = PATIENCE) -> None:
        """Return when all killed helpers have ended, at the latest after `patience` seconds."""
        until = clock.now() + patience
        while self._killed and clock.now() < until:
            await asyncio.sleep(FIRST_LOOK)
            self._reap(FIRST_LOOK)


class Checkpoints:
    """Parks processes in CPU RAM, and restores them."""

    def __init__(
        self,
        helper: Helper,
        room: Callable[[], int],
        gpu_room: Callable[[], Need] = dict,
        margin: int = LEAST_FREE,
        most_gpus: int = 1,
    ) -> None:
        """`room` reads how many bytes of host memory are free, `gpu_room` how many of each GPU,
        where the driver tells. `margin` bytes of host memory stay free. A process on more than
        `most_gpus` GPUs must not be moved: the probe has tried so many."""
        self.most_gpus = most_gpus
        self._helper = helper
        self._room = room
        self._gpu_room = gpu_room
        self._margin = margin

    async def park(self, pid: int, usage: Need) -> None:
        """`usage` in bytes by GPU, for which host memory must have room. Raises MoveError."""
        free, size = self._room(), sum(usage.values())
        if size + self._margin > free:
            problem = f"{size / GIB:.1f} GiB are needed of host memory, {free / GIB:.1f} are free"
            raise NoRoomError(problem)
        await self._helper.ask("park", pid, deadline(size))

    async def restore(self, pid: int, usage: Need) -> None:
        """`usage`: as it was parked; each GPU must have room for it. Raises MoveError."""
        await self._until_room(usage)
        await self._helper.ask("restore", pid, deadline(sum(usage.values())))

    async def _until_room(self, usage: Need) -> None:
        """Memory of a model that has left may come free a moment later; else raises MoveError."""
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
    """Move a sibling that has a context on so many GPUs to CPU RAM and back: "" if this machine
    can do that, else why not."""
    helper, sibling = Helper(environment), Helper(environment, str(gpus))
    try:
        await helper.start()
        await sibling.start()
        await helper.ask("park", sibling.pid, PROBE)
        if await helper.ask("state", sibling.pid, PROBE) != CHECKPOINTED:
            return "the driver did not move a process's memory"
        await helper.ask("restore", sibling.pid, PROBE)
        state = await helper.ask("state", sibling.pid, PROBE)
        return "" if state == RUNNING else f"a process came back {STATES[state]}"
    except MoveError as error:
        return str(error)
    finally:
        for child in (helper, sibling):
            child.stop()
        for child in (helper, sibling):
            await child.ended()
