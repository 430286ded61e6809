"""A ClearML model ID → its files, through the SDK and its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.errors import FormError, TransferError
from app.machine import threads
from app.models.reference import KEY
from app.models.store import Registered
from app.task.clearml_task import ClearMLTask
from app.task.sdk import SdkTimeoutError

DEADLINE = 60.0


class Weights:
    def __init__(self, task: ClearMLTask) -> None:
        self._task = task

    async def find(self, model_id: str) -> Registered:
        """The model's entry in the registry, shown as an input of the task. Raises FormError."""
        if self._task.offline:
            raise FormError(KEY, f"{model_id} is a ClearML model: that needs a server")
        try:
            name = await self._task.call(lambda task: _look_up(task, model_id), DEADLINE)
        except SdkTimeoutError as error:
            raise FormError(KEY, f"{model_id}: {error}") from None
        if name is None:
            raise FormError(KEY, f"there is no model {model_id} in ClearML")
        return Registered(model_id, name)

    async def fetch(self, found: Registered) -> Path:
        """A file, or the folder of a package. Raises TransferError.

        In a thread of its own: it may take many minutes, and the task is to be told of what
        happens meanwhile, an abort above all.
        """
        try:
            path = await threads.run(_download, found.id)
        except (ValueError, OSError, AttributeError) as error:
            raise TransferError(f"{found.name} ({found.id}): {error}") from None
        if not path:
            raise TransferError(f"{found.name} ({found.id}): ClearML could not bring its files")
        return Path(path)


def _look_up(task: Any, model_id: str) -> str | None:
    # Asked directly: for an ID that is not there the SDK's objects raise AttributeError.
    from clearml import Task

    session = Task._get_default_session()
    response = session.send_request("models", "get_all", json={"id": [model_id]})
    models = response.json().get("data", {}).get("models") or []
    if not models:
        return None
    name = str(models[0].get("name") or model_id)
    if task is not None:
        task.set_input_model(
            model_id=model_id, name=name, update_task_design=False, update_task_labels=False
        )
    return name


def _download(model_id: str) -> str | None:
    from clearml import Model

    path: str | None = Model(model_id).get_local_copy(raise_on_error=True)
    return path
