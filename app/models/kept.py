"""What the app has fetched and keeps: one record for each file, in `<cache>/kept`.

Its last use is the record's time of change; who uses it holds a lock on it. Only files with a
record are ever removed: what other programs fetched into a cache that they share is theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigError
from app.machine import clock, small_file
from app.models.part_file import bytes_here, record_of

LARGEST = 1 << 16  # bytes of a record
VARIABLE = "LLAMACPP_CACHE_LIMIT"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([KMGT]?)B?")
FORGOTTEN = 86400.0  # seconds after which the record of a file that is not there goes
LOOKS = 3  # at a lock; another one who looks has it for a moment
BETWEEN = 0.005  # seconds

Note = Callable[[Path, str], None]  # a file that was fetched, and its source
Failed = Callable[["Kept", OSError], None]


@dataclass(frozen=True)
class Kept:
    """One file, or what is there of an `unfinished` one. `used`: seconds since the epoch."""

    source: str
    path: Path
    size: int
    used: float
    in_use: bool
    record: Path
    unfinished: bool = False


def size_of(text: str, name: str) -> int:
    """Bytes: "200GB", "500 MB", "1000000". Raises ConfigError that names `name`."""
    told = SIZE.fullmatch(text.strip().upper())
    if told is None:
        raise ConfigError(f"{name}: {text!r} is no size such as 200GB")
    return int(float(told[1]) * UNITS[told[2]])


def note(cache: Path, path: Path, source: str) -> None:
    """A file has been fetched, and is about to come to its place. `path` as it really is: a blob,
    no link to one. A record that is there stays, since those who use the file hold its lock.
    Raises OSError."""
    folder = cache / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    record = _record(cache, path)
    if _read(record) is not None:
        return
    told = json.dumps({"path": _told(cache, path), "source": source}).encode()
    try:
        small_file.replace(record, told, absent=True)
    except FileExistsError:  # a wrong one, or one that another instance has just made
        if _read(record) is None:
            small_file.replace(record, told)


def use(cache: Path, paths: Iterable[Path]) -> list[int]:
    """Say that they are in use now, until the files that are returned are closed: when the process
    ends, at the latest. Those that nobody has noted are nobody's here."""
    held = []
    for path in paths:
        record = _record(cache, path.resolve())
        with contextlib.suppress(OSError):
            held.append(file := os.open(record, os.O_RDONLY | os.O_CLOEXEC))
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(record)
    return held


def listed(cache: Path, roots: Collection[Path]) -> list[Kept]:
    """All that is kept below the caches `roots`, the least recently used first; also what is there
    of unfinished downloads."""
    found = [*_whole(cache, roots), *(each for root in roots for each in _unfinished(root))]
    return sorted(found, key=lambda kept: kept.used)


def _whole(cache: Path, roots: Iterable[Path]) -> Iterator[Kept]:
    """Of nothing elsewhere, whatever a record says."""
    below = [root.resolve() for root in roots]
    for record in (cache / "kept").glob("*.json"):
        told = _read(record)
        if told is None:
            continue
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            path, source = (cache / told[0]).resolve(), told[1]  # an absolute one stays what it is
            used = record.stat().st_mtime
            known = any(path.is_relative_to(root) for root in below)
            if not known or record != _record(cache, path):  # it tells of another than its name
                continue
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                # It may come yet, or lie where another machine's folder is mounted.
                if path.parent.is_dir() and clock.wall() - used > FORGOTTEN:
                    record.unlink()
                continue
            yield Kept(source, path, size, used, _in_use(record), record)


def _read(record: Path) -> tuple[str, str] | None:
    """A record's path and source; None if it is wrong in any way."""
    try:
        told = json.loads(small_file.content(record, LARGEST))
        path, source = told["path"], told["source"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return (path, source) if isinstance(path, str) and isinstance(source, str) else None


def _unfinished(root: Path) -> Iterator[Kept]:
    for path in _partial(root):
        with contextlib.suppress(OSError):
            lock = path.with_name(f"{path.name}.lock")
            used = record_of(path).stat().st_mtime
            here = bytes_here(path)
            yield Kept(str(path.relative_to(root)), path, here, used, _in_use(lock), lock, True)


def _in_use(lock: Path) -> bool:
    for look in range(LOOKS):
        with _alone(lock) as alone:
            if alone:
                return False
        if look < LOOKS - 1:
            clock.sleep(BETWEEN)
    return True


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Whether nobody uses it; if so, nobody does inside."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    except OSError:
        yield False
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(file)


def remove(kept: Kept) -> bool:
    """Whether it could be removed: not if it is in use. Raises OSError."""
    with _alone(kept.record) as alone:
        if not alone:
            return False
        if kept.unfinished:
            kept.path.unlink(missing_ok=True)
            record_of(kept.path).unlink(missing_ok=True)
            return True
        for link in _links(kept.path):
            link.unlink(missing_ok=True)
        kept.path.unlink(missing_ok=True)
        kept.record.unlink(missing_ok=True)
        return True


def _links(path: Path) -> list[Path]:
    """The names of a blob, in the hub's cache."""
    if path.parent.name != "blobs":
        return []
    snapshots = path.parent.parent / "snapshots"
    return [link for link in snapshots.rglob("*") if link.is_symlink() and link.resolve() == path]


def free(
    there: Iterable[Kept], over: int, failed: Failed, spared: Collection[Path] = ()
) -> list[Kept]:
    """Remove what was used longest ago of what is `there`, until so many bytes are gone, or nothing
    is left that may go; `spared` may not. What was removed; `failed` is told of what cannot be."""
    removed = []
    for each in there:
        if over <= 0:
            break
        if each.path in spared or each.in_use:
            continue
        try:
            if remove(each):
                removed.append(each)
                over -= each.size
        except OSError as error:
            failed(each, error)
    return removed


def coming(roots: Iterable[Path], ours: Collection[Path]) -> int:
    """Bytes that other processes are about to write there; not of `ours`, which we want as well."""
    found = 0
    for root in roots:
        for path in _partial(root):
            with contextlib.suppress(OSError):
                if path not in ours and _in_use(path.with_name(f"{path.name}.lock")):
                    found += max(0, path.stat().st_size - bytes_here(path))
    return found


def _partial(root: Path) -> Iterator[Path]:
    """In the folder of a repository of the hub, or of a version of an address."""
    for pattern in ("*/.partial/*.part", "*/*/.partial/*.part"):
        yield from root.glob(pattern)


def _told(cache: Path, path: Path) -> str:
    """A path as a record has it: a cache may be mounted elsewhere in a container."""
    root = cache.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _record(cache: Path, path: Path) -> Path:
    told = os.fsencode(_told(cache, path.resolve()))
    return cache / "kept" / f"{hashlib.sha256(told).hexdigest()[:32]}.json"
