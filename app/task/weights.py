"""Models of ClearML's registry: from an ID to its files, through the SDK and its cache."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.errors import FormError, TransferError
from app.machine import threads
from app.models.reference import KEY
from app.models.store import Registered
from app.task import downloads
from app.task.clearml_task import ClearMLTask
from app.task.downloads import Begin, Downloads
from app.task.sdk import ClearMLError, one_line

DEADLINE = 60.0


class Weights:
    def __init__(self, task: ClearMLTask) -> None:
        self._task = task
        self._downloads: Downloads | None = None
        self._preparing = asyncio.Lock()

    async def find(self, model_id: str) -> Registered:
        """Look the model up. Raises FormError."""
        if self._task.offline:
            raise FormError(KEY, f"{model_id} is a ClearML model: that needs a server")
        # The SDK's Model raises AttributeError for an ID that does not exist.
        try:
            found = await self._task.ask("models", "get_all", {"id": [model_id]}, DEADLINE)
        except ClearMLError as error:
            raise FormError(KEY, f"{model_id}: {error}") from None
        models = found.get("models") or []
        if not models:
            raise FormError(KEY, f"there is no model {model_id} in ClearML")
        return Registered(model_id, str(models[0].get("name") or model_id))

    async def fetch(self, found: Registered, begin: Begin) -> Path:
        """Download the model: a file, or the folder of a package. Raises TransferError.

        A download may take many minutes, so it has a thread of its own: the SDK's thread stays free
        for reports.
        """
        try:
            async with self._preparing:
                self._downloads = self._downloads or await threads.run(_prepared)
            path = await threads.run(_download, found.id, begin)
        except Exception as error:  # noqa: BLE001 the SDK's edge: any failure is one of the transfer
            raise TransferError(f"{found.name} ({found.id}): {one_line(error)}") from None
        if not path:
            raise TransferError(f"{found.name} ({found.id}): ClearML could not bring its files")
        return Path(path)

    def discard(self) -> None:
        """The end: no file stays that is not whole. A thread that still downloads ends with us."""
        if self._downloads is not None:
            self._downloads.discard()


def _prepared() -> Downloads:
    from clearml.storage.cache import CacheManager

    prepared = Downloads(Path(CacheManager.get_cache_manager().get_cache_folder()).parent)
    downloads.hook(prepared.suffix)
    return prepared


def _download(model_id: str, begin: Begin) -> str | None:
    from clearml import Model

    downloads.BEGIN.set(begin)
    path: str | None = Model(model_id).get_local_copy(raise_on_error=True)
    return path
