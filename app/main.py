"""argv → what to do → exit status. The only place that ends the process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence

import uvloop

from app import console
from app.commands import check as checking
from app.commands import export as exporting
from app.commands import launch as launching
from app.commands import package as packaging
from app.commands.options import CHECK, EXPORT, LAUNCH, PACKAGE, SERVE, parser, request
from app.errors import AppError
from app.instance.life import Instance, Request
from app.machine import host

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Never returns: the SDK's threads must not delay or change the exit status."""
    if "clearml" in sys.modules:
        start_clean()
    given = list(sys.argv[1:] if argv is None else argv)
    command = given.pop(0) if given and given[0] in COMMANDS else SERVE
    arguments = parser(command).parse_args(given)
    console.set_up(errors=command != SERVE)
    try:
        exit_status = COMMANDS[command](arguments)
    except AppError as error:
        logger.error("%s", error)
        exit_status = error.exit_status
    console.flush()
    os._exit(exit_status)


def start_clean() -> None:
    """Begin again, as if nobody had been before us: clearml-task puts a Task.init() of its own
    into a script, which forks its reporter, takes the signals and rewrites argparse."""
    host.end_children()
    code = "from app.main import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:]])


def serve(arguments: argparse.Namespace) -> int:
    wanted = request(arguments)
    host.close_descriptors_to_children()
    host.raise_descriptor_limit()
    return run(lambda: Instance(wanted, dict(os.environ)).run())


def check(arguments: argparse.Namespace) -> int:
    """Print what would be served, and whether it can be."""
    wanted = request(arguments)
    return run(lambda: checking.check(wanted, dict(os.environ), json=arguments.json))


def launch(arguments: argparse.Namespace) -> int:
    """Create tasks that serve, and enqueue them."""
    wish = launching.Wish(
        arguments.queue,
        arguments.route,
        arguments.replicas,
        arguments.name,
        arguments.repo,
        arguments.branch,
        arguments.commit,
        arguments.tag,
        arguments.dry_run,
    )
    wanted = request(arguments)
    return run(lambda: launching.launch(wanted, dict(os.environ), wish))


def export(arguments: argparse.Namespace) -> int:
    """Print a task's form as JSON."""
    return run(lambda: exporting.export(Request(), dict(os.environ), arguments.task))


def package(arguments: argparse.Namespace) -> int:
    """Write the ClearML application's zip."""
    return packaging.package(
        arguments.output,
        repository=arguments.repo,
        branch=arguments.branch,
        queue=arguments.queue,
    )


def run(main: Callable[[], Coroutine[None, None, int]]) -> int:
    # Not uvloop.run: its clean-up would wait for a thread that is blocked in a download.
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)

    async def live() -> int:
        return await main()

    return loop.run_until_complete(live())


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    SERVE: serve,
    CHECK: check,
    LAUNCH: launch,
    EXPORT: export,
    PACKAGE: package,
}
