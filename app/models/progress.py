"""The progress of a download: what the hub's library tells of it, and what is logged of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any

from app.machine import clock

logger = logging.getLogger(__name__)

REPORT_INTERVAL = 5.0  # seconds between two lines of the log

Arrived = Callable[[int], None]  # bytes since the last call
Progress = Callable[[float], None]  # 0..1


class _Bar:
    """Stands in for tqdm: draws nothing, and calls `arrived` with the bytes that arrive.

    For chunked storage (Xet) the library calls two methods: `update` with what was written, and
    `update_transfer` with what came over the network for it. Only the former counts; a class
    without the latter would be told both by `update`.
    """

    arrived: Arrived = staticmethod(lambda _: None)

    def __init__(self, *_: object, initial: int = 0, **options: Any) -> None:
        self.n = initial
        self.total = options.get("total")

    def update(self, size: float | None = 1) -> None:
        self.n += int(size or 0)
        self.arrived(int(size or 0))

    def update_transfer(self, size: int) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None  # set_description, refresh, reset …


def bars(arrived: Arrived) -> type[_Bar]:
    """The class for the library to make its progress bars of."""
    return type("Bar", (_Bar,), {"arrived": staticmethod(arrived)})


class Download:
    """Counts one model's bytes, in the downloading thread, and logs them now and then."""

    def __init__(self, name: str, size: int, missing: int, progress: Progress) -> None:
        """Of `size` bytes in all, so many are `missing`."""
        self._name = name
        self._size = size
        self._here = size - missing
        self._missing = missing
        self._progress = progress
        self._begun = self._said = clock.now()

    def arrived(self, size: int) -> None:
        self._here += size
        self._progress(min(1.0, self._here / self._size) if self._size else 0.0)
        now = clock.now()
        if now - self._said >= REPORT_INTERVAL:
            self._said = now
            self._say(f"downloading: {self._here / 1e6:,.0f} of {self._size / 1e6:,.0f} MB")

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
