"""One llama-server: its process, and the connections to it."""

from __future__ import annotations

import contextlib
import os

from app.engine.http import Client
from app.engine.lifecycle import State
from app.engine.process import Process, Program
from app.errors import UpstreamError

HEALTH_TIMEOUT = 5.0


class LlamaServer:
    def __init__(self, name: str, program: Program, client: Client, *, grace: float = 10) -> None:
        self.client = client
        self.process = Process(name, program, self._answers, grace=grace)

    @property
    def progress(self) -> float | None:
        return self.process.progress

    async def start(self) -> None:
        if self.client.address.path and self.process.state is not State.READY:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.client.address.path)  # a child that died has left its socket
        await self.process.start()

    async def stop(self) -> None:
        # llama-server does not end while connections are open.
        self.client.close()
        await self.process.stop()

    async def exited(self) -> int:
        return await self.process.exited()

    def explain(self, code: int) -> str:
        return self.process.explain(code)

    async def _answers(self) -> bool:
        try:
            return (await self.client.get("/health", HEALTH_TIMEOUT)).status == 200
        except UpstreamError:
            return False
