"""Amounts of memory by device, sums over them, and spans of time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HOST = "host"
Need = Mapping[str, int]  # device → bytes
GIB = 1 << 30
MINUTE, HOUR = 60.0, 3600.0  # seconds


def at_once(needs: Sequence[Need], available: Need) -> int:
    """How many of these needs fit at the same time, at most. The smallest are taken first, each
    measured by the device of which it takes the largest part."""

    def share(each: Need) -> float:
        return max((size / max(1, available.get(d, 0)) for d, size in each.items()), default=0.0)

    beside: list[Need] = []
    for each in sorted(needs, key=share):
        if not lacking(together([*beside, each]), available):
            beside.append(each)
    return len(beside)


def together(needs: list[Need]) -> Need:
    """The sum of the needs."""
    devices = dict.fromkeys(device for each in needs for device in each)
    return {device: sum(each.get(device, 0) for each in needs) for device in devices}


def lacking(wanted: Need, available: Need) -> str:
    """What is missing, for a person; "" if it fits."""
    for device, size in wanted.items():
        if size > available.get(device, 0):
            needed, has = told_apart(size / GIB, available.get(device, 0) / GIB)
            return f"{_named(device)}: {needed} GiB are needed, of {has} GiB"
    return ""


def told_apart(first: float, second: float) -> tuple[str, str]:
    """Both numbers with so many digits that they look as different as they are; at least two."""
    for digits in range(2, 12):
        pair = f"{first:.{digits}f}", f"{second:.{digits}f}"
        if pair[0] != pair[1]:
            break
    return pair


def _named(device: str) -> str:
    return "host memory" if device == HOST else device


def lasting(seconds: float) -> str:
    """So many seconds in the largest unit of which there is one, for people: "1.8 minutes"."""
    units = ((HOUR, "hour"), (MINUTE, "minute"))
    size, unit = next((each for each in units if seconds >= each[0]), (1.0, "second"))
    number = round(seconds / size, 2)
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"
