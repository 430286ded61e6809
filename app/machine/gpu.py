"""NVIDIA GPUs as NVML shows them; none where there is no driver."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Device:
    """`used` and `total` in bytes."""

    id: str
    name: str
    used: int
    total: int


def devices() -> list[Device]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _device(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(str(index), str(pynvml.nvmlDeviceGetName(handle)), memory.used, memory.total)
