"""NVIDIA GPUs as NVML shows them; none where there is no driver."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pynvml

NVIDIA, DISPLAY = "0x10de", "0x03"  # on the PCI bus: the vendor, and the class of GPUs
PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True)
class Device:
    """`id` is what nvidia-smi calls it, `cuda` what llama-server does; `used`, by anybody, and
    `total` in bytes."""

    id: str
    cuda: str
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


def _visible() -> dict[str, tuple[str, Any]]:
    """Index and NVML's handle of the GPUs that a CUDA program started by us sees, by the name that
    it has for each: children count in the order of the bus, as NVML does.

    CUDA_VISIBLE_DEVICES (CUDA C++ Programming Guide, "CUDA Environment Variables"): indexes or the
    beginnings of UUIDs; what follows the first one that names no GPU is invisible.
    """
    if not _driver():
        return {}
    try:
        count = pynvml.nvmlDeviceGetCount()
        found = [(str(n), pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(count)]
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is not None:
            named = (_named(text.strip(), found) for text in chosen.split(","))
            found = [each for each in itertools.takewhile(bool, named) if each]
    except pynvml.NVMLError:
        return {}
    return {f"CUDA{n}": each for n, each in enumerate(found)}


def _named(name: str, found: Sequence[tuple[str, Any]]) -> tuple[str, Any] | None:
    if name.isdecimal():
        return found[int(name)] if int(name) < len(found) else None
    if name.startswith("MIG-"):
        return name, pynvml.nvmlDeviceGetHandleByUUID(name)
    if not name.startswith("GPU-"):
        return None
    meant = [each for each in found if str(pynvml.nvmlDeviceGetUUID(each[1])).startswith(name)]
    return meant[0] if len(meant) == 1 else None


def count() -> int:
    """GPUs that the driver shows, those that CUDA_VISIBLE_DEVICES hides included."""
    with contextlib.suppress(pynvml.NVMLError):
        return int(pynvml.nvmlDeviceGetCount()) if _driver() else 0
    return 0


def driver() -> str:
    """The driver's version; "" where there is none."""
    with contextlib.suppress(pynvml.NVMLError):
        return str(pynvml.nvmlSystemGetDriverVersion()) if _driver() else ""
    return ""


def trouble() -> str:
    """Why NVML cannot be used; "" if it can."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return str(error)
    return ""


def built_in(bus: Path = PCI) -> int:
    """NVIDIA's GPUs on the bus of the machine, with or without a driver."""
    found = 0
    for device in bus.glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text() for name in ("vendor", "class"))
            found += vendor.strip() == NVIDIA and kind.startswith(DISPLAY)
    return found


def devices() -> list[Device]:
    found = []
    for cuda, (index, handle) in _visible().items():
        with contextlib.suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = str(pynvml.nvmlDeviceGetName(handle))
            found.append(Device(index, cuda, name, memory.used, memory.total))
    return found


def free() -> dict[str, int]:
    """Bytes that nobody holds, by llama-server's name for the GPU; without those of which the
    driver does not say it."""
    return {device.cuda: device.total - device.used for device in devices()}


def used_by(pid: int) -> dict[str, int]:
    """Bytes that a process holds, by llama-server's name for the GPU; nothing where the driver does
    not show it, as in containers."""
    return holders().get(pid, {})


def holders() -> dict[int, dict[str, int]]:
    """What every process holds, by pid."""
    found: dict[int, dict[str, int]] = {}
    for cuda, (_, handle) in _visible().items():
        with contextlib.suppress(pynvml.NVMLError):
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.usedGpuMemory:
                    found.setdefault(process.pid, {})[cuda] = int(process.usedGpuMemory)
    return found


@dataclass(frozen=True)
class Load:
    """What one GPU does: percent, bytes, degrees Celsius; None where the driver does not say. `id`
    is what nvidia-smi calls it."""

    usage: float | None
    used: int
    total: int
    temperature: float | None
    id: str


def load() -> list[Load]:
    """By GPU."""
    found = []
    for index, handle in _visible().values():
        usage = temperature = None
        with contextlib.suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            with contextlib.suppress(pynvml.NVMLError):
                temperature = float(pynvml.nvmlDeviceGetTemperature(handle, 0))
            with contextlib.suppress(pynvml.NVMLError):
                usage = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            found.append(Load(usage, memory.used, memory.total, temperature, index))
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
