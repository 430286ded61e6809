"""How much memory the models may hold, by device. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.engine.footprint import Footprint
from app.memory.residency import Need

GIB = 1 << 30
HOST = "host"
CONTEXT = 400 << 20  # bytes of a process's CUDA context on each GPU that it uses
PROCESS = 32 << 20  # bytes of host memory of the process itself


def budget(devices: Mapping[str, int], memory: int, most: float | None) -> dict[str, int]:
    """Bytes for models on each GPU, and on the host. `most` is Max CUDA Memory in GiB, per GPU;
    above the hardware it gives no GPU more than it has. Without a GPU it bounds host memory."""
    limit = int(most * GIB) if most is not None else None
    if not devices:
        return {HOST: min(memory, limit or memory)}
    found = {name: min(size, limit or size) for name, size in devices.items()}
    return {**found, HOST: memory}


def need(footprint: Footprint) -> Need:
    """With what every llama-server takes besides its model."""
    return {**on_devices(footprint.devices), HOST: footprint.host + PROCESS}


def on_devices(buffers: Mapping[str, int]) -> Need:
    """Bytes of a process's buffers on each GPU, with what CUDA takes besides."""
    return {device: size + CONTEXT for device, size in buffers.items() if size}


def together(needs: list[Need]) -> Need:
    """What all of them hold at the same time."""
    devices = dict.fromkeys(device for each in needs for device in each)
    return {device: sum(each.get(device, 0) for each in needs) for device in devices}


def lacking(wanted: Need, available: Need) -> str:
    """What is missing, as words; "" where it fits."""
    for device, size in wanted.items():
        if size > available.get(device, 0):
            has = available.get(device, 0) / GIB
            return f"{_named(device)}: {size / GIB:.2f} GiB are needed, of {has:.2f} GiB"
    return ""


def _named(device: str) -> str:
    return "host memory" if device == HOST else device
