"""The ClearML application: its file (`.app.conf`), and the zip that an administrator uploads.

Format: ClearML's documentation of custom applications. Nothing here was tried on an Enterprise
server.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from app import __version__
from app.console import say
from app.errors import ConfigError
from app.form import wizard
from app.task.presence import EXAMPLE, MODELS_TABLE
from app.telemetry import scalars

NAME = "llamacpp-deployment"
FILE = f"{NAME}.app.conf"
ASSETS = Path(__file__).parent / "assets"
REPOSITORY = "https://github.com/llamacpp-model-deployment/app.git"
GPUS = 8
SCALARS = (
    (scalars.REQUESTS, "Total Number of Requests"),
    (scalars.TOKENS_PER_SECOND, "Tokens per Second"),
    (scalars.LATENCY, "Latency (ms)"),
    (scalars.FIRST_TOKEN, "Time to First Token (ms)"),
    (scalars.QUEUE_WAIT, "Queue Wait (ms)"),
    (scalars.IN_FLIGHT, "Requests in Flight"),
    (scalars.DENIED, "Denied Requests"),
    (scalars.MODEL_MEMORY, "Model Memory (GB)"),
    (scalars.MODEL_SWITCHES, "Model Switches"),
    (scalars.IDLE, "Idle Time (hours)"),
)
MACHINE = (
    ("CPU Usage (%)", ":monitor:machine", ["cpu_usage"]),
    ("Network (MB/s)", ":monitor:machine", ["network_rx_mbs", "network_tx_mbs"]),
    ("Disk (MB/s)", ":monitor:machine", ["io_read_mbs", "io_write_mbs"]),
    ("Memory (GB)", ":monitor:machine", ["memory_used_gb", "memory_free_gb"]),
    ("GPU Utilization (%)", ":monitor:gpu", [f"gpu_{n}_utilization" for n in range(GPUS)]),
    ("GPU Memory (GB)", ":monitor:gpu", [f"gpu_{n}_mem_used_gb" for n in range(GPUS)]),
    ("GPU Temperature (°C)", ":monitor:gpu", [f"gpu_{n}_temperature" for n in range(GPUS)]),
)
PROPERTY = "${hyperparams.properties.%s.value}"
STATUS_LINE = (
    "<style>.lmd-status{{display:inline-block;padding:2px 2px 2px 26px;background:left center/20px"
    " no-repeat;text-transform:uppercase;font-weight:bold}}{pictures}</style>"
    '<p><span class="lmd-status lmd-{status}">{status}</span> &nbsp; '
    "Idle for {idle_hours} hours &nbsp; Automatically stopped after {idle_limit_hours} hours "
    "&nbsp; Last activity {last_activity} &nbsp; "
    '<a href="/settings/workspace-configuration">GENERATE TOKEN</a></p>'
    "<p>Endpoint: <code>{endpoint}</code></p><p>{progress}</p>"
)
PICTURES = {
    "setting": "status-setting-up.svg",
    "active": "status-active.svg",
    "idle": "status-idle.svg",
    "stopped": "status-stopped.svg",
}


def configuration(repository: str = REPOSITORY, branch: str = "main", queue: str = "") -> str:
    """The application's file."""
    root: dict[str, object] = {
        "id": NAME,
        "name": "Llama.cpp Model Deployment (open source)",
        "version": __version__,
        "provider": "community",
        "description": "Serve GGUF models with llama.cpp: several models share your GPUs, behind "
        "one OpenAI-compatible endpoint.",
        "icon": "${ASSET:icon.svg}",
        "no_info_html": "${ASSET:no-instance.html}",
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
    return "# Made by `python -m app package`, from app/form/fields.py.\n" + "\n".join(lines) + "\n"


def _dashboard() -> list[dict[str, object]]:
    names = "status idle_hours idle_limit_hours last_activity endpoint progress".split()
    pictures = "".join(
        f".lmd-{word}{{background-image:url('${{ASSET:{file}}}')}}"
        for word, file in PICTURES.items()
    )
    values = {name: PROPERTY % name for name in names}
    status = STATUS_LINE.format(pictures=pictures, **values)
    example = f"<pre>{PROPERTY % 'curl'}</pre>"
    plots = [_plot(title, metric, ["total"]) for metric, title in SCALARS]
    machine = [_plot(title, metric, variants) for title, metric, variants in MACHINE]
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


def _pairs(items: list[dict[str, object]]) -> list[list[dict[str, object]]]:
    return [items[start : start + 2] for start in range(0, len(items), 2)]


def archive(target: Path, text: str) -> Path:
    """Write the zip to upload. Raises ConfigError."""
    assets = sorted(ASSETS.iterdir())
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr(FILE, text)
            for asset in assets:
                zipped.write(asset, f"assets/{asset.name}")
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from None
    return target


def package(target: str, *, repository: str, branch: str, queue: str) -> int:
    """Write the zip that an administrator uploads. Raises ConfigError."""
    text = configuration(repository, branch, queue)
    say(str(archive(Path(target), text)))
    return 0
