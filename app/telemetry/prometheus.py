"""/metrics in Prometheus' text format: counters and histograms of finished requests, and values of
the moment, which are read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client import generate_latest as render
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from app.telemetry import scalars
from app.telemetry.overview import Overview
from app.telemetry.samples import Sample
from app.telemetry.scalars import Metric, Type
from app.telemetry.sources import OfNow, OfRequests, Source

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "llamacpp"
Gathered = CounterMetricFamily | GaugeMetricFamily
FAMILIES: dict[Type, type[Gathered]] = {
    Type.COUNTER: CounterMetricFamily,
    Type.GAUGE: GaugeMetricFamily,
}
Take = Callable[[Sample], float | None]
Step = tuple[Take, Callable[[float], object]]  # a request's part, and what takes it in


class Metrics:
    def __init__(self, overview: Overview, now: Callable[[], float]) -> None:
        """`now` gives seconds that only grow."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody here needs them
        self._registry = CollectorRegistry()
        self._registry.register(_Now(overview, now))
        self._steps: dict[str, list[Step]] = {name: [] for name in overview.models}
        self._labelled: list[tuple[Take, Callable[[Sample], object], Counter | Histogram]] = []
        for name, help, source, metric in _rows():
            if isinstance(source, OfRequests):
                self._register(name, help, source.take, metric)

    def _register(self, name: str, help: str, take: Take, metric: Metric) -> None:
        labels = ("model",) if metric.by is None else ("model", metric.by[0])
        made: Counter | Histogram
        if metric.type is Type.HISTOGRAM:
            made = Histogram(name, help, labels, registry=self._registry, buckets=metric.buckets)
        else:
            made = Counter(name, help, labels, registry=self._registry)
        if metric.by is not None:
            self._labelled.append((take, metric.by[1], made))
            return
        for model, steps in self._steps.items():
            # A series that is there from the beginning shows its first step, and is found once.
            steps.append((take, _taking(made.labels(model))))

    def add(self, sample: Sample) -> None:
        for take, step in self._steps[sample.model]:
            value = take(sample)
            if value is not None:
                step(value)
        for take, by, metric in self._labelled:
            value = take(sample)
            if value is not None:
                _taking(metric.labels(sample.model, by(sample)))(value)

    def text(self) -> bytes:
        return bytes(render(self._registry))


def _taking(metric: Counter | Histogram) -> Callable[[float], object]:
    return metric.inc if isinstance(metric, Counter) else metric.observe


def _rows() -> Iterable[tuple[str, str, Source, Metric]]:
    """Name, help text and source of every metric."""
    for row in scalars.SCALARS:
        if row.metric is not None:
            metric = row.metric
            yield (
                f"{PREFIX}_{metric.name}",
                metric.help or row.help,
                metric.of or row.source,
                metric,
            )


class _Now(Collector):
    """The values of the moment: gauges, and counters that the pool keeps."""

    def __init__(self, overview: Overview, now: Callable[[], float]) -> None:
        self._overview = overview
        self._now = now

    def describe(self) -> Iterable[Family]:
        return ()  # or it is asked for its values when it is registered

    def collect(self) -> Iterable[Family]:
        for name, help, source, metric in _rows():
            if isinstance(source, OfNow):
                yield self._family(name, help, source, metric)

    def _family(self, name: str, help: str, source: OfNow, metric: Metric) -> Family:
        family: Gathered = FAMILIES[metric.type](name, help, labels=source.labels)
        for labels, value in source.values(self._overview, self._now()).items():
            if value is not None:
                family.add_metric(labels, value)
        return family
