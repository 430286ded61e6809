"""Samples → totals and rates per model, and over all. Pure: the caller says what time it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.form.checks import TOTAL
from app.telemetry.samples import Sample


@dataclass(frozen=True)
class Rates:
    """A window's end: counts since the start; within it tokens per second, and means in seconds,
    None where there was nothing to take the mean of."""

    requests: int
    prompt_tokens: int
    generated_tokens: int
    tokens_per_second: float
    latency: float | None
    first_token: float | None = None
    wait: float | None = None


@dataclass
class _Series:
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    in_window: int = 0
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.requests += 1
        self.prompt_tokens += sample.tokens.prompt
        self.generated_tokens += sample.tokens.generated
        self.in_window += sample.tokens.generated
        self.latencies.append(sample.latency)
        if sample.first_token is not None:
            self.first_tokens.append(sample.first_token)
        if sample.wait is not None:
            self.waits.append(sample.wait)

    def close(self, seconds: float) -> Rates:
        rate = self.in_window / seconds if seconds > 0 else 0.0
        means = [_mean(values) for values in (self.latencies, self.first_tokens, self.waits)]
        self.in_window = 0
        self.latencies, self.first_tokens, self.waits = [], [], []
        return Rates(self.requests, self.prompt_tokens, self.generated_tokens, rate, *means)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


class Windows:
    """Finished requests, window after window; each window ends where the next begins."""

    def __init__(self, models: Iterable[str], now: float) -> None:
        self._series = {name: _Series() for name in (*models, TOTAL)}
        self._begun = now

    def add(self, sample: Sample) -> None:
        self._series[sample.model].add(sample)
        self._series[TOTAL].add(sample)

    def close(self, now: float) -> dict[str, Rates]:
        """The rates of the window that ends now, by model, and `total`."""
        seconds, self._begun = now - self._begun, now
        return {name: series.close(seconds) for name, series in self._series.items()}
