"""The last lines of every log, by subject: a model, or the app. Pure but for the lock.

Lines come from several threads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from app.machine import threads

KEPT = 300  # lines of each subject
LONGEST = 1000  # characters of one line


@dataclass(frozen=True)
class Entry:
    """`number` grows by one with every line; `time` in seconds since the epoch; `level` in lower
    case."""

    number: int
    time: float
    level: str
    subject: str
    text: str


class LogBook:
    def __init__(self) -> None:
        self._lock = threads.Lock()
        self._kept: dict[str, deque[Entry]] = {}
        self._number = 0

    def add(self, time: float, level: str, subject: str, text: str) -> None:
        if len(text) > LONGEST:
            text = text[:LONGEST] + "…"
        with self._lock:
            self._number += 1
            kept = self._kept.setdefault(subject, deque(maxlen=KEPT))
            kept.append(Entry(self._number, time, level, subject, text))

    def after(self, number: int) -> list[Entry]:
        """The lines that came after line `number` and are still kept, in their order."""
        with self._lock:
            if number >= self._number:
                return []
            found = []
            for kept in self._kept.values():
                for entry in reversed(kept):
                    if entry.number <= number:
                        break
                    found.append(entry)
        return sorted(found, key=lambda entry: entry.number)
