"""Models of ClearML's registry: from an ID to its files, through the SDK and its cache."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import FormError, TransferError
from app.machine import threads
from app.models.files import InBucket, Registered
from app.models.reference import KEY, censored, title
from app.models.repository import nearest
from app.task import downloads, shards
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
        models = await self._get_all(model_id, "models", {"id": [model_id]})
        if not models:
            raise FormError(KEY, f"there is no model {model_id} in ClearML")
        return await self._registered(models[0])

    async def find_named(self, project: str, name: str) -> Registered:
        """The newest model of this name in a project. Raises FormError that lists others."""
        wanted = f"{project}/{name}"
        if self._task.offline:
            raise FormError(KEY, f"{wanted} is a ClearML model: that needs a server")
        exactly = {"name": f"^{re.escape(project)}$", "only_fields": ["id", "name"]}
        projects = await self._get_all(wanted, "projects", exactly)
        if not projects:
            raise FormError(KEY, f"there is no project {project!r} in ClearML")
        query = {
            "project": [each["id"] for each in projects],
            "only_fields": shards.FIELDS,
            "order_by": ["-created"],
        }
        models = await self._get_all(wanted, "models", query)
        found = [each for each in models if each.get("name") == name]
        if not found:
            names = dict.fromkeys(str(each.get("name")) for each in models)
            there = f"it has {', '.join(nearest(name, names))}" if names else "it has no model"
            raise FormError(KEY, f"the project {project!r} has no model {name!r}: {there}")
        return await self._registered(found[0])

    async def _registered(self, model: Mapping[str, Any]) -> Registered:
        """With the other parts of its set, if it is the first one. Raises FormError."""
        found, files = str(model["id"]), shards.files_of(model)
        name = str(model.get("name") or found)
        if not files:
            return Registered(found, name)
        query = shards.query(model, files)
        others = await self._get_all(name, "models", query) if len(files) > 1 else []
        return Registered(found, title(files[0]), shards.whole(model, files, others))

    async def _get_all(self, wanted: str, service: str, query: dict[str, Any]) -> list[Any]:
        try:
            found = await self._task.ask(service, "get_all", query, DEADLINE)
        except ClearMLError as error:
            raise FormError(KEY, f"{wanted}: {error}") from None
        return list(found.get(service) or [])

    async def fetch(self, found: Registered | InBucket, begin: Begin) -> Path:
        """Download the model: a file, or the folder of a package. Raises TransferError.

        A download may take many minutes, so it has a thread of its own: the SDK's thread stays free
        for reports.
        """
        try:
            async with self._preparing:
                self._downloads = self._downloads or await threads.run(_prepared)
            path = await self._brought(found, begin)
        except Exception as error:  # noqa: BLE001 the SDK's edge: any failure is one of the transfer
            raise TransferError(f"{_named(found)}: {censored(one_line(error))}") from None
        if not path:
            raise TransferError(
                f"{_named(found)}: ClearML could not bring its files{_advice(found)}"
            )
        return Path(path)

    async def _brought(self, found: Registered | InBucket, begin: Begin) -> Path | str | None:
        if not isinstance(found, Registered) or len(found.shards) < 2:
            return await threads.run(_download, found, begin)
        parts = {}
        for shard in found.shards:
            path = await threads.run(_download, Registered(shard.id, shard.file), begin)
            if not path:
                raise TransferError(f"ClearML could not bring {shard.file} ({shard.id})")
            parts[shard.file] = Path(path)
        assert self._downloads is not None
        return await threads.run(shards.link, self._downloads.ours / found.id, parts)

    def discard(self) -> None:
        """The end: no file stays that is not whole. A thread that still downloads ends with us."""
        if self._downloads is not None:
            self._downloads.discard()


def _prepared() -> Downloads:
    from clearml.storage.cache import CacheManager

    prepared = Downloads(Path(CacheManager.get_cache_manager().get_cache_folder()).parent)
    downloads.hook(prepared.suffix)
    return prepared


def _download(found: Registered | InBucket, begin: Begin) -> str | None:
    from clearml import Model, StorageManager

    downloads.BEGIN.set(begin)
    path: str | None
    if isinstance(found, InBucket):
        path = StorageManager.get_local_copy(found.url, extract_archive=False)
    else:
        path = Model(found.id).get_local_copy(raise_on_error=True)
    return path


def _named(found: Registered | InBucket) -> str:
    return found.name if isinstance(found, InBucket) else f"{found.name} ({found.id})"


def _advice(found: Registered | InBucket) -> str:
    """The SDK logs why, and says nothing."""
    if isinstance(found, Registered):
        return ""
    return (
        ": the lines above say why; credentials are in clearml.conf (sdk.aws.s3, "
        "sdk.google.storage, sdk.azure.storage), and the task needs the packages boto3, "
        "google-cloud-storage, or azure-storage-blob"
    )
