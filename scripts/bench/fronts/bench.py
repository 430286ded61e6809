"""One run: peers that stay up, measured in turns (ABBA), and the rows of the table."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.bench.fronts.peers import Make, Missing, Peer

Found = dict[str, list[float]]  # by peer, each measurement


@dataclass(frozen=True)
class Row:
    """A line of the table, as text."""

    what: str
    ours: str
    others: str
    ratio: str
    target: str


@dataclass
class Bench:
    """`small` measures everything, and nothing well: for tests."""

    folder: Path
    rounds: int = 3
    small: bool = False
    beside: Path | None = None
    missing: set[str] = field(default_factory=set)

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    @property
    def turns(self) -> int:
        return 1 if self.small else self.rounds

    def start(self, makes: Mapping[str, Make], stack: contextlib.ExitStack) -> dict[str, Peer]:
        """The peers that this machine has."""
        found = {}
        for name, make in makes.items():
            try:
                found[name] = stack.enter_context(make(self.folder))
            except Missing as error:
                self.missing.add(str(error))
        return found

    def compare(self, makes: Mapping[str, Make], measure: Callable[[Peer], float]) -> Found:
        """ABBA, so often as there are turns; the first measurement of each peer is not kept."""
        with contextlib.ExitStack() as stack:
            peers = self.start(makes, stack)
            for peer in peers.values():
                measure(peer)
            return in_turns({n: lambda p=p: measure(p) for n, p in peers.items()}, self.turns)


def in_turns(measures: Mapping[str, Callable[[], float]], turns: int) -> Found:
    found: Found = {name: [] for name in measures}
    for name in [*measures, *reversed(measures)] * turns:
        found[name].append(measures[name]())
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


UNITS = {"µs": 1e6, "ms": 1e3}


def row(what: str, found: Found, unit: str, target: str, *, ours: str, ratio_to: str) -> Row:
    """`found` in seconds; the ratio is that of the medians."""
    medians = {name: median(values) * UNITS[unit] for name, values in found.items() if values}
    told = [f"{name} {value:.3g} {unit}" for name, value in medians.items() if name != ours]
    other = medians.get(ratio_to)
    ratio = f"{medians[ours] / other:.2f}" if other else "–"
    return Row(what, f"{medians[ours]:.3g} {unit}", ", ".join(told) or "–", ratio, target)
