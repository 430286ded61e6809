"""The machine: how many threads and how much memory are ours, cgroup limits included."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.machine import clock
from app.machine.cgroup import ROOT
from app.machine.cgroup import limit as limit_of


def name() -> str:
    """Of this machine, or of its container."""
    return platform.node()


def memory_installed() -> int:
    """Bytes of the machine, whatever of them is ours."""
    return int(psutil.virtual_memory().total)


def memory_limit(cgroup: Path = ROOT) -> int:
    """Bytes this process may use: the machine's memory, or the cgroup's limit if that is less."""
    total = memory_installed()
    limits = [
        limit_of(cgroup / "memory.max"),  # cgroup v2
        limit_of(cgroup / "memory" / "memory.limit_in_bytes"),  # cgroup v1
    ]
    return min([total, *(limit for limit in limits if limit)])


def memory_free(cgroup: Path = ROOT) -> int:
    """Bytes that can still be had, page cache that can be dropped included."""
    available = int(psutil.virtual_memory().available)
    limit, used = limit_of(cgroup / "memory.max"), limit_of(cgroup / "memory.current")
    cached = _stat(cgroup / "memory.stat", "inactive_file")
    return min(available, max(0, limit - (used or 0) + cached)) if limit else available


def _stat(path: Path, key: str) -> int:
    try:
        found = re.search(rf"^{key} (\d+)$", path.read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def thread_count(cgroup: Path = ROOT) -> int:
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
        v1 = limit_of(cgroup / "cpu" / "cpu.cfs_quota_us")
        length = limit_of(cgroup / "cpu" / "cpu.cfs_period_us")
        return v1 / length if v1 and length else None
    return None if quota == "max" else int(quota) / int(period)


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


def disk_free(folder: Path) -> int:
    """Bytes free for us where `folder` is, or is to be made."""
    return int(psutil.disk_usage(str(_existing(folder))).free)


def same_disk(one: Path, other: Path) -> bool:
    """Whether two paths are in one file system, or are to be made there."""
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def writable(folder: Path) -> bool:
    """Whether we can write to `folder`, or to where it is to be made: with a file that is gone at
    once. Permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def file_system(folder: Path) -> str:
    """The kind of file system that `folder` lies in; "" where that is not known."""
    mounts = sorted(psutil.disk_partitions(all=True), key=lambda m: len(m.mountpoint))
    over = [mount for mount in mounts if folder.is_relative_to(mount.mountpoint)]
    return str(over[-1].fstype) if over else ""


def in_memory(folder: Path, room: int) -> bool:
    """Whether `folder` lies in a memory file system with so many bytes free."""
    return file_system(folder) in ("tmpfs", "ramfs") and disk_free(folder) >= room


def private_memory(pid: int) -> int:
    """Bytes that only this process holds: not its files, which lie in the page cache, unless it has
    locked them there; 0 where there is no such process, or the kernel does not say. What is locked
    may be a process's own memory as well, but is no more of its files than it has of them."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    told = re.findall(r"^(RssAnon|RssFile|VmLck):\s+(\d+) kB", text, re.M)
    sizes = {name: int(size) * 1024 for name, size in told}
    locked = min(sizes.get("VmLck", 0), sizes.get("RssFile", 0))
    return sizes.get("RssAnon", 0) + locked


def ancestor(*words: str) -> psutil.Process | None:
    """The nearest process above us whose command line holds all of these words."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            line = " ".join(process.cmdline())
            if all(word in line for word in words):
                return process
    return None


def end_children() -> None:
    """SIGKILL every process below us."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()


def resident_memory(pid: int) -> int:
    """Bytes of a process in memory; 0 where there is no such process."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def memory_used() -> tuple[int, int]:
    """Bytes of memory that are used, and how many there are for us."""
    limit = memory_limit()
    return max(0, limit - memory_free()), limit


@dataclass(frozen=True)
class Load:
    """What the machine does: percent of all cores and of each, bytes, bytes per second."""

    cpu: float
    cores: tuple[float, ...]
    memory_used: int
    memory_total: int
    received: float
    sent: float
    read: float
    written: float


class Meter:
    """Reads the machine's load since it was last read; each reader has one of its own."""

    def __init__(self) -> None:
        self._read()

    def load(self) -> Load:
        then, busy, total, counts = self._before
        self._read()
        now, busy_now, total_now, counts_now = self._before
        cores = tuple(
            100 * min(1.0, max(0.0, b1 - b0) / (t1 - t0)) if t1 > t0 else 0.0
            for b0, b1, t0, t1 in zip(busy, busy_now, total, total_now, strict=False)
        )
        seconds = max(now - then, 1e-3)
        rates = [max(0, c1 - c0) / seconds for c0, c1 in zip(counts, counts_now, strict=True)]
        cpu = min(100.0, sum(cores) / len(cores)) if cores else 0.0
        return Load(cpu, cores, *memory_used(), *rates)

    def _read(self) -> None:
        times = psutil.cpu_times(percpu=True)
        total = [sum(core) - core.guest - core.guest_nice for core in times]
        idle = [core.idle + core.iowait for core in times]
        busy = [t - i for t, i in zip(total, idle, strict=True)]
        network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
        counts = [network.bytes_recv, network.bytes_sent] if network else [0, 0]
        counts += [disk.read_bytes, disk.write_bytes] if disk else [0, 0]
        self._before = (clock.now(), busy, total, counts)


def machine_stats(load: Load) -> dict[str, object]:
    """As ClearML's `machine_stats`: percent by core, MB."""
    return {
        "cpu_usage": [round(core, 1) for core in load.cores],
        "memory_used": load.memory_used >> 20,
        "memory_free": (load.memory_total - load.memory_used) >> 20,
    }
