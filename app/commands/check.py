"""`check`: show what would be served, and whether it can be."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping

from app.commands import options
from app.console import say
from app.form.settings import Settings
from app.instance.callers import allowed_by, secret_of
from app.instance.invocation import Invocation
from app.machine import private
from app.models.store import Store
from app.planning import plan, report
from app.planning.plan import Plan, Surroundings
from app.task.clearml_task import ClearMLTask
from app.task.weights import Weights

Planner = Callable[[Settings, Surroundings], Awaitable[Plan]]


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_fields(parser)
    options.add_no_clearml(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    return await check(options.recorded(arguments), environment, as_json=arguments.json)


async def check(
    wanted: Invocation,
    environment: Mapping[str, str],
    *,
    as_json: bool,
    planner: Planner = plan.plan,
) -> int:
    """Print the plan, then say what keeps it from being served. Raises AppError."""
    settings = options.settings(wanted)
    await allowed_by(environment)
    if settings.general.gateway_route and not wanted.offline:
        secret_of(environment)
    task = ClearMLTask(offline=wanted.offline, environment=environment, recorded=wanted.recorded)
    await task.attach()
    store = Store(
        wanted.cache_dir,
        environment,
        Weights(task),
        private_urls=settings.general.allow_private_urls,
    )
    folder = private.create()
    try:
        around = Surroundings(store, environment, folder.path, task.offline)
        found = await planner(settings, around)
    finally:
        folder.remove()
    say(report.as_json(found) if as_json else "\n".join(report.table(found)))
    plan.check_loads(found)
    plan.check_memory(found)
    return 0
