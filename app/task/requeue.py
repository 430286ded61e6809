"""An instance that a services agent started, which has no GPU, moves itself to the queue that its
form names. It stays the same task with the same ID.

When this process ends, its agent writes the task's status, even if another agent already runs the
task. So the agent is suspended before the task is enqueued, and killed afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from app.form.settings import GeneralSettings
from app.machine import host
from app.task import api, container
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher
from app.task.outcome import OURS

logger = logging.getLogger(__name__)

SERVICE_TASK = "CLEARML_AGENT_SERVICE_TASK"
DEADLINE = 60.0  # seconds for each call
CONSOLE = 8.0  # seconds in which the agent sends our last lines to the server
TO_BE_ENDED = 60.0  # seconds in which an agent that we cannot kill may end us


def wanted(environment: Mapping[str, str], queue: str) -> bool:
    """Whether a services agent started us, and the form names a queue."""
    return bool(queue) and environment.get(SERVICE_TASK, "").lower() not in ("", "0", "false")


async def move(task: ClearMLTask, general: GeneralSettings, task_id: str) -> None:
    """Move the task to the queue of its form. Raises ConfigError; then the task is still ours."""
    launcher = Launcher(task)
    queue = await launcher.queue(general.queue)
    changes = await _changes(launcher, general)
    logger.info("moving to the queue %s", general.queue)
    agent = host.ancestor("clearml", "execute", task_id)
    await asyncio.sleep(CONSOLE if agent is not None else 0)
    async with _stopped(agent):
        await _enqueue(task, queue, changes)
    if agent is None:
        await asyncio.sleep(TO_BE_ENDED)


async def _enqueue(task: ClearMLTask, queue: str, changes: Mapping[str, Any]) -> None:
    """Edit this task and put it on the queue; from then on it is no longer ours."""
    ours = {"task": task.task_id, "force": True}
    said = {"status_message": f"{OURS}moving to another queue"}
    await task.ask("tasks", "edit", {**ours, **changes}, DEADLINE)
    shown = api.properties(task.task_id, {"status": "queued"})
    await task.ask("tasks", "edit_hyper_params", shown, DEADLINE)
    await task.flush(DEADLINE)
    await task.ask("tasks", "stopped", {**ours, **said}, DEADLINE)
    await task.ask("tasks", "enqueue", {"task": task.task_id, "queue": queue}, DEADLINE)


async def _changes(launcher: Launcher, general: GeneralSettings) -> dict[str, Any]:
    given = (general.container_image, general.container_args, general.llama_server)
    changes: dict[str, Any] = {"container": container.describe(*given)}
    if general.project:
        changes["project"] = await launcher.project(general.project)
    return changes


@contextlib.asynccontextmanager
async def _stopped(agent: Any) -> AsyncIterator[None]:
    """The agent is suspended inside; afterwards it is killed, or resumed after an exception."""
    if agent is None:
        yield
        return
    agent.suspend()
    try:
        yield
    except BaseException:
        agent.resume()
        raise
    agent.kill()
