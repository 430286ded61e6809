"""Downloads by the ClearML SDK: how far they have come, and what an aborted one leaves behind.

The SDK writes into a file beside the one of its cache, under a new name at each try. Our names end
with that of a private folder in the cache, which is there and locked as long as we live: a file
whose folder is not there is nobody's, and is removed by the next download.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from app.machine import private
from app.models.progress import Arrived

MB = 1024 * 1024  # bytes, as the SDK counts
NAMED = re.compile(  # the time of the try, our folder, and what boto adds to it
    rf"_\d+(\.\d+)?\.(?P<owner>{private.PREFIX}\w{{8}})(\.\w+)?$"
)
Begin = Callable[[int], Arrived]  # is given the bytes of a download that begins

BEGIN: ContextVar[Begin] = ContextVar("BEGIN")  # of the thread that downloads


class Downloads:
    """What this process downloads into the SDK's cache `folder`. Blocks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._owner = private.create(folder)  # removes the folders of those that are dead
        remove_abandoned(folder)

    @property
    def suffix(self) -> str:
        """Of the names of files that are not whole yet. The SDK leaves room for it: 32 characters,
        with the time."""
        return f".{self._owner.path.name}"

    @property
    def ours(self) -> Path:
        """A folder that is removed with us."""
        return self._owner.path

    def discard(self) -> None:
        """Remove all that is not whole. Never raises."""
        _remove(self._folder, lambda owner: owner == self._owner.path.name)
        self._owner.remove()


def remove_abandoned(folder: Path) -> None:
    """Remove what a killed process of ours has left, and nothing of one that lives."""
    _remove(folder, lambda owner: not (folder / owner).exists())


def _remove(folder: Path, wanted: Callable[[str], bool]) -> None:
    for path in folder.glob(f"*/*.{private.PREFIX}*"):
        named = NAMED.search(path.name)
        if named and wanted(named["owner"]):
            with contextlib.suppress(OSError):
                path.unlink()


def hook(suffix: str) -> None:
    """Have the SDK name its files so, and tell `BEGIN` of their bytes instead of the console."""
    from clearml.storage import helper

    class Report(helper.DownloadProgressReport):  # type: ignore[misc]
        def __init__(self, total_size: float, *given: Any, **named: Any) -> None:
            super().__init__(total_size, *given, **named)
            begin = BEGIN.get(None)
            self._arrived = begin(round(total_size * MB)) if begin is not None else None

        def __call__(self, chunk_size: float, *_: Any, **__: Any) -> None:
            self.current_status_mb += chunk_size / MB
            if self._arrived is not None:
                self._arrived(int(chunk_size))

    helper.DownloadProgressReport = Report
    helper.StorageHelper._temp_download_suffix = suffix
