"""Where a scalar's values come from: finished requests, the pool's view, the machine. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from app.form.checks import TOTAL
from app.machine import gpu, host
from app.memory.ledger import ModelState, View
from app.telemetry.callers import Used
from app.telemetry.overview import Overview
from app.telemetry.samples import Sample

Labels = tuple[str, ...]


@dataclass(frozen=True)
class OfRequests(ABC):
    """What finished requests add up to. `take` reads one request's part, None where it has none."""

    take: Callable[[Sample], float | None]
    lasting: ClassVar[bool] = False  # whether a window begins with what the one before it summed up

    @abstractmethod
    def over(self, sum: float, count: int, seconds: float) -> float | None:
        """The value for a window of this length, of the sum and the number of the parts."""


class Total(OfRequests):
    """The sum since the start."""

    lasting = True

    def over(self, sum: float, count: int, seconds: float) -> float:
        return sum


class PerSecond(OfRequests):
    """The sum within a window, divided by its length."""

    def over(self, sum: float, count: int, seconds: float) -> float:
        return sum / seconds if seconds > 0 else 0.0


class Mean(OfRequests):
    """The mean within a window; None where there was nothing to take the mean of."""

    def over(self, sum: float, count: int, seconds: float) -> float | None:
        return sum / count if count else None


class OfNow(ABC):
    """What the overview says at this moment: one value for each combination of `labels`."""

    labels: ClassVar[Labels]

    @abstractmethod
    def values(self, overview: Overview, now: float) -> Mapping[Labels, float | None]: ...


class BySeries(OfNow):
    """One that can be plotted: a series has a name for people."""

    @abstractmethod
    def series(self, overview: Overview, now: float) -> Mapping[str, float | None]: ...


@dataclass(frozen=True)
class OfModel(BySeries):
    """A value of each model; the total is their sum."""

    take: Callable[[Overview, View], float]
    labels = ("model",)

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float]:
        return {(view.name,): self.take(overview, view) for view in overview.view()}

    def series(self, overview: Overview, now: float) -> Mapping[str, float]:
        found = {name: value for (name,), value in self.values(overview, now).items()}
        return {**found, TOTAL: sum(found.values())}


@dataclass(frozen=True)
class OfSomeModels(BySeries):
    """A value of each model that has one now; there is no total."""

    take: Callable[[Overview, View], float | None]
    labels = ("model",)

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float]:
        found = {(view.name,): self.take(overview, view) for view in overview.view()}
        return {labels: value for labels, value in found.items() if value is not None}

    def series(self, overview: Overview, now: float) -> Mapping[str, float]:
        return {name: value for (name,), value in self.values(overview, now).items()}


@dataclass(frozen=True)
class OfInstance(BySeries):
    """One value; None while there is none. `take` is given the overview and the clock's time."""

    take: Callable[[Overview, float], float | None]
    labels = ()

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float | None]:
        return {(): self.take(overview, now)}

    def series(self, overview: Overview, now: float) -> Mapping[str, float | None]:
        return {TOTAL: self.take(overview, now)}


@dataclass(frozen=True)
class OfState(OfNow):
    """A value of each model and each state that a model can be in."""

    take: Callable[[View, ModelState], float]
    labels = ("model", "state")

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float]:
        pairs = [(view, state) for view in overview.view() for state in ModelState]
        return {(view.name, state.value): self.take(view, state) for view, state in pairs}


@dataclass(frozen=True)
class OfParts(OfNow):
    """A value of each model and each part of it, by the part's name."""

    take: Callable[[View], Mapping[str, float]]

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float]:
        views = overview.view()
        return {(v.name, part): value for v in views for part, value in self.take(v).items()}


class OfStage(OfParts):
    """By the stages of a model's switches."""

    labels = ("model", "stage")


class OfTier(OfParts):
    """By the tier that a model came from."""

    labels = ("model", "tier")


class OfReason(OfParts):
    """By the reason why a model left."""

    labels = ("model", "reason")


@dataclass(frozen=True)
class OfCaller(OfNow):
    """A value of each caller of the keys file, and one of all others together."""

    take: Callable[[Used], float]
    labels = ("caller",)

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float]:
        found = overview.by_caller.used if overview.by_caller is not None else {}
        return {(name,): self.take(used) for name, used in found.items()}


@dataclass(frozen=True)
class OfDevice(OfNow):
    """A value of each GPU that models are placed on."""

    take: Callable[[gpu.Device], float]
    labels = ("gpu",)

    def values(self, overview: Overview, now: float) -> Mapping[Labels, float]:
        return {(device.id,): self.take(device) for device in overview.devices()}


@dataclass(frozen=True)
class OfMachine:
    """What the machine does, by the name of the series."""

    take: Mapping[str, Callable[[host.Load], float]]


@dataclass(frozen=True)
class OfGpu:
    """What each GPU does; None where the driver does not say."""

    take: Callable[[gpu.Load], float | None]


Source = OfRequests | OfNow | OfMachine | OfGpu
