"""argv → what to do → exit status. The only place that ends the process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import uvloop

from app import __version__, application, commands, console
from app.errors import AppError, ConfigError, FormError
from app.form import configuration
from app.form.fields import FIELDS, HF_TOKEN_KEY
from app.instance import Instance, Request
from app.machine import host

logger = logging.getLogger(__name__)

PROGRAM = "python -m app"
SERVE, CHECK, LAUNCH, EXPORT, PACKAGE = "serve", "check", "launch", "export", "package"
TAKES_FIELDS = {SERVE, CHECK, LAUNCH}
MAX_REPLICAS = 100
DESCRIPTIONS = {
    SERVE: "Serve GGUF models with llama-server, as a ClearML task or on its own.",
    CHECK: "Say what would be served and whether it can be: nothing is downloaded or started.",
    LAUNCH: "Create a task that serves, and enqueue it; prints its ID.",
    EXPORT: "Print the form of a task as JSON, which --config takes.",
    PACKAGE: "Write the zip of the ClearML application, for an administrator to upload.",
}


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
    return run(lambda: commands.check(wanted, dict(os.environ), json=arguments.json))


def launch(arguments: argparse.Namespace) -> int:
    """Create tasks that serve, and enqueue them."""
    wish = commands.Wish(
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
    return run(lambda: commands.launch(wanted, dict(os.environ), wish))


def export(arguments: argparse.Namespace) -> int:
    """Print a task's form as JSON."""
    return run(lambda: commands.export(Request(), dict(os.environ), arguments.task))


def package(arguments: argparse.Namespace) -> int:
    """Write the ClearML application's zip."""
    return commands.package(
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


def request(arguments: argparse.Namespace) -> Request:
    """Raises ConfigError."""
    config = {}
    if arguments.config:
        try:
            text = Path(arguments.config).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {arguments.config}: cannot be read: {error}") from None
        config = configuration.read(arguments.config, text)
    overrides = dict(configuration.assignment(text) for text in arguments.set)
    if any(key.endswith("/hf_token") for key in overrides):
        raise FormError(HF_TOKEN_KEY, "others can read a command line: set HF_TOKEN instead")
    for key, value in (
        ("Model/model", arguments.model),
        ("General/host", arguments.host),
        ("General/port", arguments.port),
    ):
        if value is not None:
            overrides[key] = value
    return Request(config, overrides, arguments.offline, arguments.cache_dir)


def parser(command: str = SERVE) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog=PROGRAM if command == SERVE else f"{PROGRAM} {command}",
        usage=f"{PROGRAM} [{'|'.join(COMMANDS)}] [options]" if command == SERVE else None,
        description=DESCRIPTIONS[command],
        epilog=fields_help() if command in TAKES_FIELDS else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=__version__)
    if command in TAKES_FIELDS:
        _field_options(found)
    if command == CHECK:
        found.add_argument("--json", action="store_true", help="for programs")
    if command == LAUNCH:
        _launch_options(found)
    if command == EXPORT:
        found.add_argument("task", metavar="TASK", help="the task's ID")
    if command == PACKAGE:
        found.add_argument("output", nargs="?", default=f"{application.NAME}.zip")
        found.add_argument("--repo", metavar="URL", default=application.REPOSITORY)
        found.add_argument("--branch", metavar="B", default="main")
        found.add_argument("--queue", metavar="Q", default="", help="the form's default queue")
    return found


def _launch_options(found: argparse.ArgumentParser) -> None:
    found.add_argument("--queue", metavar="Q", default="", help="name or ID; General/queue")
    found.add_argument("--route", metavar="R", default="", help="General/gateway_route")
    found.add_argument("--replicas", metavar="N", type=_count, default=1, help="so many tasks")
    found.add_argument("--name", metavar="N", default="", help="the task's")
    found.add_argument("--tag", metavar="T", action="append", default=[], help="may be repeated")
    found.add_argument("--repo", metavar="URL", default="", help="default: this checkout's origin")
    found.add_argument("--branch", metavar="B", default="")
    found.add_argument("--commit", metavar="C", default="")
    found.add_argument("--dry-run", action="store_true", help="print the tasks, create none")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_REPLICAS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_REPLICAS}")
    return number


def _field_options(found: argparse.ArgumentParser) -> None:
    found.add_argument("--config", metavar="FILE.json", help="fields by section, as JSON")
    found.add_argument(
        "--set",
        metavar="Section/name=value",
        action="append",
        default=[],
        help="one field; over the file and the task's hyperparameters",
    )
    found.add_argument("--model", metavar="REF", help="the same as --set Model/model=REF")
    found.add_argument("--host", metavar="H", help="the same as --set General/host=H")
    found.add_argument("--port", metavar="P", help="the same as --set General/port=P")
    found.add_argument("--cache-dir", metavar="D", help="where models are kept")
    found.add_argument("--offline", action="store_true", help="without a ClearML server")


def fields_help() -> str:
    lines = ["fields:"]
    for field in FIELDS:
        default = f" (default: {field.default})" if field.default else ""
        lines.append(f"  {field.key:32} {field.title}{default}")
    return "\n".join(lines)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    SERVE: serve,
    CHECK: check,
    LAUNCH: launch,
    EXPORT: export,
    PACKAGE: package,
}
