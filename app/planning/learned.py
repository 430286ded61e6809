"""What is known of models' memory, remembered over runs by files in the cache: what they really
used, and what the planning tool has predicted."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.machine import small_file
from app.planning.amounts import Need

FILE = "footprints.json"
PREDICTED = "predictions.json"
MOST = 1000  # models that are remembered
LARGEST = 16 << 20  # bytes of a file
MOST_BYTES = 1 << 50  # that a model uses of one device


def key(paths: Sequence[Path], arguments: Sequence[str], where: Sequence[str]) -> str:
    """The same for the same files (names, sizes, times), memory-deciding arguments, GPUs and
    llama-server."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    text = json.dumps([stats, list(arguments), list(where)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def place(program: Path, gpus: Mapping[str, int]) -> list[str]:
    """Of a key: a program of llama.cpp as it is now, with the libraries beside it (in many builds
    it is these that compute), and the bytes of each GPU."""
    path = program.resolve()
    files = [path, *(file for file in path.parent.glob("lib*.so*") if file.exists())]
    newest = max(file.stat().st_mtime_ns for file in files)
    return [str(path), str(newest), *(f"{gpu} {size}" for gpu, size in gpus.items())]


class Learned:
    """Bytes by device, by key: the most that was ever put."""

    def __init__(self, folder: Path, file: str = FILE) -> None:
        self._path = folder / file
        self._usage = self._read()

    def get(self, model: str) -> dict[str, int]:
        """{} if nothing is known."""
        return dict(self._usage.get(model, {}))

    def put(self, model: str, usage: Mapping[str, int]) -> None:
        """Never raises: what cannot be written is learned again."""
        before = self.get(model)
        most = {d: max(size, before.get(d, 0)) for d, size in usage.items()}
        if not most or most == before:
            return
        self._usage = self._read()  # another instance may have written since
        self._usage[model] = {**self.get(model), **most}
        while len(self._usage) > MOST:
            self._usage.pop(next(iter(self._usage)))
        with contextlib.suppress(OSError):
            self._write()

    def forget(self, model: str) -> None:
        """What was put is wrong. Never raises."""
        self._usage = self._read()
        if self._usage.pop(model, None) is not None:
            with contextlib.suppress(OSError):
                self._write()

    def _read(self) -> dict[str, dict[str, int]]:
        found = small_file.content(self._path, LARGEST)
        try:
            read = json.loads(found) if isinstance(found, bytes) else {}
        except (ValueError, RecursionError):
            return {}
        return {k: v for k, v in read.items() if _sound(v)} if isinstance(read, dict) else {}

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        small_file.replace(self._path, json.dumps(self._usage).encode())


@dataclass(frozen=True)
class Record:
    """What is known of one model, by device."""

    learned: Learned
    key: str

    def seen(self) -> Need:
        return self.learned.get(self.key)

    def put(self, usage: Need) -> None:
        self.learned.put(self.key, usage)

    def forget(self) -> None:
        self.learned.forget(self.key)

    def at_least(self, predicted: Need) -> Need:
        """For each device the larger of the prediction and what was seen."""
        seen = self.seen()
        return {device: max(size, seen.get(device, 0)) for device, size in predicted.items()}


def _sound(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(size) is int and 0 <= size <= MOST_BYTES for size in value.values()
    )
