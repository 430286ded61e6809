"""The past that a person sees: the last requests, and which model was in memory when.

Only numbers and names are kept; of what was asked the beginning, where the instance is told to. Of
answers nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from app.machine import clock
from app.memory.ledger import View
from app.memory.moves import Move
from app.telemetry.samples import Sample

KEPT = 500  # requests


class Ended(NamedTuple):
    """A finished request: `at` its end, on the app's clock. `number` counts them, from 1 on."""

    number: int
    at: float
    sample: Sample


class Past:
    def __init__(self, view: Callable[[], Sequence[View]]) -> None:
        self._view = view
        self._requests: deque[Ended] = deque(maxlen=KEPT)

    def add(self, sample: Sample) -> None:
        number = self._requests[-1].number + 1 if self._requests else 1
        self._requests.append(Ended(number, clock.now(), sample))

    def requests(self, after: int = 0) -> list[Ended]:
        """Those after this one, in their order."""
        found: list[Ended] = []
        for ended in reversed(self._requests):
            if ended.number <= after:
                break
            found.append(ended)
        return found[::-1]

    def moves(self, after: Mapping[str, int]) -> list[tuple[str, Move]]:
        """By model, the moves of the last hour after the one of this number."""
        now = clock.now()
        return [
            (view.name, move)
            for view in self._view()
            for move in view.moves.after(after.get(view.name, 0), now)
        ]


def request_row(ended: Ended) -> dict[str, object]:
    """For pages and programs: `time` in seconds since the epoch; the rest as in a Sample."""
    sample = ended.sample
    return {
        "time": _wall(ended.at),
        "model": sample.model,
        "caller": sample.caller,
        "operation": sample.operation,
        "status": sample.status,
        "latency": _short(sample.latency),
        "wait": _short(sample.wait),
        "woke": _short(sample.woke),
        "prefill": _short(sample.prefill),
        "prompt_tokens": sample.tokens.prompt,
        "cached_tokens": sample.tokens.cached,
        "generated_tokens": sample.tokens.generated,
        **({"prompt": sample.prompt} if sample.prompt else {}),
    }


def move_row(model: str, move: Move) -> dict[str, object]:
    return {
        "time": _wall(move.at),
        "model": model,
        "state": move.state,
        "tier": move.tier,
        "reason": move.reason,
    }


def _wall(at: float) -> float:
    return round(clock.wall() - clock.now() + at, 3)


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
