"""Everything that can be found wrong before any bytes move, found; the rest is settled here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.engine import arguments, capabilities
from app.engine.capabilities import Capabilities
from app.errors import ConfigError, FormError
from app.form.merge import naming_field, naming_item
from app.form.settings import ModelSettings, Settings
from app.machine import chance, gpu, host
from app.machine.children import die_with_us
from app.models import reference
from app.models.hub import Located as OnHub
from app.models.reference import Reference
from app.models.store import Located, ModelFiles, Preview, Store
from app.planning import placement
from app.planning.allot import Files, Planned, Room, running, settle_memory, with_threads
from app.planning.amounts import HOST, Need, lacking, together
from app.planning.budget import LEAST_FREE, beside_others, budget, hardware, headroom, need
from app.planning.footprint import Machine
from app.planning.settle import check_names, named, settle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    models: tuple[Planned, ...]
    capabilities: Capabilities
    store: Store
    machine: Machine
    budget: Need
    sharing: bool  # what does not fit together takes turns

    @property
    def free(self) -> Need:
        """The budget, less what other programs held of it when the GPUs were asked."""
        return beside_others(self.budget, self.capabilities.device_free, {}, {})

    @property
    def preloaded(self) -> tuple[str, ...]:
        """Who is loaded at the start: as many as fit together now, in their order. One that
        nothing is known of is tried, and so is the first one."""
        chosen: list[Planned] = []
        for model in self.models:
            needs = [need(m.footprint) for m in (*chosen, model) if m.footprint is not None]
            room = self.free if chosen else self.budget
            if model.settings.preload and not lacking(together(needs), room):
                chosen.append(model)
        return tuple(model.name for model in chosen)

    @property
    def room(self) -> Room:
        """What the models leave of which it is known already."""
        needs = [need(m.footprint) for m in self.models if m.footprint is not None]
        return Room(dict(self.budget), dict(together(needs)))

    @property
    def reserve(self) -> int:
        """Bytes of host memory that stay free beside parked models: what the prompt caches of the
        others may come to, and a margin."""
        known = [m.resolved for m in self.models if m.resolved is not None]
        return LEAST_FREE + sum(each.prompt_cache(self.capabilities) for each in known)

    @property
    def missing(self) -> int:
        """Bytes that are still to come. A file that several models use comes once."""
        downloads = {}
        for model in self.models:
            downloads.update(model.files.downloads)
        return sum(downloads.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)


@dataclass(frozen=True)
class Surroundings:
    """What a plan is made in: `folder` is our private one, for what must not outlive us."""

    store: Store
    environment: Mapping[str, str]
    folder: Path
    offline: bool


async def plan(settings: Settings, around: Surroundings) -> Plan:
    """Raises ConfigError, or TransferError for weights that are not whole."""
    binary = capabilities.find(settings.general.llama_server, around.environment)
    environment = arguments.environment(around.environment, str(around.store.cache), api_key="")
    known = await capabilities.probe(binary, environment)
    logger.info("llama-server: %s", binary)
    if known.devices and known.fit_params is None:
        logger.warning("no llama-fit-params beside it: what fits is computed from headers, roughly")
    if not die_with_us():
        logger.warning("no setpriv (util-linux) here: killed, we might leave llama-server behind")
    models = settings.models
    general = settings.general
    driver = gpu.devices()
    sizes = hardware(known.device_memory, {device.cuda: device.total for device in driver})
    available = budget(sizes, host.memory_limit(), general.max_cuda_memory)
    machine = Machine(
        available[HOST],
        host.thread_count(),
        len(models),
        environment,
        headroom(known.device_free, available),
        placement.threshold(general.cuda_memory_threshold, len(known.devices)),
    )
    room = Room(available, {})
    planned: list[Planned] = []
    for number, model in enumerate(models, start=1):
        with naming_item(number, listed=bool(settings.general.models)):
            planned.append(await _plan_model(model, around, known, (machine, room)))
            check_names([other.name for other in planned])
    machine = replace(machine, at_once=running(planned, available))
    settled = tuple(with_threads(each, machine) for each in planned)
    sharing = general.cpu_offloading or general.disk_swapping
    found = Plan(settled, known, around.store, machine, available, sharing)
    check_disk(found.missing, around.store)
    return found


async def _plan_model(
    model: ModelSettings,
    around: Surroundings,
    known: Capabilities,
    where: tuple[Machine, Room],
) -> Planned:
    machine, room = where
    model = settle(model)
    for name in arguments.ignored_by_cli(model):
        logger.warning("%s is ignored, because Model/cli replaces it", name)
    # The tiny default is for who names nothing at all.
    found = reference.parse(model.model, offline=around.offline and machine.models == 1)
    arguments.check(model, known)
    wanted = arguments.wanted(model)
    visible = [device.name for device in gpu.devices()]
    capabilities.check_gpus(visible, known.devices, wanted.gpu_layers)
    files = await _locate(model, found, around)
    planned = Planned(named(model, found, files.model), found, files, wanted)
    if files.preview is None:
        return planned
    return await settle_memory(planned, files.preview, known, machine, room)


async def _locate(model: ModelSettings, found: Reference, around: Surroundings) -> Files:
    """Raises FormError for what is not there or is not what it should be."""
    located, preview = await _look_into(found, around)
    if preview is not None and preview.header.projector:
        raise FormError("Model/model", f"{model.model} is a projector: that is Model/mmproj")
    if not model.mmproj:
        return Files(located, None, preview)
    with naming_field("mmproj"):
        other = reference.parse(model.mmproj, offline=False)
        projector, seen = await _look_into(other, around)
        if seen is not None and not seen.header.projector:
            problem = f"{model.mmproj} is no projector, but a {seen.header.architecture} model"
            raise FormError("Model/model", problem)
    return Files(located, projector, preview)


async def _look_into(
    found: Reference, around: Surroundings
) -> tuple[Located, ModelFiles | Preview | None]:
    store = around.store
    located = await store.locate(found)
    if isinstance(located, OnHub) and not located.missing:
        located = await store.fetch(located, located.paths[0], lambda _: None)
    if isinstance(located, OnHub):
        check_disk(located.missing, store)
    folder = around.folder / f"preview-{chance.name(4)}"
    return located, await store.preview(located, folder)


def shortfall(found: Plan) -> str:
    """What the models lack, as one sentence; "" where they fit: side by side, or, where they share
    memory, each by itself."""
    known = [(m, need(m.footprint)) for m in found.models if m.footprint is not None]
    for model, alone in known:
        if lack := lacking(alone, found.budget):
            return f"{model.name} does not fit. {lack}"
    at_once = [each for model, each in known if model.settings.pin or not found.sharing]
    if lack := lacking(together(at_once), found.budget):
        which = "the pinned models" if found.sharing else "the models"
        return f"{which} do not fit together. {lack}"
    return ""


def check_memory(found: Plan) -> None:
    """Raises ConfigError with the numbers where the models do not fit."""
    lack = shortfall(found)
    if lack:
        share = "" if found.sharing else ", or let them share it (General/cpu_offloading)"
        raise ConfigError(
            f"{lack}: take fewer or smaller models, a smaller Model/context_size, or fewer "
            f"Model/gpu_layers{share}"
        )


def check_disk(missing: int, store: Store) -> None:
    """Raises ConfigError where so many bytes that are still to come have no room."""
    folder = store.hub_folder
    free = host.disk_free(folder)
    if missing > free:
        raise ConfigError(
            f"{folder}: {missing / 1e9:,.1f} GB are to be downloaded, but only {free / 1e9:,.1f} "
            "GB are free: name another folder with --cache-dir or LLAMACPP_CACHE_DIR"
        )
