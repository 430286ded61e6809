"""The machine: how many threads and how much memory are ours, cgroup limits included."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import socket
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def memory_limit(cgroup: Path = CGROUP) -> int:
    """Bytes this process may use: the machine's memory, or the cgroup's limit if that is less."""
    total = int(psutil.virtual_memory().total)
    limits = [
        _number(cgroup / "memory.max"),  # cgroup v2
        _number(cgroup / "memory" / "memory.limit_in_bytes"),  # cgroup v1
    ]
    return min([total, *(limit for limit in limits if limit)])


def thread_count(cgroup: Path = CGROUP) -> int:
    """Threads worth starting: physical cores, within our affinity and CPU quota."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    quota = _cpu_quota(cgroup)
    return max(1, min(physical, allowed, math.ceil(quota) if quota else allowed))


def _cpu_quota(cgroup: Path) -> float | None:
    """Cores that the cgroup grants, or None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        v1 = _number(cgroup / "cpu" / "cpu.cfs_quota_us")
        length = _number(cgroup / "cpu" / "cpu.cfs_period_us")
        return v1 / length if v1 and length else None
    return None if quota == "max" else int(quota) / int(period)


def _number(path: Path) -> int | None:
    try:
        value = int(path.read_text())
    except (OSError, ValueError):  # absent, or the word "max"
        return None
    return value if value > 0 else None


def close_descriptors_to_children() -> None:
    """Descriptors >= 3 that we were started with must not reach our children."""
    for entry in os.listdir("/proc/self/fd"):
        descriptor = int(entry)
        if descriptor < 3:
            continue
        try:
            os.set_inheritable(descriptor, False)
        except OSError:  # the one that listed the folder
            continue


def raise_descriptor_limit() -> None:
    """As many open descriptors as we may have: each client costs one or two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident_memory(pid: int) -> int:
    """Bytes of a process in memory; 0 where there is no such process."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def own_address() -> str:
    """The address by which other machines reach this one, as far as it can tell by itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only picks the interface
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
