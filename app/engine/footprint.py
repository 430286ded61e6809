"""What memory a model gets: the memory-deciding arguments, settled once for all its starts."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.engine.arguments import DEFAULT_PARALLEL, Resolved, Wanted
from app.engine.capabilities import Capabilities
from app.errors import ConfigError
from app.models.gguf import Header

MIB = 1 << 20
CACHE_RAM_SHARE = 0.1
FALLBACK_CONTEXT = 4096
TIMEOUT = 120.0


@dataclass(frozen=True)
class Machine:
    """What is shared: `memory` in bytes and CPU threads, among `models` models."""

    memory: int
    threads: int
    models: int
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Fitted:
    """What llama-fit-params chose."""

    context: int | None = None
    gpu_layers: int | None = None
    placement: tuple[str, ...] = ()


def read_fitted(printed: str) -> Fitted:
    """From its line of arguments: `-c 4096 -ngl 48 -ts 3,1 -ot "…"`."""
    words = shlex.split(printed)
    found = dict(zip(words[::2], words[1::2], strict=False))
    context, layers = _count(found.pop("-c", "")), _count(found.pop("-ngl", ""))
    return Fitted(context, layers, tuple(text for pair in found.items() for text in pair))


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() else None  # -1: all, or no GPU to put any on


async def resolve(
    wanted: Wanted,
    first: Path,
    header: Header,
    capabilities: Capabilities,
    machine: Machine,
) -> Resolved:
    """As the form says, and for the rest what llama-server would choose on the empty machine."""
    fitted = await _fitted(wanted, first, capabilities, machine)
    context = wanted.context or fitted.context or header.training_context or FALLBACK_CONTEXT
    layers = wanted.gpu_layers
    if layers is None and capabilities.devices:
        layers = fitted.gpu_layers if fitted.gpu_layers is not None else 9999
    # Two children with all cores each run many times slower than with half of them each.
    threads = wanted.threads or max(1, machine.threads // machine.models)
    cache_ram = wanted.cache_ram
    if cache_ram is None:
        cache_ram = int(machine.memory * CACHE_RAM_SHARE / machine.models / MIB)
    return Resolved(
        context,
        layers,
        wanted.parallel or DEFAULT_PARALLEL,
        threads,
        wanted.threads_batch or threads,
        cache_ram,
        fitted.placement,
    )


async def _fitted(
    wanted: Wanted, first: Path, capabilities: Capabilities, machine: Machine
) -> Fitted:
    """Ask the planning tool; only a machine with GPUs needs it, and old builds have none."""
    tool = capabilities.fit_params
    if tool is None or not capabilities.devices:
        return Fitted()
    argv = [str(tool), "-m", str(first), "-np", str(wanted.parallel or DEFAULT_PARALLEL)]
    if wanted.context:
        argv += ["-c", str(wanted.context)]
    if wanted.gpu_layers is not None:
        argv += ["-ngl", str(wanted.gpu_layers)]
    argv += wanted.placement
    child = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(machine.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, complaint = await asyncio.wait_for(child.communicate(), TIMEOUT)
    except asyncio.TimeoutError:
        child.kill()
        raise ConfigError(f"{tool} did not answer in {TIMEOUT:.0f} s") from None
    if child.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise ConfigError(f"{first.name} does not fit this machine's GPUs: {lines[0]}")
    return read_fitted(printed.decode(errors="replace"))
