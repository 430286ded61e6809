"""`launch`: create tasks that serve, and enqueue them."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from app.commands import options
from app.console import escape, say
from app.errors import ConfigError, FormError
from app.form.fields import HF_TOKEN_KEY
from app.form.merge import Form, merge, parse
from app.form.settings import Settings
from app.instance.callers import secret_of
from app.instance.invocation import PROJECT, Invocation
from app.models.reference import title
from app.planning.settle import check_form
from app.task import launch, served
from app.task.awaited import Awaited
from app.task.checkout import Script, checkout
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher
from app.task.served import Served

MAX_REPLICAS = 100
MINUTES = 60.0  # that --wait waits
NOT_SERVED = 1  # exit status
WAIT = (
    f"wait until each task serves, {MINUTES:g} minutes if you name no other number, and print its "
    "endpoint, its key, its web page and a curl command"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What the command line says of the tasks besides their form; "" is found out."""

    queue: str = ""
    route: str = ""
    replicas: int = 1
    name: str = ""
    repository: str = ""
    branch: str = ""
    commit: str = ""
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Order:
    """What is to be created and enqueued; the queue and the project by name. `route`: of a door, or
    of the App Gateway; "" for none."""

    project: str
    queue: str
    tasks: Sequence[Mapping[str, Any]]
    route: str = ""


class Tasks(Protocol):
    """What is asked of ClearML's server."""

    async def queue(self, name: str) -> str: ...

    async def create(self, task: Mapping[str, Any], project: str) -> str: ...

    async def join(self, task: str, route: str, secret: str) -> None: ...

    async def enqueue(self, task: str, queue: str) -> None: ...

    async def page(self, task: str) -> str: ...

    async def served(self, tasks: Sequence[str]) -> Mapping[str, Served]: ...


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_fields(parser)
    add = parser.add_argument
    add("--queue", metavar="Q", default="", help="queue, by name or ID: --set General/queue=Q")
    add("--route", metavar="R", default="", help="route: --set General/gateway_route=R")
    add("--replicas", metavar="N", type=_count, default=1, help="create N tasks (default: 1)")
    add("--name", metavar="N", default="", help="name of the task (default: that of the model)")
    add("--tag", metavar="T", action="append", default=[], help="tag of the task; repeatable")
    options.add_repository(parser)
    add("--branch", metavar="B", default="", help="branch of the repository")
    add("--commit", metavar="C", default="", help="commit of the repository")
    add("--wait", metavar="MINUTES", type=_minutes, nargs="?", const=MINUTES, help=WAIT)
    add("--dry-run", action="store_true", help="print the tasks as JSON and create none")


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MAX_REPLICAS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_REPLICAS}")
    return number


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return number


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    wanted = options.invocation(arguments)
    wish = Wish(
        queue=arguments.queue,
        route=arguments.route,
        replicas=arguments.replicas,
        name=arguments.name,
        repository=arguments.repo,
        branch=arguments.branch,
        commit=arguments.commit,
        tags=arguments.tag,
    )
    order = draw_up(wanted, wish, options.CHECKOUT)
    if arguments.dry_run:
        say(json.dumps(asdict(order), indent=2))
        return 0
    secret = secret_of(environment)
    tasks = await connect(environment, offline=wanted.offline)
    placed = await place(order, tasks, secret)
    if arguments.wait is None:
        return 0
    return 0 if await wait(placed, arguments.wait, tasks) else NOT_SERVED


def draw_up(wanted: Invocation, wish: Wish, folder: Path) -> Order:
    """The tasks that a command line describes. Raises ConfigError."""
    form, settings = _form(wanted, wish)
    script = _script(wish, folder)
    names = _names(wish, settings)
    if wish.replicas > 1 and not settings.general.gateway_route:
        logger.warning("without --route each of the %d replicas has its own URL", wish.replicas)
    tasks = [launch.describe(name, script, form.to_write(), wish.tags) for name in names]
    general = settings.general
    return Order(general.project or PROJECT, general.queue, tasks, general.gateway_route)


def _form(wanted: Invocation, wish: Wish) -> tuple[Form, Settings]:
    given = {"General/queue": wish.queue, "General/gateway_route": wish.route}
    form = merge(wanted.config, wanted.overrides, given)
    if form.values[HF_TOKEN_KEY].strip():
        problem = "everybody who may read the task could read it: set HF_TOKEN where the agent runs"
        raise FormError(HF_TOKEN_KEY, problem)
    settings = parse(form)
    check_form(settings)
    if not settings.models[0].model and not settings.models[0].cli:
        logger.warning("no model is named: each task serves a tiny one, as a trial")
    if not settings.general.queue:
        raise FormError("General/queue", "is empty: name the queue with --queue")
    return form, settings


def _names(wish: Wish, settings: Settings) -> list[str]:
    first = settings.models[0]
    model = title(first.model)
    known = (wish.name, settings.general.instance_name, first.endpoint_name, model)
    name = launch.task_name(next((each for each in known if each), ""))
    return [name] if wish.replicas == 1 else [f"{name} {n + 1}" for n in range(wish.replicas)]


def _script(wish: Wish, folder: Path) -> Script:
    if wish.repository:
        branch = wish.branch or ("" if wish.commit else "main")
        return Script(options.public(wish.repository), branch, wish.commit)
    script, warnings = checkout(folder)
    for warning in warnings:
        logger.warning("%s", warning)
    if wish.branch or wish.commit:
        script = replace(script, branch=wish.branch, commit=wish.commit)
    return script


async def place(order: Order, tasks: Tasks, secret: str = "") -> dict[str, str]:
    """Create and enqueue each task, and print its ID; the address of its web page goes to stderr.
    Returns these addresses by ID. `secret`: what doors know instances of theirs by. Raises
    ConfigError."""
    queue = await tasks.queue(order.queue)
    pages = {}
    for task in order.tasks:
        created = await tasks.create(task, order.project)
        if order.route:
            await tasks.join(created, order.route, secret)
        await tasks.enqueue(created, queue)
        say(created)
        pages[created] = await tasks.page(created)
        logger.info("%s is in the queue %s: %s", task["name"], order.queue, pages[created])
    return pages


async def wait(pages: Mapping[str, str], minutes: float, tasks: Tasks) -> bool:
    """Print how to call each task when it serves; whether all of them do within this time."""
    awaited = Awaited(tasks, list(pages), lambda found: tell(found, pages[found.task]))
    try:
        return await awaited.serve(60 * minutes)
    except asyncio.CancelledError:
        logger.warning(
            "no longer waiting; the tasks go on: `python -m app key TASK` tells the rest"
        )
        raise


def tell(found: Served, page: str) -> None:
    key = f"key {found.key}" if found.key and not found.routed else ""
    lines = (f"task {found.task}", f"endpoint {found.endpoint}", key, page, served.command(found))
    say("\n".join(escape(line) for line in lines if line))  # whoever can edit the task wrote them
    if not key:
        logger.warning("%s: %s", found.task, served.without_key(found))


async def connect(environment: Mapping[str, str], *, offline: bool = False) -> Launcher:
    """Raises ConfigError where there is no server."""
    task = ClearMLTask(offline=offline, environment=environment)
    await task.attach()
    return launcher(task)


def launcher(task: ClearMLTask) -> Launcher:
    """Raises ConfigError where there is no server."""
    if task.offline:
        raise ConfigError(
            "this needs a ClearML server: run clearml-init, or set CLEARML_API_HOST, "
            "CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY"
        )
    return Launcher(task)
