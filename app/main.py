"""argv → command → exit status. The only place that ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import cast

import uvloop

from app import console
from app.commands.options import DEFAULT, Command, parser
from app.errors import AppError, ConfigError
from app.machine import limits

logger = logging.getLogger(__name__)

INTERRUPTED = 130  # exit status

COMMANDS = {  # with what the help says of each; app/commands has a module for each
    DEFAULT: "Serve GGUF models with llama-server, as a ClearML task or without ClearML.",
    "check": "Show what would be served and whether it fits. Downloads and starts nothing.",
    "doctor": "Look at this machine, llama-server, ClearML and the hub; say what is wrong.",
    "launch": "Create a task that serves, enqueue it, and print its ID.",
    "fleet": "Run a door: one address before the instances of many machines, from zero.",
    "key": "Print the endpoint and the key of a task that serves, or make a key for a caller.",
    "export": "Print the form of a task as JSON, which --config reads.",
    "fetch": "Bring models into this machine's cache, and register them in ClearML.",
    "cache": "List the models that are kept on this machine, and remove what nothing uses.",
    "package": "Write the zip of the ClearML application, for an administrator to upload.",
}


def load(name: str) -> Command:
    """Only the command that is run is imported: it starts sooner, and stays smaller."""
    return cast(Command, importlib.import_module(f"app.commands.{name}"))


def main(argv: Sequence[str] | None = None) -> None:
    """Never returns: the SDK's threads must not delay or change the exit status."""
    open_standard_streams()
    limits.give_less()
    if "clearml" in sys.modules:
        start_clean()
    given = list(sys.argv[1:] if argv is None else argv)
    name = given.pop(0) if given and given[0] in COMMANDS else DEFAULT
    command = load(name)
    try:
        arguments = parser(name, command, COMMANDS).parse_args(given)
    except OSError as error:  # the help, or the version
        with contextlib.suppress(OSError):
            sys.stderr.write(f"standard output cannot be written: {error.strerror}\n")
        os._exit(ConfigError.exit_status)  # Python would try once more, and complain
    except SystemExit as end:  # a mistake, or what was asked for is told
        console.flush()
        os._exit(end.code if isinstance(end.code, int) else ConfigError.exit_status)
    console.set_up(errors=name != DEFAULT)
    try:
        limits.open_more_files()
        exit_status = run(command.run(arguments, dict(os.environ)))
    except AppError as error:
        logger.error("%s", error)
        exit_status = error.exit_status
    console.flush()
    os._exit(exit_status)


def open_standard_streams() -> None:
    """Who starts us may have closed them. Then Python has no sys.stdout, and what is opened next,
    such as a socket, gets the number that is written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def start_clean() -> None:
    """Start again in a fresh interpreter: clearml-task puts a Task.init() of its own into a
    script, which has forked its reporter, taken the signals and rewritten argparse by now."""
    from app.machine import host

    host.end_children()
    code = "from app.main import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:]])


def run(command: Coroutine[None, None, int]) -> int:
    # Not uvloop.run: its clean-up would wait for a thread that is blocked in a download.
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(command)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup leaves it
        loop.add_signal_handler(signal.SIGINT, task.cancel)  # until an instance takes it over
    try:
        return loop.run_until_complete(task)
    except asyncio.CancelledError:
        return INTERRUPTED
