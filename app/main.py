"""argv → what to do → exit status. The only place that ends the process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import uvloop

from app import __version__, console
from app.errors import AppError, ConfigError, FormError
from app.form import configuration
from app.form.fields import FIELDS, HF_TOKEN_KEY
from app.instance import Instance, Request
from app.machine import host

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Never returns: the SDK's threads must not delay or change the exit status."""
    arguments = parser().parse_args(argv)
    console.set_up()
    try:
        exit_status = serve(request(arguments))
    except AppError as error:
        logger.error("%s", error)
        exit_status = error.exit_status
    console.flush()
    os._exit(exit_status)


def serve(wanted: Request) -> int:
    host.close_descriptors_to_children()
    host.raise_descriptor_limit()
    # Not uvloop.run: its clean-up would wait for a thread that is blocked in a download.
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)

    async def live() -> int:
        return await Instance(wanted, dict(os.environ)).run()

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


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve GGUF models with llama-server, as a ClearML task or on its own.",
        epilog=fields_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=__version__)
    found.add_argument("command", nargs="?", choices=["serve"], default="serve", help="the default")
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
    return found


def fields_help() -> str:
    lines = ["fields:"]
    for field in FIELDS:
        default = f" (default: {field.default})" if field.default else ""
        lines.append(f"  {field.key:32} {field.title}{default}")
    return "\n".join(lines)
