"""When to try again after a failure. Pure."""

from __future__ import annotations

import math

LONGEST = 30.0
LONGEST_OF_CHEAP = 8.0  # so that what can be served again is served again within 10 s
SHARE = 4.0  # times what the attempt cost


def delay(failures: int, took: float = math.inf) -> float:
    """Seconds to wait after so many failures in a row, the last of which took so many seconds:
    0, 1, 2, 4, 8, and up to 30 where an attempt is dear, since other models wait for it."""
    if failures <= 1:
        return 0.0
    longest = min(LONGEST, max(LONGEST_OF_CHEAP, SHARE * took))
    return min(longest, 2.0 ** min(failures - 2, 10))
