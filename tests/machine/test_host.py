import os
import subprocess
import sys
import time

import psutil
import pytest

from app.machine.host import (
    Meter,
    machine_stats,
    memory_limit,
    private_memory,
    resident_memory,
    thread_count,
)

HOLDS = """
import ctypes, mmap, sys
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
assert len(bytes(mapped)) == len(mapped)  # all of it has been touched
own = bytearray(b"x" * (64 << 20))
lock = {"locked": mapped, "own locked": own}.get(sys.argv[2])
if lock is not None:
    at = ctypes.addressof(ctypes.c_char.from_buffer(lock))
    if ctypes.CDLL(None).mlock(ctypes.c_void_p(at), ctypes.c_size_t(len(lock))):
        sys.exit("may not lock so much")
print(flush=True)
sys.stdin.read()
"""


def test_a_process_has_for_itself_what_it_wrote_and_what_it_locked(tmp_path):
    """The operating system takes a mapped file's pages where it needs them, but no locked ones.
    What a process has for itself counts once, whether or not it is locked."""
    (tmp_path / "file").write_bytes(b"y" * (4 << 20))
    found = {}
    for how in ("mapped", "locked", "own locked"):
        line = [sys.executable, "-c", HOLDS, str(tmp_path / "file"), how]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            if not process.stdout.readline():
                continue  # its limit is small: only root has none
            found[how] = private_memory(process.pid) / (1 << 20)
            process.stdin.close()
        assert private_memory(process.pid) == 0
    assert 64 < found["mapped"] < 80
    assert found["locked"] - found["mapped"] == pytest.approx(4, abs=1)
    assert found.get("own locked", 64) < 96


def cgroup(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"memory_dot_max": "1000000\n"}, 1_000_000),
        ({"memory_dot_max": "max\n"}, None),
        ({"memory__memory.limit_in_bytes": "2000000\n"}, 2_000_000),
        ({"memory__memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_memory_limit(tmp_path, files, expected):
    total = psutil.virtual_memory().total
    assert memory_limit(cgroup(tmp_path, **files)) == (expected or total)


@pytest.mark.parametrize("quota, expected", [("50000 100000", 1), ("150000 100000", 2)])
def test_threads_within_the_quota(tmp_path, quota, expected):
    cores = thread_count(tmp_path)
    (tmp_path / "cpu.max").write_text(quota)
    assert thread_count(tmp_path) == min(cores, expected)


def test_threads_without_a_quota(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert 1 <= thread_count(tmp_path) <= len(os.sched_getaffinity(0))


def test_resident_memory():
    assert resident_memory(os.getpid()) > 1_000_000
    assert resident_memory(2**22 + 1) == 0


def test_the_machines_load_since_the_last_reading():
    meter = Meter()
    ends = time.process_time() + 0.05  # so that there is something to see
    while time.process_time() < ends:
        pass
    found = meter.load()
    assert 0 < found.cpu <= 100 and len(found.cores) == os.cpu_count()
    assert all(0 <= core <= 100 for core in found.cores)
    assert 0 < found.memory_used < found.memory_total
    rates = (found.received, found.sent, found.read, found.written)
    assert all(rate >= 0 for rate in rates)
    told = machine_stats(found)
    assert told["memory_used"] == found.memory_used >> 20
    assert len(told["cpu_usage"]) == len(found.cores)
