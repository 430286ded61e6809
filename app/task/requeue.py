"""An instance that was started where it cannot run, on a CPU-only services agent, moves itself to
the queue that its form names: same task, same ID.

The agent that runs us would overwrite the task's status when we end, even after another agent has
begun to run it. So it is stopped before the task changes hands, and ended with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from app.form.settings import GeneralSettings
from app.machine import host
from app.task import container
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher
from app.task.outcome import OURS

logger = logging.getLogger(__name__)

SERVICE_TASK = "CLEARML_AGENT_SERVICE_TASK"
DEADLINE = 60.0  # seconds for each call
CONSOLE = 8.0  # seconds that the agent takes to send on our last lines
TO_BE_ENDED = 60.0  # seconds for which we wait to be ended by an agent that we cannot end


def wanted(environment: Mapping[str, str], queue: str) -> bool:
    """Whether this is a services agent, and the form names another queue."""
    return bool(queue) and environment.get(SERVICE_TASK, "").lower() not in ("", "0", "false")


async def move(task: ClearMLTask, general: GeneralSettings, task_id: str) -> None:
    """Raises ConfigError; then the task is still ours."""
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
    """Put this very task on another queue, edited; from then on it is no longer ours."""
    ours = {"task": task.task_id, "force": True}
    said = {"status_message": f"{OURS}moving to another queue"}
    await task.ask("tasks", "edit", {**ours, **changes}, DEADLINE)
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
    """The agent stands still meanwhile, and ends where nothing goes wrong."""
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
