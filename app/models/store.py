"""From a model reference to verified files on this machine."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from app.errors import ConfigError, FormError, words
from app.machine import home, host, threads
from app.models import kept, remote, tiny
from app.models.files import (
    InBucket,
    Inspected,
    Located,
    ModelFiles,
    OfClearML,
    Registered,
    local,
    of_registry,
    verified,
)
from app.models.kept import Kept
from app.models.parts import Remote
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
)
from app.models.remote import Caches

logger = logging.getLogger(__name__)

ANOTHER = "name another one by --cache-dir or LLAMACPP_CACHE_DIR"


class Registry(Protocol):
    """ClearML's registry of models, and its storage; `task.weights` has the real one."""

    async def find(self, model_id: str) -> Registered: ...

    async def find_named(self, project: str, name: str) -> Registered: ...

    async def fetch(self, model: Registered | InBucket, begin: Callable[[int], Arrived]) -> Path:
        """`begin` is given the bytes of a download that begins, if there is one."""


def cache_folder(given: str | None, environment: Mapping[str, str]) -> Path:
    """The folder for what the app fetches and writes. Raises ConfigError where it is in the home of
    nobody."""
    variable = environment.get("LLAMACPP_CACHE_DIR")
    if chosen := given or variable:
        return home.expand(chosen, "--cache-dir" if given else "LLAMACPP_CACHE_DIR")
    if clearml := environment.get("CLEARML_CACHE_DIR"):
        # Agents mount this folder into containers.
        return home.expand(clearml, "CLEARML_CACHE_DIR") / "llamacpp"
    return home.own("LLAMACPP_CACHE_DIR") / ".cache" / "llamacpp-deployment"


def check_place(folder: Path) -> None:
    """Raises OSError for what can be no folder: a file, and a link to itself or to nothing, as
    where a disk is not mounted."""
    try:
        there = folder.stat()
    except FileNotFoundError:
        if folder.is_symlink():
            raise
    else:
        if not stat.S_ISDIR(there.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


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
        self.cache = cache_folder(given, environment)
        chosen = given or environment.get("LLAMACPP_CACHE_DIR")
        shared = environment.get("HF_HOME") and not chosen
        hub = None if shared else self.cache / "hub"
        self._caches = Caches(hub, self.cache / "web", private_urls)
        with self.usable():
            check_place(self.cache)
            with contextlib.suppress(FileNotFoundError):
                (self.cache / "kept").stat()  # it can be entered, if it is there
        text = environment.get(kept.VARIABLE, "").strip()
        self._limit = kept.size_of(text, kept.VARIABLE) if text else None
        self._in_use: list[int] = []  # files whose locks say so, as long as we live

    @property
    def hub_folder(self) -> Path:
        """The cache for files of the hub."""
        return self._caches.hub_folder

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders with what is fetched."""
        return (self.hub_folder, self._caches.web)

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Raises ConfigError where the system does not let us use the cache."""
        try:
            yield
        except OSError as error:
            if not isinstance(error.filename, str):
                raise
            told = f"{error.filename}: {words(error)}"
            if any(Path(error.filename).is_relative_to(root) for root in (self.cache, *self.roots)):
                told = f"{told}: the cache folder cannot be used: {ANOTHER}"
            raise ConfigError(told) from None

    def listed(self) -> list[Kept]:
        """As `kept.listed`. Raises ConfigError, also where it cannot be told what there is."""
        with self.usable():
            for folder in (self.cache / "kept", *self.roots):
                check_place(folder)
                with contextlib.suppress(FileNotFoundError):
                    os.scandir(os.fspath(folder)).close()
            return kept.listed(self.cache, self.roots)

    def coming(self, folder: Path, wanted: Collection[Path]) -> int:
        """Bytes that other processes are about to write to the disk of a folder; not of files that
        are `wanted`, too. Raises OSError."""
        roots = [root for root in self.roots if host.same_disk(root, folder)]
        return kept.coming(roots, wanted)

    def spare(self, folder: Path) -> int:
        """Bytes that may be freed on the disk of a folder, if there is a limit at all. Raises
        OSError."""
        return sum(each.size for each in self._removable(folder))

    def _removable(self, folder: Path) -> list[Kept]:
        if self._limit is None:
            return []
        there = kept.listed(self.cache, self.roots)
        return [each for each in there if not each.in_use and host.same_disk(each.path, folder)]

    def folder(self, located: Remote) -> Path:
        """Where its files come to."""
        return self._caches.folder(located)

    def _make_room(self, located: Remote) -> None:
        """For the limit, if there is one, and then also for the disk."""
        if self._limit is None:
            return
        spared, needed, folder = located.partials, located.missing, self.folder(located)
        there = kept.listed(self.cache, self.roots)
        others = kept.coming(self.roots, spared)
        over = sum(each.size for each in there) + others + needed - self._limit
        removed = kept.free(there, over, _stays, spared)
        short = needed + self.coming(folder, spared) - host.disk_free(folder)
        removed += kept.free(self._removable(folder), short, _stays, spared)
        for each in removed:
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
        if isinstance(reference, HubFile | WebFile):
            return await threads.run(self._locate, reference)
        if isinstance(reference, ClearMLModel | NamedModel | BucketFile):
            return await self._of_clearml(reference)
        if isinstance(reference, LocalFile):
            return await threads.run(verified, local(reference))
        try:
            path = await threads.run(tiny.ensure, self.cache)
        except OSError as error:  # of a full disk it names no file
            told = f"{self.cache}: {words(error)}: the cache folder cannot be written: {ANOTHER}"
            raise ConfigError(told) from None
        return await threads.run(verified, [path])

    def _locate(self, reference: HubFile | WebFile) -> Remote:
        with self.usable():
            located = remote.locate(reference, self._caches)
        self._in_use += kept.use(self.cache, located.cached)  # what is there may not go now
        return located

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
        return await threads.run(remote.preview, located, self._caches, folder)

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
            return await threads.run(of_registry, await self._from(located, name, progress))
        paths = await self._download(located, name, progress)
        return await threads.run(verified, paths, located.address)

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

    async def _download(self, located: Remote, name: str, progress: Progress) -> list[Path]:
        with self.usable():
            await threads.run(self._make_room, located)
        download = Download(name, located.size, located.missing, progress)
        arrived = download.arrived
        with download.shown():
            paths = await threads.run(remote.fetch, located, self._caches, arrived, self._note)
        download.finished()
        return paths


def _stays(each: Kept, error: OSError) -> None:
    logger.warning("%s cannot be removed: %s", each.path, words(error))
