"""What happened, in Prometheus' text format: counters and histograms of finished requests, and
what is as it is now, read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client import generate_latest as render
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.machine.gpu import Device
from app.memory.ledger import ModelState, View
from app.telemetry.samples import Sample

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "llamacpp"
Rows = tuple[tuple[str, str, Callable[[View], float]], ...]  # name, help, value
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    def __init__(
        self,
        models: Iterable[str],
        view: Callable[[], Sequence[View]],
        devices: Callable[[], Sequence[Device]],
        idle: Callable[[], float],
    ) -> None:
        """`idle` in seconds."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of no use to anybody here
        registry = self._registry = CollectorRegistry()
        registry.register(_Now(view, devices, idle))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, ("model", *labels), registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            name = f"{PREFIX}_{name}_seconds"
            return Histogram(name, text, ("model",), registry=registry, buckets=SECONDS)

        self._requests = counter("requests", "Finished requests, by the status told", "status")
        self._prompt = counter("prompt_tokens", "Tokens of prompts, cached ones included")
        self._cached = counter("cached_tokens", "Tokens of prompts that were in the KV cache")
        self._generated = counter("generated_tokens", "Generated tokens")
        self._bytes = counter("response_bytes", "Bytes of answers' bodies")
        self._latency = histogram("request", "From a request's first byte to its answer's last")
        self._first = histogram("time_to_first_token", "Until a stream's first event")
        self._wait = histogram("queue_wait", "Until a request held its model")
        for name in models:  # a series that is there from the beginning shows its first step
            for metric in (self._prompt, self._cached, self._generated, self._bytes):
                metric.labels(name)
            for timed in (self._latency, self._first, self._wait):
                timed.labels(name)

    def add(self, sample: Sample) -> None:
        name, tokens = sample.model, sample.tokens
        self._requests.labels(name, sample.status).inc()
        self._prompt.labels(name).inc(tokens.prompt)
        self._cached.labels(name).inc(tokens.cached)
        self._generated.labels(name).inc(tokens.generated)
        self._bytes.labels(name).inc(sample.size)
        self._latency.labels(name).observe(sample.latency)
        if sample.first_token is not None:
            self._first.labels(name).observe(sample.first_token)
        if sample.wait is not None:
            self._wait.labels(name).observe(sample.wait)

    def text(self) -> bytes:
        return bytes(render(self._registry))


class _Now(Collector):
    """Gauges, and the counters that the pool keeps."""

    def __init__(
        self,
        view: Callable[[], Sequence[View]],
        devices: Callable[[], Sequence[Device]],
        idle: Callable[[], float],
    ) -> None:
        self._view = view
        self._devices = devices
        self._idle = idle

    def describe(self) -> Iterable[Metric]:
        return ()  # or it is asked for its values when it is registered

    def collect(self) -> Iterable[Metric]:
        views = self._view()
        gauges: Rows = (
            ("requests_in_flight", "Requests that hold their model", lambda v: v.leased),
            ("requests_waiting", "Requests that wait for their model", lambda v: v.waiting),
        )
        counters: Rows = (
            ("denied_requests", "Requests over Max Concurrent Requests", lambda v: v.denied),
            ("model_switches", "How often a model came into memory", lambda v: v.switches),
        )
        for name, text, value in gauges:
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=("model",))
            for view in views:
                gauge.add_metric((view.name,), value(view))
            yield gauge
        for name, text, value in counters:
            counter = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=("model",))
            for view in views:
                counter.add_metric((view.name,), value(view))
            yield counter
        yield self._states(views)
        yield GaugeMetricFamily(f"{PREFIX}_idle_seconds", "Since the last activity", self._idle())
        yield from self._memory()

    def _states(self, views: Sequence[View]) -> Metric:
        text = "1 for the state that the model is in"
        metric = GaugeMetricFamily(f"{PREFIX}_model_state", text, labels=("model", "state"))
        for view in views:
            for state in ModelState:
                metric.add_metric((view.name, state.value), float(view.state is state))
        return metric

    def _memory(self) -> Iterable[Metric]:
        used = GaugeMetricFamily(f"{PREFIX}_gpu_memory_used_bytes", "By GPU", labels=("gpu",))
        total = GaugeMetricFamily(f"{PREFIX}_gpu_memory_total_bytes", "By GPU", labels=("gpu",))
        for device in self._devices():
            used.add_metric((device.id,), device.used)
            total.add_metric((device.id,), device.total)
        return (used, total)
