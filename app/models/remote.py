"""Models of the hub and of the web: the store need not know which is which. Blocks.

The modules that know the hub and the web are slow to import: only where they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import TransferError
from app.models import gguf, surroundings
from app.models.beginning import Beginning
from app.models.files import Preview
from app.models.header import HeaderError
from app.models.kept import Note
from app.models.parts import OnHub, OnWeb, Remote, WebPart
from app.models.progress import Arrived
from app.models.reference import HubFile, WebFile


@dataclass(frozen=True)
class Caches:
    """Where what is fetched comes to: `hub`, None for the one that all programs share, and `web`.
    `private`: addresses that are not the internet's may be fetched from."""

    hub: Path | None
    web: Path
    private: bool

    @property
    def allows(self) -> Callable[[str], bool] | None:
        from app.models import public

        return None if self.private else public.is_public

    def folder(self, remote: Remote) -> Path:
        return self.hub_folder if isinstance(remote, OnHub) else self.web

    @property
    def hub_folder(self) -> Path:
        if self.hub is not None:
            return self.hub
        from app.models import hub

        return hub.shared_cache()


def locate(reference: HubFile | WebFile, caches: Caches) -> Remote:
    """Raises ConfigError."""
    surroundings.check(os.environ)
    if isinstance(reference, HubFile):
        from app.models import hub

        return hub.locate(reference, caches.hub_folder)
    from app.models import web_file

    return web_file.locate(reference, caches.web, caches.allows)


def fetch(remote: Remote, caches: Caches, arrived: Arrived, note: Note) -> list[Path]:
    """All parts, in one folder under their own names. Raises TransferError."""
    if isinstance(remote, OnHub):
        from app.models import hub

        return hub.fetch(remote, caches.hub_folder, arrived, note)
    assert isinstance(remote, OnWeb)
    from app.models import web_file

    return web_file.fetch(remote, caches.allows, arrived, note)


def preview(remote: Remote, caches: Caches, folder: Path) -> Preview:
    """Read the headers; stand-ins of the files are written into `folder`. Raises TransferError."""
    folder.mkdir(exist_ok=True)  # without its parents: we may have ended, and removed them
    paths = []
    for index, part in enumerate(remote.parts):
        begun = _beginning(remote, index, caches)
        paths.append(folder / Path(part.path).name)
        try:
            header = gguf.read_header(begun.read, part.size)
            gguf.check_bounds(header, part.size)
        except HeaderError as error:
            problem = f"{remote.source(part)}: corrupt or incomplete: {error}"
            raise TransferError(problem) from None
        try:
            with paths[-1].open("wb") as file:
                file.write(begun.data)
                file.truncate(part.size)
        except OSError as error:
            raise TransferError(f"{folder}: {error.strerror}") from None
    return Preview(paths[0], gguf.verify(paths), remote.size)


def _beginning(remote: Remote, index: int, caches: Caches) -> Beginning:
    part = remote.parts[index]
    if isinstance(remote, OnHub):
        from app.models import hub

        return Beginning(hub.web(remote, part), part.size)
    assert isinstance(part, WebPart)
    from app.models.web import Web

    web = Web(part.url, allows=caches.allows)
    return Beginning(web, part.size, version=part.version, ranges=part.ranges)
