"""Straight lines through samples, with the confidence that they have. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 20  # means over time: neighbouring samples are much alike, and would feign confidence
# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.7, 2: 4.3, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 8: 2.31, 10: 2.23, 13: 2.16, 18: 2.1}


@dataclass(frozen=True)
class Slope:
    """Of a quantity, an hour; `low` to `high` has it with 95 % confidence."""

    mean: float
    slope: float
    low: float
    high: float


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares through the means of up to BLOCKS parts. At least 3 samples."""
    x, y = _blocks(seconds), _blocks(values)
    if len(x) < 3:
        raise ValueError(f"{len(x)} samples are too few for a slope")
    hours = [at / 3600 for at in x]
    middle, mean = statistics.fmean(hours), statistics.fmean(y)
    spread = sum((h - middle) ** 2 for h in hours)
    rise = sum((h - middle) * (v - mean) for h, v in zip(hours, y, strict=True)) / spread
    left = sum((v - mean - rise * (h - middle)) ** 2 for h, v in zip(hours, y, strict=True))
    free = len(x) - 2
    t = T[max(n for n in T if n <= free)]
    around = t * math.sqrt(left / free / spread)
    return Slope(statistics.fmean(values), rise, rise - around, rise + around)


def _blocks(values: Sequence[float]) -> list[float]:
    count = min(BLOCKS, len(values))
    cuts = [round(n * len(values) / count) for n in range(count + 1)]
    return [statistics.fmean(values[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


def quantile(values: Sequence[float], part: float) -> float:
    """0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
