"""The embedded default: a random llama model of 1 MB that llama-server loads in 50 ms."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from app.errors import TransferError
from app.models.gguf import verify_file

NAME = "tiny-v1.gguf"  # raise the number with every change of what tiny_writer writes


def ensure(folder: Path) -> Path:
    """The tiny model in `folder`, written first where it is missing or broken."""
    path = folder / NAME
    try:
        verify_file(path)
    except TransferError:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        os.close(handle)
        try:
            _write(Path(temporary))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    return path


def _write(path: Path) -> None:
    from app.models import tiny_writer  # slow to import, and needed once

    tiny_writer.write(path)
