"""Files of control groups, of version 1 and 2, and others with one number."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def number(path: Path) -> int | None:
    """None where there is no such file, or the word "max" in it."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def limit(path: Path) -> int | None:
    """A number above 0; others stand for no limit."""
    found = number(path)
    return found if found is not None and found > 0 else None
