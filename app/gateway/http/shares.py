"""What callers take of a memory that has a bound. Pure."""

from __future__ import annotations

from collections import Counter


class Shares:
    """Counts bytes: of all, and of each household."""

    def __init__(self, total: int, of_one: int) -> None:
        self.taken = 0
        self._total = total
        self._of_one = of_one
        self._of: Counter[str] = Counter()

    def fits(self, size: int) -> bool:
        """Whether there is room for so many more bytes."""
        return self.taken + size <= self._total

    def fits_one(self, home: str, size: int) -> bool:
        """Whether the household may take so many more."""
        return self._of.get(home, 0) + size <= self._of_one

    def add(self, home: str, size: int) -> None:
        """The household takes so many more, or gives them back, below zero."""
        self.taken += size
        self._of[home] += size
        if not self._of[home]:
            del self._of[home]
