"""Make the plan of an instance: refuse whatever can be found wrong before any bytes move, and
decide the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.engine import arguments
from app.engine.capabilities import Capabilities, check_gpus, find, probe
from app.engine.environment import child_environment
from app.engine.resolved import EXTRA, memory_wanted
from app.errors import ConfigError, FormError, LoadError
from app.form.merge import naming_field, naming_item
from app.form.settings import GeneralSettings, ModelSettings, Settings
from app.machine import chance, gpu, host, threads
from app.machine.children import die_with_us
from app.models.files import Inspected, Located
from app.models.parts import Remote
from app.models.reference import Reference, parse, shown
from app.models.store import Store
from app.planning import named_files, placement
from app.planning.allot import Vacancy, allot, run_at_once, vacancy, with_threads
from app.planning.amounts import HOST, Need, lacking, together
from app.planning.budget import LEAST_FREE, beside_others, budget, hardware, headroom, need
from app.planning.candidate import Allotted, Candidate, Files
from app.planning.disk import check_disk
from app.planning.learned import PREDICTED, Learned
from app.planning.settle import check_names, named, settle
from app.planning.site import Machine, Site

logger = logging.getLogger(__name__)

LOOKED_UP_AT_ONCE = 4  # models: each has a thread


@dataclass(frozen=True)
class Plan:
    """What is to be served where. `models` are Allotted, but for those whose files nobody can look
    into before they are here."""

    models: tuple[Candidate, ...]
    site: Site
    store: Store
    budget: Need
    sharing: bool  # what does not fit together takes turns

    @property
    def capabilities(self) -> Capabilities:
        return self.site.capabilities

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)

    @property
    def allotted(self) -> tuple[Allotted, ...]:
        return tuple(model for model in self.models if isinstance(model, Allotted))

    @property
    def remote(self) -> tuple[Remote, ...]:
        """What is still to be downloaded, if its size is known."""
        return tuple(each for model in self.models for each in model.files.remote)

    @property
    def free(self) -> Need:
        """The budget, less what other programs used of it when the GPUs were asked."""
        return beside_others(self.budget, self.capabilities.device_free, {}, {})

    @property
    def preloaded(self) -> tuple[str, ...]:
        """The models that are loaded at the start: in their order, as many as fit together now. A
        model whose memory is not known yet counts as fitting."""
        chosen: list[Candidate] = []
        for model in self.models:
            needs = vacancy([*chosen, model], {}).assigned
            room = self.free if chosen else self.budget  # others may leave what the first one needs
            if model.settings.preload and not lacking(needs, room):
                chosen.append(model)
        return tuple(model.name for model in chosen)

    @property
    def reserve(self) -> int:
        """Bytes of host memory that stay free beside parked models: for the prompt caches of the
        others, and a margin."""
        caches = (model.resolved.prompt_cache(self.capabilities) for model in self.allotted)
        return LEAST_FREE + sum(caches)


@dataclass(frozen=True)
class Surroundings:
    """What a plan is made in; `folder` is our private one, which is removed at the end. `trial`:
    the tiny model is served if no model is named."""

    store: Store
    environment: Mapping[str, str]
    folder: Path
    trial: bool


async def plan(settings: Settings, around: Surroundings) -> Plan:
    """Raises ConfigError, or TransferError for weights that are not whole."""
    general = settings.general
    environment = child_environment(around.environment, str(around.store.cache), api_key="")
    capabilities = await _llama_server(general, around, environment)
    available = _budget(general, capabilities)
    machine = Machine(
        memory=available[HOST],
        threads=host.thread_count(),
        models=len(settings.models),
        environment=environment,
        headroom=headroom(capabilities.device_free, available),
        threshold=placement.threshold(general.cuda_memory_threshold, len(capabilities.devices)),
    )
    site = Site(capabilities, machine, Learned(around.store.cache, PREDICTED))
    models: list[Candidate] = []
    at_once = asyncio.Semaphore(LOOKED_UP_AT_ONCE)

    async def find_in_turn(model: ModelSettings) -> _Found:
        async with at_once:
            return await _find(model, around, site, trial=around.trial and not general.models)

    finding = [asyncio.ensure_future(find_in_turn(model)) for model in settings.models]
    try:
        await asyncio.wait(finding, return_when=asyncio.FIRST_EXCEPTION)
        # What is wrong is told at once, and not after all other models were found.
        ordered = sorted(enumerate(finding, start=1), key=lambda each: not _failed(each[1]))
        for number, find in ordered:
            with naming_item(number, listed=bool(general.models)):
                found = await find
                models.append(await _allotted(found, site, vacancy(models, available)))
                check_names([other.settings for other in models])
    finally:
        for find in finding:
            find.cancel()
            find.add_done_callback(_heed)
    machine = replace(machine, at_once=run_at_once(models, available))
    made = Plan(
        models=tuple(with_threads(model, machine) for model in models),
        site=replace(site, machine=machine),
        store=around.store,
        budget=available,
        sharing=general.cpu_offloading or general.disk_swapping,
    )
    check_disk(made.remote, around.store)
    return made


async def _llama_server(
    general: GeneralSettings, around: Surroundings, environment: Mapping[str, str]
) -> Capabilities:
    binary = find(general.llama_server, around.environment)
    capabilities = await probe(binary, environment)
    logger.info("llama-server: %s", binary)
    if capabilities.devices and capabilities.fit_params is None:
        logger.warning("no llama-fit-params beside it: what fits is computed from headers, roughly")
    if not die_with_us():
        logger.warning("no setpriv (util-linux) here: killed, we might leave llama-server behind")
    return capabilities


def _budget(general: GeneralSettings, capabilities: Capabilities) -> dict[str, int]:
    driver = {device.cuda: device.total for device in gpu.devices()}
    sizes = hardware(capabilities.device_memory, driver)
    return budget(sizes, host.memory_limit(), general.max_cuda_memory)


@dataclass(frozen=True)
class _Source:
    """Where a reference leads: the files, and their contents; None if these cannot be read yet."""

    located: Located
    contents: Inspected | None


@dataclass(frozen=True)
class _Found:
    candidate: Candidate
    contents: Inspected | None


async def _find(model: ModelSettings, around: Surroundings, site: Site, *, trial: bool) -> _Found:
    """Several models are looked up at the same time: each may wait for its hub. `trial`: the tiny
    model is meant, where none is named."""
    model = settle(model)
    for name in arguments.ignored_by_cli(model):
        logger.warning("%s is ignored, because Model/cli replaces it", name)
    reference = parse(model.model, trial=trial)
    arguments.check(model, site.capabilities)
    await threads.run(named_files.check, model)
    wanted = memory_wanted(model)
    visible = [device.name for device in gpu.devices()]
    check_gpus(visible, site.capabilities.devices, wanted.gpu_layers)
    if model.split_mode == "tensor" and not site.capabilities.devices:
        raise FormError("Model/split_mode", "tensor needs a GPU, and llama-server sees none here")
    weights = await _weights(model, reference, around)
    draft = await _draft(model, around)
    drafting = None if draft is None else draft.contents
    if draft is not None and draft.located == weights.located:
        said = "Model/speculative names the model itself: a guess costs as much as an answer"
        logger.warning("%s", said)
    files = Files(
        weights.located,
        mmproj=await _projector(model, around),
        draft=None if draft is None else draft.located,
    )
    candidate = Candidate(named(model, reference, files.model), reference, files, wanted, drafting)
    return _Found(candidate, weights.contents)


def _failed(find: asyncio.Future[_Found]) -> bool:
    return find.done() and find.exception() is not None


def _heed(find: asyncio.Future[_Found]) -> None:
    """The first failure has been told: asyncio need not complain of the others."""
    if not find.cancelled():
        find.exception()


async def _allotted(found: _Found, site: Site, room: Vacancy) -> Candidate:
    """Beside those before it."""
    unread = found.candidate.files.draft is not None and found.candidate.drafting is None
    if found.contents is None or unread:
        return found.candidate
    return await allot(found.candidate, found.contents, site, room)


async def _weights(model: ModelSettings, reference: Reference, around: Surroundings) -> _Source:
    """Raises FormError if there is no such model, or if it is a projector or an adapter."""
    source = await _look_up(reference, around)
    header = None if source.contents is None else source.contents.header
    if header is not None and header.projector:
        raise FormError("Model/model", f"{shown(model.model)} is a projector: that is Model/mmproj")
    if header is not None and header.adapter:
        problem = f"{shown(model.model)} is an adapter: name its model here, and it in {EXTRA}"
        raise FormError("Model/model", problem)
    return source


async def _projector(model: ModelSettings, around: Surroundings) -> Located | None:
    """The projector, if the form names one. Raises FormError."""
    if not model.mmproj:
        return None
    with naming_field("mmproj"):
        source = await _look_up(parse(model.mmproj, trial=False), around)
        if source.contents is not None and not source.contents.header.projector:
            architecture = source.contents.header.architecture
            problem = f"{shown(model.mmproj)} is no projector, but a {architecture} model"
            raise FormError("Model/model", problem)
    return source.located


async def _draft(model: ModelSettings, around: Surroundings) -> _Source | None:
    """The draft model, if the form names one. Raises FormError."""
    if not model.draft:
        return None
    with naming_field("speculative"):
        return await _look_up(parse(model.draft, trial=False), around)


async def _look_up(reference: Reference, around: Surroundings) -> _Source:
    store = around.store
    located = await store.locate(reference)
    if isinstance(located, Remote) and not located.downloads:
        located = await store.fetch(located, located.paths[0], lambda _: None)
    if isinstance(located, Remote):
        check_disk([located], store)
    folder = around.folder / f"preview-{chance.name(4)}"
    return _Source(located, await store.inspect(located, folder))


def shortfall(plan: Plan) -> str:
    """What the models lack, as one sentence; "" if they fit: side by side, or each by itself if
    they share memory."""
    models = [model for model in plan.allotted if not model.footprint.fault]
    for model in models:
        if lack := lacking(need(model.footprint), plan.budget):
            return f"{model.name} does not fit. {lack}"
    side_by_side = [m for m in models if m.settings.pin or not plan.sharing]
    if lack := lacking(together([need(m.footprint) for m in side_by_side]), plan.budget):
        which = "the pinned models" if plan.sharing else "the models"
        return f"{which} do not fit together. {lack}"
    return ""


def unloadable(plan: Plan) -> str:
    """The first model that llama.cpp cannot load, and why, as one sentence; "" if there is none."""
    faults = (f"{m.name}: {m.footprint.fault}" for m in plan.allotted if m.footprint.fault)
    return next(faults, "")


def check_loads(plan: Plan) -> None:
    """Raises LoadError if llama.cpp cannot load a model."""
    if fault := unloadable(plan):
        raise LoadError(fault)


def check_memory(plan: Plan) -> None:
    """Raises ConfigError with the numbers if the models do not fit."""
    lack = shortfall(plan)
    if lack:
        share = "" if plan.sharing else ", or let them share it (General/cpu_offloading)"
        raise ConfigError(
            f"{lack}: take fewer or smaller models, a smaller Model/context_size, or fewer "
            f"Model/gpu_layers{share}"
        )
