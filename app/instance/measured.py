"""What a model uses, measured off the loop: when it has come, and before it leaves. A driver may
take its time."""

from __future__ import annotations

from collections.abc import Callable

from app.machine import gpu, host, threads
from app.planning.amounts import HOST, Need
from app.planning.learned import Record
from app.telemetry.readings import Process

Measure = Callable[[int], Need]  # of the process with this pid; blocks


def on_gpus(pid: int) -> Need:
    """As the driver says; nothing where it does not."""
    return gpu.used_by(pid)


class OnHost:
    """Of a model that lies in host memory: its files, of `weights` bytes, included."""

    def __init__(self, weights: int) -> None:
        self.private = 0  # bytes that its process had for itself the last time
        self._weights = weights

    def __call__(self, pid: int) -> Need:
        self.private = host.private_memory(pid)
        # Weights that are mapped lie in the page cache; those that are not are private already.
        mapped = 0 if self.private > self._weights else self._weights
        return {HOST: self.private + mapped}


class MemoryMeter:
    """The most that one model's process was measured to use since the app began."""

    def __init__(self, process: Process, measure: Measure, record: Record) -> None:
        """Each measurement goes into the `record`."""
        self._process = process
        self._measure = measure
        self._record = record
        self._most: Need = {}

    async def measure(self) -> Need:
        """The most until now, with what it uses now, by device; if nobody can measure it, what
        earlier runs have seen."""
        if self._process.running:
            usage = await threads.run(self._measure, self._process.pid)
            self._record.put(usage)
            larger = {
                device: max(size, self._most.get(device, 0)) for device, size in usage.items()
            }
            self._most = {**self._most, **larger}
        return self._most or self._record.seen()
