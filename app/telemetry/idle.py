"""How long no model has been used. Pure: a function of the pool's view."""

from __future__ import annotations

from collections.abc import Iterable

from app.memory.ledger import View
from app.planning.amounts import HOUR, MINUTE, lasting

STEP = HOUR / 10  # in which an idle time of hours is told


def idle_for(models: Iterable[View], begun: float, now: float) -> float:
    """Seconds since the last request ended, or gave up waiting for its model, or since `begun`; 0
    while one runs or waits."""
    last = begun
    for model in models:
        if model.leased or model.waiting:
            return 0.0
        last = max(last, model.last_used, model.gave_up)
    return now - last


def expired(idle: float, limit: float | None) -> bool:
    """`limit` in seconds; None or 0 is no limit."""
    return bool(limit) and idle >= (limit or 0.0)


def lasted(idle: float) -> str:
    """How long nobody has asked for anything, in steps: each step is a request to ClearML."""
    return lasting(idle - idle % (MINUTE if idle < HOUR else STEP))
