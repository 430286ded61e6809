"""The helper: the child that makes the CUDA driver's checkpoint calls, one for each line of its
standard input. It is started by its path and needs nothing but Python, so that one that was killed
is replaced at once.

Lock, Checkpoint; later Restore, Unlock: docs.nvidia.com/cuda/cuda-driver-api, "CUDA Checkpointing".
Argument structs are 64 bytes, zeroed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

LIBRARY = "libcuda.so.1"
LOCK_TIMEOUT = 10_000  # ms in which the GPU's work under way must end; 0 could wait for ever

RUNNING, LOCKED, CHECKPOINTED, FAILED = range(4)
STATES = ("running", "locked", "checkpointed", "failed")
CALLS = ("Lock", "Checkpoint", "Restore", "Unlock", "GetState")


class _LockArguments(ctypes.Structure):
    _fields_ = [("timeout_ms", ctypes.c_uint), ("reserved", ctypes.c_uint * 15)]


class CudaError(Exception):
    pass


class Driver:
    """The six calls, on libcuda."""

    def __init__(self, library: str = LIBRARY) -> None:
        """Raises CudaError where there is no driver, or one before 570."""
        try:
            self._cuda = ctypes.CDLL(library)
        except OSError as error:
            raise CudaError(f"no CUDA driver: {error}") from None
        missing = [call for call in CALLS if not hasattr(self._cuda, f"cuCheckpointProcess{call}")]
        if missing:
            raise CudaError("the CUDA driver is older than 570: it has no checkpoint calls")
        self._check("cuInit", self._cuda.cuInit(0))

    def park(self, pid: int) -> None:
        arguments = _LockArguments(LOCK_TIMEOUT)
        self._call("Lock", pid, ctypes.byref(arguments))
        try:
            self._call("Checkpoint", pid, None)
        except CudaError:
            with contextlib.suppress(CudaError):
                self._call("Unlock", pid, None)
            raise

    def restore(self, pid: int) -> None:
        self._call("Restore", pid, None)
        self._call("Unlock", pid, None)

    def state(self, pid: int) -> int:
        state = ctypes.c_int(-1)
        self._check("GetState", self._cuda.cuCheckpointProcessGetState(pid, ctypes.byref(state)))
        return state.value

    def hold_contexts(self, gpus: int) -> None:
        """Be a process with a context on so many GPUs: what the probe moves."""
        for number in range(gpus):
            device, context = ctypes.c_int(0), ctypes.c_void_p()
            self._check("cuDeviceGet", self._cuda.cuDeviceGet(ctypes.byref(device), number))
            retained = self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
            self._check("cuDevicePrimaryCtxRetain", retained)

    def _call(self, name: str, pid: int, arguments: Any) -> None:
        function = getattr(self._cuda, f"cuCheckpointProcess{name}")
        self._check(name, function(ctypes.c_int(pid), arguments))

    def _check(self, name: str, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            with contextlib.suppress(AttributeError):
                self._cuda.cuGetErrorName(code, ctypes.byref(text))
            word = (text.value or b"").decode() or "error"
            raise CudaError(f"{name}: {word} ({code})")


def helper(driver: Driver, lines: Any, write: Callable[[str], None]) -> None:
    """Answer each line, {"do": "park" | "restore" | "state", "pid"}, with one JSON line."""
    actions: Mapping[str, Callable[[int], object]] = {
        "park": driver.park,
        "restore": driver.restore,
        "state": driver.state,
    }
    for line in lines:
        asked = json.loads(line)
        try:
            answer = {"ok": True, "result": actions[asked["do"]](asked["pid"])}
        except CudaError as error:
            answer = {"ok": False, "problem": str(error)}
        write(json.dumps(answer) + "\n")


def main(words: list[str]) -> int:
    """The helper; or, given a number of GPUs, a process with a context on each."""

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        driver = Driver()
        if words:
            driver.hold_contexts(int(words[0]))
        write(json.dumps({"ok": True}) + "\n")
    except CudaError as error:
        write(json.dumps({"ok": False, "problem": str(error)}) + "\n")
        return 1
    if words:
        sys.stdin.read()
    else:
        helper(driver, sys.stdin, write)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
