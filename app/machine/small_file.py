"""Small files that others write, too, and that may be anything by now: read without waiting, and
bounded; written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from app.machine import chance

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def content(path: Path, largest: int) -> bytes | str:
    """What is in a file of at most `largest` bytes, or why that cannot be said, for a person."""
    try:
        # Nobody may be writing into a pipe: to open it would wait for that.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return "is no file"
            found = file.read(largest + 1)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return found if len(found) <= largest else f"is larger than {largest} bytes"


def replace(path: Path, data: bytes, *, absent: bool = False) -> None:
    """Write the file whole, or leave it as it is. Raises OSError; FileExistsError if it is to be
    `absent` and is there."""
    fresh = path.with_name(f"{path.name}.{chance.name(8)}.tmp")
    try:
        with open(os.open(fresh, FRESH, 0o666), "wb") as file:
            file.write(data)
        if absent:
            os.link(fresh, path)
            fresh.unlink()
        else:
            fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
