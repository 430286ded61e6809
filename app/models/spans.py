"""Which bytes of a file are there. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

Span = tuple[int, int]  # the first byte, and the one after the last


class Spans:
    """Stretches of bytes: sorted, and none touches the next."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        first = bisect_left(self._spans, start, key=lambda span: span[1])
        after = first
        while after < len(self._spans) and self._spans[after][0] <= end:
            start, end = min(start, self._spans[after][0]), max(end, self._spans[after][1])
            after += 1
        self._spans[first:after] = [(start, end)]

    def missing(self, size: int) -> list[Span]:
        """What is not there of a file of `size` bytes."""
        found, at = [], 0
        for start, end in self._spans:
            if start > at:
                found.append((at, start))
            at = end
        return [*found, (at, size)] if at < size else found

    @property
    def total(self) -> int:
        return sum(end - start for start, end in self._spans)

    @property
    def prefix(self) -> int:
        """So many bytes are there from the beginning on."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    @property
    def all(self) -> tuple[Span, ...]:
        return tuple(self._spans)
