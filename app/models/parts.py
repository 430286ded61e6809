"""The files of a model that is elsewhere: on the Hugging Face hub, as `hub.locate` finds them, or
on the web, as `web_file.locate` does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from app.models.reference import shown


@dataclass(frozen=True)
class Part:
    """One file: its path below the repository's root, or its name; its bytes; whether the cache
    has it, as `local`. If not: `version` of its content (the ETag that the hub or the server
    tells), bytes that are `here` already, and the file `partial` of them."""

    path: str
    size: int
    cached: bool = False
    version: str = ""
    here: int = 0
    partial: Path | None = None
    local: Path | None = None

    @property
    def missing(self) -> int:
        return 0 if self.cached else max(0, self.size - self.here)


@dataclass(frozen=True)
class WebPart(Part):
    """One at an HTTP address: its SHA-256, if that is given; whether the server sends parts."""

    url: str = ""
    sha256: str = ""
    ranges: bool = True


class Remote(ABC):
    """All parts of a model that is elsewhere."""

    parts: tuple[Part, ...]

    @abstractmethod
    def source(self, part: Part) -> str:
        """Where a part is from, for people."""

    @abstractmethod
    def _name(self, part: Part) -> str:
        """The same for every model that uses this file, and for no other one."""

    @property
    def address(self) -> str:
        """Where the first part is from, if the path of the file does not say it."""
        return self.source(self.parts[0])

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
        return {self._name(part): part.missing for part in self.parts if not part.cached}

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
        return tuple(part.local for part in self.parts if part.cached and part.local is not None)


@dataclass(frozen=True)
class OnHub(Remote):
    """At one commit of a revision."""

    repo: str
    revision: str
    commit: str
    parts: tuple[Part, ...]

    def source(self, part: Part) -> str:
        return f"{self.repo}/{part.path}"

    def _name(self, part: Part) -> str:
        return f"{self.repo}@{self.commit}/{part.path}"

    @property
    def address(self) -> str:
        return ""  # the hub's cache has the repository's name


@dataclass(frozen=True)
class OnWeb(Remote):
    parts: tuple[WebPart, ...]

    def source(self, part: Part) -> str:
        assert isinstance(part, WebPart)
        return shown(part.url)

    def _name(self, part: Part) -> str:
        return str(part.local)
