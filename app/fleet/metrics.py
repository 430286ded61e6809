"""/metrics of a door, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client import generate_latest as render
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from app.fleet.standing import RouteState
from app.machine import clock
from app.telemetry.samples import Sample

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
Gauge = tuple[str, Callable[[RouteState], float]]
GAUGES: Mapping[str, Gauge] = {
    "instances": ("Instances that serve", lambda state: len(state.serving())),
    "coming": ("Instances that are to come", lambda state: state.standing().coming),
    "slots": ("Requests that all instances serve at once", lambda state: state.slots),
    "waiting": ("Requests that wait for an instance", lambda state: state.waiting),
    "requests_in_flight": (
        "Requests that instances are at",
        lambda state: sum(member.in_flight for member in state.members.values()),
    ),
    "queue_wait_seconds": (
        "How long requests waited for a slot, on average over the last minute",
        lambda state: state.demand.queue_wait(clock.now()),
    ),
}


class Metrics:
    def __init__(self, states: Mapping[str, RouteState]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Now(states))
        self._requests = Counter(
            "llamacpp_door_requests",
            "Requests, by what was answered",
            ("route", "status"),
            registry=self._registry,
        )
        self._first = Histogram(
            "llamacpp_door_time_to_first_token_seconds",
            "From a request's first byte to the first token of its stream",
            ("route",),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "llamacpp_door_generated_tokens", "Tokens", ("route",), registry=self._registry
        )

    def add(self, sample: Sample) -> None:
        route = sample.model.partition("/")[0]
        self._requests.labels(route, str(sample.status)).inc()
        self._tokens.labels(route).inc(sample.tokens.generated)
        if sample.first_token is not None:
            self._first.labels(route).observe(sample.first_token)

    def text(self) -> bytes:
        return bytes(render(self._registry))


class _Now(Collector):
    def __init__(self, states: Mapping[str, RouteState]) -> None:
        self._states = states

    def collect(self) -> Iterable[Family]:
        for name, (help, take) in GAUGES.items():
            family = GaugeMetricFamily(f"llamacpp_door_{name}", help, labels=("route",))
            for route, state in self._states.items():
                family.add_metric((route,), take(state))
            yield family
