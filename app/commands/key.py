"""`key`: print the endpoint of an instance, and the key that its callers send."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping

from app.commands.launch import connect
from app.console import escape, say
from app.errors import ConfigError
from app.task.served import Served, standing, without_key

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="the ID of the task that runs the instance")


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    tasks = await connect(environment)
    found = await tasks.served([arguments.task])
    if arguments.task not in found:
        raise ConfigError(f"there is no task {arguments.task!r}, or you may not read it")
    tell(found[arguments.task])
    return 0


def tell(found: Served) -> None:
    """Raises ConfigError where there is no endpoint or no key to print."""
    if not found.reachable:
        yet = "" if found.over else " yet"
        raise ConfigError(f"task {found.task} does not serve{yet}: {standing(found)}")
    if not found.serves:
        logger.warning("it does not serve yet: %s", standing(found))
    say(escape(f"endpoint {found.endpoint}"))
    if not found.key or found.routed:
        raise ConfigError(without_key(found))
    say(escape(f"key {found.key}"))
