"""Everything that tells ClearML of an instance: scalars, the task's page, Model Endpoints."""

from __future__ import annotations

from app.instance.announce import targets
from app.instance.ending import Ending, simply
from app.machine import clock, gpu, host
from app.task.clearml_task import ClearMLTask
from app.task.endpoints import Endpoints, container_of
from app.task.presence import Presence, model_endpoints
from app.task.reporter import Reporter, gauges
from app.task.usage import Usage
from app.telemetry.overview import Overview
from app.telemetry.samples import Sample
from app.telemetry.windows import Windows

PRESENCE = 2.0  # seconds for the last state
USAGE = 2.0  # seconds for the last window
ENDPOINTS = 4.0  # seconds for taking all rows out of the table


class Reports:
    def __init__(
        self, task: ClearMLTask, overview: Overview, placeholder: str, *, usage: bool = False
    ) -> None:
        """`placeholder` stands for the key that callers send; `usage`: tokens are told, too."""
        windows = Windows(tuple(overview.models), clock.now())
        self._windows = windows
        self._task, self._names = task, tuple(overview.models)
        self._reporter = Reporter(
            windows, task.report, lambda: clock.now(), lambda now: gauges(overview, now)
        )
        self._presence = Presence(
            task, overview, lambda: targets(overview, placeholder), overview.active_for
        )
        self._usage = Usage(task) if usage else None
        meter = host.Meter()
        self._endpoints = Endpoints(
            task,
            lambda: model_endpoints(overview, self._reporter.last, clock.now()),
            lambda: {**host.machine_stats(meter.load()), **gpu.machine_stats(gpu.load())},
        )

    def start(self, ending: Ending) -> None:
        self._presence.start()
        ending.push("the task's page", self._presence.stop, PRESENCE)
        self._reporter.start()
        ending.push("the last scalars", simply(self._reporter.stop))
        if self._usage is not None:
            self._usage.start()
            ending.push("the token usage", self._usage.stop, USAGE)
        ending.push("the rows of Model Endpoints", self._endpoints.stop, ENDPOINTS)

    def start_endpoints(self) -> None:
        """From now on models are loaded; the table shows them."""
        self._endpoints.start()
        self._task.has_rows([container_of(self._task.task_id, name) for name in self._names])

    def seen(self, sample: Sample) -> None:
        """A finished request."""
        self._windows.add(sample)
        if self._usage is not None:
            self._usage.add(sample)

    def refresh(self) -> None:
        """Something that people wait for has changed: tell it at once."""
        self._presence.refresh()
        self._endpoints.refresh()
