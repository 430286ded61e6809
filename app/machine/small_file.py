"""Files that others write, and that may be anything by now: read without waiting, and bounded."""

from __future__ import annotations

import os
import stat
from pathlib import Path


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
