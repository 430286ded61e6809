"""`key`: print the endpoint of an instance, and the key that its callers send; or make a key for a
caller of the keys file."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Mapping

from app.commands.launch import connect
from app.console import escape, say
from app.errors import ConfigError
from app.gateway import keys_file
from app.machine import chance
from app.task.served import Served, standing, without_key

logger = logging.getLogger(__name__)

NEW = "new"  # no ID of a task: that has 32 digits
BYTES = 32  # random ones of a key


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task",
        metavar=f"TASK | {NEW} NAME",
        help="the ID of the task that runs the instance; or `new` and a caller's name, to make a "
        f"key, and its lines for the file that {keys_file.VARIABLE} names",
    )
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if arguments.task == NEW:
        make(arguments.name)
        return 0
    if arguments.name is not None:
        raise ConfigError(f"key {arguments.task} {arguments.name}: to make a key: key {NEW} NAME")
    tasks = await connect(environment)
    found = await tasks.served([arguments.task])
    if arguments.task not in found:
        raise ConfigError(f"there is no task {arguments.task!r}, or you may not read it")
    tell(found[arguments.task])
    return 0


def make(name: str | None) -> None:
    """The lines on stdout, so that `>>` puts them into the file, and the key on stderr. Raises
    ConfigError."""
    if name is None:
        raise ConfigError(f"key {NEW}: name the caller that the key is for: key {NEW} NAME")
    key = chance.key(BYTES)
    entry = keys_file.entry(name, hashlib.sha256(key.encode()).digest())
    say(f"the key, which is kept nowhere else: {key}", aside=True)  # first: the other is of no use
    say(entry)


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
