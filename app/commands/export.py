"""`export`: print a task's form as a configuration file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping

from app.commands.launch import connect
from app.console import say
from app.errors import ConfigError
from app.form import file
from app.form.merge import merge, resembles

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="the task's ID")


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    tasks = await connect(environment)
    parameters = await tasks.parameters(arguments.task)
    if parameters and not any(map(resembles, parameters)):
        raise ConfigError(
            f"task {arguments.task} has no field of this app: is it another program's?"
        )
    export(parameters)
    return 0


def export(parameters: Mapping[str, str]) -> None:
    """Raises FormError for a form that cannot be written."""
    form = merge(parameters)
    for warning in form.warnings:
        logger.warning("%s", warning)
    say(file.write(form))
