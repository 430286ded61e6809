"""The command line: one parser for each command, and the options that set fields of the form."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

from app import __version__
from app.errors import ConfigError, FormError
from app.form import file
from app.form.fields import FIELDS, HF_TOKEN_KEY
from app.form.merge import merge, parse
from app.form.settings import Settings
from app.instance.invocation import Invocation

PROGRAM = "python -m app"
DEFAULT = "serve"  # the command that may be left out
CHECKOUT = Path(__file__).parents[2]  # where we run from; its origin is what agents can fetch
LONGEST = 1 << 20  # bytes of a --config

logger = logging.getLogger(__name__)


class Command(Protocol):
    """A module of this folder. COMMANDS, in app/main.py, has a row for each."""

    def add_options(self, options: argparse.ArgumentParser) -> None: ...

    async def run(self, arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
        """The exit status. Raises AppError."""


class Parser(argparse.ArgumentParser):
    """Raises OSError where what it is asked for cannot be written, which argparse hides."""

    commands: Collection[str] = ()

    def error(self, message: str) -> NoReturn:
        _, unknown, words = message.partition("unrecognized arguments: ")
        late = [word for word in words.split() if unknown and word in self.commands]
        if late:
            message += f" (a command comes first: {PROGRAM} {late[0]} [options])"
        super().error(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            super()._print_message(message, file)
            return
        file.write(message)
        file.flush()


def parser(name: str, command: Command, descriptions: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of a command; `descriptions` of all commands, by name."""
    default = name == DEFAULT
    found = Parser(
        prog=PROGRAM if default else f"{PROGRAM} {name}",
        usage=f"{PROGRAM} [{'|'.join(descriptions)}] [options]" if default else None,
        description=descriptions[name],
        epilog=_listed(descriptions) if default else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.commands = descriptions
    found.add_argument("--version", action="version", version=__version__)
    command.add_options(found)
    return found


def _listed(descriptions: Mapping[str, str]) -> str:
    lines = [f"commands (`{PROGRAM} COMMAND --help` shows the options of each):"]
    for name, description in descriptions.items():
        default = " This is the default." if name == DEFAULT else ""
        lines.append(f"  {name:9} {description}{default}")
    return "\n".join(lines)


def add_fields(options: argparse.ArgumentParser) -> None:
    """The options of a command that takes a form; `invocation` reads them."""
    about = 'read fields from a file: {"Section": {"name": value}}'
    options.add_argument("--config", metavar="FILE.json", help=about)
    options.add_argument(
        "--set",
        metavar="Section/name=value",
        action="append",
        default=[],
        help="set one field; repeatable. Overrides the file and the task's hyperparameters",
    )
    options.add_argument("--model", metavar="REF", help="the model to serve: --set Model/model=REF")
    options.add_argument("--host", metavar="H", help="address to listen on: --set General/host=H")
    options.add_argument("--port", metavar="P", help="port to listen on: --set General/port=P")
    options.add_argument("--cache-dir", metavar="D", help="folder to keep models in")
    options.add_argument("--offline", action="store_true", help="do not use a ClearML server")
    options.epilog = "\n\n".join(text for text in (options.epilog, fields_help()) if text)


def add_no_clearml(options: argparse.ArgumentParser) -> None:
    """`--no-clearml`, for commands that become no task; `recorded` reads it."""
    about = "do without ClearML: no task, and no offline record of one"
    options.add_argument("--no-clearml", action="store_true", help=about)


def recorded(arguments: argparse.Namespace) -> Invocation:
    """As `invocation`, with what `add_no_clearml` adds."""
    return replace(invocation(arguments), recorded=not arguments.no_clearml)


def add_repository(options: argparse.ArgumentParser) -> None:
    """`--repo`, for commands that tell an agent where to find this code; see `public`."""
    about = "repository of this code (default: the origin of the checkout that you run)"
    options.add_argument("--repo", metavar="URL", default="", help=about)


def fields_help() -> str:
    lines = ["fields (docs/configuration.md explains them):"]
    for field in FIELDS:
        default = f" (default: {field.default})" if field.default else ""
        lines.append(f"  {field.key:32} {field.title}{default}")
    return "\n".join(lines)


def invocation(arguments: argparse.Namespace) -> Invocation:
    """What the options of `add_fields` ask for. Raises ConfigError."""
    config = _read(arguments.config) if arguments.config else {}
    overrides = dict(file.assignment(text) for text in arguments.set)
    if any(key.endswith("/hf_token") for key in overrides):
        problem = "other users can read a command line: set HF_TOKEN in the environment instead"
        raise FormError(HF_TOKEN_KEY, problem)
    for key, value in (
        ("Model/model", arguments.model),
        ("General/host", arguments.host),
        ("General/port", arguments.port),
    ):
        if value is not None:
            overrides[key] = value
    return Invocation(config, overrides, arguments.offline, arguments.cache_dir)


def settings(wanted: Invocation) -> Settings:
    """Of a command that becomes no task: a Hugging Face token in its form goes where
    huggingface_hub looks. Raises ConfigError."""
    form = merge(wanted.config, wanted.overrides)
    if token := form.values[HF_TOKEN_KEY].strip():
        os.environ.setdefault("HF_TOKEN", token)
    return parse(form.without(HF_TOKEN_KEY))


def public(repository: str) -> str:
    """The address of `--repo`, without a user's password in it."""
    from app.task.checkout import without_credentials  # most commands need nothing of the task

    found = without_credentials(repository)
    if found != repository:
        logger.warning("--repo: left out the user and password, the agent uses its own")
    return found


def text_of(name: str) -> str:
    """What the file of --config holds. Raises ConfigError."""
    try:
        with Path(name).open("rb") as source:
            text = source.read(LONGEST + 1)
        if len(text) > LONGEST:
            raise ConfigError(f"--config {name}: has more than {LONGEST} bytes")
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"--config {name}: is not UTF-8: save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"--config {name}: cannot be read: {error}") from None


def _read(name: str) -> dict[str, str]:
    return file.read(name, text_of(name))
