"""What a browser and Prometheus see of an instance: the page, its live events, /metrics."""

from __future__ import annotations

import logging

from app.gateway.admission import Keys, may_change_models
from app.gateway.http.request import Request
from app.gateway.pages import status
from app.gateway.pages.document import Document
from app.gateway.pages.events import Live, Sources
from app.gateway.proxy import Page
from app.gateway.routes import EVENTS, METRICS, PAGE
from app.machine import clock
from app.page.assemble import assemble
from app.page.plots import Plots
from app.telemetry import prometheus
from app.telemetry.history import History
from app.telemetry.logs import LogBook
from app.telemetry.overview import Overview
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


class Watching:
    def __init__(self, overview: Overview, keys: Keys, placeholder: str, logs: LogBook) -> None:
        """`placeholder` is what the page's commands show in place of the key, "" without one."""
        models = tuple(overview.models)
        self._document = Document(assemble("index.html"))
        self._plots = Plots(models)
        self._metrics = Metrics(
            models, overview.view, overview.devices, lambda: overview.idle(clock.now())
        )

        def hello(request: Request) -> dict[str, object]:
            return {"admin": may_change_models(keys, request), "key": placeholder}

        self._live = Live(
            Sources(
                hello,
                lambda: status.status(overview, clock.now()),
                self._plots.values,
                History(self._plots.columns),
                logs,
            )
        )

    @property
    def pages(self) -> dict[str, Page]:
        return {
            PAGE: lambda request, _: self._document.show(request),
            EVENTS: lambda request, _: self._live.show(request),
            METRICS: lambda request, _: self._show_metrics(request),
        }

    def _show_metrics(self, request: Request) -> None:
        kind = (b"content-type", prometheus.CONTENT_TYPE.encode())
        request.reply(200, self._metrics.text(), [kind])

    def add(self, sample: Sample) -> None:
        self._plots.add(sample)
        self._metrics.add(sample)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()
