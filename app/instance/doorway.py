"""The port before it is known what is served: who comes early finds out that we are here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable

from app.gateway.http.pipeline import Handler
from app.gateway.http.request import Request
from app.gateway.http.server import HttpServer
from app.gateway.origins import check_local
from app.gateway.pages.document import Document
from app.gateway.pages.status import Health
from app.gateway.routes import HEALTH, PAGE, READY, split_target
from app.instance.callers import Callers
from app.instance.ending import Ending, Step
from app.machine.deadline import within
from app.page.assemble import assemble

CLOSE = 2.0  # seconds for connections that are still answered


class Doorway:
    """Listens. Until it is opened it answers /health, /ready and the page; every other request
    with a right key waits for what answers then."""

    def __init__(
        self, callers: Callers, page: str = "index.html", tls: ssl.SSLContext | None = None
    ) -> None:
        """`page`: the file of the page's assets; `tls`: of the listener, None for plain HTTP."""
        self.document = Document(assemble(page))
        self._rules = callers.rules
        self._behind: asyncio.Future[Handler] = asyncio.get_running_loop().create_future()
        self._server = HttpServer(self._answer, allowed=callers.networks, tls=tls)
        self._closing: Step

    async def listen(self, host: str, port: int | None, ending: Ending) -> tuple[str, int]:
        """Bind, and say where. Raises ConfigError."""
        bound = await self._server.start(host, port)
        self._closing = ending.push("connections", lambda _: self.close(), CLOSE)
        return bound

    def open(self, handler: Handler, ending: Ending) -> None:
        """From here on `handler` answers; who opens it closes it."""
        ending.withdraw(self._closing)
        self._server.handler = handler
        self._behind.set_result(handler)

    async def drain(self, seconds: float, served: Callable[[], Awaitable[None]]) -> None:
        """For so long those who are served may go on, until `served` returns, and then read."""

        async def drained() -> None:
            await served()
            await self._server.read()

        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds, drained())

    async def close(self) -> None:
        await self._server.close()

    async def _answer(self, request: Request) -> None:
        if not self._behind.done():
            if self._answered(request):
                return
            await self._rules.keys.check(request)  # nobody else has a place here
        handler = await asyncio.shield(self._behind)
        await handler(request)

    def _answered(self, request: Request) -> bool:
        if self._rules.local_only:
            check_local(request.method, request.headers, self._rules.allowed)
        if request.method not in ("GET", "HEAD"):
            return False
        path = split_target(request.target)[0]
        if path == PAGE:
            self.document.show(request)
        elif path in (HEALTH, READY):
            request.reply(503, json.dumps({"status": Health.LOADING.value}).encode())
        else:
            return False
        return True
