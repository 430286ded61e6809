"""The rows of the page's plots: what happened since the last one, and what is as it is now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.form.checks import TOTAL
from app.machine import clock, gpu, host
from app.telemetry.history import Column
from app.telemetry.samples import Sample
from app.telemetry.windows import Rates, Windows

RATES: dict[str, Callable[[Rates], float | None]] = {
    "requests": lambda rates: rates.requests,
    "tokens": lambda rates: rates.tokens_per_second,
    "latency": lambda rates: _ms(rates.latency),
    "first_token": lambda rates: _ms(rates.first_token),
}
MACHINE = (
    ("cpu", "all cores"),
    ("memory", "used"),
    ("network", "received"),
    ("network", "sent"),
    ("disk", "read"),
    ("disk", "written"),
)
GPU = ("gpu", "gpu_memory", "gpu_temperature")


class Plots:
    def __init__(self, models: Sequence[str]) -> None:
        self._series = (TOTAL, *models)
        self._windows = Windows(models, clock.now())
        self._meter = host.Meter()
        self._gpus = [load.id for load in gpu.load()]

    @property
    def columns(self) -> list[Column]:
        found = [(plot, series) for plot in RATES for series in self._series]
        return [*found, *MACHINE, *((plot, id) for plot in GPU for id in self._gpus)]

    def add(self, sample: Sample) -> None:
        self._windows.add(sample)

    def values(self) -> list[float | None]:
        """By column; the window that ends here is as long as since the last call."""
        rates = self._windows.close(clock.now())
        found = [value(rates[series]) for value in RATES.values() for series in self._series]
        load = self._meter.load()
        found += [load.cpu, load.memory_used / 1e9]
        found += [rate / 1e6 for rate in (load.received, load.sent, load.read, load.written)]
        by_id = {load.id: load for load in gpu.load()}
        loads = [by_id.get(id, gpu.Load(None, 0, 0, None, id)) for id in self._gpus]
        found += [each.usage for each in loads]
        found += [each.used / 1e9 for each in loads]
        return [*found, *(each.temperature for each in loads)]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
