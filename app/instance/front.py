"""The HTTP front of an instance: who may call, what answers, and what is recorded of a request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from app.engine.http import Client
from app.gateway.admission import Admins
from app.gateway.body.reading import Reading
from app.gateway.body.sizes import Allowance, allowance
from app.gateway.body.workers import Workers
from app.gateway.http.request import Request
from app.gateway.pages import joined, past, status
from app.gateway.pages.admin import pages as admin_pages
from app.gateway.pages.events import Live, Sources
from app.gateway.passing import OfPool
from app.gateway.proxy import Page, Proxy
from app.gateway.routes import EVENTS, HISTORY, METRICS, PAGE
from app.gateway.rules import Rules
from app.instance.callers import Callers
from app.instance.doorway import CLOSE, Doorway
from app.instance.ending import Ending, simply
from app.machine import clock
from app.memory.pool import Pool
from app.page.plots import Plots
from app.telemetry import prometheus
from app.telemetry.history import History
from app.telemetry.logs import LogBook
from app.telemetry.overview import Overview
from app.telemetry.past import Past
from app.telemetry.prometheus import Metrics
from app.telemetry.samples import Sample


class BookHandler(logging.Handler):
    """Puts what the console shows of us into the log that the page shows; llama-server's own lines
    come to it another way, whether the console shows them or not."""

    def __init__(self, book: LogBook) -> None:
        super().__init__()
        self._book = book

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "child", False):
            return
        subject = getattr(record, "subject", "app")
        self._book.add(record.created, record.levelname.lower(), subject, record.getMessage())


class Front:
    def __init__(
        self,
        overview: Overview,
        pool: Pool[Client],
        callers: Callers,
        doorway: Doorway,
        logs: LogBook,
        listeners: Sequence[Callable[[Sample], None]],
    ) -> None:
        """`listeners` are told of every finished request."""
        self._rules = callers.rules
        self._doorway = doorway
        self._plots = Plots(overview)
        self._metrics = Metrics(overview, lambda: clock.now())
        self._renew = overview.readings.renew
        by_caller = () if overview.by_caller is None else (overview.by_caller.add,)
        self._past = Past(overview.view)
        ours = (self._plots.add, self._metrics.add, self._past.add)
        self._listeners = (*ours, *by_caller, *listeners)

        described = self._plots.described
        admins = Admins(callers.rules.keys, callers.token)

        def hello(request: Request) -> dict[str, object]:
            admin = admins.may_change_models(request.headers)
            return {"admin": admin, "key": callers.placeholder, "plots": described}

        self._live = Live(
            Sources(
                hello=hello,
                status=lambda: status.status(overview, clock.now()),
                values=self._plots.values,
                history=History(self._plots.columns),
                past=self._past,
                logs=logs,
                renew=overview.readings.renew,
            )
        )
        told = status.pages(overview, callers.rules.keys)
        told[HISTORY] = past.page(self._past, overview)
        doors = joined.pages(callers.membership, overview.keeps)
        own = {**told, **admin_pages(pool, admins), **doors, **self._pages()}
        self._workers = Workers()
        reading = _reading(self._workers, overview, callers.rules)
        rules = callers.rules
        models = OfPool(pool, rules.wait_timeout, reading)
        self._proxy = Proxy(models, overview.names, rules, own, self._record, reading)
        if overview.by_caller is not None:
            self._proxy.denied = overview.by_caller.deny

    def start(self, ending: Ending) -> None:
        """Answer all requests, and tell open pages what happens."""
        self._doorway.open(self._proxy, ending)
        ending.push("connections", lambda _: self._close(), CLOSE)
        self._live.start()
        ending.push("open pages", simply(self._live.stop))

    async def drain(self, seconds: float, served: Callable[[], Awaitable[None]]) -> None:
        """See `Doorway.drain`."""
        await self._doorway.drain(seconds, served)

    async def _close(self) -> None:
        try:
            await self._doorway.close()
        finally:
            await self._workers.close()

    def below(self, url: str) -> None:
        """A gateway gives its address: what it leaves of its path is not part of a request's."""
        path = urlsplit(url).path
        if path.strip("/") and path not in self._rules.prefixes:
            self._rules.prefixes.append(path)

    def _pages(self) -> dict[str, Page]:
        return {
            PAGE: lambda request, *_: self._doorway.document.show(request),
            EVENTS: lambda request, *_: self._live.show(request),
            METRICS: lambda request, *_: self._show_metrics(request),
        }

    async def _show_metrics(self, request: Request) -> None:
        await self._renew()
        kind = (b"content-type", prometheus.CONTENT_TYPE.encode())
        request.reply(200, self._metrics.text(), [kind])

    def _record(self, sample: Sample) -> None:
        for tell in self._listeners:
            tell(sample)


def _reading(workers: Workers, overview: Overview, rules: Rules) -> Reading:
    def allowed(name: str) -> Allowance:
        model = overview.models[name]
        return allowance(
            model.context,
            embedding=model.embedding,
            multimodal=model.multimodal,
            limit=rules.body_limit,
        )

    return Reading(workers, allowed, allow_remote=rules.allow_remote_media)
