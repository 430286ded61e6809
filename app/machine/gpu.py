"""NVIDIA GPUs as NVML shows them; none where there is no driver."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pynvml


@dataclass(frozen=True)
class Device:
    """`used` and `total` in bytes."""

    id: str
    name: str
    used: int
    total: int


@cache
def _driver() -> bool:
    """Whether NVML is here; it stays open, since opening it takes longer than to ask."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def devices() -> list[Device]:
    if not _driver():
        return []
    try:
        return [_device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _device(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(str(index), str(pynvml.nvmlDeviceGetName(handle)), memory.used, memory.total)


class Held:
    """What `held` says, asked for again after so many seconds: the driver takes its time, and an
    open page asks often."""

    def __init__(self, names: Sequence[str], seconds: float = 2.0) -> None:
        self._names = names
        self._seconds = seconds
        self._known: dict[int, tuple[float, dict[str, int]]] = {}

    def of(self, pid: int) -> dict[str, int]:
        now = time.monotonic()
        at, found = self._known.get(pid, (-self._seconds, {}))
        if now - at >= self._seconds:
            found = held(pid, self._names)
            self._known = {p: k for p, k in self._known.items() if now - k[0] < self._seconds}
            self._known[pid] = (now, found)
        return found


def held(pid: int, names: Sequence[str]) -> dict[str, int]:
    """Bytes that a process holds on each of these GPUs (CUDA0 is the driver's first one); nothing
    where the driver does not show it, as in containers, or shows the GPUs in another order."""
    if not _driver() or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return {}
    found = {}
    for index, name in enumerate(names):
        if name != f"CUDA{index}":
            return {}
        with contextlib.suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == pid and process.usedGpuMemory:
                    found[name] = int(process.usedGpuMemory)
    return found


@dataclass(frozen=True)
class Load:
    """What one GPU does: percent, bytes, degrees Celsius; None where the driver does not say."""

    usage: float | None
    used: int
    total: int
    temperature: float | None


def load() -> list[Load]:
    """By GPU."""
    found = []
    for index, device in enumerate(devices()):
        usage = temperature = None
        with contextlib.suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            temperature = float(pynvml.nvmlDeviceGetTemperature(handle, 0))
            usage = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        found.append(Load(usage, device.used, device.total, temperature))
    return found


def machine_stats(loads: Sequence[Load]) -> dict[str, object]:
    """As ClearML's `machine_stats`: percent, MB, degrees; {} without any GPU."""
    if not loads:
        return {}
    return {
        "gpu_usage": [load.usage for load in loads if load.usage is not None],
        "gpu_memory_used": [load.used >> 20 for load in loads],
        "gpu_memory_free": [(load.total - load.used) >> 20 for load in loads],
        "gpu_temperature": [load.temperature for load in loads if load.temperature is not None],
    }


def free() -> int:
    """Bytes free on all GPUs together; without a driver to ask, as many as anybody wants."""
    if not _driver():
        return 1 << 62
    return sum(device.total - device.used for device in devices())
