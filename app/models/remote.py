"""Models of the hub and of the web: both are asked in the same way. Blocks.

The modules that know the hub and the web are slow to import: only where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.errors import TransferError
from app.models import gguf
from app.models.beginning import Beginning
from app.models.files import Preview
from app.models.header import HeaderError
from app.models.kept import Note
from app.models.parts import OnHub, OnWeb
from app.models.progress import Arrived
from app.models.reference import HubFile, WebFile


def on_hub(file: HubFile, cache: Path | None) -> OnHub:
    from app.models import hub

    return hub.locate(file, cache)


def from_hub(located: OnHub, cache: Path | None, arrived: Arrived, note: Note) -> list[Path]:
    from app.models import hub

    return hub.fetch(located, cache, arrived, note)


def on_web(file: WebFile, cache: Path, private: bool) -> OnWeb:
    from app.models import web_file

    return web_file.locate(file, cache, allows(private))


def from_web(located: OnWeb, private: bool, arrived: Arrived, note: Note) -> list[Path]:
    from app.models import web_file

    return web_file.fetch(located, allows(private), arrived, note)


def allows(private: bool) -> Callable[[str], bool] | None:
    from app.models import public

    return None if private else public.is_public


def beginning(located: OnHub | OnWeb, index: int, private: bool) -> Beginning:
    if isinstance(located, OnHub):
        from app.models import hub

        return hub.HubBeginning(located, index)
    from app.models import web_file

    return web_file.WebBeginning(located.parts[index], allows(private))


def preview(located: OnHub | OnWeb, folder: Path, private: bool) -> Preview:
    folder.mkdir(exist_ok=True)  # without its parents: we may have ended, and removed them
    paths = []
    sizes = [part.size for part in located.parts]
    for index, (path, size) in enumerate(zip(located.paths, sizes, strict=True)):
        begun = beginning(located, index, private)
        paths.append(folder / Path(path).name)
        try:
            header = gguf.read_header(begun.read, size)
            gguf.check_bounds(header, size)
        except HeaderError as error:
            problem = f"{begun.title}: corrupt or incomplete: {error}"
            raise TransferError(problem) from None
        with paths[-1].open("wb") as file:
            file.write(begun.data)
            file.truncate(size)
    return Preview(paths[0], gguf.verify(paths), located.size)
