"""From a model reference to verified files on this machine."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.errors import ConfigError, FormError, TransferError
from app.machine import host, threads
from app.models import gguf, kept, tiny
from app.models.beginning import Beginning
from app.models.header import Header, HeaderError
from app.models.kept import Note
from app.models.parts import OnHub, OnWeb
from app.models.progress import Arrived, Download, Progress
from app.models.reference import (
    KEY,
    BucketFile,
    ClearMLModel,
    HubFile,
    LocalFile,
    NamedModel,
    Reference,
    WebFile,
    choose,
    choose_of,
    is_glob,
    shards,
    shown,
)

logger = logging.getLogger(__name__)


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

    @property
    def downloads(self) -> dict[str, int]:
        return {}


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
class Registered:
    """A model of ClearML's registry."""

    id: str
    name: str


@dataclass(frozen=True)
class InBucket:
    """A file that ClearML's SDK brings from a bucket."""

    url: str

    @property
    def name(self) -> str:
        return shown(self.url)


class Registry(Protocol):
    """ClearML's registry of models, and its storage; `task.weights` has the real one."""

    async def find(self, model_id: str) -> Registered: ...

    async def find_named(self, project: str, name: str) -> Registered: ...

    async def fetch(self, model: Registered | InBucket, begin: Callable[[int], Arrived]) -> Path:
        """`begin` is given the bytes of a download that begins, if there is one."""


OfClearML = Registered | InBucket
# Files on this machine are verified at once.
Located = OnHub | OnWeb | OfClearML | ModelFiles


def cache_folder(given: str | None, environment: Mapping[str, str]) -> Path:
    """The folder for what the app fetches and writes."""
    if chosen := given or environment.get("LLAMACPP_CACHE_DIR"):
        return Path(chosen).expanduser()
    if clearml := environment.get("CLEARML_CACHE_DIR"):
        return Path(clearml).expanduser() / "llamacpp"  # agents mount this folder into containers
    return Path.home() / ".cache" / "llamacpp-deployment"


class Store:
    def __init__(
        self,
        given: str | None,
        environment: Mapping[str, str],
        registry: Registry | None = None,
        *,
        private_urls: bool = False,
    ) -> None:
        """`private_urls`: addresses that are not the internet's may be fetched from."""
        self._registry = registry
        self._private_urls = private_urls
        self.cache = cache_folder(given, environment)
        chosen = given or environment.get("LLAMACPP_CACHE_DIR")
        shared = environment.get("HF_HOME") and not chosen
        self._hub: Path | None = None if shared else self.cache / "hub"
        text = environment.get(kept.VARIABLE, "").strip()
        self._limit = kept.size_of(text, kept.VARIABLE) if text else None
        self._in_use: list[int] = []  # files whose locks say so, as long as we live

    @property
    def hub_folder(self) -> Path:
        """The cache for files of the hub."""
        if self._hub is not None:
            return self._hub
        from app.models import hub  # slow to import: only where it is needed

        return hub.shared_cache()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders with what is fetched."""
        return (self.hub_folder, self.cache / "web")

    def coming(self, wanted: Collection[Path]) -> int:
        """Bytes that other processes fetch at the moment; not of files that are `wanted`, too."""
        return kept.coming(self.roots, wanted)

    def spare(self) -> int:
        """Bytes that may be freed for others, if there is a limit at all."""
        if self._limit is None:
            return 0
        return sum(each.size for each in kept.listed(self.cache, self.roots) if not each.in_use)

    def folder(self, located: OnHub | OnWeb) -> Path:
        """Where its files come to."""
        return self.hub_folder if isinstance(located, OnHub) else self.cache

    def _make_room(self, located: OnHub | OnWeb) -> None:
        self._in_use += kept.use(self.cache, located.cached)
        if self._limit is None:
            return
        spared, needed = located.partials, located.missing
        short = max(0, needed - host.disk_free(self.folder(located)))
        for each in kept.make_room(self.cache, self.roots, self._limit, needed, spared, short):
            logger.info("removed %s, to keep no more than %s says", each.source, kept.VARIABLE)

    def _note(self, path: Path, source: str) -> None:
        """That we have fetched it. Without that it is only never removed."""
        try:
            kept.note(self.cache, path, source)
        except OSError as error:
            logger.warning("%s is kept without a record: %s", source, error)

    async def locate(self, reference: Reference) -> Located:
        """Find the files, and download nothing. Raises ConfigError, or TransferError for files on
        this machine that are not whole."""
        if isinstance(reference, HubFile):
            return await threads.run(_on_hub, reference, self._hub)
        if isinstance(reference, WebFile):
            return await threads.run(_on_web, reference, self.cache, self._private_urls)
        if isinstance(reference, ClearMLModel | NamedModel | BucketFile):
            return await self._of_clearml(reference)
        if isinstance(reference, LocalFile):
            return await threads.run(_verified, _local(reference))
        try:
            path = await threads.run(tiny.ensure, self.cache)
        except OSError as error:
            raise ConfigError(f"the cache folder {self.cache} cannot be written: {error}") from None
        return await threads.run(_verified, [path])

    async def _of_clearml(self, reference: ClearMLModel | NamedModel | BucketFile) -> OfClearML:
        if self._registry is None:
            raise FormError(KEY, "there is no ClearML to ask")
        if isinstance(reference, BucketFile):
            return InBucket(reference.url)
        if isinstance(reference, NamedModel):
            return await self._registry.find_named(reference.project, reference.name)
        return await self._registry.find(reference.id)

    async def inspect(self, located: Located, folder: Path) -> Inspected | None:
        """Read the headers, and download nothing else; stand-ins of files that are not here are
        written into `folder`. None for what ClearML brings: its files are known only once they
        are fetched. Raises TransferError."""
        if isinstance(located, OfClearML):
            return None
        if isinstance(located, ModelFiles):
            return located
        return await threads.run(_preview, located, folder, self._private_urls)

    async def fetch(self, located: Located, name: str, progress: Progress) -> ModelFiles:
        """Download the files and verify them; they stay in use as long as we live. Raises
        TransferError."""
        files = await self._fetch(located, name, progress)
        self._in_use += await threads.run(kept.use, self.cache, files.paths)
        return files

    async def _fetch(self, located: Located, name: str, progress: Progress) -> ModelFiles:
        if isinstance(located, ModelFiles):
            return located
        if isinstance(located, OfClearML):
            return await threads.run(_of_registry, await self._from(located, name, progress))
        source = shown(located.parts[0].url) if isinstance(located, OnWeb) else ""
        return await threads.run(_verified, await self._download(located, name, progress), source)

    async def _from(self, located: OfClearML, name: str, progress: Progress) -> Path:
        """The file, or the folder of a package, that ClearML brings."""
        assert self._registry is not None
        logger.info("fetching from ClearML", extra={"subject": name})
        begun: list[Download] = []

        def begin(size: int) -> Arrived:
            begun.append(Download(name, size, size, progress))
            return begun[-1].arrived

        try:
            path = await self._registry.fetch(located, begin)
        finally:
            for download in begun:
                download.over()
        if begun:
            begun[-1].finished()
        return path

    async def _download(self, located: OnHub | OnWeb, name: str, progress: Progress) -> list[Path]:
        await threads.run(self._make_room, located)
        download = Download(name, located.size, located.missing, progress)
        arrived, note = download.arrived, self._note
        with download.shown():
            if isinstance(located, OnWeb):
                private = self._private_urls
                paths = await threads.run(_from_web, located, private, arrived, note)
            else:
                paths = await threads.run(_from_hub, located, self._hub, arrived, note)
        download.finished()
        return paths


def _on_hub(file: HubFile, cache: Path | None) -> OnHub:
    from app.models import hub

    return hub.locate(file, cache)


def _from_hub(located: OnHub, cache: Path | None, arrived: Arrived, note: Note) -> list[Path]:
    from app.models import hub

    return hub.fetch(located, cache, arrived, note)


def _on_web(file: WebFile, cache: Path, private: bool) -> OnWeb:
    from app.models import web_file

    return web_file.locate(file, cache, _allows(private))


def _from_web(located: OnWeb, private: bool, arrived: Arrived, note: Note) -> list[Path]:
    from app.models import web_file

    return web_file.fetch(located, _allows(private), arrived, note)


def _allows(private: bool) -> Callable[[str], bool] | None:
    from app.models import public

    return None if private else public.is_public


def _beginning(located: OnHub | OnWeb, index: int, private: bool) -> Beginning:
    if isinstance(located, OnHub):
        from app.models import hub

        return hub.HubBeginning(located, index)
    from app.models import web_file

    return web_file.WebBeginning(located.parts[index], _allows(private))


def _preview(located: OnHub | OnWeb, folder: Path, private: bool) -> Preview:
    folder.mkdir(exist_ok=True)  # without its parents: we may have ended, and removed them
    paths = []
    sizes = [part.size for part in located.parts]
    for index, (path, size) in enumerate(zip(located.paths, sizes, strict=True)):
        beginning = _beginning(located, index, private)
        paths.append(folder / Path(path).name)
        try:
            header = gguf.read_header(beginning.read, size)
            gguf.check_bounds(header, size)
        except HeaderError as error:
            problem = f"{beginning.title}: corrupt or incomplete: {error}"
            raise TransferError(problem) from None
        with paths[-1].open("wb") as file:
            file.write(beginning.data)
            file.truncate(size)
    return Preview(paths[0], gguf.verify(paths), located.size)


def _of_registry(path: Path) -> ModelFiles:
    """The weights in what ClearML fetched: a file, or a package's folder."""
    first = str(path)
    try:
        if path.is_dir():
            first = _only(path)
        parts = [Path(part) for part in shards(first)]
    except FormError as error:
        raise TransferError(f"{path}: {error.problem}") from None
    missing = [part for part in parts if not part.is_file()]
    if missing:
        raise TransferError(f"{missing[0]} is missing: register a split model as one package")
    return _verified(parts)


def _only(folder: Path) -> str:
    """The first file of the only model in a folder. Raises FormError."""
    files = [str(file) for file in folder.rglob("*.gguf")]
    weights = [file for file in files if not Path(file).name.startswith("mmproj")]
    return choose_of(f"{folder}/**/*.gguf", weights)


def _verified(paths: Sequence[Path], source: str = "") -> ModelFiles:
    return ModelFiles(tuple(paths), gguf.verify(paths), source)


def _local(reference: LocalFile) -> tuple[Path, ...]:
    path = os.path.expanduser(reference.path)
    if is_glob(path) and not os.path.exists(path):
        path = choose(path, glob.glob(path))
    elif os.path.isdir(path):
        path = _only(Path(path))
    first, *others = (Path(part) for part in shards(path))
    if not first.is_file():
        raise FormError(KEY, f"{reference.path}: no such file on this machine")
    for other in others:
        if not other.is_file():
            raise TransferError(f"{other}: this part of the set is missing")
    return tuple(part.absolute() for part in (first, *others))
