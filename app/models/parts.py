"""The files of a model that is elsewhere: on the Hugging Face hub, as `hub.locate` finds them, or
on the web, as `web_file.locate` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """One file of a repository: its path below the root, its bytes, whether the cache has it, and
    where; if not, what the hub calls its content, bytes that have come already, and the file of
    them."""

    path: str
    size: int
    cached: bool = False
    etag: str = ""
    here: int = 0
    partial: Path | None = None
    local: Path | None = None

    @property
    def missing(self) -> int:
        return 0 if self.cached else max(0, self.size - self.here)


@dataclass(frozen=True)
class OnHub:
    """The parts of a model that the hub has, at one commit of a revision."""

    repo: str
    revision: str
    commit: str
    parts: tuple[Part, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(part.path for part in self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def downloads(self) -> dict[str, int]:
        """Bytes of each part that the cache does not have, by a name that is the same for every
        model that uses this file."""
        prefix = f"{self.repo}@{self.commit}"
        return {f"{prefix}/{part.path}": part.missing for part in self.parts if not part.cached}

    @property
    def missing(self) -> int:
        """Bytes that the cache does not have."""
        return sum(self.downloads.values())

    @property
    def partials(self) -> frozenset[Path]:
        """The files that its parts come in."""
        return frozenset(part.partial for part in self.parts if part.partial is not None)

    @property
    def cached(self) -> tuple[Path, ...]:
        """Those that the cache has."""
        return tuple(part.local for part in self.parts if part.local is not None)


@dataclass(frozen=True)
class WebPart:
    """One file at an HTTP address: where it is or comes to, its bytes, its SHA-256 if that is
    given, whether the cache has it. If not: what the server calls the version of its content,
    whether it sends parts of it, and bytes that have come already."""

    url: str
    file: Path
    size: int
    sha256: str
    version: str = ""
    ranges: bool = True
    cached: bool = False
    here: int = 0

    @property
    def partial(self) -> Path:
        """The file of what has come."""
        return self.file.parent / ".partial" / f"{self.file.name}.part"

    @property
    def missing(self) -> int:
        return 0 if self.cached else max(0, self.size - self.here)


@dataclass(frozen=True)
class OnWeb:
    """The parts of a model at HTTP addresses."""

    parts: tuple[WebPart, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(part.file.name for part in self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def downloads(self) -> dict[str, int]:
        """Bytes of each part that the cache does not have, by a name that is the same for every
        model that uses this file."""
        return {str(part.file): part.missing for part in self.parts if not part.cached}

    @property
    def missing(self) -> int:
        """Bytes that the cache does not have."""
        return sum(self.downloads.values())

    @property
    def partials(self) -> frozenset[Path]:
        """The files that its parts come in."""
        return frozenset(part.partial for part in self.parts)

    @property
    def cached(self) -> tuple[Path, ...]:
        """Those that the cache has."""
        return tuple(part.file for part in self.parts if part.cached)
