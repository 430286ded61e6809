"""`check`: show what would be served, and whether it can be."""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable, Mapping

from app.commands import options
from app.console import say
from app.form.fields import HF_TOKEN_KEY
from app.form.merge import merge, parse
from app.form.settings import Settings
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
    form = merge(wanted.config, wanted.overrides)
    if token := form.values[HF_TOKEN_KEY].strip():
        os.environ.setdefault("HF_TOKEN", token)  # where huggingface_hub looks
    settings = parse(form.without(HF_TOKEN_KEY))
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
    plan.check_memory(found)
    return 0
