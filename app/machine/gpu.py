"""NVIDIA GPUs as NVML shows them; none where there is no driver."""

from __future__ import annotations

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
