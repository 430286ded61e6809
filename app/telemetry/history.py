"""The last hour as rows of numbers, for the page's plots. Pure.

A row is encoded once, when it is added, however many pages it is sent to.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

INTERVAL = 5.0  # seconds between two rows
KEPT = 720  # rows: an hour

Column = tuple[str, str]  # plot and series


class History:
    def __init__(self, columns: Sequence[Column], kept: int = KEPT) -> None:
        self.columns = tuple(columns)
        self._rows: deque[bytes] = deque(maxlen=kept)

    def add(self, at: float, values: Sequence[float | None]) -> bytes:
        """Add a row and return it as JSON: `at` in seconds since the epoch, `values` by column,
        None where there is no value."""
        assert len(values) == len(self.columns)
        row = json.dumps([round(at, 1), *map(_short, values)], separators=(",", ":")).encode()
        self._rows.append(row)
        return row

    def rows(self) -> bytes:
        """All rows, as a JSON list."""
        return b"[%b]" % b",".join(self._rows)


def _short(value: float | None) -> float | None:
    """Rounded to four digits, which is more than a plot shows."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.4g}")
