"""When to try again after a failure. Pure."""

from __future__ import annotations

LONGEST = 30.0


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 0, 1, 2, 4 … 30."""
    if failures <= 1:
        return 0.0
    return min(LONGEST, 2.0 ** min(failures - 2, 10))
