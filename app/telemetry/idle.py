"""How long no model has been used. Pure: a function of the pool's view."""

from __future__ import annotations

from collections.abc import Iterable

from app.memory.ledger import View


def idle_for(models: Iterable[View], begun: float, now: float) -> float:
    """Seconds since the last request ended, or since `begun`; 0 while one runs or waits for its
    model."""
    last = begun
    for model in models:
        if model.leased or model.waiting:
            return 0.0
        last = max(last, model.last_used)
    return now - last


def expired(idle: float, limit: float | None) -> bool:
    """`limit` in seconds; None or 0 is no limit."""
    return bool(limit) and idle >= (limit or 0.0)
