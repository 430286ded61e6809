"""The rows of the page's plots: what happened since the row before, and values of the moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.form.checks import TOTAL
from app.machine import clock, gpu, host
from app.telemetry import scalars
from app.telemetry.history import Column
from app.telemetry.overview import Overview
from app.telemetry.samples import Sample
from app.telemetry.scalars import Scalar
from app.telemetry.sources import BySeries, Mean, OfGpu, OfInstance, OfMachine, OfRequests
from app.telemetry.windows import Rates, Windows


@dataclass(frozen=True)
class _Moment:
    """What one row is read from: `rates` of the window that ended `now`, GPUs by their `id`."""

    now: float
    rates: Mapping[str, Rates]
    machine: host.Load
    gpus: Mapping[str, gpu.Load]


class Plots:
    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._models = tuple(overview.models)
        self._rows = scalars.plotted()
        self._windows = Windows(self._models, clock.now(), self._rows)
        self._meter = host.Meter()
        self._gpus = [load.id for load in gpu.load()]

    @property
    def described(self) -> list[dict[str, object]]:
        """The plots, for the page; a `sparse` one has rows without a value."""
        return [
            {
                "name": row.key,
                "title": row.title,
                "unit": row.unit.name,
                "sparse": isinstance(row.source, Mean),
            }
            for row in self._rows
        ]

    @property
    def columns(self) -> list[Column]:
        return [(row.key, series) for row in self._rows for series in self._series(row)]

    def _series(self, row: Scalar) -> Sequence[str]:
        if isinstance(row.source, OfMachine):
            return tuple(row.source.take)
        if isinstance(row.source, OfGpu):
            return self._gpus
        return (TOTAL,) if isinstance(row.source, OfInstance) else (TOTAL, *self._models)

    def add(self, sample: Sample) -> None:
        self._windows.add(sample)

    def values(self) -> list[float | None]:
        """By column, in the plot's unit; the window that ends here is as long as since the last
        call."""
        moment = self._moment()
        found: list[float | None] = []
        for row in self._rows:
            read = self._read(row, moment)
            values = [read[series] for series in self._series(row)]
            found += [None if value is None else row.unit.of(value) for value in values]
        return found

    def _moment(self) -> _Moment:
        now = clock.now()
        machine, gpus = self._meter.load(), {load.id: load for load in gpu.load()}
        return _Moment(now, self._windows.close(now), machine, gpus)

    def _read(self, row: Scalar, moment: _Moment) -> Mapping[str, float | None]:
        """By series, in the source's unit."""
        source = row.source
        if isinstance(source, OfRequests):
            return {series: rates[row.key] for series, rates in moment.rates.items()}
        if isinstance(source, BySeries):
            return source.series(self._overview, moment.now)
        if isinstance(source, OfMachine):
            return {series: take(moment.machine) for series, take in source.take.items()}
        assert isinstance(source, OfGpu), f"{row.key} has no plot"
        lost = gpu.Load(usage=None, used=0, total=0, temperature=None, id="")
        return {id: source.take(moment.gpus.get(id, lost)) for id in self._gpus}
