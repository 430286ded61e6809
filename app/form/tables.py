"""Files of TOML: their tables, and what a value in one may be. Pure."""

from __future__ import annotations

import math
import sys
from typing import Any, TypeGuard

from app.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load(text: str) -> dict[str, Any]:
    """Raises ConfigError."""
    plain = text.removeprefix("\ufeff")  # which some editors put before a text
    try:
        found: dict[str, Any] = tomllib.loads(plain)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from None
    return found


def is_whole(value: object, least: int, most: int) -> TypeGuard[int]:
    """TOML's true and false are no numbers, though Python's are."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_positive(value: object, most: float = math.inf) -> TypeGuard[int | float]:
    """Whether it is a finite number above 0, and of at most `most`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= most and value < math.inf
