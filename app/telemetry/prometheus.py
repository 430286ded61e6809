"""/metrics in Prometheus' text format: counters and histograms of finished requests, and values of
the moment, which are read when Prometheus asks.

Finished requests are added up in plain numbers, because that is done for each of them; what becomes
text is prometheus_client's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    ProcessCollector,
)
from prometheus_client import generate_latest as render
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.telemetry.conventions import Exposed, exposed
from app.telemetry.overview import Overview
from app.telemetry.samples import Sample
from app.telemetry.scalars import Type
from app.telemetry.sources import OfNow, OfRequests

CONTENT_TYPE = CONTENT_TYPE_LATEST
Gathered = CounterMetricFamily | GaugeMetricFamily
FAMILIES: dict[Type, type[Gathered]] = {
    Type.COUNTER: CounterMetricFamily,
    Type.GAUGE: GaugeMetricFamily,
}
Take = Callable[[Sample], float | None]


class Metrics:
    def __init__(self, overview: Overview, now: Callable[[], float]) -> None:
        """`now` gives seconds that only grow."""
        self._registry = CollectorRegistry()
        rows = exposed()
        self._registry.register(_Now(overview, now, rows))
        ProcessCollector(registry=self._registry)  # start, memory and descriptors of the process
        # By model, what takes in a part of each request: a sum, or a histogram.
        self._sums: dict[str, list[Step]] = {name: [] for name in overview.models}
        self._histograms: dict[str, list[Step]] = {name: [] for name in overview.models}
        self._labelled: list[_OfRequests] = []
        for row in rows:
            if isinstance(row.source, OfRequests):
                self._register(row, row.source.take)

    def _register(self, row: Exposed, take: Take) -> None:
        metric = _OfRequests(row, take)
        self._registry.register(metric)
        if row.labels != ("model",):
            self._labelled.append(metric)
            return
        steps = self._histograms if row.type is Type.HISTOGRAM else self._sums
        for model, of_model in steps.items():
            # A series that is there from the beginning shows its first step, and is found once.
            of_model.append((take, metric.series((model,))))

    def add(self, sample: Sample) -> None:
        for take, series in self._sums[sample.model]:
            if value := take(sample):  # most have nothing of most
                series.sum += value
        for take, series in self._histograms[sample.model]:
            value = take(sample)
            if value is not None:
                series.add(value)
        for metric in self._labelled:
            metric.add(sample)

    def text(self) -> bytes:
        return bytes(render(self._registry))


class _Series:
    """One series of a counter or a histogram: the sum of its values, and how many are at most as
    large as each bound, and larger than the one before it."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.sum = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last one for those beyond all bounds

    def add(self, value: float) -> None:
        self.sum += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """How many values are at most as large as each bound."""
        bounds = (*self._bounds, math.inf)
        named = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
        return list(zip(named, accumulate(self._counts), strict=True))


Step = tuple[Take, _Series]


class _OfRequests(Collector):
    """One metric of finished requests. Its labels may differ from request to request: statuses,
    operations and models are few."""

    def __init__(self, row: Exposed, take: Take) -> None:
        self._row = row
        self._take = take
        self._bounds = row.buckets if row.type is Type.HISTOGRAM else ()
        self._series: dict[tuple[object, ...], _Series] = {}

    def series(self, labels: tuple[object, ...]) -> _Series:
        """The one with these labels, found or begun."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = _Series(self._bounds)
        return found

    def add(self, sample: Sample) -> None:
        value = self._take(sample)
        if value is not None:
            self.series(self._row.by(sample)).add(value)

    def describe(self) -> Iterable[Family]:
        return ()  # or it is asked for its values when it is registered

    def collect(self) -> Iterable[Family]:
        row = self._row
        told = [([str(value) for value in labels], each) for labels, each in self._series.items()]
        if row.type is Type.HISTOGRAM:
            histogram = HistogramMetricFamily(row.name, row.help, labels=row.labels)
            for labels, series in told:
                histogram.add_metric(labels, series.buckets(), series.sum)
            yield histogram
        else:
            counter = CounterMetricFamily(row.name, row.help, labels=row.labels)
            for labels, series in told:
                counter.add_metric(labels, series.sum)
            yield counter


class _Now(Collector):
    """The values of the moment: gauges, and counters that the pool keeps."""

    def __init__(
        self, overview: Overview, now: Callable[[], float], rows: Sequence[Exposed]
    ) -> None:
        self._overview = overview
        self._now = now
        self._rows = rows

    def describe(self) -> Iterable[Family]:
        return ()  # or it is asked for its values when it is registered

    def collect(self) -> Iterable[Family]:
        for metric in self._rows:
            if isinstance(metric.source, OfNow):
                yield self._family(metric, metric.source)

    def _family(self, metric: Exposed, source: OfNow) -> Family:
        family: Gathered = FAMILIES[metric.type](metric.name, metric.help, labels=metric.labels)
        for labels, value in source.values(self._overview, self._now()).items():
            if value is not None:
                family.add_metric(labels, value)
        return family
