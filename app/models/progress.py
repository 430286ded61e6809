"""The progress of a download: what is logged of it, and shown on a terminal."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator

from app import console
from app.machine import clock

logger = logging.getLogger(__name__)

REPORT_INTERVAL = 10.0  # seconds between two lines of the log
SHOWN_INTERVAL = 0.2  # seconds between two states of a terminal's line
WINDOW = 10.0  # seconds over which the rate is taken

Arrived = Callable[[int], None]  # bytes since the last call
Progress = Callable[[float], None]  # 0..1


class Download:
    """Counts one model's bytes, in the downloading thread, and tells of them now and then."""

    def __init__(self, name: str, size: int, missing: int, progress: Progress) -> None:
        """Of `size` bytes in all, so many are `missing`."""
        self._name = name
        self._size = size
        self._here = size - missing
        self._missing = missing
        self._progress = progress
        self._begun = self._said = self._shown = clock.now()
        self._lately = deque([(self._begun, self._here)])

    def arrived(self, size: int) -> None:
        self._here += size
        self._progress(max(0.0, min(1.0, self._here / self._size)) if self._size else 0.0)
        now = clock.now()
        if now - self._shown >= SHOWN_INTERVAL:
            self._shown = now
            self._lately.append((now, self._here))
            while len(self._lately) > 2 and self._lately[0][0] < now - WINDOW:
                self._lately.popleft()
            console.show(self._name, f"{self._name} {self._state(now)}")
        if now - self._said >= REPORT_INTERVAL:
            self._said = now
            if console.records():
                self._say(self._state(now))

    def _state(self, now: float) -> str:
        since, before = self._lately[0]
        rate = (self._here - before) / max(now - since, 1e-3)
        percent = min(100, int(100 * self._here / self._size)) if self._size else 0
        state = f"downloading: {percent} % of {self._size / 1e6:,.0f} MB, {rate / 1e6:,.0f} MB/s"
        left = max(0, self._size - self._here)
        return f"{state}, {lasting(left / rate)} left" if rate >= 1 else state

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """What is shown of it on the terminal goes at the end."""
        try:
            yield
        finally:
            self.over()

    def over(self) -> None:
        console.show(self._name, "")

    def finished(self) -> None:
        if self._missing:
            seconds = max(clock.now() - self._begun, 1e-3)
            rate = self._missing / 1e6 / seconds
            self._say(
                f"downloaded {self._missing / 1e6:,.1f} MB in {seconds:.1f} s ({rate:,.0f} MB/s)"
            )
        else:
            self._say(f"found in the cache ({self._size / 1e6:,.1f} MB)")

    def _say(self, text: str) -> None:
        logger.info(text, extra={"subject": self._name})


def lasting(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
