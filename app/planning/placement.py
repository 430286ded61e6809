"""Decide which GPUs a model goes to, and which of its tensors stay there. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from app.models.header import Tensor

# If a person gives any of these, nothing is chosen here.
DECIDING = tuple(
    "-ts --tensor-split -sm --split-mode -mg --main-gpu -dev --device -ot --override-tensor".split()
)
DEVICE = ("-dev", "--device")
OVERRIDES = ("-ot", "--override-tensor")
ON_HOST = "CPU"
ONE_GPU, SEVERAL = -1, 66_000  # KiB: the default thresholds


def attempts(
    devices: Sequence[str],
    given: Sequence[str],
    budget: Mapping[str, int],
    assigned: Mapping[str, int],
) -> list[tuple[str, ...]]:
    """Arguments to be tried in turn: each single GPU, the one with most room first, then all GPUs.
    `assigned` are the bytes that models before this one take."""
    if len(devices) < 2 or any(word in DECIDING for word in given):
        return [()]
    by_room = sorted(devices, key=lambda d: assigned.get(d, 0) - budget.get(d, 0))
    return [*(("--device", device) for device in by_room), ()]


def split(devices: Sequence[str], given: Sequence[str], room: Mapping[str, int]) -> tuple[str, ...]:
    """The proportion in which several GPUs take a model. By default llama-server chooses it anew at
    every start, by what happens to be free."""
    several = used(given, devices)
    if len(several) < 2 or any(word in DECIDING and word not in DEVICE for word in given):
        return ()
    shares = [room.get(device, 0) >> 20 for device in several]
    return ("--tensor-split", ",".join(map(str, shares))) if any(shares) else ()


def used(given: Sequence[str], devices: Sequence[str]) -> tuple[str, ...]:
    """The devices that a model with these arguments goes to."""
    named = [value for flag, value in zip(given, given[1:], strict=False) if flag in DEVICE]
    return tuple(named[-1].split(",")) if named else tuple(devices)


def shares(given: Sequence[str], devices: Sequence[str]) -> dict[str, float]:
    """The part of a model that each of its devices gets, by its arguments; equal parts if they do
    not say it. The parts add up to one."""
    pairs = zip(given, given[1:], strict=False)
    named = [value for flag, value in pairs if flag in ("-ts", "--tensor-split")]
    try:
        numbers = [float(word) for word in re.split("[,/]", named[-1])][: len(devices)]
    except (IndexError, ValueError):  # none is given, or llama-server will refuse it
        numbers = []
    if not sum(numbers) > 0:
        numbers = [1.0] * len(devices)
    total = sum(numbers)
    return {d: number / total for d, number in zip(devices, numbers, strict=False) if number}


def threshold(given: int | None, devices: int) -> int:
    """Bytes: tensors up to this size never leave GPU memory; -1: every tensor may leave it."""
    kib = given if given is not None else ONE_GPU if devices < 2 else SEVERAL
    return kib << 10 if kib >= 0 else -1


def spare_small(placement: Sequence[str], tensors: Sequence[Tensor], least: int) -> tuple[str, ...]:
    """The arguments, without moving tensors of at most `least` bytes to host memory: an override
    that matches such tensors names only the larger ones."""
    words = list(placement)
    for index, word in enumerate(words[:-1]):
        if word in OVERRIDES and least >= 0:
            overrides = (_larger(text, tensors, least) for text in words[index + 1].split(","))
            words[index + 1] = ",".join(text for text in overrides if text)
    # An override that matches nothing any more is left out.
    pairs = zip(words[::2], words[1::2], strict=False)
    kept = [(flag, value) for flag, value in pairs if value or flag not in OVERRIDES]
    return tuple(text for pair in kept for text in pair)


def _larger(override: str, tensors: Sequence[Tensor], least: int) -> str:
    pattern, _, buffer = override.rpartition("=")
    if buffer != ON_HOST:
        return override
    matched = [tensor for tensor in tensors if re.search(pattern, tensor.name)]
    large = [tensor.name for tensor in matched if (tensor.size or least + 1) > least]
    if len(large) == len(matched):
        return override
    return f"^({'|'.join(map(re.escape, large))})$={buffer}" if large else ""
