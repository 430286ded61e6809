"""/metrics in Prometheus' text format: counters and histograms of finished requests, and values of
the moment, which are read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client import generate_latest as render
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

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
By = Callable[[Sample], tuple[object, ...]]  # values of labels
Step = tuple[Take, Callable[[float], object]]  # a request's part, and what takes it in


class Metrics:
    def __init__(self, overview: Overview, now: Callable[[], float]) -> None:
        """`now` gives seconds that only grow."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody here needs them
        self._registry = CollectorRegistry()
        rows = exposed()
        self._registry.register(_Now(overview, now, rows))
        ProcessCollector(registry=self._registry)  # start, memory and descriptors of the process
        self._steps: dict[str, list[Step]] = {name: [] for name in overview.models}
        self._labelled: list[_Labelled] = []
        for metric in rows:
            if isinstance(metric.source, OfRequests):
                self._register(metric, metric.source.take)

    def _register(self, metric: Exposed, take: Take) -> None:
        about = (metric.name, metric.help, metric.labels)
        made: Counter | Histogram
        if metric.type is Type.HISTOGRAM:
            made = Histogram(*about, registry=self._registry, buckets=metric.buckets)
        else:
            made = Counter(*about, registry=self._registry)
        if metric.labels != ("model",):
            self._labelled.append(_Labelled(take, metric.by, made))
            return
        for model, steps in self._steps.items():
            # A series that is there from the beginning shows its first step, and is found once.
            steps.append((take, _taking(made.labels(model))))

    def add(self, sample: Sample) -> None:
        for take, step in self._steps[sample.model]:
            value = take(sample)
            if value is not None:
                step(value)
        for metric in self._labelled:
            metric.add(sample)

    def text(self) -> bytes:
        return bytes(render(self._registry))


class _Labelled:
    """A metric whose labels differ from request to request. Each series is found once: statuses,
    operations and models are few."""

    def __init__(self, take: Take, by: By, metric: Counter | Histogram) -> None:
        self._take = take
        self._by = by
        self._metric = metric
        self._series: dict[tuple[object, ...], Callable[[float], object]] = {}

    def add(self, sample: Sample) -> None:
        value = self._take(sample)
        if value is None:
            return
        labels = self._by(sample)
        step = self._series.get(labels)
        if step is None:
            step = self._series[labels] = _taking(self._metric.labels(*labels))
        step(value)


def _taking(metric: Counter | Histogram) -> Callable[[float], object]:
    return metric.inc if isinstance(metric, Counter) else metric.observe


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
