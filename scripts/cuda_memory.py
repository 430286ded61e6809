"""GPU memory by the CUDA driver alone, for scripts/gpu_check: hold so much of a GPU, as another
program would, until stdin ends; or measure what the link to it carries.

    cuda_memory.py GPU hold BYTES
    cuda_memory.py GPU copy BYTES       prints bytes a second to the GPU and from it
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

ROUNDS = 3


def call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(cuda, name)(*arguments)
    if code:
        raise SystemExit(f"{name}: error {code}")


def open_gpu(number: int) -> ctypes.CDLL:
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    call(cuda, "cuInit", 0)
    call(cuda, "cuDeviceGet", ctypes.byref(device), number)
    call(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call(cuda, "cuCtxSetCurrent", context)
    return cuda


def allocate(cuda: ctypes.CDLL, size: int) -> ctypes.c_uint64:
    found = ctypes.c_uint64(0)
    call(cuda, "cuMemAlloc_v2", ctypes.byref(found), ctypes.c_size_t(size))
    return found


def rate(size: int, copy: Callable[[], None]) -> float:
    """Bytes a second, the best of a few; the first one is not counted."""
    seconds = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        copy()
        seconds.append(time.perf_counter() - begun)
    return size / max(1e-9, min(seconds[1:]))


def copy(cuda: ctypes.CDLL, size: int) -> tuple[float, float]:
    """From memory that is pinned, as the driver's own moves are at best."""
    there, here = allocate(cuda, size), ctypes.c_void_p()
    call(cuda, "cuMemAllocHost_v2", ctypes.byref(here), ctypes.c_size_t(size))
    count = ctypes.c_size_t(size)
    to = rate(size, lambda: call(cuda, "cuMemcpyHtoD_v2", there, here, count))
    return to, rate(size, lambda: call(cuda, "cuMemcpyDtoH_v2", here, there, count))


def main(number: int, what: str, size: int) -> None:
    cuda = open_gpu(number)
    if what == "copy":
        print(*copy(cuda, size), flush=True)
        return
    allocate(cuda, size)
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
