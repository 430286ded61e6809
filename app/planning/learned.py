"""What models really held, kept over runs: `footprints.json` in the cache, renamed into place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.planning.amounts import Need

logger = logging.getLogger(__name__)

FILE = "footprints.json"
MOST = 1000  # models that are remembered


def key(paths: Sequence[Path], arguments: Sequence[str], where: Sequence[str]) -> str:
    """Of files (names, sizes, times), the memory-deciding arguments, and devices and binary."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    text = json.dumps([stats, list(arguments), list(where)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Learned:
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._known = self._read()

    def get(self, model: str) -> dict[str, int]:
        """Bytes by device that this model was seen to hold at most; {} where nothing is known."""
        return dict(self._known.get(model, {}))

    def put(self, model: str, held: Mapping[str, int]) -> None:
        """Never raises: what cannot be kept is learned again."""
        known = self.get(model)
        more = {d: max(size, known.get(d, 0)) for d, size in held.items() if size}
        if not more or more == known:
            return
        self._known = self._read()  # another instance may have written since
        self._known[model] = {**self.get(model), **more}
        while len(self._known) > MOST:
            self._known.pop(next(iter(self._known)))
        with contextlib.suppress(OSError):
            self._write()

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in found.items() if _sound(v)} if isinstance(found, dict) else {}

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(self._known, file)
            os.replace(temporary, self._path)
        except OSError:
            os.unlink(temporary)
            raise


@dataclass(frozen=True)
class Record:
    """What one model was seen to hold, by device."""

    learned: Learned
    key: str

    def seen(self) -> Need:
        return self.learned.get(self.key)

    def put(self, usage: Need) -> None:
        self.learned.put(self.key, usage)

    def at_least(self, predicted: Need) -> Need:
        """What is predicted for each device, or what was seen on it where that was more."""
        seen = self.seen()
        return {device: max(size, seen.get(device, 0)) for device, size in predicted.items()}


def _sound(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(d, str) and isinstance(size, int) for d, size in value.items()
    )
