"""The private folder of one instance: its sockets, removed at every end.

The folder, and `owner` in it, are locked (flock) while the instance lives. An instance that was
killed leaves its folder behind with the locks free: the next start removes it. Cleaners of /tmp
(systemd-tmpfiles) leave alone what is below a locked folder; others may take `owner`.
"""

from __future__ import annotations

import contextlib
import errno
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
    def __init__(self, path: Path) -> None:
        """A folder that was just made. Raises OSError."""
        self.path = path
        self._kept: dict[str, str] = {}
        self._locks: list[int] = []
        self._lock()

    def _lock(self) -> None:
        self._locks.append(folder := os.open(self.path, os.O_RDONLY | os.O_DIRECTORY))
        with contextlib.suppress(OSError):  # NFS locks no folders
            fcntl.flock(folder, fcntl.LOCK_EX)  # a sweep may have it for a moment
        making = self.path / f"{OWNER}.making"
        self._locks.append(owner := os.open(making, os.O_CREAT | os.O_RDWR, 0o600))
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only a locked file ever has the name that the sweep looks at.
        making.rename(self.path / OWNER)

    def keep(self, name: str, text: str) -> Path:
        """A file in it that only our user can read. Raises ConfigError."""
        path = self.path / name
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(text)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
        self._kept[name] = text
        return path

    def restore(self) -> bool:
        """Make it anew, with what was kept in it, if somebody has removed it. Returns whether that
        was so. Raises OSError, also if another folder is there, and ConfigError."""
        with contextlib.suppress(FileNotFoundError):
            if not os.path.samestat(self.path.lstat(), os.fstat(self._locks[0])):
                raise FileExistsError(errno.EEXIST, "another one is in its place")
            return False
        self.path.mkdir(mode=0o700)
        self._unlock()
        self._lock()
        for name, text in self._kept.items():
            self.keep(name, text)
        return True

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        for lock in self._locks:
            with contextlib.suppress(OSError):
                os.close(lock)
        self._locks.clear()


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
        return PrivateFolder(Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)))
    except OSError as error:
        raise ConfigError(f"no private folder can be made in {parent}: {error}") from None


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
    with contextlib.suppress(OSError):  # as above
        if not _is_free(path, os.O_RDONLY | os.O_DIRECTORY):
            return False
    try:
        return _is_free(path / OWNER, os.O_RDWR)  # all that earlier versions have locked
    except FileNotFoundError:
        return clock.wall() - changed > MAKING


def _is_free(path: Path, how: int) -> bool:
    """Whether nobody has locked it. Raises OSError."""
    opened = os.open(path, how | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(opened)
    return True
