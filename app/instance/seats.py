"""How many requests a llama-server takes at once, by its arguments. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.engine.flags import (
    ADAPTERS,
    BATCHING,
    DRAFTS,
    PREDICT,
    SHARED,
    SHIFTS,
    SINGLE_STEPS,
    UNIFIED,
)
from app.engine.resolved import Resolved
from app.memory.kv_budget import KvBudget, Ways

MOST_DRAFTED = 64  # tokens that are guessed in advance for a slot


def seats(argv: Sequence[str], resolved: Resolved) -> KvBudget:
    """`argv` of the llama-server."""
    given = set(argv)
    shared = resolved.parallel > 1 and _last(argv, UNIFIED) in SHARED
    return KvBudget(
        resolved.parallel,
        resolved.context if shared else None,
        each=resolved.context // resolved.parallel,
        limit=_limit(argv),
        ways=Ways(
            drafted=0 if given.isdisjoint(DRAFTS) else MOST_DRAFTED,
            marks=given.isdisjoint(SHIFTS),
            # Where there are adapters, requests may want other ones.
            mixes=_last(argv, BATCHING) not in SINGLE_STEPS and given.isdisjoint(ADAPTERS),
        ),
    )


def _last(argv: Sequence[str], flags: Sequence[str]) -> str:
    """The one that counts of these flags; "" if none is given."""
    return next((word for word in reversed(argv) if word in flags), "")


def _limit(argv: Sequence[str]) -> int | None:
    """Tokens of an answer to a request that names no limit."""
    values = [value for flag, value in zip(argv, argv[1:], strict=False) if flag in PREDICT]
    return int(values[-1]) if values and values[-1].isdecimal() else None
