"""What the machine says of memory, read off the loop: the driver and the kernel take their time.

Whoever shows memory shows the last reading; whoever can wait may ask for a newer one first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.machine import clock, gpu, host, threads
from app.machine.gpu import Device

logger = logging.getLogger(__name__)

FRESH = 1.0  # seconds
PATIENCE = 2.0  # seconds that a caller waits for a driver that does not answer


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that a process or a model uses: by GPU, and of host memory."""

    gpu: Mapping[str, int] = field(default_factory=dict)
    host: int = 0

    @property
    def total(self) -> int:
        return sum(self.gpu.values()) + self.host


@dataclass(frozen=True)
class Reading:
    """The memory of the GPUs, of the host (bytes used and in all), and of processes by pid, each
    GPU by llama-server's name for it and only where the driver says it."""

    devices: Sequence[Device]
    host: tuple[int, int]
    processes: Mapping[int, MemoryUse]


def read(pids: Sequence[int]) -> Reading:
    """Blocks, for milliseconds to seconds."""
    holders = gpu.holders()
    processes = {pid: MemoryUse(holders.get(pid, {}), host.resident_memory(pid)) for pid in pids}
    return Reading(gpu.devices(), host.memory_used(), processes)


class Process(Protocol):
    @property
    def pid(self) -> int: ...

    @property
    def running(self) -> bool: ...


class Readings:
    def __init__(self, read: Callable[[Sequence[int]], Reading] = read) -> None:
        """Reads once here: there is no last reading yet."""
        self._read = read
        self._followed: list[Process] = []
        self._read_at = clock.now()
        self._last = read(())
        self._reading: asyncio.Task[None] | None = None

    def follow(self, process: Process) -> None:
        """Include the memory of this process from now on, whenever it runs."""
        self._followed.append(process)

    def latest(self) -> Reading:
        """The last reading. If it is older than FRESH, the next one begins, for later calls."""
        if clock.now() - self._read_at >= FRESH:
            self._begin()
        return self._last

    def of(self, process: Process) -> MemoryUse:
        """What a process held at the last reading; nothing if it does not run."""
        if not process.running:
            return MemoryUse()
        return self.latest().processes.get(process.pid, MemoryUse())

    async def renew(self, age: float = FRESH) -> None:
        """Wait until the last reading is at most `age` seconds old; not longer than PATIENCE."""
        now = clock.now()
        while self._read_at < now - age and (left := now + PATIENCE - clock.now()) > 0:
            await asyncio.wait({self._begin()}, timeout=left)

    def _begin(self) -> asyncio.Task[None]:
        """The reading under way, or a new one: a driver that hangs costs one thread only."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._take())
        return self._reading

    async def _take(self) -> None:
        begun = clock.now()
        try:
            pids = [process.pid for process in self._followed if process.running]
            self._last = await threads.run(self._read, pids)
        except Exception:  # noqa: BLE001 the last reading stands; the next may succeed
            logger.exception("the memory of the machine could not be read")
        finally:
            self._read_at, self._reading = begun, None
