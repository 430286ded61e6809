"""Show a plan: what its models are, and whether they can run. `check` and every start print it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from app.console import escape
from app.engine.resolved import ALL_LAYERS
from app.form.settings import names_of
from app.machine import host
from app.planning import placement
from app.planning.amounts import MINUTE, lasting
from app.planning.candidate import Allotted, Candidate
from app.planning.disk import needed
from app.planning.footprint import Footprint
from app.planning.plan import Plan, shortfall, unloadable

COLUMNS: Mapping[str, Callable[[Allotted], str]] = {
    "architecture": lambda model: model.header.architecture,
    "type": lambda model: model.header.quantisation or "?",
    "size": lambda model: gigabytes(model.files.size),
    "trained for": lambda model: str(model.header.training_context or "?"),
    "context": lambda model: str(model.resolved.context),
    "slots": lambda model: str(model.resolved.parallel),
    "GPU": lambda model: _size(sum(model.footprint.devices.values())),
    "host": lambda model: gigabytes(model.footprint.host),
    "to download": lambda model: _size(model.files.missing),
}
HEADINGS = ("model", *COLUMNS, "verdict")
LATER = "known once it is here"


def verdict(plan: Plan) -> str:
    """ "ok", or why a model cannot be loaded, or what the models lack together."""
    return unloadable(plan) or shortfall(plan) or "ok"


def table(plan: Plan) -> list[str]:
    """The plan as lines for a person."""
    rows = [_row(model, shortfall(plan) or "ok") for model in plan.models]
    lines = aligned([HEADINGS, *rows])
    lines += [f"{model.name}: {resolved_text(model)}" for model in plan.allotted]
    lines += [f"{model.name}: {said}" for model in plan.models for said in _more(model)]
    for folder, size in _disk(plan).items():
        free = host.disk_free(folder)
        lines.append(f"disk: {gigabytes(size)} needed, {gigabytes(free)} free in {folder}")
    return [escape(line) for line in lines]


def _disk(plan: Plan) -> dict[Path, int]:
    """Bytes that are still to come to each disk; to that of the hub's files, if to none."""
    return needed(plan.remote, plan.store) or {plan.store.hub_folder: 0}


def as_json(plan: Plan) -> str:
    """The plan as JSON, in bytes, tokens and minutes."""
    disks = [
        {"folder": str(folder), "needed": size, "free": host.disk_free(folder)}
        for folder, size in _disk(plan).items()
    ]
    machine = {
        "memory": plan.site.machine.memory,
        "threads": plan.site.machine.threads,
        "devices": dict(plan.capabilities.device_memory),
    }
    told = {
        "verdict": verdict(plan),
        "llama_server": str(plan.capabilities.path),
        "machine": machine,
        "disks": disks,
        "budget": dict(plan.budget),
        "preloaded": list(plan.preloaded),
        "models": [_model(model) for model in plan.models],
    }
    return json.dumps(told, indent=2)


def resolved_text(model: Allotted) -> str:
    """The memory-deciding arguments as they were resolved."""
    arguments = asdict(model.resolved)
    placed = " ".join(arguments.pop("placement"))
    cut = "" if arguments.pop("whole") else "cut to fit"
    said = [f"{key} {value}" for key, value in arguments.items() if value is not None]
    return ", ".join([*said, *filter(None, (placed, cut))])


def _more(model: Candidate) -> Iterator[str]:
    """The model's further names, and when it leaves, where the form says so; its fault."""
    if isinstance(model, Allotted) and model.footprint.fault:
        yield model.footprint.fault
    if aliases := names_of(model.settings)[1:]:
        yield f"also called {', '.join(aliases)}"
    if model.settings.ttl is not None:
        yield f"leaves memory after {lasting(model.settings.ttl * MINUTE)} without a request"


def placed_text(model: Allotted) -> str:
    """Where a model's memory lies on a machine with GPUs, and what was cut so that it fits."""
    devices, resolved = model.footprint.devices, model.resolved
    if not devices:
        return ""
    sizes = {**devices, "host": model.footprint.host}
    said = ", ".join(f"{device} {gigabytes(size)}" for device, size in sizes.items())
    if resolved.whole:
        return said
    overrides = [text for text in resolved.placement if text.endswith(f"={placement.ON_HOST}")]
    cut = [f"context {resolved.context}", f"{resolved.gpu_layers} layers on the GPU"]
    cut = cut if resolved.gpu_layers != ALL_LAYERS else cut[:1]
    cut += [f"tensors in host memory: {text}" for text in overrides]
    return f"{said}; cut to fit: {', '.join(cut)}"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """A line for each row, whatever is in its cells: a file says what its architecture is."""
    kept = [[escape(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in kept) for column in range(len(kept[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in kept
    ]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def _size(size: int) -> str:
    return gigabytes(size) if size else "-"


def _row(model: Candidate, verdict: str) -> tuple[str, ...]:
    if isinstance(model, Allotted):
        cells = [cell(model) for cell in COLUMNS.values()]
        verdict = "cannot be loaded" if model.footprint.fault else verdict
    else:
        cells = [LATER, *[""] * (len(COLUMNS) - 1)]
    return (model.name, *cells, verdict)


def _memory(footprint: Footprint) -> Mapping[str, object]:
    return {key: value for key, value in asdict(footprint).items() if key != "fault"}


def _model(model: Candidate) -> Mapping[str, object]:
    allotted = model if isinstance(model, Allotted) else None
    return {
        "name": model.name,
        "aliases": names_of(model.settings)[1:],
        "ttl": model.settings.ttl,
        "reference": model.label,
        "architecture": allotted.header.architecture if allotted else None,
        "quantisation": allotted.header.quantisation if allotted else None,
        "size": model.files.size,
        "to_download": model.files.missing,
        "training_context": allotted.header.training_context if allotted else None,
        "resolved": asdict(allotted.resolved) if allotted else None,
        "memory": _memory(allotted.footprint) if allotted else None,
        "fault": allotted.footprint.fault if allotted else "",
    }
