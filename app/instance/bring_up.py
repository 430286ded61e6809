"""The models of a plan, brought up: files → resolved arguments → llama-server → ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from app import console
from app.console import ModelLogger
from app.engine import arguments, rope
from app.engine.environment import child_environment
from app.engine.http import Address, Client
from app.engine.process import SHOWN, Command
from app.engine.server import LlamaServer
from app.errors import AppError, LoadError, RequestError
from app.form.settings import GeneralSettings
from app.instance.measured import Meter, on_gpus, on_host
from app.machine import chance, gpu, host, network
from app.machine.gpu import Device
from app.memory import checkpoint
from app.memory.checkpoint import Checkpoints, Helper
from app.memory.kv import Slots
from app.memory.ledger import Tier, View
from app.memory.pool import Pool
from app.memory.tiers import Parts, Tiered
from app.models.store import ModelFiles
from app.page import examples
from app.page.examples import Target
from app.planning import learned
from app.planning.allot import allot
from app.planning.amounts import Need, together
from app.planning.budget import need, on_devices
from app.planning.candidate import Allotted, Candidate
from app.planning.learned import Learned
from app.planning.plan import Plan
from app.planning.report import aligned, placed_text, resolved_text
from app.telemetry.overview import Overview
from app.telemetry.readings import MemoryUse
from app.telemetry.samples import Sample

logger = logging.getLogger(__name__)


@dataclass
class Deployment:
    """Where the parts are that a model needs to come up."""

    plan: Plan
    general: GeneralSettings
    pool: Pool[Client]
    overview: Overview
    folder: Path
    kv: Path  # for KV caches of models that are away
    environment: Mapping[str, str]
    heard: Callable[[str, str, str], None]  # model, level and text of every line it writes
    parking: Checkpoints | None = None  # where this machine can

    def __post_init__(self) -> None:
        self.servers: list[LlamaServer] = []
        self._slots: dict[str, Slots] = {}
        self._preloaded = self.plan.preloaded
        self._learned = Learned(self.plan.store.cache)

    async def find_parking(self) -> None:
        """Whether idle models can be moved to CPU RAM as they are; said, whichever way it is."""
        if not (self.general.cpu_offloading and self.plan.capabilities.devices):
            return
        environment = {**child_environment(self.environment, str(self.folder), "")}
        most = max((len(model.footprint.devices) for model in self.plan.allotted), default=1)
        why_not = ""
        for gpus in sorted({1, most}, reverse=True):  # several may be more than a machine can
            if not (why_not := await checkpoint.probe(environment, gpus)):
                break
            kept = "are stopped, their weights stay in the page cache"
            logger.info(
                "idle models on %s %s: %s", f"{gpus} GPUs" if gpus > 1 else "a GPU", kept, why_not
            )
        if why_not:
            return
        logger.info("idle models are moved to CPU RAM by CUDA checkpoints")
        helper = Helper(environment)
        self.parking = Checkpoints(helper, host.memory_free, gpu.free, self.plan.reserve, gpus)

    async def bring_up(self) -> None:
        """All models at once. Raises the AppError of the only model, or when all have failed;
        of several, one that fails stays `failed` with its cause."""
        await self.find_parking()
        results = await asyncio.gather(
            *(self._bring(planned) for planned in self.plan.models), return_exceptions=True
        )
        errors = [error for error in results if error is not None]
        for error in errors:
            if not isinstance(error, AppError):
                raise error
        if len(errors) == len(results):
            raise errors[0]
        for error in errors:
            logger.error("%s", error)
        await self.overview.readings.renew(0)

    def seen(self, sample: Sample) -> None:
        """A finished request: whether the KV cache that was kept for its model was of use."""
        if slots := self._slots.get(sample.model):
            slots.seen(sample.tokens.prompt, sample.tokens.cached)

    def kill(self) -> None:
        """SIGKILL every child, without waiting."""
        for server in self.servers:
            server.process.kill()
        self.stop_parking()

    def stop_parking(self) -> None:
        if self.parking is not None:
            self.parking.stop()

    async def _bring(self, planned: Candidate) -> None:
        name = planned.name
        try:
            if not isinstance(planned.files.model, ModelFiles):
                self.pool.downloading(name)
            files, mmproj = await self._fetch(planned)
            server, needs = await self._server(planned, files, mmproj)
            self.pool.provide(name, server, server.server.client, needs)
            if name in self._preloaded:
                await self._preload(name)
        except AppError as error:
            self.pool.fail(name, str(error))
            raise

    async def _preload(self, name: str) -> None:
        try:
            await self.pool.load(name)
        except RequestError as error:  # there is no room for it
            raise LoadError(error.message) from None

    async def _fetch(self, planned: Candidate) -> tuple[ModelFiles, ModelFiles | None]:
        """The model's files, and its projector's if it has one."""
        name, store = planned.name, self.plan.store
        files = await store.fetch(
            planned.files.model, name, lambda done: self.pool.downloading(name, done)
        )
        projector = planned.files.mmproj
        if projector is None:
            return files, None
        return files, await store.fetch(projector, name, lambda _: None)

    async def _server(
        self, model: Candidate, files: ModelFiles, mmproj: ModelFiles | None
    ) -> tuple[Tiered, Need]:
        planned = await self._allotted(model, files)
        # From here to where it is counted nothing is awaited: its number is its own.
        number = len(self.servers)
        kept, remembered = self._kept(number), self._key(planned, files)
        address = self._address(number, unix=self.plan.capabilities.unix_sockets)
        launch = arguments.Launch(
            str(files.first),
            address.listen(),
            planned.name,
            files.header.pooling,
            files.header.yarn,
            str(mmproj.first) if mmproj else "",
            str(kept) if kept else "",
            self.general.debug,
        )
        key = chance.key(32)
        command = self._command(planned, launch, key, remembered)
        server = LlamaServer(planned.name, command, Client(address, key))
        self.servers.append(server)
        self._describe(planned, server)
        if kept is not None:
            log = ModelLogger(logger, planned.name)
            self._slots[planned.name] = Slots(server.client, kept, log)
        needs = self._needs(planned, remembered)
        meter = self._meter(server, files.size + (mmproj.size if mmproj else 0), remembered)

        async def measure() -> Need:
            # Where nobody can measure it, what it said itself at an earlier end.
            return await meter.measure() or self._learned.get(remembered)

        tiered = Tiered(
            Parts(server, self._slots.get(planned.name), self.parking),
            measure,
            needs,
            lambda seen: self._learned.put(remembered, seen),
        )
        return tiered, needs

    async def _allotted(self, model: Candidate, files: ModelFiles) -> Allotted:
        """The model with its memory, also one of which nothing was known before it was here."""
        if isinstance(model, Allotted):
            planned = model
        else:
            planned = await allot(model, files, self.plan.site, self.plan.vacancy)
        for warning in rope.warnings(
            planned.settings, yarn=files.header.yarn, freq_base=files.header.rope_freq_base
        ):
            logger.warning("%s", warning, extra={"subject": planned.name})
        if planned is not model:
            logger.info("resolved: %s", resolved_text(planned), extra={"subject": planned.name})
        return planned

    def _command(
        self, planned: Allotted, launch: arguments.Launch, key: str, remembered: str
    ) -> Command:
        known = self.plan.capabilities
        argv = arguments.build(planned.settings, planned.resolved, launch, known)
        return Command(
            [str(known.path), *argv],
            child_environment(self.environment, str(self.folder), key),
            self._shown(planned),
            arguments.again(planned.settings, known),
            lambda level, text: self.heard(planned.name, level, text),
            lambda buffers: self._learned.put(remembered, on_devices(buffers)),
        )

    def _describe(self, planned: Allotted, server: LlamaServer) -> None:
        details = self.overview.models[planned.name]
        details.context, details.slots = planned.resolved.context, planned.resolved.parallel
        details.placed = placed_text(planned)
        details.cache = planned.resolved.prompt_cache(self.plan.capabilities)
        details.memory = lambda: self._memory(server)
        self.overview.readings.follow(server.process)

    def _kept(self, number: int) -> Path | None:
        """Where a model's KV cache lies while it is away; None where nobody has to leave."""
        if not self.plan.sharing or len(self.plan.models) == 1:
            return None
        folder = self.kv / str(number)
        folder.mkdir(parents=True, exist_ok=True)  # llama-server wants it to be there
        return folder

    def _key(self, planned: Allotted, files: ModelFiles) -> str:
        known = self.plan.capabilities
        argv = arguments.planning(planned.settings, planned.resolved, planned.wanted)
        changed = str(known.path.stat().st_mtime_ns)
        return learned.key(files.paths, argv, [*known.devices, str(known.path), changed])

    def _needs(self, planned: Allotted, remembered: str) -> Need:
        """What was predicted, or what an earlier run has seen where that was more."""
        predicted = need(planned.footprint)
        seen = self._learned.get(remembered)
        return {d: max(size, seen.get(d, 0)) for d, size in predicted.items()}

    def _meter(self, server: LlamaServer, weights: int, remembered: str) -> Meter:
        measure = on_gpus if self.plan.capabilities.devices else on_host(weights)
        return Meter(server.process, measure, lambda held: self._learned.put(remembered, held))

    def _memory(self, server: LlamaServer) -> MemoryUse:
        if not server.process.running:
            return MemoryUse()
        processes = self.overview.readings.latest().processes
        return processes.get(server.process.pid, MemoryUse())

    def _address(self, number: int, *, unix: bool) -> Address:
        if unix:
            return Address(path=str(self.folder / f"{number}.sock"))
        return Address(port=network.free_port())

    def _shown(self, planned: Allotted) -> tuple[str, ...]:
        if self.general.disable_logs:
            return ()
        return SHOWN if planned.settings.verbose or self.general.debug else ("error",)


def devices(
    plan: Plan, view: Callable[[], Sequence[View]], read: Sequence[Device]
) -> Sequence[Device]:
    """The GPUs as they were `read` from the driver; those that it is not there for (not NVIDIA's)
    as llama-server listed them, and of what is used only what models count for."""
    if read:
        return read
    here = together([each.need for each in view() if each.tier is Tier.GPU])
    listed = plan.capabilities.device_memory
    return [Device(name, name, "", here.get(name, 0), size) for name, size in listed.items()]


def announce(plan: Plan, overview: Overview, placeholder: str) -> None:
    """`ready`, the models, and a command line that works."""
    console.plain(logger, "ready")
    rows = [("model", "state", "context", "slots", "memory", "endpoint")]
    for view in overview.view():
        details = overview.models[view.name]
        size = f"{overview.memory(view).total / 1e6:,.0f} MB"
        context, slots = str(details.context or ""), str(details.slots or "")
        rows.append((view.name, view.state.value, context, slots, size, details.endpoint))
    for line in aligned(rows):
        console.plain(logger, line)
    console.plain(logger, examples.curl_line(targets(overview, placeholder)[0]))


def targets(overview: Overview, placeholder: str) -> list[Target]:
    """The models as callers reach them; `placeholder` stands for the key they send."""
    return [
        Target(name, details.endpoint, details.embedding, placeholder)
        for name, details in overview.models.items()
    ]


def endpoint(base: str, name: str) -> str:
    """A model's own OpenAI base URL."""
    return f"{base}/{quote(name)}/v1"
