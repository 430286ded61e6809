"""How much memory models may use, by device. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.planning.amounts import GIB, HOST, Need
from app.planning.footprint import Footprint

CONTEXT = 400 << 20  # bytes of a process's CUDA context on each GPU that it uses
LEAST_FREE = 1 << 30  # bytes that llama-server leaves free by default
SURE = 0.9  # a model takes at least this part of its prediction
PROCESS = 32 << 20  # bytes of host memory that a llama-server takes beside its model


def hardware(listed: Mapping[str, int], driver: Mapping[str, int]) -> dict[str, int]:
    """Bytes of each GPU. llama-server and the driver may each show less than the whole GPU, if only
    a part of it is ours (fractions, MIG, MPS): the smaller size counts. 0: it is not told."""
    return {
        name: min(size or driver.get(name, 0), driver.get(name, size))
        for name, size in listed.items()
    }


def headroom(free: Mapping[str, int], available: Need) -> dict[str, int]:
    """Bytes of each GPU that the buffers of one model may take: not more than is `available` for
    models, nor than was `free`, less what llama-server leaves free by default."""
    buffers = {device: size - CONTEXT for device, size in available.items() if device != HOST}
    return {
        device: max(0, min(size, free.get(device, size + LEAST_FREE) - LEAST_FREE))
        for device, size in buffers.items()
    }


def beside_others(
    available: Need, free: Mapping[str, int], ours: Need, wanted: Need
) -> dict[str, int]:
    """What is `available` for models, less what other programs use of it. Models that need `ours`
    are in memory, and beside them so much of each device is `free`, if that is known. The need of
    the `wanted` model is only a prediction: it counts as fitting if nearly all of it fits."""
    room = dict(available)
    for device, size in free.items():
        there = size + ours.get(device, 0)
        nearly = min(wanted.get(device, 0), int(there / SURE))
        if device in room:
            room[device] = min(room[device], max(there, nearly))
    return room


def budget(devices: Mapping[str, int], memory: int, most: float | None) -> dict[str, int]:
    """Bytes for models on each GPU, and on the host. `most` is Max CUDA Memory: GiB of each GPU, or
    of host memory on a machine without GPU."""
    limit = int(most * GIB) if most is not None else None
    if not devices:
        return {HOST: min(memory, limit or memory)}
    gpus = {name: min(size, limit or size) for name, size in devices.items()}
    return {**gpus, HOST: memory}


def need(footprint: Footprint) -> Need:
    """The footprint, with what every llama-server takes beside its model."""
    return {**on_devices(footprint.devices), HOST: footprint.host + footprint.cache + PROCESS}


def on_devices(buffers: Mapping[str, int]) -> Need:
    """Bytes that a process takes of each GPU: its buffers and its CUDA context."""
    return {device: size + CONTEXT for device, size in buffers.items() if size}
