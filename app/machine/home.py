"""Paths that begin in somebody's home folder."""

from __future__ import annotations

from pathlib import Path

from app.errors import ConfigError


def expand(text: str, what: str) -> Path:
    """A path with `~` or `~user` as the shell reads it. Raises ConfigError, which begins with
    `what`, if there is no such user or no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{what}: {text}: there is no such home folder") from None


def own(instead: str) -> Path:
    """The home folder of whoever runs us. Raises ConfigError that names what to set `instead`:
    a container's user may have none."""
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(f"you have no home folder here: set {instead}, or HOME") from None
