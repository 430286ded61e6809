"""NVIDIA GPUs as NVML shows them; none where there is no driver."""

from __future__ import annotations

import contextlib
import os
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


def held(pid: int, names: Sequence[str]) -> dict[str, int]:
    """Bytes that a process holds on each of these GPUs (CUDA0 is the driver's first one); nothing
    where the driver does not show it, as in containers, or shows the GPUs in another order."""
    if not _driver() or any(os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES",)):
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


def load() -> dict[str, object]:
    """What the GPUs do now, as ClearML's `machine_stats`: percent, MB, degrees; {} without any."""
    if not devices():
        return {}
    usage, used, left, heat = [], [], [], []
    for index, device in enumerate(devices()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        with contextlib.suppress(pynvml.NVMLError):
            usage.append(float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
        with contextlib.suppress(pynvml.NVMLError):
            heat.append(float(pynvml.nvmlDeviceGetTemperature(handle, 0)))
        used.append(device.used >> 20)
        left.append((device.total - device.used) >> 20)
    found = {"gpu_usage": usage, "gpu_memory_used": used, "gpu_memory_free": left}
    return {**found, "gpu_temperature": heat}


def free() -> int:
    """Bytes free on all GPUs together; without a driver to ask, as many as anybody wants."""
    if not _driver():
        return 1 << 62
    return sum(device.total - device.used for device in devices())
