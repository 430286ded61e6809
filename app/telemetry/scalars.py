"""The table of what is told: one row for each scalar, whoever shows it. Pure.

ClearML's scalars (task.reporter), the plots of the application's dashboard (commands.package), our
page's plots (page.plots), /metrics (telemetry.prometheus) and docs/metrics.md are all read from
SCALARS, in its order.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from app.memory.ledger import ModelState, View
from app.telemetry.overview import Overview, Phase
from app.telemetry.samples import Sample
from app.telemetry.sources import (
    Mean,
    OfCaller,
    OfDevice,
    OfGpu,
    OfInstance,
    OfMachine,
    OfModel,
    OfNow,
    OfReason,
    OfSomeModels,
    OfStage,
    OfState,
    OfTier,
    PerSecond,
    Source,
    Total,
)

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # seconds
TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


@dataclass(frozen=True)
class Unit:
    """What people read a value in; `size` in the unit of its source (seconds, bytes, ...)."""

    name: str
    size: float = 1

    def of(self, value: float) -> float:
        return value if self.size == 1 else value / self.size  # an integer stays one


NONE = Unit("")
TOKENS_PER_SECOND = Unit("tokens/s")
MILLISECONDS = Unit("ms", 1e-3)
HOURS = Unit("hours", 3600.0)
GIGABYTES = Unit("GB", 1e9)
MEGABYTES_PER_SECOND = Unit("MB/s", 1e6)
PERCENT = Unit("%")
CELSIUS = Unit("°C")


@dataclass(frozen=True)
class Point:
    """One value of a scalar, in its unit: `iteration` is seconds since the start."""

    title: str
    series: str
    value: float
    iteration: int


class Type(enum.Enum):
    """Prometheus' type of a metric. Of finished requests: a counter of their sum, or a histogram
    of their parts."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """On /metrics, in the unit of its source: `name` without prefix, and without the `_total` of a
    counter; `help` and `of` where they differ from the row's own; `by` a further label of finished
    requests; `buckets` of a histogram."""

    name: str
    type: Type
    help: str = ""
    of: OfNow | None = None
    by: tuple[str, Callable[[Sample], object]] | None = None
    buckets: tuple[float, ...] = BUCKETS


@dataclass(frozen=True)
class Monitor:
    """The SDK reports it by itself: below this title, in these series. `{}` in the name of a series
    is the number of a GPU."""

    title: str
    series: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """One row. `key` names it on our page and in a window's rates; `title` in ClearML and on our
    page; `help` is for the documents. Where it is shown: `reported` as a scalar of the task, or
    `monitor` where the SDK does that; `dashboard` is its title on the application's dashboard;
    `page` its place on our page (by this number, then in the table's order); else not there."""

    key: str
    title: str
    help: str
    source: Source
    unit: Unit = NONE
    reported: bool = False
    monitor: Monitor | None = None
    dashboard: str = ""
    page: int = 0
    metric: Metric | None = None


def _idle(overview: Overview, now: float) -> float | None:
    return None if overview.phase is Phase.SETTING_UP else overview.idle(now)


def _downloaded(overview: Overview, view: View) -> float | None:
    if view.state is not ModelState.DOWNLOADING or view.progress is None:
        return None
    return 100 * view.progress


SCALARS = (
    Scalar(
        key="requests",
        title="Total Number of Requests",
        help="Finished requests, by the status told",
        source=Total(lambda sample: 1),
        reported=True,
        dashboard="Total Number of Requests",
        page=1,
        metric=Metric(
            name="requests", type=Type.COUNTER, by=("status", lambda sample: sample.status)
        ),
    ),
    Scalar(
        key="tokens",
        title="Tokens per Second",
        help="Generated tokens",
        source=PerSecond(lambda sample: sample.tokens.generated),
        unit=TOKENS_PER_SECOND,
        reported=True,
        dashboard="Tokens per Second",
        page=1,
    ),
    Scalar(
        key="prompt",
        title="Prompt Tokens",
        help="Tokens of prompts, cached ones included; estimated where the client left",
        source=Total(lambda sample: sample.tokens.prompt),
        reported=True,
        metric=Metric(name="prompt_tokens", type=Type.COUNTER),
    ),
    Scalar(
        key="cached",
        title="Cached Tokens",
        help="Tokens of prompts that were in the KV cache",
        source=Total(lambda sample: sample.tokens.cached),
        metric=Metric(name="cached_tokens", type=Type.COUNTER),
    ),
    Scalar(
        key="generated",
        title="Generated Tokens",
        help="Generated tokens; estimated where the client left",
        source=Total(lambda sample: sample.tokens.generated),
        reported=True,
        metric=Metric(name="generated_tokens", type=Type.COUNTER),
    ),
    Scalar(
        key="acceptance",
        title="Draft Acceptance",
        help="Share of the tokens guessed in advance that were right, where llama-server tells it",
        source=Mean(lambda sample: sample.tokens.acceptance),
        unit=PERCENT,
        reported=True,
    ),
    Scalar(
        key="drafted",
        title="Drafted Tokens",
        help="Tokens that were guessed in advance (speculative decoding)",
        source=Total(lambda sample: sample.tokens.drafted),
        metric=Metric(name="draft_tokens", type=Type.COUNTER),
    ),
    Scalar(
        key="accepted",
        title="Accepted Tokens",
        help="Of those, the ones that were right",
        source=Total(lambda sample: sample.tokens.accepted),
        metric=Metric(name="draft_tokens_accepted", type=Type.COUNTER),
    ),
    Scalar(
        key="size",
        title="Response Bytes",
        help="Bytes of answers' bodies",
        source=Total(lambda sample: sample.size),
        metric=Metric(name="response_bytes", type=Type.COUNTER),
    ),
    Scalar(
        key="latency",
        title="Latency",
        help="From a request's first byte to its answer's last",
        source=Mean(lambda sample: sample.latency),
        unit=MILLISECONDS,
        reported=True,
        dashboard="Latency (ms)",
        page=1,
        metric=Metric(name="request_seconds", type=Type.HISTOGRAM),
    ),
    Scalar(
        key="first_token",
        title="Time to First Token",
        help="Until a stream's first token",
        source=Mean(lambda sample: sample.first_token),
        unit=MILLISECONDS,
        reported=True,
        dashboard="Time to First Token (ms)",
        page=1,
        metric=Metric(name="time_to_first_token_seconds", type=Type.HISTOGRAM),
    ),
    Scalar(
        key="per_token",
        title="Inter-Token Latency",
        help="From one token of a stream to the next, after the first",
        source=Mean(lambda sample: sample.per_token),
        unit=MILLISECONDS,
        metric=Metric(name="inter_token_seconds", type=Type.HISTOGRAM, buckets=TOKEN_BUCKETS),
    ),
    Scalar(
        key="wait",
        title="Queue Wait",
        help="Until a request leased its model",
        source=Mean(lambda sample: sample.wait),
        unit=MILLISECONDS,
        reported=True,
        dashboard="Queue Wait (ms)",
        metric=Metric(
            name="queue_wait_seconds", type=Type.HISTOGRAM, help="Until a request held its model"
        ),
    ),
    Scalar(
        key="in_flight",
        title="Requests in Flight",
        help="Requests from their admission to the last byte of their answer",
        source=OfModel(lambda overview, view: view.admitted),
        reported=True,
        dashboard="Requests in Flight",
        metric=Metric(
            name="requests_in_flight",
            type=Type.GAUGE,
            help="Requests that hold their model",
            of=OfModel(lambda overview, view: view.leased),
        ),
    ),
    Scalar(
        key="waiting",
        title="Waiting Requests",
        help="Requests that wait for their model",
        source=OfModel(lambda overview, view: view.waiting),
        metric=Metric(name="requests_waiting", type=Type.GAUGE),
    ),
    Scalar(
        key="denied",
        title="Denied Requests",
        help="Requests over Max Concurrent Requests",
        source=OfModel(lambda overview, view: view.denied),
        reported=True,
        dashboard="Denied Requests",
        metric=Metric(name="denied_requests", type=Type.COUNTER),
    ),
    Scalar(
        key="model_memory",
        title="Model Memory",
        help="GPU memory and CPU RAM that the model uses",
        source=OfModel(lambda overview, view: overview.memory(view).total),
        unit=GIGABYTES,
        reported=True,
        dashboard="Model Memory (GB)",
    ),
    Scalar(
        key="downloaded",
        title="Downloaded",
        help="How much of the model's files is there, while they are downloaded",
        source=OfSomeModels(_downloaded),
        unit=PERCENT,
        reported=True,
        metric=Metric(name="model_downloaded_percent", type=Type.GAUGE),
    ),
    Scalar(
        key="switches",
        title="Model Switches",
        help="How often a model came into memory",
        source=OfModel(lambda overview, view: view.switches),
        reported=True,
        dashboard="Model Switches",
        metric=Metric(name="model_switches", type=Type.COUNTER),
    ),
    Scalar(
        key="stages",
        title="Switch Time",
        help="Seconds that the model's switches took, by stage: `drain`, `save` (KV caches), `end` "
        "(of the process, to make room), `park`, `start`, `restore` (KV caches), `wake`",
        source=OfStage(lambda view: view.stages),
        metric=Metric(name="model_switch_seconds", type=Type.COUNTER),
    ),
    Scalar(
        key="loads",
        title="Model Loads",
        help="How often a model came into memory, by the tier that it came from: `ram` or `disk`",
        source=OfTier(lambda view: view.moves.loads),
        metric=Metric(name="model_loads", type=Type.COUNTER),
    ),
    Scalar(
        key="load_seconds",
        title="Load Time",
        help="Seconds that these loads took",
        source=OfTier(lambda view: view.moves.load_seconds),
        metric=Metric(name="model_load_seconds", type=Type.COUNTER),
    ),
    Scalar(
        key="departures",
        title="Model Departures",
        help="How often a model left memory, by the reason: `room` (for another model), `ram` (a "
        "parked one, for another one), `grown` (a model took more than was predicted), `unused` "
        "(its time to live), `asked` (by a person), `ended` (its process, by itself)",
        source=OfReason(lambda view: view.moves.departures),
        metric=Metric(name="model_departures", type=Type.COUNTER),
    ),
    Scalar(
        key="failures",
        title="Model Failures",
        help="How often a model did not load, or its process ended by itself",
        source=OfModel(lambda overview, view: view.moves.failures),
        metric=Metric(name="model_failures", type=Type.COUNTER),
    ),
    Scalar(
        key="overflows",
        title="KV Cache Overflows",
        help="Requests that llama-server failed because its KV cache was full",
        source=Total(lambda sample: sample.overflows),
        metric=Metric(name="kv_overflows", type=Type.COUNTER),
    ),
    Scalar(
        key="reserved",
        title="KV Tokens Reserved",
        help="Tokens of KV cache that requests under way may come to use",
        source=OfModel(lambda overview, view: view.reserved),
        metric=Metric(name="kv_tokens_reserved", type=Type.GAUGE),
    ),
    Scalar(
        key="kv_usage",
        title="KV Cache Usage",
        help="Share of the KV cache's tokens (of the slots, where each has a context of its own) "
        "that requests under way may come to use",
        source=OfSomeModels(lambda overview, view: view.kv_usage),
        metric=Metric(name="kv_usage_ratio", type=Type.GAUGE),
    ),
    Scalar(
        key="state",
        title="Model State",
        help="1 for the state that the model is in",
        source=OfState(lambda view, state: view.state is state),
        metric=Metric(name="model_state", type=Type.GAUGE),
    ),
    Scalar(
        key="idle",
        title="Idle Time",
        help="Since the last activity",
        source=OfInstance(_idle),
        unit=HOURS,
        reported=True,
        dashboard="Idle Time (hours)",
        metric=Metric(
            name="idle_seconds",
            type=Type.GAUGE,
            of=OfInstance(lambda overview, now: overview.idle(now)),
        ),
    ),
    Scalar(
        key="cpu",
        title="CPU Usage",
        help="Of all cores",
        source=OfMachine({"all cores": lambda load: load.cpu}),
        unit=PERCENT,
        monitor=Monitor(":monitor:machine", ("cpu_usage",)),
        dashboard="CPU Usage (%)",
        page=3,
    ),
    Scalar(
        key="network",
        title="Network",
        help="Received and sent by the machine",
        source=OfMachine({"received": lambda load: load.received, "sent": lambda load: load.sent}),
        unit=MEGABYTES_PER_SECOND,
        monitor=Monitor(":monitor:machine", ("network_rx_mbs", "network_tx_mbs")),
        dashboard="Network (MB/s)",
        page=4,
    ),
    Scalar(
        key="disk",
        title="Disk",
        help="Read and written by the machine",
        source=OfMachine({"read": lambda load: load.read, "written": lambda load: load.written}),
        unit=MEGABYTES_PER_SECOND,
        monitor=Monitor(":monitor:machine", ("io_read_mbs", "io_write_mbs")),
        dashboard="Disk (MB/s)",
        page=4,
    ),
    Scalar(
        key="memory",
        title="Memory",
        help="Used by the machine or, where it is limited, by the container",
        source=OfMachine({"used": lambda load: load.memory_used}),
        unit=GIGABYTES,
        monitor=Monitor(":monitor:machine", ("memory_used_gb", "memory_free_gb")),
        dashboard="Memory (GB)",
        page=3,
    ),
    Scalar(
        key="gpu",
        title="GPU Utilization",
        help="By GPU",
        source=OfGpu(lambda load: load.usage),
        unit=PERCENT,
        monitor=Monitor(":monitor:gpu", ("gpu_{}_utilization",)),
        dashboard="GPU Utilization (%)",
        page=2,
    ),
    Scalar(
        key="gpu_memory",
        title="GPU Memory",
        help="By GPU",
        source=OfGpu(lambda load: load.used),
        unit=GIGABYTES,
        monitor=Monitor(":monitor:gpu", ("gpu_{}_mem_used_gb",)),
        dashboard="GPU Memory (GB)",
        page=2,
        metric=Metric(
            name="gpu_memory_used_bytes", type=Type.GAUGE, of=OfDevice(lambda device: device.used)
        ),
    ),
    Scalar(
        key="gpu_memory_total",
        title="GPU Memory in Total",
        help="By GPU",
        source=OfDevice(lambda device: device.total),
        unit=GIGABYTES,
        metric=Metric(name="gpu_memory_total_bytes", type=Type.GAUGE),
    ),
    Scalar(
        key="gpu_temperature",
        title="GPU Temperature",
        help="By GPU",
        source=OfGpu(lambda load: load.temperature),
        unit=CELSIUS,
        monitor=Monitor(":monitor:gpu", ("gpu_{}_temperature",)),
        dashboard="GPU Temperature (°C)",
        page=2,
    ),
    Scalar(
        key="caller_requests",
        title="Requests by Caller",
        help="Finished requests of a caller of the keys file; `other`: of all others",
        source=OfCaller(lambda used: used.requests),
        metric=Metric(name="caller_requests", type=Type.COUNTER),
    ),
    Scalar(
        key="caller_denied",
        title="Denied Requests by Caller",
        help="Requests that were over its own limits, and not begun",
        source=OfCaller(lambda used: used.denied),
        metric=Metric(name="caller_denied_requests", type=Type.COUNTER),
    ),
    Scalar(
        key="caller_prompt",
        title="Prompt Tokens by Caller",
        help="Tokens of its prompts, cached ones included",
        source=OfCaller(lambda used: used.prompt),
        metric=Metric(name="caller_prompt_tokens", type=Type.COUNTER),
    ),
    Scalar(
        key="caller_cached",
        title="Cached Tokens by Caller",
        help="Tokens of its prompts that were in the KV cache",
        source=OfCaller(lambda used: used.cached),
        metric=Metric(name="caller_cached_tokens", type=Type.COUNTER),
    ),
    Scalar(
        key="caller_generated",
        title="Generated Tokens by Caller",
        help="Tokens generated for it",
        source=OfCaller(lambda used: used.generated),
        metric=Metric(name="caller_generated_tokens", type=Type.COUNTER),
    ),
)


def reported() -> list[Scalar]:
    """The scalars of the task."""
    return [row for row in SCALARS if row.reported]


def plotted() -> list[Scalar]:
    """The plots of our page, in their order."""
    return sorted((row for row in SCALARS if row.page), key=lambda row: row.page)
