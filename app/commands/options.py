"""The command line: every command's options, and the form's fields that they give."""

from __future__ import annotations

import argparse
from pathlib import Path

from app import __version__
from app.commands import package
from app.errors import ConfigError, FormError
from app.form import file
from app.form.fields import FIELDS, HF_TOKEN_KEY
from app.instance.life import Request

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


def request(arguments: argparse.Namespace) -> Request:
    """Raises ConfigError."""
    config = {}
    if arguments.config:
        try:
            text = Path(arguments.config).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {arguments.config}: cannot be read: {error}") from None
        config = file.read(arguments.config, text)
    overrides = dict(file.assignment(text) for text in arguments.set)
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
        usage=f"{PROGRAM} [{'|'.join(DESCRIPTIONS)}] [options]" if command == SERVE else None,
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
        found.add_argument("output", nargs="?", default=f"{package.NAME}.zip")
        found.add_argument("--repo", metavar="URL", default=package.REPOSITORY)
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
