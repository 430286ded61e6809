"""What a model holds, measured off the loop: when it has come, and before it leaves.

The kernel walks all pages of a process to tell what is its own: tens of milliseconds for a large
model.
"""

from __future__ import annotations

from collections.abc import Callable

from app.machine import gpu, host, threads
from app.memory.ledger import Tier
from app.memory.tiers import Tiered
from app.planning.amounts import HOST, Need
from app.telemetry.readings import Process

Measure = Callable[[int], Need]  # of the process with this pid; blocks


def on_gpus(pid: int) -> Need:
    """As the driver says; nothing where it does not."""
    return gpu.held(pid)


def on_host(weights: int) -> Measure:
    """Of a model that lies in host memory: its files, of `weights` bytes, included."""

    def measure(pid: int) -> Need:
        private = host.private_memory(pid)
        # Weights that are mapped lie in the page cache; those that are not are private already.
        return {HOST: private if private > weights else private + weights}

    return measure


class Meter:
    """The most that one model's process was measured to hold since the app began."""

    def __init__(self, process: Process, measure: Measure, learn: Callable[[Need], None]) -> None:
        """`learn` is told of each measurement."""
        self._process = process
        self._measure = measure
        self._learn = learn
        self.most: Need = {}

    async def measure(self) -> None:
        if not self._process.running:
            return
        held = await threads.run(self._measure, self._process.pid)
        self._learn(held)
        self.most = {**self.most, **{d: max(n, self.most.get(d, 0)) for d, n in held.items()}}


class Measured(Tiered):
    """A model that is measured whenever it has come and before it leaves."""

    meter: Meter

    async def start(self) -> None:
        await super().start()
        await self.meter.measure()

    async def leave(self) -> Tier:
        await self.meter.measure()
        return await super().leave()
