"""The private folder of one instance: its sockets, removed at every end.

`owner` in it is locked (flock) while the instance lives. An instance that was killed leaves its
folder behind with the lock free: the next start removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from app.errors import ConfigError
from app.machine import clock

PREFIX = "lmd-"
OWNER = "owner"
MAX_PATH = 100  # bytes; a Unix socket's path, folder and name together, is bounded at 108
MAKING = 60.0  # seconds for which a folder without `owner` is taken to be just being made


class PrivateFolder:
    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def keep(self, name: str, text: str) -> Path:
        """A file in it that only our user can read."""
        path = self.path / name
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
        return path

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK)
    if usable and len(os.fsencode(runtime)) < MAX_PATH - 40:
        return Path(runtime)
    return Path("/tmp")


def create(parent: Path | None = None) -> PrivateFolder:
    """A new folder of ours, mode 0700, after sweeping those of dead instances."""
    parent = parent or base()
    sweep(parent)
    try:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        making = path / f"{OWNER}.making"
        lock = os.open(making, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only a locked file ever has the name that the sweep looks at.
        making.rename(path / OWNER)
    except OSError as error:
        raise ConfigError(f"no private folder can be made in {parent}: {error}") from None
    return PrivateFolder(path, lock)


def sweep(parent: Path) -> list[Path]:
    """Remove the folders of our user whose instance is dead; returns them."""
    removed = []
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if status.st_uid == os.getuid() and path.is_dir() and _dead(path, status.st_mtime):
                shutil.rmtree(path)
                removed.append(path)
    return removed


def _dead(path: Path, changed: float) -> bool:
    try:
        owner = os.open(path / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return clock.wall() - changed > MAKING
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(owner)
    return True
