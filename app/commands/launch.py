"""`launch`: create tasks that serve, and enqueue them."""

from __future__ import annotations

import json as as_json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.console import say
from app.errors import ConfigError, FormError
from app.form.fields import HF_TOKEN_KEY
from app.form.merge import merge, parse
from app.instance.life import PROJECT, Request
from app.planning.settle import check_form
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher, Script, checkout, describe, task_name, without_credentials

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """How to launch; "" is left to be found out."""

    queue: str = ""
    route: str = ""
    replicas: int = 1
    name: str = ""
    repository: str = ""
    branch: str = ""
    commit: str = ""
    tags: Sequence[str] = ()
    dry_run: bool = False


async def launch(request: Request, environment: Mapping[str, str], wish: Wish) -> int:
    """Create the task, as often as there are to be replicas, and enqueue it. Raises AppError."""
    given = {"General/queue": wish.queue, "General/gateway_route": wish.route}
    form = merge(request.config, request.overrides, {k: v for k, v in given.items() if v})
    if form.values[HF_TOKEN_KEY].strip():
        problem = "everybody who may read the task could read it: set HF_TOKEN where the agent runs"
        raise FormError(HF_TOKEN_KEY, problem)
    settings = parse(form)
    check_form(settings)
    general = settings.general
    if not general.queue:
        raise FormError("General/queue", "is empty: name the queue with --queue")
    script = _script(wish)
    first = settings.models[0]
    known = (wish.name, general.instance_name, first.endpoint_name, first.model)
    name = task_name(next((each for each in known if each), ""))
    names = [name] if wish.replicas == 1 else [f"{name} {n + 1}" for n in range(wish.replicas)]
    if wish.replicas > 1 and not general.gateway_route:
        logger.warning("without --route the %d replicas have endpoints of their own", wish.replicas)
    tasks = [describe(each, script, form.to_write(), wish.tags) for each in names]
    project = general.project or PROJECT
    if wish.dry_run:
        say(as_json.dumps({"project": project, "queue": general.queue, "tasks": tasks}, indent=2))
        return 0
    server = await launcher(request, environment)
    queue = await server.queue(general.queue)
    for task in tasks:
        created = await server.create(task, project)
        await server.enqueue(created, queue)
        say(created)
    return 0


def _script(wish: Wish) -> Script:
    if wish.repository:
        branch = wish.branch or ("" if wish.commit else "main")
        repository = without_credentials(wish.repository)
        if repository != wish.repository:
            logger.warning("--repo: its user and password are left out: the agent has its own")
        return Script(repository, branch, wish.commit)
    script, warnings = checkout(Path(__file__).parent.parent)
    for warning in warnings:
        logger.warning("%s", warning)
    if wish.branch or wish.commit:
        script = replace(script, branch=wish.branch, commit=wish.commit)
    return script


async def launcher(request: Request, environment: Mapping[str, str]) -> Launcher:
    task = ClearMLTask(offline=request.offline, environment=environment)
    await task.attach()
    if task.offline:
        raise ConfigError("that needs a ClearML server: run clearml-init, or set CLEARML_API_HOST")
    return Launcher(task)
