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
from collections.abc import Iterable
from pathlib import Path

from app.errors import ConfigError, words
from app.machine import clock

PREFIX = "lmd-"
OWNER = "owner"
MAX_PATH = 100  # bytes; a Unix socket's path, folder and name together, is bounded at 108
MAKING = 60.0  # seconds for which a folder without `owner` is taken to be just being made


class PrivateFolder:
    def __init__(self, path: Path) -> None:
        """A folder that was just made, and is removed where it cannot be locked. Raises OSError."""
        self.path = path
        self._kept: dict[str, str] = {}
        self._locks = _locked(path)

    def keep(self, name: str, text: str) -> Path:
        """A file in it that only our user can read. Raises ConfigError."""
        path = self.path / name
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(text)
        except OSError as error:
            if not isinstance(error, FileExistsError):
                path.unlink(missing_ok=True)  # it is not whole
            raise ConfigError(f"{path} cannot be written: {words(error)}") from None
        self._kept[name] = text
        return path

    def restore(self) -> bool:
        """Make anew what somebody has removed of it: the folder, and what was kept in it, as far as
        that can be; what could not is tried again the next time. Returns whether the folder was
        gone. Raises OSError, also if another one is in its place."""
        if not self._locks:
            raise FileNotFoundError(errno.ENOENT, "it was removed for good")
        if gone := not self._is_there():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700)
            before, self._locks = self._locks, _locked(self.path)
            _close(before)
        for name, text in self._kept.items():
            if not (self.path / name).exists():
                with contextlib.suppress(ConfigError):
                    self.keep(name, text)
        return gone

    def _is_there(self) -> bool:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        if not os.path.samestat(found, os.fstat(self._locks[0])):
            raise FileExistsError(errno.EEXIST, "another one is in its place")
        return True

    def remove(self) -> None:
        """For good."""
        with contextlib.suppress(OSError):
            if self._locks and self._is_there():
                shutil.rmtree(self.path, ignore_errors=True)
        _close(self._locks)
        self._locks = []


def _locked(path: Path) -> list[int]:
    """The descriptors that lock a new folder, its own first. Raises OSError: it is removed then."""
    locks: list[int] = []
    try:
        locks.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        with contextlib.suppress(OSError):  # NFS locks no folders
            fcntl.flock(locks[0], fcntl.LOCK_EX)  # a sweep may have it for a moment
        making = path / f"{OWNER}.making"
        locks.append(os.open(making, os.O_CREAT | os.O_RDWR, 0o600))
        fcntl.flock(locks[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only a locked file ever has the name that the sweep looks at.
        making.rename(path / OWNER)
    except OSError:
        _close(locks)
        shutil.rmtree(path, ignore_errors=True)
        raise
    return locks


def _close(locks: Iterable[int]) -> None:
    for lock in locks:
        with contextlib.suppress(OSError):
            os.close(lock)


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
        raise ConfigError(f"no private folder can be made in {parent}: {words(error)}") from None


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
