"""`cache`: list what is kept of fetched models, and remove what nothing uses."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NoReturn

from app.console import escape, say
from app.errors import ConfigError, words
from app.machine import clock
from app.models import kept
from app.models.kept import Kept
from app.models.store import Store
from app.planning.amounts import lasting
from app.planning.report import aligned

logger = logging.getLogger(__name__)

HEADINGS = "source", "size", "last use", ""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache-dir", metavar="D", help="folder that models are kept in")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--remove",
        metavar="SOURCE",
        action="append",
        default=[],
        help="remove what has this source, as it is listed, or what a glob matches; repeatable",
    )
    parser.add_argument(
        "--keep",
        metavar="SIZE",
        help="remove what was used longest ago until at most so much is kept: 200GB; 0: all that "
        "nothing uses",
    )


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    store = Store(arguments.cache_dir, environment)
    if arguments.remove:
        remove(store, arguments.remove)
    if arguments.keep is not None:
        limit = kept.size_of(arguments.keep, "--keep")
        there = store.listed()
        for each in kept.free(there, sum(each.size for each in there) - limit, refuse):
            logger.info("removed %s", each.source)
    found = store.listed()
    say(as_json(found) if arguments.json else table(found))
    return 0


def remove(store: Store, patterns: Sequence[str]) -> None:
    """Raises ConfigError if a pattern matches nothing, or something that is in use."""
    found = store.listed()
    for pattern in patterns:
        matching = [each for each in found if fnmatchcase(each.source, pattern)]
        if not matching:
            raise ConfigError(f"--remove {pattern}: nothing that is kept has this source")
        for each in matching:
            try:
                removed = kept.remove(each)
            except OSError as error:
                refuse(each, error)
            if not removed:
                raise ConfigError(f"{each.source} is in use: stop the instance that serves it")
            logger.info("removed %s", each.source)


def refuse(each: Kept, error: OSError) -> NoReturn:
    raise ConfigError(f"{each.path} cannot be removed: {words(error)}") from None


def table(found: Sequence[Kept]) -> str:
    if not found:
        return "nothing is kept"
    rows = [
        (escape(each.source), f"{each.size / 1e6:,.1f} MB", _ago(each), _standing(each))
        for each in reversed(found)
    ]
    total = sum(each.size for each in found)
    return "\n".join([*aligned([HEADINGS, *rows]), f"{total / 1e9:,.2f} GB in all"])


def _ago(each: Kept) -> str:
    return f"{lasting(max(0.0, clock.wall() - each.used))} ago"


def _standing(each: Kept) -> str:
    return "in use" if each.in_use else "unfinished" if each.unfinished else ""


def as_json(found: Sequence[Kept]) -> str:
    """In bytes, and seconds since the epoch."""
    rows = [
        {
            "source": each.source,
            "path": str(each.path),
            "size": each.size,
            "used": each.used,
            "in_use": each.in_use,
            "unfinished": each.unfinished,
        }
        for each in found
    ]
    return json.dumps(rows, indent=2)
