"""Where a model's files are, and those that are on this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import FormError, TransferError, words
from app.models import gguf
from app.models.header import Header
from app.models.parts import Remote
from app.models.reference import KEY, LocalFile, choose, choose_of, is_glob, shards, shown
from app.models.repository import is_projector

MOST_FOLDERS = 1000  # that are looked into for a model


@dataclass(frozen=True)
class ModelFiles:
    """A whole, verified model: its parts, the first one first. `source`: the address that they are
    from; "" where the path says it."""

    paths: tuple[Path, ...]
    header: Header
    source: str = ""

    @property
    def first(self) -> Path:
        return self.paths[0]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


@dataclass(frozen=True)
class Preview:
    """A model that is not downloaded yet, of which the headers were read. `first` is a stand-in for
    its first file: it has the right size and the header, and the planning tool can read it; the
    stand-ins of further parts lie beside it. `size` in bytes."""

    first: Path
    header: Header
    size: int


Inspected = ModelFiles | Preview  # its headers have been read


@dataclass(frozen=True)
class Shard:
    """A part of a split model, as a model of ClearML's registry: its file's name, and its ID."""

    file: str
    id: str


@dataclass(frozen=True)
class Registered:
    """A model of ClearML's registry. `shards`: all parts, where each is a model of its own."""

    id: str
    name: str
    shards: tuple[Shard, ...] = ()


@dataclass(frozen=True)
class InBucket:
    """A file that ClearML's SDK brings from a bucket."""

    url: str

    @property
    def name(self) -> str:
        return shown(self.url)


OfClearML = Registered | InBucket
# Files on this machine are verified at once.
Located = Remote | OfClearML | ModelFiles


def of_registry(path: Path) -> ModelFiles:
    """The weights in what ClearML fetched: a file, or a package's folder."""
    first = str(path)
    try:
        if path.is_dir():
            first = only(path)
        parts = [Path(part) for part in shards(first)]
    except FormError as error:
        raise TransferError(f"{path}: {error.problem}") from None
    missing = [part for part in parts if not part.is_file()]
    if missing:
        raise TransferError(f"{missing[0]} is missing: register all parts of a split model")
    return verified(parts)


def only(folder: Path) -> str:
    """The first file of the only model in a folder, or below it. Raises FormError."""
    files: list[str] = []
    # What vanishes meanwhile, or nobody may read, is passed over.
    for number, (at, _, names) in enumerate(os.walk(folder)):
        if number == MOST_FOLDERS:
            raise FormError(KEY, f"{folder} has more than {MOST_FOLDERS} folders: name the file")
        files += [os.path.join(at, name) for name in names if name.endswith(".gguf")]
    weights = [file for file in files if not is_projector(file)]
    return choose_of(f"{folder}/**/*.gguf", weights)


def verified(paths: Sequence[Path], source: str = "") -> ModelFiles:
    return ModelFiles(tuple(paths), gguf.verify(paths), source)


def local(reference: LocalFile) -> tuple[Path, ...]:
    """All parts. Raises FormError, TransferError for a set that is not whole."""
    try:
        return _local(reference)
    except (OSError, ValueError) as error:
        raise FormError(KEY, f"{reference.path[:200]}: {words(error)}") from None


def _local(reference: LocalFile) -> tuple[Path, ...]:
    path = os.path.expanduser(reference.path)
    if is_glob(path) and not os.path.exists(path):
        path = choose(path, glob.glob(path))
    elif os.path.isdir(path):
        path = only(Path(path))
    first, *others = (Path(part) for part in shards(path))
    if not first.is_file():
        said = "is no regular file" if first.exists() else "no such file on this machine"
        raise FormError(KEY, f"{reference.path}: {said}")
    for other in others:
        if not other.is_file():
            raise TransferError(f"{other}: this part of the set is missing")
    return tuple(part.absolute() for part in (first, *others))
