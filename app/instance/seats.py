"""How many requests a llama-server takes at once, by its arguments. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.engine.flags import DRAFTS, PREDICT, SHARED, SHIFTS, UNIFIED
from app.engine.resolved import Resolved
from app.memory.kv_budget import KvBudget

MOST_DRAFTED = 64  # tokens that are guessed in advance for a slot


def seats(argv: Sequence[str], resolved: Resolved) -> KvBudget:
    """`argv` of the llama-server."""
    given = set(argv)
    said = [word for word in argv if word in UNIFIED]
    shared = resolved.parallel > 1 and bool(said) and said[-1] in SHARED
    return KvBudget(
        resolved.parallel,
        resolved.context if shared else None,
        each=resolved.context // resolved.parallel,
        drafted=0 if given.isdisjoint(DRAFTS) else MOST_DRAFTED,
        limit=_limit(argv),
        marks=given.isdisjoint(SHIFTS),
    )


def _limit(argv: Sequence[str]) -> int | None:
    """Tokens of an answer to a request that names no limit."""
    values = [value for flag, value in zip(argv, argv[1:], strict=False) if flag in PREDICT]
    return int(values[-1]) if values and values[-1].isdecimal() else None
