"""The keys file: a table of TOML for each caller that has a key of its own. Pure.

[alice]
sha256 = "…"                 # of the key, in hex: `python -m app key new alice` makes both
models = ["chat"]            # that the caller may use; left out: all
max_concurrent_requests = 4  # left out: no limit
tokens_per_minute = 20000    # left out: no limit
class = "batch"              # or "interactive", the default
weight = 2                   # its share of turns, as against others' 1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import ConfigError
from app.form.tables import is_positive, is_whole, load

VARIABLE = "LLAMACPP_API_KEYS_FILE"
OTHER = "other"  # what requests count for that were sent with no key of the file
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
MOST = 1000  # callers: a key is compared with all of theirs
HEAVIEST = 1000.0
LARGEST = 10**12  # of a count
CLASSES = ("interactive", "batch")


@dataclass(frozen=True)
class Holder:
    """Who holds a key, and what it may. `digest` is the key's SHA-256; `models` are names by which
    callers choose models, None for all; None of a limit stands for no limit."""

    name: str = ""
    digest: bytes = field(default=b"", repr=False)
    models: frozenset[str] | None = None
    max_concurrent_requests: int | None = None
    tokens_per_minute: int | None = None
    batch: bool = False
    weight: float = 1.0


UNNAMED = Holder()  # the instance's own key, or none where none is needed


def parse(text: str) -> tuple[Holder, ...]:
    """The callers in the file's order. Raises ConfigError, which names entry and field, and never
    says a value that may be a key."""
    tables = load(text)
    if len(tables) > MOST:
        raise ConfigError(f"{len(tables)} callers, and no more than {MOST} may be: take some out")
    for number, table in enumerate(tables.values(), 1):
        if not isinstance(table, dict):  # its name may be a key, with what should be its name
            problem = "must be a table: [the caller's name], with its fields below"
            raise ConfigError(f"entry {number}: {problem}")
    holders = tuple(_holder(name, table) for name, table in tables.items())
    named: dict[bytes, str] = {}
    for holder in holders:
        other = named.setdefault(holder.digest, holder.name)
        if other != holder.name:
            raise ConfigError(f"{holder.name}: sha256: that is {other}'s key: make another one")
    return holders


def entry(name: str, digest: bytes) -> str:
    """The lines of a caller that may use all models without limits. Raises ConfigError."""
    _check_name(name)
    head = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
    return f'[{head}]\nsha256 = "{digest.hex()}"'


def _holder(name: str, table: Mapping[str, object]) -> Holder:
    _check_name(name)
    for key in table:
        if key not in FIELDS:
            raise ConfigError(f"{name}: {key}: no such field; there are: {', '.join(FIELDS)}")
    if "sha256" not in table:
        raise ConfigError(f"{name}: sha256: is missing: {HASH}")
    values = {key: _value(name, key, value) for key, value in table.items()}
    return Holder(
        name,
        values["sha256"],
        values.get("models"),
        values.get("max_concurrent_requests"),
        values.get("tokens_per_minute"),
        batch=values.get("class") == "batch",
        weight=values.get("weight", 1.0),
    )


def _check_name(name: str) -> None:
    if name == OTHER:
        raise ConfigError(f"{name}: all other requests are counted by this name: take another one")
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r}: not a name: take up to 64 letters, digits and . _ @ -, a letter or digit "
            "first"
        )


def _value(name: str, key: str, value: object) -> Any:
    try:
        return FIELDS[key](value)
    except ValueError as error:
        raise ConfigError(f"{name}: {key}: {error}") from None


HASH = "put the SHA-256 of the key there, 64 hex digits: `python -m app key new NAME` makes one"


def _digest(value: object) -> bytes:
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError(f"not a hash: {HASH}")
    return bytes.fromhex(value)


def _models(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not value or not all(isinstance(m, str) for m in value):
        raise ValueError('must be a list of names, such as ["chat"]; leave it out for all models')
    return frozenset(value)


def _count(value: object) -> int:
    if not is_whole(value, 1, LARGEST):
        raise ValueError("must be a whole number of at least 1; leave it out for no limit")
    return value


def _class(value: object) -> str:
    if value not in CLASSES:
        raise ValueError(f"must be one of: {', '.join(CLASSES)}")
    return str(value)


def _weight(value: object) -> float:
    if not is_positive(value, HEAVIEST):
        raise ValueError(f"must be a number above 0 and of at most {HEAVIEST:g}")
    return float(value)


FIELDS: Mapping[str, Callable[[object], Any]] = {
    "sha256": _digest,
    "models": _models,
    "max_concurrent_requests": _count,
    "tokens_per_minute": _count,
    "class": _class,
    "weight": _weight,
}
