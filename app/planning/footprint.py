"""What memory a model gets: its memory-deciding arguments, resolved once for all its starts, and
its footprint with these."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.engine.resolved import ALL_LAYERS, DEFAULT_PARALLEL, Resolved, Wanted
from app.errors import ConfigError
from app.models.files import Inspected, ModelFiles
from app.models.header import Header
from app.planning import arithmetic, fit_params, learned, placement
from app.planning.amounts import HOST, together
from app.planning.fit_params import Fitted
from app.planning.site import Site

logger = logging.getLogger(__name__)

MIB = 1 << 20
SANE_CONTEXT = 1 << 24  # tokens; beyond, the planning tool takes gigabytes and minutes itself
CACHE_RAM_SHARE = 0.1
FALLBACK_CONTEXT = 4096
LEAST_CONTEXT = 4096  # tokens; rather than less, layers go to host memory, as --fit has it


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model uses: by device, as llama-server names them, and in host memory. `cache`
    bytes of host memory may come on top for its prompt cache. `fault`: why llama.cpp cannot load
    it, as the planning tool has found; then the bytes are computed from its header alone."""

    devices: Mapping[str, int]
    host: int
    cache: int = 0
    fault: str = ""

    @property
    def total(self) -> int:
        return sum(self.devices.values()) + self.host

    @property
    def on_gpus(self) -> bool:
        """Whether nearly all of it is, so that the CPU computes next to nothing."""
        return 4 * self.host < sum(self.devices.values())

    def plus(self, size: int, *, last: bool = False) -> Footprint:
        """With so many bytes more on the first device, or on the last that has any of the model's
        layers; in host memory where there is none."""
        used = [device for device, taken in self.devices.items() if taken] or [*self.devices]
        if not used:
            return replace(self, host=self.host + size)
        device = used[-1] if last else next(iter(self.devices))
        return replace(self, devices={**self.devices, device: self.devices[device] + size})

    def spread(self, size: int) -> Footprint:
        """With so many bytes more, on each device in proportion to what is there."""
        total = sum(self.devices.values())
        if not total:
            return self.plus(size)
        more = {device: size * taken // total for device, taken in self.devices.items()}
        return replace(self, devices=together([self.devices, more]))

    def beside(self, other: Footprint) -> Footprint:
        """Of both together, without the other's prompt cache: it has none."""
        devices = together([self.devices, other.devices])
        return replace(self, devices=devices, host=self.host + other.host)


def whole(wanted: Wanted, header: Header, site: Site) -> Resolved:
    """As the form says, and for the rest all of the model: its layers on the GPU, its context."""
    return _resolved(wanted, Fitted(), header, site)


async def cut(wanted: Wanted, contents: Inspected, site: Site) -> Resolved:
    """The same for a model that does not fit as a whole: what the form does not say is what
    llama-server would choose. Raises ConfigError."""
    tool = site.capabilities.fit_params
    if not site.capabilities.devices:
        fitted = Fitted()
    elif tool is None:  # old builds do not have it, nor do small images
        fitted = _by_header(wanted, contents, site)
    else:
        fitted = await _by_tool(tool, wanted, contents.first, site)
    return _resolved(wanted, fitted, contents.header, site)


def _by_header(wanted: Wanted, contents: Inspected, site: Site) -> Fitted:
    """Without the planning tool: a shorter context, then fewer layers."""
    used = placement.used(wanted.placement, site.capabilities.devices)
    room = sum(site.machine.headroom.get(device, 0) for device in used)
    header, size = contents.header, contents.size
    most = header.training_context or FALLBACK_CONTEXT
    least = min(most, LEAST_CONTEXT)
    context = wanted.context or arithmetic.longest_context(header, size, room, least, most)
    if wanted.gpu_layers is not None:
        return Fitted(context)
    return Fitted(context, arithmetic.most_layers(header, size, context, room))


async def _by_tool(tool: Path, wanted: Wanted, first: Path, site: Site) -> Fitted:
    """Ask the planning tool. It looks at what is free, and does not know that slots can share one
    context: it would find room for a whole one for each."""
    capabilities, machine = site.capabilities, site.machine
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
    answer = await fit_params.ask(tool, [*argv, *wanted.placement], machine.environment)
    if fit_params.load_error([answer]):
        return Fitted()  # `predict` tells
    if answer.status:
        why = fit_params.complaint(answer)
        raise ConfigError(f"{first.name} does not fit this machine's GPUs: {why}")
    return fit_params.read_fitted(answer.output)


def _resolved(wanted: Wanted, fitted: Fitted, header: Header, site: Site) -> Resolved:
    machine = site.machine
    placed = placement.spare_small(fitted.placement, header.tensors, machine.threshold)
    layers = wanted.gpu_layers
    if layers is None and site.capabilities.devices:
        layers = fitted.gpu_layers if fitted.gpu_layers is not None else ALL_LAYERS
    cache_ram = wanted.cache_ram
    if cache_ram is None:
        cache_ram = int(machine.memory * CACHE_RAM_SHARE / machine.models / MIB)
    threads, threads_batch = machine.threads_for(wanted)
    return Resolved(
        context=wanted.context or fitted.context or header.training_context or FALLBACK_CONTEXT,
        gpu_layers=layers,
        parallel=wanted.parallel or DEFAULT_PARALLEL,
        threads=threads,
        threads_batch=threads_batch,
        cache_ram=cache_ram,
        placement=placed,
        whole=not placed and _uncut(wanted, fitted, header),
    )


def _uncut(wanted: Wanted, fitted: Fitted, header: Header) -> bool:
    """Whether the planning tool left alone what the form does not say."""
    layers = wanted.gpu_layers is not None or fitted.gpu_layers is None
    if wanted.context or fitted.context is None:
        return layers
    return layers and fitted.context >= (header.training_context or 0)


async def predict(
    argv: Sequence[str], contents: Inspected, site: Site, *, divided: bool = True
) -> Footprint:
    """What a model uses once it runs: asked of the planning tool with these memory-deciding
    arguments (see `arguments.planning`), else computed from the header. `divided`: each slot has
    its part of the context for itself."""
    context = int(argv[argv.index("-c") + 1])
    tool = site.capabilities.fit_params
    predicted: Footprint | str = ""
    if tool is not None and context <= SANE_CONTEXT:
        predicted = await _asked(tool, argv, contents, site, divided=divided)
    if isinstance(predicted, Footprint):
        return predicted
    computed = _computed(argv, contents, context, site.capabilities.devices)
    return replace(computed, fault=predicted)


async def _asked(
    tool: Path, argv: Sequence[str], contents: Inspected, site: Site, *, divided: bool
) -> Footprint | str:
    """The tool's prediction, or why it cannot load the model; "" where it says neither. It does not
    know that slots can share one context: its buffers for that are those of one slot that has all
    of it, and what each slot has of its own (a recurrent model's state) is there for every slot."""
    line = ["-m", str(contents.first), *argv, "--fit", "off", "--fit-print", "on"]
    lines = [line] if divided else [line, [*line, "-np", "1"]]
    record = _record(tool, [*argv, str(divided)], contents, site)
    if record is not None:
        if (remembered := _remembered(record, contents, site)) is not None:
            return remembered
        record.forget()
    answers = [await fit_params.ask(tool, each, site.machine.environment) for each in lines]
    failed = [answer for answer in answers if answer.status]
    prediction = fit_params.read_prediction("".join(answer.output for answer in answers))
    if failed or prediction is None:
        logger.debug("%s: no prediction: %s", tool, [*map(fit_params.complaint, failed)])
        return fit_params.load_error(failed)
    # The tool counts mapped weights as nobody's memory; where they lie in host memory anyway,
    # there has to be room for them.
    weights = (
        prediction.weights if site.capabilities.devices else max(prediction.weights, contents.size)
    )
    found = Footprint(prediction.devices, weights + prediction.others)
    if record is not None:
        record.put({**found.devices, HOST: found.host})
    return found


def _remembered(record: learned.Record, contents: Inspected, site: Site) -> Footprint | None:
    """What the tool said before; None if it cannot have said that of this model here."""
    devices = dict(record.seen())
    host = devices.pop(HOST, None)
    known = site.capabilities.devices
    if host is None or not set(devices) <= set(known) or sum(devices.values()) + host == 0:
        return None
    return Footprint(devices, host) if known or host >= contents.size else None


def _record(
    tool: Path, argv: Sequence[str], contents: Inspected, site: Site
) -> learned.Record | None:
    """Where the tool's prediction is kept: it takes seconds for a large model, and is the same for
    the same files, arguments, GPUs and tool. None for files that are not here yet."""
    if site.predictions is None or not isinstance(contents, ModelFiles):
        return None
    where = learned.place(tool, site.capabilities.device_memory)
    return learned.Record(site.predictions, learned.key(contents.paths, argv, where))


def _computed(
    argv: Sequence[str], contents: Inspected, context: int, devices: Sequence[str]
) -> Footprint:
    """By the header, over the devices that are used in the proportion that is asked for."""
    used = placement.used(argv, devices)
    layers = int(argv[argv.index("-ngl") + 1]) if "-ngl" in argv and used else None
    needs = arithmetic.estimate(contents.header, contents.size, context, layers)
    if not used:
        return Footprint({}, needs.gpu + needs.host)
    shares = placement.shares(argv, used)
    gpus = {device: int(needs.gpu * share) for device, share in shares.items()}
    return Footprint(gpus, needs.host)
