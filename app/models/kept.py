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
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigError
from app.machine import small_file
from app.models.part_file import bytes_here, record_of

LARGEST = 1 << 16  # bytes of a record
VARIABLE = "LLAMACPP_CACHE_LIMIT"
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


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
    number = text.strip().rstrip("BKMGTbkmgt").strip()
    unit = text.strip()[len(number) :].strip().upper()
    unit = unit if unit in UNITS else f"{unit}B"
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = -1
    if size < 0:
        raise ConfigError(f"{name}: {text!r} is no size such as 200GB")
    return size


def note(cache: Path, path: Path, source: str) -> None:
    """A file was fetched. `path` as it really is: a blob, no link to one. Raises OSError."""
    folder = cache / "kept"
    folder.mkdir(parents=True, exist_ok=True)
    record = _record(folder, path)
    fresh = record.with_suffix(f".{os.getpid()}.new")
    fresh.write_text(json.dumps({"path": str(path), "source": source}))
    fresh.replace(record)


def use(cache: Path, paths: Iterable[Path]) -> list[int]:
    """Say that they are in use now, until the files that are returned are closed: when the process
    ends, at the latest. Those that nobody has noted are nobody's here."""
    held = []
    for path in paths:
        record = _record(cache / "kept", path.resolve())
        with contextlib.suppress(OSError):
            held.append(file := os.open(record, os.O_RDONLY | os.O_CLOEXEC))
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(record)
    return held


def listed(cache: Path, roots: Iterable[Path]) -> list[Kept]:
    """All that is kept, the least recently used first; also what of unfinished downloads is there,
    below the caches `roots`."""
    found = [*_whole(cache / "kept"), *(each for root in roots for each in _unfinished(root))]
    return sorted(found, key=lambda kept: kept.used)


def _whole(folder: Path) -> Iterator[Kept]:
    for record in folder.glob("*.json"):
        try:
            told = json.loads(small_file.content(record, LARGEST))
            path, source = Path(told["path"]), str(told["source"])
            size, used = path.stat().st_size, record.stat().st_mtime
        except FileNotFoundError:  # somebody else has removed it
            with contextlib.suppress(OSError):
                record.unlink()
            continue
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        yield Kept(source, path, size, used, _in_use(record), record)


def _unfinished(root: Path) -> Iterator[Kept]:
    for path in _partial(root):
        with contextlib.suppress(OSError):
            lock = path.with_name(f"{path.name}.lock")
            used = record_of(path).stat().st_mtime
            here = bytes_here(path)
            yield Kept(str(path.relative_to(root)), path, here, used, _in_use(lock), lock, True)


def _in_use(lock: Path) -> bool:
    with _alone(lock) as alone:
        return not alone


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


def make_room(
    cache: Path, roots: Iterable[Path], limit: int, needed: int, spared: Collection[Path] = ()
) -> list[Kept]:
    """Remove what was used longest ago until so many bytes more stay within the limit, or nothing
    is left that may go; `spared` may not. What was removed."""
    kept = listed(cache, roots)
    over = sum(each.size for each in kept) + needed - limit
    removed = []
    for each in kept:
        if over <= 0:
            break
        if each.path in spared or each.in_use:
            continue
        with contextlib.suppress(OSError):
            if remove(each):
                removed.append(each)
                over -= each.size
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


def _record(folder: Path, path: Path) -> Path:
    return folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
