"""The machine: disks, memory, limits, and the port."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

from app.doctor.finding import Finding, ok, problem, warning
from app.errors import ConfigError, words
from app.machine import host, limits, network, private, threads
from app.planning.amounts import GIB

LITTLE = 10 << 30  # bytes of the cache's disk: less than most models have
LEAST_TEMPORARY = 64 << 20  # bytes, for sockets and headers
LEAST_FILES = 4096  # descriptors: each client takes one or two
LEAST_PROCESSES = 512  # with threads: llama-server has one for each connection
USUAL_PORT = 8080
SHARED_MEMORY = Path("/dev/shm")
MAKE_ROOM = "make room with `python -m app cache`, or name another folder (LLAMACPP_CACHE_DIR)"
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "fuse")


async def cache(folder: Path) -> Finding:
    return await threads.run(_cache, folder)


def _cache(folder: Path) -> Finding:
    if not host.writable(folder):
        return problem(f"{folder} is not writable", "name another folder with LLAMACPP_CACHE_DIR")
    free, kind = host.disk_free(folder), host.file_system(folder)
    seen = f"{folder}, {free / GIB:.1f} GiB free, {kind or 'of no known file system'}"
    if free < LITTLE:
        return warning(seen, MAKE_ROOM)
    if kind.startswith(REMOTE):
        return ok(f"{seen}: over a network, models load as fast as that is")
    return ok(seen)


async def temporary() -> Finding:
    return await threads.run(_temporary)


def _temporary() -> Finding:
    folder = private.base()
    if not host.writable(folder):
        return problem(f"{folder} is not writable", "set XDG_RUNTIME_DIR to a folder of your own")
    free = host.disk_free(folder)
    seen = f"{folder}, {free / GIB:.1f} GiB free, {host.file_system(folder)}"
    if free < LEAST_TEMPORARY:
        return problem(seen, "make room there, or set XDG_RUNTIME_DIR to another folder")
    return ok(seen)


async def shared_memory() -> Finding:
    if not SHARED_MEMORY.is_dir():
        return ok(f"no {SHARED_MEMORY}: KV caches of models that are away go to the cache's disk")
    free = host.disk_free(SHARED_MEMORY) / GIB
    return ok(f"{SHARED_MEMORY}, {free:.2f} GiB free, {host.file_system(SHARED_MEMORY)}")


async def memory() -> Finding:
    limit, total = host.memory_limit(), host.memory_installed()
    free = f"{host.memory_free() / GIB:.1f} GiB free"
    if limit < total:
        return ok(f"{limit / GIB:.1f} GiB by the cgroup, of {total / GIB:.1f} GiB, {free}")
    return ok(f"{total / GIB:.1f} GiB, {free}")


async def granted() -> Finding:
    files, processes = limits.open_files(), limits.processes()
    seen = f"{_told(files)} open files, {_told(processes)} processes and threads"
    raise_them: list[str] = []
    if files is not None and files < LEAST_FILES:
        raise_them.append(f"open files to {LEAST_FILES} (ulimit -Hn, --ulimit nofile)")
    if processes is not None and processes < LEAST_PROCESSES:
        raise_them.append(f"processes to {LEAST_PROCESSES} (ulimit -u, --pids-limit)")
    return warning(seen, f"raise {' and '.join(raise_them)}") if raise_them else ok(seen)


def _told(limit: int | None) -> str:
    return "unlimited" if limit is None else f"{limit:,}"


async def port(address: str, number: int | None) -> Finding:
    """Whether it is free; without a number, the usual one, or else any other is taken."""
    wanted = USUAL_PORT if number is None else number
    if not await _taken(address, wanted):
        return ok(f"{address}:{wanted} is free" if wanted else f"any free one of {address}")
    seen = f"{address}:{wanted} is taken by another program"
    if number is None:
        return ok(f"{seen}: the app takes any other, unless General/port names one")
    return problem(seen, "set General/port to another one; 0 takes any that is free")


async def _taken(address: str, number: int) -> bool:
    """Raises ConfigError where it is something else that is wrong."""
    try:
        server = await network.listen(asyncio.Protocol, address, number)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        what = f"General/host: {address}:{number}: {words(error)}"
        raise ConfigError(what) from None
    server.close()
    return False
