"""`export`: a task's form as a configuration file."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from app.commands.launch import launcher
from app.console import say
from app.form import file
from app.form.merge import merge
from app.instance.life import Request

logger = logging.getLogger(__name__)


async def export(request: Request, environment: Mapping[str, str], task: str) -> int:
    """Print a task's form as a configuration file. Raises AppError."""
    server = await launcher(request, environment)
    form = merge(await server.parameters(task))
    for warning in form.warnings:
        logger.warning("%s", warning)
    say(file.write(form))
    return 0
