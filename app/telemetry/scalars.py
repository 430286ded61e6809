"""The scalars of a task: their titles, and how windows and gauges become points. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.form.checks import TOTAL
from app.telemetry.overview import Overview, Phase
from app.telemetry.windows import Rates

REQUESTS = "Total Number of Requests"
TOKENS_PER_SECOND = "Tokens per Second"
LATENCY = "Latency"
GENERATED = "Generated Tokens"
PROMPT = "Prompt Tokens"
FIRST_TOKEN = "Time to First Token"
QUEUE_WAIT = "Queue Wait"
IN_FLIGHT = "Requests in Flight"
DENIED = "Denied Requests"
MODEL_MEMORY = "Model Memory"
MODEL_SWITCHES = "Model Switches"
IDLE = "Idle Time"
HOUR = 3600.0


@dataclass(frozen=True)
class Point:
    """One scalar: `iteration` is seconds since the start."""

    title: str
    series: str
    value: float
    iteration: int


@dataclass(frozen=True)
class Gauge:
    """What is as it is now: requests, gigabytes, hours."""

    title: str
    series: str
    value: float


def points(rates: Mapping[str, Rates], iteration: int) -> list[Point]:
    """The scalars of one window; times in milliseconds, and no point where nothing ended."""
    found = []
    for series, rate in rates.items():
        found += [
            Point(REQUESTS, series, rate.requests, iteration),
            Point(TOKENS_PER_SECOND, series, rate.tokens_per_second, iteration),
            Point(GENERATED, series, rate.generated_tokens, iteration),
            Point(PROMPT, series, rate.prompt_tokens, iteration),
        ]
        times = ((LATENCY, rate.latency), (FIRST_TOKEN, rate.first_token), (QUEUE_WAIT, rate.wait))
        found += [Point(t, series, s * 1000, iteration) for t, s in times if s is not None]
    return found


def gauges(overview: Overview, now: float) -> list[Gauge]:
    """What is as it is now, by model and in total."""
    views = overview.view()
    by_title: dict[str, Callable[[int], float]] = {
        IN_FLIGHT: lambda n: float(views[n].admitted),
        DENIED: lambda n: float(views[n].denied),
        MODEL_SWITCHES: lambda n: float(views[n].switches),
        MODEL_MEMORY: lambda n: overview.memory(views[n]).total / 1e9,
    }
    found = []
    for title, value in by_title.items():
        values = [value(number) for number in range(len(views))]
        named = zip((view.name for view in views), values, strict=True)
        found += [Gauge(title, name, amount) for name, amount in named]
        found.append(Gauge(title, TOTAL, sum(values)))
    if overview.phase is not Phase.SETTING_UP:
        found.append(Gauge(IDLE, TOTAL, overview.idle(now) / HOUR))
    return found
