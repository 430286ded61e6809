"""Samples → the values of scalars, by model and over all. Pure: the caller says what time it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.form.checks import TOTAL
from app.telemetry import scalars
from app.telemetry.samples import Sample
from app.telemetry.scalars import Scalar
from app.telemetry.sources import OfRequests

Rates = Mapping[str, float | None]  # a window's values by the scalar's key, in its source's unit


class _Sums:
    """Of one model: by scalar, the sum of what its requests had, and how many of them had it."""

    def __init__(self, size: int) -> None:
        self.sums: list[float] = [0] * size
        self.counts = [0] * size


class Windows:
    """Finished requests, window after window; each window ends where the next begins."""

    def __init__(
        self, models: Iterable[str], now: float, rows: Iterable[Scalar] | None = None
    ) -> None:
        """`rows` are the scalars to keep, those of finished requests among them: by default the
        task's."""
        kept = scalars.reported() if rows is None else rows
        sources = {row.key: row.source for row in kept}
        self._sources = {k: s for k, s in sources.items() if isinstance(s, OfRequests)}
        self._takes = [(i, source.take) for i, source in enumerate(self._sources.values())]
        self._models = {name: _Sums(len(self._takes)) for name in models}
        self._begun = now

    def add(self, sample: Sample) -> None:
        model = self._models[sample.model]
        sums, counts = model.sums, model.counts
        for index, take in self._takes:
            value = take(sample)
            if value is not None:
                sums[index] += value
                counts[index] += 1

    def close(self, now: float) -> dict[str, Rates]:
        """The values of the window that ends now, by model, and `total`."""
        seconds, self._begun = now - self._begun, now
        everything = {**self._models, TOTAL: self._total()}
        found = {name: self._values(sums, seconds) for name, sums in everything.items()}
        for model in self._models.values():
            self._begin(model)
        return found

    def _total(self) -> _Sums:
        total = _Sums(len(self._takes))
        for index, _ in self._takes:
            total.sums[index] = sum(model.sums[index] for model in self._models.values())
            total.counts[index] = sum(model.counts[index] for model in self._models.values())
        return total

    def _values(self, model: _Sums, seconds: float) -> Rates:
        rows = zip(self._sources.items(), model.sums, model.counts, strict=True)
        return {key: source.over(sum, count, seconds) for (key, source), sum, count in rows}

    def _begin(self, model: _Sums) -> None:
        """A new window."""
        for index, source in enumerate(self._sources.values()):
            if not source.lasting:
                model.sums[index] = model.counts[index] = 0
