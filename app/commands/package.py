"""`package`: write the zip of the ClearML application, which an administrator uploads.

It holds the application's file (`.app.conf`) and its pictures. Format: ClearML's documentation of
custom applications. Nothing here was tried on an Enterprise server.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from app import __version__
from app.commands import options
from app.console import say
from app.errors import ConfigError, words
from app.form import wizard
from app.form.checks import TOTAL
from app.machine import small_file
from app.task import checkout
from app.task.presence import EXAMPLE, MODELS_TABLE
from app.telemetry import scalars
from app.telemetry.scalars import Monitor

NAME = "llamacpp-deployment"
FILE = f"{NAME}.app.conf"
ASSETS = Path(__file__).parent / "assets"
GPUS = 8
PROPERTY = "${hyperparams.properties.%s.value}"
STATUS_LINE = (
    "<style>.lmd-status{{display:inline-block;padding:2px 2px 2px 26px;background:left center/20px"
    " no-repeat;text-transform:uppercase;font-weight:bold}}{pictures}</style>"
    '<p><span class="lmd-status lmd-{status}">{status}</span> &nbsp; '
    "Idle for {idle_hours} &nbsp; Automatically stopped after {idle_limit_hours} "
    "&nbsp; Last activity {last_activity} &nbsp; "
    '<a href="/settings/workspace-configuration">GENERATE TOKEN</a></p>'
    "<p>Endpoint: <code>{endpoint}</code></p><p>{progress}</p>"
)
ICON, NO_INSTANCE = "icon.svg", "no-instance.html"
PICTURES = {
    "setting": "status-setting-up.svg",
    "active": "status-active.svg",
    "idle": "status-idle.svg",
    "stopped": "status-stopped.svg",
    "failed": "status-stopped.svg",
    "queued": "status-setting-up.svg",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    name = f"{NAME}.zip"
    parser.add_argument(
        "output", metavar="ZIP", nargs="?", default=name, help=f"file to write (default: {name})"
    )
    options.add_repository(parser)
    parser.add_argument(
        "--branch", metavar="B", default="main", help="branch of the repository (default: main)"
    )
    parser.add_argument("--queue", metavar="Q", default="", help="queue that the form proposes")


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    repository = options.public(arguments.repo) or checkout.origin(options.CHECKOUT)
    text = configuration(repository, arguments.branch, arguments.queue)
    target = Path(arguments.output)
    if not target.name:
        raise ConfigError("name the file to write, or nothing")
    replace_file(target, archive(text))
    say(str(target))
    return 0


def configuration(repository: str, branch: str = "main", queue: str = "") -> str:
    """The application's file."""
    root: dict[str, object] = {
        "id": NAME,
        "name": "Llama.cpp Model Deployment (open source)",
        "version": __version__,
        "provider": "community",
        "description": "Serve GGUF models with llama.cpp: several models share your GPUs, behind "
        "one OpenAI-compatible endpoint.",
        "icon": f"${{ASSET:{ICON}}}",
        "no_info_html": f"${{ASSET:{NO_INSTANCE}}}",
        "default_queue": queue,
        "badges": ["llm", "gguf", "llama.cpp"],
        "resumable": False,
        "category": "Deployment",
        "featured": 500,
        "details_page": "task",
        "task": {
            "script": {
                "repository": repository,
                "branch": branch,
                "entry_point": "-m app",
                "working_dir": ".",
            },
            "hyperparams": wizard.hyperparameters(),
        },
        "wizard": {"entries": wizard.wizard()},
        "dashboard": {"lines": _dashboard()},
    }
    lines = [f"{key}: {wizard.hocon(value)}" for key, value in root.items()]
    return "# Made from app/form/fields.py.\n" + "\n".join(lines) + "\n"


def _dashboard() -> list[dict[str, object]]:
    names = "status idle_hours idle_limit_hours last_activity endpoint progress".split()
    pictures = "".join(
        f".lmd-{word}{{background-image:url('${{ASSET:{file}}}')}}"
        for word, file in PICTURES.items()
    )
    values = {name: PROPERTY % name for name in names}
    status = STATUS_LINE.format(pictures=pictures, **values)
    example = f"<pre>{PROPERTY % 'curl'}</pre>"
    shown = [row for row in scalars.SCALARS if row.dashboard]
    plots = [_plot(row.dashboard, row.title, [TOTAL]) for row in shown if row.monitor is None]
    machine = [
        _plot(row.dashboard, row.monitor.title, _variants(row.monitor))
        for row in shown
        if row.monitor is not None
    ]
    return [
        _line({"title": "Status", "type": "html", "text": status}),
        _line(_shown("Deployed Models", "plot", MODELS_TABLE)),
        _line({"title": "Command-Line Example", "type": "html", "text": example}),
        _line(_shown("Command-Line Examples by Model and Prompt", "debug-images", EXAMPLE)),
        *(_line(*pair) for pair in _pairs(plots)),
        *(_line(*pair) for pair in _pairs(machine)),
        _line({"title": "Console Log", "type": "log"}),
    ]


def _line(*contents: dict[str, object]) -> dict[str, object]:
    return {"style": {"height": "initial"}, "contents": list(contents)}


def _shown(title: str, kind: str, what: tuple[str, str]) -> dict[str, object]:
    return {"title": title, "type": kind, "metric": what[0], "variant": [what[1]]}


def _plot(title: str, metric: str, variants: list[str]) -> dict[str, object]:
    return {
        "title": title,
        "type": "scalar-histogram",
        "metric": metric,
        "variant": variants,
        "key": "iso_time",
        "hide_legend": len(variants) == 1,
    }


def _variants(monitor: Monitor) -> list[str]:
    """The series that the SDK's monitor may report: of every GPU that a machine may have."""
    numbers = {name: range(GPUS) if "{}" in name else [0] for name in monitor.series}
    return [name.format(number) for name, some in numbers.items() for number in some]


def _pairs(items: list[dict[str, object]]) -> list[list[dict[str, object]]]:
    return [items[start : start + 2] for start in range(0, len(items), 2)]


def archive(text: str, assets: Path = ASSETS) -> bytes:
    """The zip to upload: the application's file with this text, and its pictures. Raises
    ConfigError for a picture that is missing."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(FILE, text)
        for name in sorted({ICON, NO_INSTANCE, *PICTURES.values()}):
            zipped.writestr(f"assets/{name}", _read(assets / name))
    return whole.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(f"{problem}. It is a part of this app: install it again") from None


def replace_file(target: Path, content: bytes) -> None:
    """Write the file whole, or leave it as it is; of a link, what it leads to. Raises
    ConfigError."""
    try:
        target = target.resolve()
        if target.is_symlink() or (target.exists() and not target.is_file()):
            raise ConfigError(f"{target} cannot be written: it is not a file")
        small_file.replace(target, content)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise ConfigError(f"{target} cannot be written: {words(error)}") from None
