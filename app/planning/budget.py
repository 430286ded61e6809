"""How much memory the models may hold, by device. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.planning.amounts import GIB, HOST, Need
from app.planning.footprint import Footprint

CONTEXT = 400 << 20  # bytes of a process's CUDA context on each GPU that it uses
LEAST_FREE = 1 << 30  # bytes, as llama-server leaves them by itself
SURE = 0.9  # of what is predicted for a model is what it takes at least
PROCESS = 32 << 20  # bytes of host memory of the process itself


def hardware(listed: Mapping[str, int], driver: Mapping[str, int]) -> dict[str, int]:
    """Bytes of each GPU, as llama-server lists it and as the driver says, either of which may show
    only our part of it (fractions, MIG, MPS): the smaller one counts. 0 is not said."""
    return {
        name: min(size or driver.get(name, 0), driver.get(name, size))
        for name, size in listed.items()
    }


def headroom(free: Mapping[str, int], available: Need) -> dict[str, int]:
    """Bytes of each GPU that the buffers of one model may take: within what is `available` for
    models, and of what was `free` so much less as llama-server leaves by itself."""
    found = {device: size - CONTEXT for device, size in available.items() if device != HOST}
    return {
        device: max(0, min(size, free.get(device, size + LEAST_FREE) - LEAST_FREE))
        for device, size in found.items()
    }


def beside_others(
    available: Need, free: Mapping[str, int], ours: Need, wanted: Need
) -> dict[str, int]:
    """What is `available` for models, less what other programs hold of it: models that count for
    `ours` are there, and so much is `free` beside them, by device where that is known. What a
    model takes is only predicted: one of which nearly all fits is not held to the last byte."""
    found = dict(available)
    for device, size in free.items():
        there = size + ours.get(device, 0)
        nearly = min(wanted.get(device, 0), int(there / SURE))
        if device in found:
            found[device] = min(found[device], max(there, nearly))
    return found


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
    return {**on_devices(footprint.devices), HOST: footprint.host + footprint.cache + PROCESS}


def on_devices(buffers: Mapping[str, int]) -> Need:
    """Bytes of a process's buffers on each GPU, with what CUDA takes besides."""
    return {device: size + CONTEXT for device, size in buffers.items() if size}
