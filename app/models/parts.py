"""The files of a model on the Hugging Face hub, as `hub.locate` finds them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One file of a repository: its path below the root, its bytes, whether the cache has it; if
    not, what the hub calls its content, and bytes that have come already."""

    path: str
    size: int
    cached: bool = False
    etag: str = ""
    here: int = 0

    @property
    def missing(self) -> int:
        return 0 if self.cached else max(0, self.size - self.here)


@dataclass(frozen=True)
class Located:
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
