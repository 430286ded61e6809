"""Samples → totals and rates per model, and over all. Pure: the caller says what time it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.form.settings import TOTAL
from app.telemetry.samples import Sample


@dataclass(frozen=True)
class Rates:
    """A window's end: counts since the start, tokens per second and mean latency (s) within it."""

    requests: int
    prompt_tokens: int
    generated_tokens: int
    tokens_per_second: float
    latency: float | None


@dataclass
class _Series:
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    in_window: int = 0
    latencies: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.requests += 1
        self.prompt_tokens += sample.tokens.prompt
        self.generated_tokens += sample.tokens.generated
        self.in_window += sample.tokens.generated
        self.latencies.append(sample.latency)

    def close(self, seconds: float) -> Rates:
        latency = sum(self.latencies) / len(self.latencies) if self.latencies else None
        rate = self.in_window / seconds if seconds > 0 else 0.0
        self.in_window = 0
        self.latencies = []
        return Rates(self.requests, self.prompt_tokens, self.generated_tokens, rate, latency)


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
