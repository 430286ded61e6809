"""Who sends a request, as far as it matters whose turn it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["key", "session", "address"]


@dataclass(frozen=True)
class Caller:
    """One caller, known by `kind` and `name`: the name of a key in the keys file, a `session` label
    of ClearML, or an address. `batch`: it may wait for callers that do not; `weight`: its share of
    turns, as against theirs."""

    kind: Kind
    name: str
    batch: bool = field(default=False, compare=False)
    weight: float = field(default=1.0, compare=False)
