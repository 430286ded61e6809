"""Where the time of switches goes: seconds of one model since the start, by stage."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping

from app.machine import clock


class SwitchStage(enum.Enum):
    DRAIN = "drain"  # new requests wait until those at work have ended
    SAVE = "save"  # KV caches into files
    END = "end"  # of the process
    PARK = "park"  # into CPU RAM
    START = "start"  # of the process, until it serves: weights, vocabulary, warm-up
    RESTORE = "restore"  # KV caches from files
    WAKE = "wake"  # from CPU RAM


class Stages:
    def __init__(self) -> None:
        self._seconds = {stage.value: 0.0 for stage in SwitchStage}

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._seconds

    def add(self, stage: SwitchStage, seconds: float) -> None:
        self._seconds[stage.value] += seconds

    @contextlib.contextmanager
    def timed(self, stage: SwitchStage) -> Iterator[None]:
        begun = clock.now()
        try:
            yield
        finally:
            self.add(stage, clock.now() - begun)
