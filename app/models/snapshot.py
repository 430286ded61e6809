"""A fetched file gets its name in the cache of huggingface_hub, whose library finds it there.

The library itself would ask the hub once more, and write a file wherever the ETag of that answer
says.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from app.machine import small_file

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # as file systems say it


def point(folder: Path, commit: str, path: str, blob: Path) -> Path:
    """The file `path` of a commit, in the `folder` of its repository, is this blob. Raises OSError.
    Where the file system has no links, the blob itself moves there."""
    pointer = folder / "snapshots" / commit / path
    if pointer.exists():
        return pointer
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)  # to a blob that is no more
    try:
        with contextlib.suppress(FileExistsError):  # another process was faster
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        blob.replace(pointer)
    return pointer


def name(folder: Path, revision: str, commit: str) -> None:
    """A branch's name for the commit: the cache then knows it when the hub does not answer. Raises
    OSError."""
    if revision == commit:
        return
    told = folder / "refs" / revision
    if small_file.content(told, len(commit)) != commit.encode():
        told.parent.mkdir(parents=True, exist_ok=True)
        small_file.replace(told, commit.encode())
