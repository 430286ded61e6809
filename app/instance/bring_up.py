"""Bring the models of a plan up: fetch → allot → argv → server → provide → preload."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.console import ModelLogger
from app.engine import arguments, rope
from app.engine.arguments import Launch
from app.engine.environment import child_environment
from app.engine.http import Client
from app.engine.program import SHOWN, Program
from app.engine.server import LlamaServer
from app.engine.stuck import ON_GPUS, PATIENCE
from app.errors import AppError, LoadError, RequestError
from app.form.settings import GeneralSettings, ModelSettings
from app.instance.fetched import Fetched, speculation_of
from app.instance.measured import MemoryMeter, OnHost, on_gpus
from app.instance.parking import find_checkpoints
from app.instance.places import Folder, Place, Places
from app.instance.seats import seats
from app.memory.checkpoint import Checkpoints
from app.memory.kv import Slots, of_use
from app.memory.pool import Pool
from app.memory.tiers import Parts, Tiered
from app.models.files import Located, ModelFiles
from app.planning import draft, learned
from app.planning.allot import allot, vacancy
from app.planning.amounts import Need
from app.planning.budget import need, on_devices
from app.planning.candidate import Allotted, Candidate
from app.planning.learned import Learned, Record
from app.planning.plan import Plan
from app.planning.report import placed_text, resolved_text
from app.telemetry.overview import Overview
from app.telemetry.samples import Sample

logger = logging.getLogger(__name__)


@dataclass
class LlamaServers:
    """The llama-servers of an instance, one for each model of its plan.

    `folder` is our private one; `kv` is for the KV caches of models that are away. `heard` is told
    of every line that a llama-server writes: model, level and text.
    """

    plan: Plan
    general: GeneralSettings
    pool: Pool[Client]
    overview: Overview
    folders: Sequence[Folder]
    kv: Path
    environment: Mapping[str, str]
    heard: Callable[[str, str, str], None]
    make: Callable[[str, Program, Client], LlamaServer] = LlamaServer

    def __post_init__(self) -> None:
        plan = self.plan
        leaves = len(plan.models) > 1 or any(m.settings.ttl is not None for m in plan.models)
        self._leaves = plan.sharing and leaves  # to CPU RAM or to disk
        self._stays = self.general.cpu_offloading and not plan.capabilities.devices
        self._places = Places(self.folders, self.kv, unix=plan.capabilities.unix_sockets)
        self._learned = Learned(plan.store.cache)
        self._models = {model.name: model for model in plan.models}
        self._allotting = asyncio.Lock()
        self._servers: list[LlamaServer] = []
        self._slots: dict[str, Slots] = {}
        self._checkpoints: Checkpoints | None = None  # if this machine can make them

    async def bring_up(self) -> None:
        """Bring all models up, at once. One that fails stays `failed`, with its cause. Raises the
        first AppError if all have failed."""
        if self.general.cpu_offloading:
            self._checkpoints = await find_checkpoints(self.plan, self._child_environment(""))
        if self._stays and self._leaves:
            logger.info("idle models keep their processes in CPU RAM, as far as there is room")
        models = self.plan.models
        outcomes = await asyncio.gather(*map(self._bring, models), return_exceptions=True)
        raise_or_log(dict(zip((m.name for m in models), outcomes, strict=True)))
        await self.overview.readings.renew(0)

    async def _bring(self, model: Candidate) -> None:
        try:
            files = await self._fetch(model)
            allotted = await self._allot(model, files)
            record = self._record(allotted, files)
            needed = record.at_least(need(allotted.footprint))
            server = self._server(allotted, files, record, needed)
            seated = seats(server.server.process.argv, allotted.resolved)
            self.pool.provide(model.name, server, server.server.client, needed, seated)
            if model.name in self.plan.preloaded:
                await self._preload(model.name)
        except AppError as error:
            self.pool.fail(model.name, str(error))
            raise

    async def _fetch(self, model: Candidate) -> Fetched:
        fetch, pool, name, files = self.plan.store.fetch, self.pool, model.name, model.files
        if not isinstance(files.model, ModelFiles):
            pool.downloading(name)
        weights = await fetch(files.model, name, lambda done: pool.downloading(name, done))

        async def beside(located: Located | None) -> ModelFiles | None:
            return None if located is None else await fetch(located, name, lambda _: None)

        return Fetched(weights, await beside(files.mmproj), await beside(files.draft))

    async def _allot(self, model: Candidate, files: Fetched) -> Allotted:
        """The model with its memory. Of one that the plan knew nothing of, it is logged now."""
        about = {"subject": model.name}
        allotted = model if isinstance(model, Allotted) else await self._allot_late(model, files)
        header = files.model.header
        for warning in rope.warnings(
            model.settings, yarn=header.yarn, freq_base=header.rope_freq_base
        ):
            logger.warning("%s", warning, extra=about)
        if allotted is not model:
            logger.info("resolved: %s", resolved_text(allotted), extra=about)
        return allotted

    async def _allot_late(self, model: Candidate, files: Fetched) -> Allotted:
        """One after the other: each beside those before it."""
        async with self._allotting:
            room = vacancy(list(self._models.values()), self.plan.budget)
            model = replace(model, drafting=files.draft)
            allotted = await allot(model, files.model, self.plan.site, room)
            self._models[model.name] = allotted
            return allotted

    def _server(self, model: Allotted, files: Fetched, record: Record, needed: Need) -> Tiered:
        log, header = ModelLogger(logger, model.name), files.model.header
        saves = self._leaves and of_use(header, embedding=model.settings.embedding, log=log)
        place = self._places.take()
        # Each open connection has one of its threads, of which there are four more than slots.
        idle = model.resolved.parallel + 2
        client = Client(place.address, place.key, most_idle=idle)
        program = self._program(model, files, place, record)
        server = self.make(model.name, program, client)
        self._servers.append(server)
        self._describe(model, server, files)
        slots = None
        if saves:
            slots = Slots(
                client,
                place.kv,
                log,
                weights=program.may_name(),
                restore_folder=program.before,
            )
            self._slots[model.name] = slots
        on_host, gpus = OnHost(files.size), self.plan.capabilities.devices
        meter = MemoryMeter(server.process, on_gpus if gpus else on_host, record)
        private = (lambda: on_host.private) if self._stays else None
        parts = Parts(server, slots, self._checkpoints, private)
        return Tiered(parts, meter.measure, needed, record.put)

    def _program(self, model: Allotted, files: Fetched, place: Place, record: Record) -> Program:
        name, capabilities = model.name, self.plan.capabilities
        launch = Launch(
            first=str(files.model.first),
            listen=place.address.listen(),
            alias=name,
            pooling=files.model.header.pooling,
            yarn=files.model.header.yarn,
            heads=files.model.header.predicts_tokens,
            mmproj=str(files.mmproj.first) if files.mmproj else "",
            draft=str(files.draft.first) if files.draft else "",
            draft_kind=draft.kind(files.model.header, files.draft.header) if files.draft else "",
            slots=str(place.kv),
            debug=self.general.debug,
        )

        def argv_of(launch: Launch) -> list[str]:
            built = arguments.build(model.settings, model.resolved, launch, capabilities)
            return [str(capabilities.path), *built]

        argv, by_heads = argv_of(launch), model.settings.guesses and launch.heads
        return Program(
            argv=argv,
            environment=self._child_environment(place.key),
            show=self._shown(model.settings),
            again=arguments.again(model.settings, capabilities),
            files=files.paths,
            ahead=not arguments.past_cache(argv),
            patience=ON_GPUS if model.footprint.on_gpus else PATIENCE,
            on_line=lambda level, text: self.heard(name, level, text),
            on_buffers=lambda buffers: record.put(on_devices(buffers)),
            plain=argv_of(replace(launch, heads=False)) if by_heads else (),
            on_plain=lambda: self._without_heads(name),
            before=lambda: self._places.restore(place),
        )

    def _without_heads(self, name: str) -> None:
        if (speculation := self.overview.models[name].speculation) is not None:
            speculation.cost = 0.0  # guesses from the text

    def _child_environment(self, key: str) -> dict[str, str]:
        return child_environment(self.environment, str(self.folders[0].path), key)

    def _shown(self, model: ModelSettings) -> Sequence[str]:
        """The levels of a llama-server's lines that go to the console."""
        if self.general.disable_logs:
            return ()
        return SHOWN if model.verbose or self.general.debug else ("error",)

    def _record(self, model: Allotted, files: Fetched) -> Record:
        """What runs with the same files, arguments, GPUs and llama-server have seen."""
        capabilities = self.plan.capabilities
        argv = arguments.planning(model.settings, model.resolved, model.wanted)
        argv += ["--spec-type"] if model.settings.guesses else []
        where = learned.place(capabilities.path, capabilities.device_memory)
        return Record(self._learned, learned.key(files.deciding, argv, where))

    def _describe(self, model: Allotted, server: LlamaServer, files: Fetched) -> None:
        details, readings = self.overview.models[model.name], self.overview.readings
        details.context, details.slots = model.resolved.context, model.resolved.parallel
        details.placed = placed_text(model)
        details.cache = model.resolved.prompt_cache(self.plan.capabilities)
        details.speculation = speculation_of(model, files)
        details.memory = lambda: readings.of(server.process)
        readings.follow(server.process)
        parts = min(model.wanted.slots(self.plan.capabilities), details.slots)
        known = {"n_ctx": details.context // parts, **files.model.header.meta}
        details.meta = lambda: {**known, **server.meta}

    async def _preload(self, name: str) -> None:
        try:
            await self.pool.load(name)
        except RequestError as error:  # there is no room for it
            raise LoadError(error.message) from None

    def seen(self, sample: Sample) -> None:
        """A request has ended: whether the KV cache that was kept for its model was of use, and
        guesses at tokens were."""
        if sample.tokens.estimated:
            return
        if slots := self._slots.get(sample.model):
            slots.seen(sample.tokens.prompt, sample.tokens.cached)
        speculation = self.overview.models[sample.model].speculation
        if speculation is not None and (slower := speculation.seen(sample.tokens)):
            about = {"subject": sample.model}
            logger.warning("Speculative Decoding makes it slower: %s", slower, extra=about)

    def kill(self) -> None:
        """SIGKILL every child, without waiting."""
        for server in self._servers:
            server.process.kill()
        if self._checkpoints is not None:
            self._checkpoints.stop()


def raise_or_log(outcomes: Mapping[str, BaseException | None]) -> None:
    """By model: raise a fault of ours or, if every model has failed, the first error. Else log
    the errors."""
    errors = {name: error for name, error in outcomes.items() if error is not None}
    for error in errors.values():
        if not isinstance(error, AppError):
            raise error
    if errors and len(errors) == len(outcomes):
        raise next(iter(errors.values()))
    for name, error in errors.items():
        logger.error("%s", error, extra={"subject": name})
