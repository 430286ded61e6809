"""One llama-server: its process, and the connections to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from app.engine import guard
from app.engine.exchange import Waits
from app.engine.http import Client
from app.engine.lifecycle import State
from app.engine.process import Process
from app.engine.program import Program
from app.errors import LoadError, UpstreamError
from app.machine import activity
from app.models.read_ahead import ReadAhead

HEALTH_TIMEOUT = 5.0
ASK_TIMEOUT = 5.0
A_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}


class LlamaServer:
    def __init__(self, name: str, program: Program, client: Client, *, grace: float = 10) -> None:
        self.client = client
        self._patience = program.patience
        self._files = program.files if program.ahead else ()
        self._ahead: ReadAhead | None = None  # of the start that is under way, or is to come
        self._came = False  # it serves again, and what is read ahead is for that
        self.meta: Mapping[str, object] = {}  # what it says of its model, once it was ready
        self.template: int | None = None  # bytes that its chat template adds
        self._masks = False  # it was ready, and had the signals blocked that tell it to end
        self.process = Process(name, program, self._answers, beside=self._guard, grace=grace)

    @property
    def progress(self) -> float | None:
        return self.process.progress

    def expect(self) -> None:
        """It is to serve soon: its files come into the page cache meanwhile."""
        if self._ahead is None or self._came:
            self._came = False
            self._ahead = ReadAhead(self._files)
            self._ahead.begin()

    def expect_no_more(self) -> None:
        if self._ahead is not None:
            self._ahead.end()
            self._ahead = None

    async def start(self) -> None:
        if self.process.state is State.READY:
            self._came = True
            return
        self.expect()
        try:
            try:
                await self._start()
            except LoadError as error:
                if not self.process.do_without_heads(error):
                    raise
                await self._start()
        finally:
            self.expect_no_more()

    async def _start(self) -> None:
        if self.client.address.path:
            self._remove_socket(self.client.address.path)
        self.client.reopen()
        await self.process.start()
        if not self.meta:
            self.meta = await meta_of(self.client)
            self.template = await template_of(self.client)

    def _check_socket(self) -> None:
        """Raises LoadError where it listens, and nobody can find it."""
        path = self.client.address.path
        if path and self.process.listens and not os.path.exists(path):
            raise self._removed()

    def _hold_socket(self) -> None:
        """Raises LoadError where nobody can find it any more."""
        try:
            self.client.hold()
        except FileNotFoundError:
            raise self._removed() from None

    def _removed(self) -> LoadError:
        path = self.client.address.path
        return LoadError(f"cannot be loaded: somebody has removed its socket {path}")

    def _remove_socket(self, path: str) -> None:
        """A child that died has left it. Raises LoadError."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LoadError(f"its socket {path} cannot be removed: {error.strerror}") from None

    async def stop(self) -> None:
        self.expect_no_more()
        # llama-server does not end while connections are open.
        self.client.close()
        try:
            await self.process.stop()
        finally:
            self.client.let_go()

    async def exited(self) -> int:
        return await self.process.exited()

    def explain(self, code: int) -> str:
        return self.process.explain(code)

    async def slots(self) -> list[dict[str, Any]] | None:
        """What it says of its slots; None if it does not."""
        try:
            found = (await self.client.get("/slots", ASK_TIMEOUT)).json()
        except (UpstreamError, ValueError):
            return None
        well = isinstance(found, list) and all(isinstance(slot, dict) for slot in found)
        return found if well else None

    async def _guard(self) -> None:
        ending = guard.Ending(self.process, self.client, lambda: self._masks)
        await guard.guard(self.process, self.client, self.slots, self._patience, ending)

    async def _answers(self) -> bool:
        try:
            well = (await self.client.get("/health", HEALTH_TIMEOUT)).status == 200
        except UpstreamError:
            self._check_socket()
            return False
        if well:
            self._masks = activity.first_thread(self.process.pid).blocks
            self._hold_socket()
        return well


async def meta_of(client: Client) -> Mapping[str, object]:
    """What a llama-server says of its model in /v1/models; {} if it does not: nobody needs it."""
    try:
        meta = (await client.get("/v1/models", ASK_TIMEOUT)).json()["data"][0]["meta"]
    except (UpstreamError, ValueError, LookupError, TypeError):
        return {}
    return meta if isinstance(meta, dict) else {}


async def template_of(client: Client) -> int | None:
    """How many bytes a chat template adds, instructions for tools included; None if llama-server
    does not say."""
    asked = {"messages": [{"role": "user", "content": "."}]}
    try:
        replies = [
            await client.post("/apply-template", body, ASK_TIMEOUT, Waits.US)
            for body in (asked, {**asked, "tools": [A_TOOL]})
        ]
        told = [r.json()["prompt"] for r in replies if r.status == 200]
    except (UpstreamError, ValueError, LookupError, TypeError):
        return None
    return max((len(prompt.encode()) for prompt in told if isinstance(prompt, str)), default=None)
