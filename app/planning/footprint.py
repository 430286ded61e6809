"""What memory a model gets: the memory-deciding arguments, settled once for all its starts, and
what it will then hold."""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.engine.arguments import ALL_LAYERS, DEFAULT_PARALLEL, Resolved, Wanted
from app.engine.capabilities import Capabilities
from app.errors import ConfigError
from app.machine import threads
from app.machine.children import run
from app.models.gguf import Header
from app.models.store import ModelFiles, Preview
from app.planning import arithmetic, placement

logger = logging.getLogger(__name__)

MIB = 1 << 20
HOST = "Host"  # the planning tool's name for memory that is on no device
SANE_CONTEXT = 1 << 24  # tokens; beyond, the planning tool takes gigabytes and minutes itself
CACHE_RAM_SHARE = 0.1
FALLBACK_CONTEXT = 4096
LEAST_CONTEXT = 4096  # tokens; rather than less, layers go to host memory, as --fit has it
TIMEOUT = 120.0


@dataclass(frozen=True)
class Machine:
    """What is shared: `memory` of the host in bytes, and CPU threads, among `models` models, of
    which `at_once` can run at the same time (0: it is not known yet, so it may be all).

    `headroom` are bytes of each GPU that one model may take on the empty machine; tensors up to
    `threshold` bytes stay on the GPU (-1: any may leave).
    """

    memory: int
    threads: int
    models: int
    environment: Mapping[str, str]
    headroom: Mapping[str, int] = field(default_factory=dict)
    threshold: int = -1
    at_once: int = 0

    def threads_for(self, wanted: Wanted) -> tuple[int, int]:
        """One model's, and those for reading prompts. Two children with all cores each run many
        times slower than with half of them each."""
        threads = wanted.threads or max(1, self.threads // (self.at_once or self.models))
        return threads, wanted.threads_batch or threads

    def holds(self, needs: Footprint) -> bool:
        """Whether its GPUs have all of that for one model."""
        return all(size <= self.headroom.get(device, 0) for device, size in needs.devices.items())


@dataclass(frozen=True)
class Fitted:
    """What llama-fit-params chose."""

    context: int | None = None
    gpu_layers: int | None = None
    placement: tuple[str, ...] = ()


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model holds: by device, as llama-server names them, and in host memory; `cache`
    are those of the latter that its prompts may come to take."""

    devices: Mapping[str, int]
    host: int
    cache: int = 0

    @property
    def total(self) -> int:
        return sum(self.devices.values()) + self.host

    def plus(self, size: int) -> Footprint:
        """With so many bytes more on the first device, or in host memory where there is none."""
        if not self.devices:
            return replace(self, host=self.host + size)
        first = next(iter(self.devices))
        return replace(self, devices={**self.devices, first: self.devices[first] + size})


def read_fitted(printed: str) -> Fitted:
    """From its line of arguments: `-c 4096 -ngl 48 -ts 3,1 -ot "…"`."""
    words = shlex.split(printed)
    found = dict(zip(words[::2], words[1::2], strict=False))
    context, layers = _count(found.pop("-c", "")), _count(found.pop("-ngl", ""))
    return Fitted(context, layers, tuple(text for pair in found.items() for text in pair))


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() else None  # -1: all, or no GPU to put any on


def whole(wanted: Wanted, header: Header, capabilities: Capabilities, machine: Machine) -> Resolved:
    """As the form says, and for the rest all of the model: its layers on the GPU, its context."""
    return _resolved(wanted, Fitted(), header, capabilities, machine)


async def cut(
    wanted: Wanted, files: ModelFiles | Preview, capabilities: Capabilities, machine: Machine
) -> Resolved:
    """The same for a model that does not fit as a whole: what the form does not say is what
    llama-server would choose. Raises ConfigError."""
    if not capabilities.devices:
        fitted = Fitted()
    elif capabilities.fit_params is None:  # old builds have not got it, nor have small images
        fitted = _by_header(wanted, files, capabilities.devices, machine)
    else:
        fitted = await _fitted(wanted, files.first, capabilities, machine)
    return _resolved(wanted, fitted, files.header, capabilities, machine)


def _by_header(
    wanted: Wanted, files: ModelFiles | Preview, devices: Sequence[str], machine: Machine
) -> Fitted:
    """Without the planning tool: a shorter context, then fewer layers."""
    used = placement.used(wanted.placement, devices)
    room = sum(machine.headroom.get(device, 0) for device in used)
    header, size = files.header, files.size
    most = header.training_context or FALLBACK_CONTEXT
    least = min(most, LEAST_CONTEXT)
    context = wanted.context or arithmetic.longest_context(header, size, room, least, most)
    if wanted.gpu_layers is not None:
        return Fitted(context)
    return Fitted(context, arithmetic.most_layers(header, size, context, room))


def _resolved(
    wanted: Wanted, fitted: Fitted, header: Header, capabilities: Capabilities, machine: Machine
) -> Resolved:
    placed = placement.spare_small(fitted.placement, header.tensors, machine.threshold)
    context = wanted.context or fitted.context or header.training_context or FALLBACK_CONTEXT
    layers = wanted.gpu_layers
    if layers is None and capabilities.devices:
        layers = fitted.gpu_layers if fitted.gpu_layers is not None else ALL_LAYERS
    cache_ram = wanted.cache_ram
    if cache_ram is None:
        cache_ram = int(machine.memory * CACHE_RAM_SHARE / machine.models / MIB)
    return Resolved(
        context,
        layers,
        wanted.parallel or DEFAULT_PARALLEL,
        *machine.threads_for(wanted),
        cache_ram,
        placed,
        whole=not placed and _uncut(wanted, fitted, header),
    )


def _uncut(wanted: Wanted, fitted: Fitted, header: Header) -> bool:
    """Whether the planning tool left alone what the form does not say."""
    layers = wanted.gpu_layers is not None or fitted.gpu_layers is None
    if wanted.context or fitted.context is None:
        return layers
    return layers and fitted.context >= (header.training_context or 0)


async def _fitted(
    wanted: Wanted, first: Path, capabilities: Capabilities, machine: Machine
) -> Fitted:
    """Ask the planning tool. It looks at what is free, and knows of no cache that slots share: it
    would find room for a whole one for each."""
    tool = capabilities.fit_params
    assert tool is not None
    argv = ["-m", str(first), "-np", str(wanted.slots(capabilities))]
    if wanted.context:
        argv += ["-c", str(wanted.context)]
    if wanted.gpu_layers is not None:
        argv += ["-ngl", str(wanted.gpu_layers)]
    used = placement.used(wanted.placement, capabilities.devices)
    free, may = capabilities.device_free, machine.headroom
    margins = [str((free[d] - may[d]) >> 20) for d in used if d in free and d in may]
    if margins:
        argv += ["-fitt", ",".join(margins)]
    code, printed, complaint = await _ask(tool, [*argv, *wanted.placement], machine)
    if code:
        raise ConfigError(f"{first.name} does not fit this machine's GPUs: {complaint}")
    return read_fitted(printed)


async def predict(
    argv: Sequence[str],
    files: ModelFiles | Preview,
    capabilities: Capabilities,
    machine: Machine,
    *,
    divided: bool = True,
) -> Footprint:
    """What a model holds once it runs: asked of the planning tool with these memory-deciding
    arguments (see `arguments.planning`), else computed from the header. `divided`: each slot has
    its part of the context for itself."""
    context = int(argv[argv.index("-c") + 1])
    tool = capabilities.fit_params
    if tool is not None and context <= SANE_CONTEXT:
        line = ["-m", str(files.first), *argv, "--fit", "off", "--fit-print", "on"]
        # The tool knows of no shared context. Its buffers are those of one slot that has all of
        # it; what each slot has of its own (a recurrent model's state) is there for every slot.
        lines = [line] if divided else [line, [*line, "-np", "1"]]
        answers = [await _ask(tool, each, machine) for each in lines]
        # Mapped weights are nobody's memory to the tool; where they lie in host memory anyway, they
        # are what there has to be room for.
        weights = 0 if capabilities.devices else files.size
        failed = [complaint for code, _, complaint in answers if code]
        found = None if failed else read_printed("".join(out for _, out, _ in answers), weights)
        if found is not None:
            return found
        logger.debug("%s: no prediction: %s", tool, failed)
    return _computed(argv, files, context, capabilities.devices)


def read_printed(printed: str, weights: int = 0) -> Footprint | None:
    """From its lines `<device> <model> <context> <compute>`, in MiB, of one answer or more: the
    most of each counts. `weights` are bytes that the host holds of the model at least."""
    memory: dict[str, list[int]] = {}
    for row in (line.split() for line in printed.splitlines()):
        if _is_row(row):
            parts = [int(cell) * MIB for cell in row[1:]]
            memory[row[0]] = list(map(max, parts, memory.get(row[0], parts)))
    host = memory.pop(HOST, None)
    if host is None:
        return None
    model, context, compute = host
    devices = {device: sum(parts) for device, parts in memory.items()}
    return Footprint(devices, max(model, weights) + context + compute)


def _is_row(row: Sequence[str]) -> bool:
    return len(row) == 4 and all(cell.isdigit() for cell in row[1:])


def _computed(
    argv: Sequence[str], files: ModelFiles | Preview, context: int, devices: Sequence[str]
) -> Footprint:
    """By the header, over the devices that are used in the proportion that is asked for."""
    used = placement.used(argv, devices)
    layers = int(argv[argv.index("-ngl") + 1]) if "-ngl" in argv and used else None
    there, host = arithmetic.held(files.header, files.size, context, layers)
    if not used:
        return Footprint({}, there + host)
    shares = placement.shares(argv, used)
    return Footprint({device: int(there * share) for device, share in shares.items()}, host)


async def _ask(tool: Path, argv: Sequence[str], machine: Machine) -> tuple[int, str, str]:
    """Exit status, what it prints, and the last line of its complaint. Raises ConfigError."""
    try:
        done = await threads.run(run, [str(tool), *argv], machine.environment, TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{tool} did not answer in {TIMEOUT:.0f} s") from None
    lines = done.errors.strip().splitlines()[-1:] or [""]
    return done.status, done.output, lines[0]
