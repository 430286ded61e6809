"""The models of a plan, brought up: files → resolved arguments → llama-server → ready."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from app import console
from app.engine import arguments, footprint, rope
from app.engine.client import Address, Client
from app.engine.footprint import Machine
from app.engine.process import SHOWN, Command
from app.engine.server import LlamaServer
from app.errors import AppError
from app.form.settings import GeneralSettings
from app.gateway.status import Overview
from app.machine import host
from app.memory.pool import Pool
from app.models.reference import ClearMLModel, HubFile
from app.models.store import ModelFiles
from app.preflight import Plan, Planned

logger = logging.getLogger(__name__)


@dataclass
class Deployment:
    """Where the parts are that a model needs to come up."""

    plan: Plan
    general: GeneralSettings
    pool: Pool[Client]
    overview: Overview
    folder: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self.servers: list[LlamaServer] = []

    async def bring_up(self) -> None:
        """All models at once. Raises the AppError of the only model, or when all have failed;
        of several, one that fails stays `failed` with its cause."""
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

    def kill(self) -> None:
        """SIGKILL every child, without waiting."""
        for server in self.servers:
            server.process.kill()

    async def _bring(self, planned: Planned) -> None:
        name = planned.name
        try:
            if isinstance(planned.reference, HubFile | ClearMLModel):
                self.pool.downloading(name)
            files = await self.plan.store.fetch(
                planned.located, name, lambda done: self.pool.downloading(name, done)
            )
            server = await self._server(planned, files)
            self.pool.provide(name, server, server.client, files.size)
            await self.pool.load(name)
        except AppError as error:
            self.pool.fail(name, str(error))
            raise

    async def _server(self, planned: Planned, files: ModelFiles) -> LlamaServer:
        known = self.plan.capabilities
        address = self._address(len(self.servers), unix=known.unix_sockets)
        key = secrets.token_hex(32)
        environment = arguments.environment(self.environment, str(self.folder), key)
        machine = Machine(
            host.memory_limit(), host.thread_count(), len(self.plan.models), environment
        )
        resolved = await footprint.resolve(
            planned.wanted, files.first, files.header, known, machine
        )
        for warning in rope.warnings(
            planned.settings, yarn=files.header.yarn, freq_base=files.header.rope_freq_base
        ):
            logger.warning("%s", warning, extra={"subject": planned.name})
        said = ", ".join(f"{key} {value}" for key, value in asdict(resolved).items() if value)
        logger.info("resolved: %s", said, extra={"subject": planned.name})
        launch = arguments.Launch(
            str(files.first),
            address.listen(),
            planned.name,
            files.header.pooling,
            files.header.yarn,
            self.general.debug,
        )
        argv = arguments.build(planned.settings, resolved, launch, known)
        command = Command([str(known.path), *argv], environment, self._shown(planned))
        server = LlamaServer(planned.name, command, Client(address, key))
        details = self.overview.models[planned.name]
        details.context, details.slots = resolved.context, resolved.parallel
        details.memory = lambda: memory(server)
        self.servers.append(server)
        return server

    def _address(self, number: int, *, unix: bool) -> Address:
        if unix:
            return Address(path=str(self.folder / f"{number}.sock"))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            return Address(port=taken.getsockname()[1])

    def _shown(self, planned: Planned) -> tuple[str, ...]:
        if self.general.disable_logs:
            return ()
        return SHOWN if planned.settings.verbose or self.general.debug else ("error",)


def memory(server: LlamaServer) -> dict[str, object]:
    """Bytes that the child holds."""
    running = server.process.running
    return {"gpu": {}, "host": host.resident_memory(server.process.pid) if running else 0}


def announce(plan: Plan, overview: Overview, *, needs_key: bool) -> None:
    """`ready`, the models, and a command line that works."""
    console.plain(logger, "ready")
    rows = [("model", "state", "context", "slots", "memory", "endpoint")]
    for view in overview.view():
        details = overview.models[view.name]
        used = details.memory()["host"]
        size = f"{used / 1e6:,.0f} MB" if isinstance(used, int) else ""
        context, slots = str(details.context or ""), str(details.slots or "")
        rows.append((view.name, view.state.value, context, slots, size, details.endpoint))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.plain(logger, "  ".join(cells).rstrip())
    console.plain(logger, curl(plan.models[0], overview, needs_key=needs_key))


def curl(planned: Planned, overview: Overview, *, needs_key: bool) -> str:
    """An endpoint name holds no character that a shell or JSON minds."""
    base = overview.models[planned.name].endpoint
    key = ' -H "Authorization: Bearer YOUR_API_KEY"' if needs_key else ""
    if planned.settings.embedding:
        path, body = "embeddings", f'{{"model":"{planned.name}","input":"Hello"}}'
    else:
        path = "chat/completions"
        message = '{"role":"user","content":"Hello"}'
        body = f'{{"model":"{planned.name}","messages":[{message}],"max_tokens":64}}'
    return f"curl {base}/{path} -H 'Content-Type: application/json'{key} -d '{body}'"


def endpoint(base: str, name: str) -> str:
    """A model's own OpenAI base URL."""
    return f"{base}/{quote(name)}/v1"
