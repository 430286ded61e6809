"""What an aborted download from the hub leaves in the hub's cache: a file of a new name at each
try, which nothing uses again. The hub's library holds a file's lock as long as it downloads it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

NAMED = re.compile(r"(?P<etag>.+)\.[0-9a-f]{8}\.incomplete")


def discard() -> None:
    """Remove the files that this process is writing now. Never raises."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = Path(os.readlink(f"/proc/self/fd/{number}"))
            if NAMED.fullmatch(path.name):
                path.unlink()


def remove_abandoned(cache: Path, repository: str) -> None:
    """Remove those that nobody is writing, of one of the cache's folders `models--…`."""
    for path in (cache / repository / "blobs").glob("*.incomplete"):
        named = NAMED.fullmatch(path.name)
        if named and _is_free(cache / ".locks" / repository / f"{named['etag']}.lock"):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_free(lock: Path) -> bool:
    """Whether nobody holds it. One that cannot be asked may be held."""
    try:
        file = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True  # it is there before its file is
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
