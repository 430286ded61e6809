"""Every metric of /metrics: ours, from the table of scalars, and the same numbers under the names
that other tools ask for. Pure.

Kubernetes' Gateway API routes requests by what its model server protocol asks for, under vLLM's
names. OpenTelemetry's semantic conventions for generative AI name what a model server measures;
here in Prometheus' spelling, and with the buckets that they ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.telemetry import scalars
from app.telemetry.samples import Sample
from app.telemetry.scalars import BUCKETS, TOKEN_BUCKETS, Metric, Type
from app.telemetry.sources import Labels, Mean, OfModel, OfNow, Source

PREFIX = "llamacpp"
PROVIDER = "llama.cpp"
DURATIONS = tuple(0.01 * 2**step for step in range(14))  # 0.01 to 81.92
FIRST_TOKENS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
OPERATION = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """One metric: its `name`, without the `_total` of a counter. Of finished requests, `by` reads
    the values of its labels."""

    name: str
    type: Type
    help: str
    source: Source
    labels: Labels
    by: Callable[[Sample], tuple[object, ...]] = lambda sample: (sample.model,)
    buckets: tuple[float, ...] = BUCKETS


def _operation(sample: Sample) -> tuple[object, ...]:
    return (sample.operation, PROVIDER, sample.model)


def _ended(sample: Sample) -> tuple[object, ...]:
    error = sample.status if sample.status >= 400 else ""
    return (*_operation(sample), error)


def _duration(sample: Sample) -> float | None:
    return sample.latency if sample.operation else None


def _first_token(sample: Sample) -> float | None:
    return sample.first_token if sample.operation and sample.status < 400 else None


OTHERS = (
    Exposed(
        name="vllm:num_requests_running",
        type=Type.GAUGE,
        help="Requests that the model works on",
        source=OfModel(lambda overview, view: view.leased),
        labels=("model_name",),
    ),
    Exposed(
        name="vllm:num_requests_waiting",
        type=Type.GAUGE,
        help="Requests that wait for the model",
        source=OfModel(lambda overview, view: view.waiting),
        labels=("model_name",),
    ),
    Exposed(
        name="vllm:kv_cache_usage_perc",
        type=Type.GAUGE,
        help="Share of the KV cache that is given to requests; 1 is all of it",
        source=OfModel(lambda overview, view: view.kv_usage or 0.0),
        labels=("model_name",),
    ),
    Exposed(
        name="gen_ai_server_request_duration_seconds",
        type=Type.HISTOGRAM,
        help="From a request's first byte to its answer's last",
        source=Mean(_duration),
        labels=(*OPERATION, "error_type"),
        by=_ended,
        buckets=DURATIONS,
    ),
    Exposed(
        name="gen_ai_server_time_per_output_token_seconds",
        type=Type.HISTOGRAM,
        help="Of a stream's tokens after the first",
        source=Mean(lambda sample: sample.per_token),
        labels=OPERATION,
        by=_operation,
        buckets=TOKEN_BUCKETS,
    ),
    Exposed(
        name="gen_ai_server_time_to_first_token_seconds",
        type=Type.HISTOGRAM,
        help="Until a stream's first token",
        source=Mean(_first_token),
        labels=OPERATION,
        by=_operation,
        buckets=FIRST_TOKENS,
    ),
)


def exposed() -> tuple[Exposed, ...]:
    ours = (
        _ours(row.metric, row.metric.help or row.help, row.metric.of or row.source)
        for row in scalars.SCALARS
        if row.metric is not None
    )
    return (*ours, *OTHERS)


def _ours(metric: Metric, help: str, source: Source) -> Exposed:
    labels: Labels = source.labels if isinstance(source, OfNow) else ("model",)
    found = Exposed(
        name=f"{PREFIX}_{metric.name}",
        type=metric.type,
        help=help,
        source=source,
        labels=labels,
        buckets=metric.buckets,
    )
    return found if metric.by is None else _labelled(found, *metric.by)


def _labelled(metric: Exposed, label: str, take: Callable[[Sample], object]) -> Exposed:
    return replace(
        metric,
        labels=(*metric.labels, label),
        by=lambda sample: (sample.model, take(sample)),
    )
