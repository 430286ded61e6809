"""A file comes to its place: whole, checked, and once, whoever else on this machine fetches it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import TransferError
from app.models.part_file import PartFile, locked
from app.models.progress import Arrived
from app.models.transfer import Source, Transfer

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Content:
    """What is to arrive. `identity`: of exactly this content, so that another try may go on; "" if
    none is known. `digest`: what `hasher()` must have of it; "": not known. `version`: what every
    answer must say of it. `ranges`: whether the server sends parts."""

    identity: str
    size: int
    digest: str = ""
    hasher: Callable[[], Any] | None = None
    version: str = ""
    ranges: bool = True


@dataclass(frozen=True)
class Target:
    """Where it is to be: `part` while it comes, then `place` puts the whole file there. `there`:
    whether it is, by now."""

    part: Path
    there: Callable[[], bool]
    place: Callable[[PartFile], None]


def fetch(
    source: Source, content: Content, target: Target, arrived: Arrived, here: int = 0
) -> None:
    """`here`: bytes that `arrived` need not be told of. Raises TransferError, OSError."""
    try:
        _fetch(source, content, target, arrived, here)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise TransferError(
            f"{target.part.parent}: the disk, or a quota, is full: name another folder with "
            "--cache-dir or LLAMACPP_CACHE_DIR, or make room with `python -m app cache --keep "
            "SIZE`; what has come is kept"
        ) from None


def _fetch(source: Source, content: Content, target: Target, arrived: Arrived, here: int) -> None:
    target.part.parent.mkdir(parents=True, exist_ok=True)
    seen = here

    def come_to(now: int) -> None:
        nonlocal seen
        if now != seen:
            arrived(now - seen)
        seen = now

    with locked(target.part, come_to):
        if target.there():
            come_to(content.size)
            return
        part = PartFile(target.part, content.identity, content.size)
        come_to(part.here)
        try:
            _complete(source, content, part, arrived)
        finally:
            part.close()
        target.place(part)


def _complete(source: Source, content: Content, part: PartFile, arrived: Arrived) -> None:
    """What is there of before may be damaged: then all of it is fetched, once."""
    resumed = part.resumed
    while True:
        hasher = content.hasher() if content.hasher is not None else None
        Transfer(
            source,
            part,
            arrived,
            version=content.version,
            ranges=content.ranges,
            hasher=hasher,
        ).run()
        if hasher is None or hasher.hexdigest() == content.digest:
            return
        arrived(-part.here)
        part.forget()
        if not resumed:
            raise TransferError(
                f"{source.title}: what arrived is not what was promised: its hash is "
                f"{hasher.hexdigest()}, not {content.digest}"
            )
        resumed = 0
