"""The GPUs, their driver, and whether it can park models."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from app.doctor.finding import Finding, not_checked, ok, problem, warning
from app.machine import gpu, limits, threads
from app.memory import checkpoint
from app.planning.amounts import GIB

OLDEST_TO_PARK = 570  # the driver's first number
NO_GPU = "no NVIDIA GPU here"
ALTERNATIVE = "idle models leave the GPU by ending, and come back more slowly"
HANGS = "the driver hangs: see whether nvidia-smi answers, and dmesg for Xid errors; restart it"


async def present() -> Finding:
    return await threads.run(_present)


def _present() -> Finding:
    found, built_in = gpu.devices(), gpu.built_in()
    if found:
        return ok("; ".join(f"{each.name}, {each.total / GIB:.0f} GiB" for each in found))
    if shown := gpu.count():
        return warning(
            f"{shown} GPUs, and CUDA_VISIBLE_DEVICES hides them all", "unset CUDA_VISIBLE_DEVICES"
        )
    if built_in:
        return problem(
            f"NVIDIA GPUs are built in ({built_in}), but NVML says: {gpu.trouble()}",
            "install the NVIDIA driver; in a container, start it with --gpus all and the NVIDIA "
            "container toolkit; after an update of the driver, restart the machine",
        )
    return ok(f"{NO_GPU}: models run on the CPU")


async def driver() -> Finding:
    version = await threads.run(gpu.driver)
    if not version:
        return not_checked(NO_GPU)
    if number(version) >= OLDEST_TO_PARK:
        return ok(version)
    advice = f"install driver {OLDEST_TO_PARK} or newer to park idle models in CPU RAM"
    return warning(f"{version} cannot park models: {ALTERNATIVE}", advice)


def number(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


async def parking(environment: Mapping[str, str]) -> Finding:
    """Tries it with a process of ours."""
    version = await threads.run(gpu.driver)
    if not version:
        return not_checked(NO_GPU)
    if platform.machine() not in ("x86_64", "AMD64"):
        return warning(f"not on {platform.machine()}: {ALTERNATIVE}", "nothing can be done here")
    if number(version) < OLDEST_TO_PARK:
        return not_checked(f"driver {version} is too old")
    why_not = await checkpoint.probe(environment)
    if not why_not:
        return ok("a process was moved to CPU RAM and back")
    return warning(f"{why_not}: {ALTERNATIVE}", _advice())


def _advice() -> str:
    scope = limits.ptrace_scope()
    if scope is not None and scope > 1:
        return "set kernel.yama.ptrace_scope to 0 or 1: it forbids the driver's checkpoints"
    return "in a container, allow SYS_PTRACE (--cap-add SYS_PTRACE); else see docs/memory.md"
