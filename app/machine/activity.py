"""What the kernel shows of a process at work. proc(5) has the format of its files."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")  # of CPU time, in a second
ENDS = 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)  # in a mask of signals


class Standing(enum.Enum):
    STOPPED = "stopped"  # by a signal
    TRACED = "traced"  # a debugger holds it
    ACTIVE = "active"  # a thread runs, or could run, or waits for a disk
    ASLEEP = "asleep"  # every thread waits for something else
    GONE = "gone"


@dataclass(frozen=True)
class Activity:
    """`cpu`: seconds of it that all threads have used; `faults`: how often one waited for a page
    from a disk."""

    standing: Standing
    cpu: float = 0.0
    faults: int = 0


def of(pid: int) -> Activity:
    """What it does now. `GONE` where the kernel shows no such process."""
    try:
        fields = _fields(f"/proc/{pid}/stat")
        names = os.listdir(f"/proc/{pid}/task")
    except (OSError, IndexError):
        return Activity(Standing.GONE)
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    return Activity(_standing(_states(pid, names)), cpu, int(fields[9]))


@dataclass(frozen=True)
class FirstThread:
    """`blocks`: SIGTERM or SIGINT, as it does in their handlers."""

    asleep: bool = False
    blocks: bool = False


def first_thread(pid: int) -> FirstThread:
    """Of a process; neither where the kernel shows no such process."""
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:
            said = dict(line.split(":", 1) for line in file)
        blocked = int(said["SigBlk"], 16) & ENDS != 0
        return FirstThread(said["State"].split()[0] == "S", blocked)
    except (OSError, LookupError, ValueError):
        return FirstThread()


def _states(pid: int, threads: Sequence[str]) -> set[str]:
    """Of those threads; one that has ended meanwhile has none."""
    found = set()
    for thread in threads:
        with contextlib.suppress(OSError, IndexError):
            found.add(_fields(f"/proc/{pid}/task/{thread}/stat")[0])
    return found


def _fields(path: str) -> list[str]:
    """What follows the name, which may hold anything."""
    with open(path, errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _standing(threads: set[str]) -> Standing:
    """Of a process whose threads are in these states."""
    if "t" in threads:
        return Standing.TRACED
    if "T" in threads:
        return Standing.STOPPED
    if threads <= {"Z", "X"}:
        return Standing.GONE
    return Standing.ACTIVE if threads & {"R", "D"} else Standing.ASLEEP
