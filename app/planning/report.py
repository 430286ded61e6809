"""What a plan's models are and whether they can run: shown by `check` and before every serve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from app.engine.arguments import ALL_LAYERS
from app.machine import host
from app.planning import placement
from app.planning.allot import Planned
from app.planning.plan import Plan, shortfall

HEADINGS = (
    "model",
    "architecture",
    "type",
    "size",
    "trained for",
    "context",
    "slots",
    "GPU",
    "host",
    "to download",
    "verdict",
)
LATER = "known once it is here"


def verdict(plan: Plan) -> str:
    """ "ok", or what the models lack together."""
    return shortfall(plan) or "ok"


def table(plan: Plan) -> list[str]:
    """Lines for a person."""
    rows = [_row(model, verdict(plan)) for model in plan.models]
    lines = aligned([HEADINGS, *rows])
    for model in plan.models:
        if model.resolved is not None:
            lines.append(f"{model.name}: {resolved_text(model)}")
    folder = plan.store.hub_folder
    free = host.disk_free(folder)
    lines.append(f"disk: {gigabytes(plan.missing)} needed, {gigabytes(free)} free in {folder}")
    return lines


def as_json(plan: Plan) -> str:
    """The same as JSON, for programs; bytes and tokens."""
    folder = plan.store.hub_folder
    disk = {
        "folder": str(folder),
        "needed": plan.missing,
        "free": host.disk_free(folder),
    }
    machine = {
        "memory": plan.machine.memory,
        "threads": plan.machine.threads,
        "devices": dict(plan.capabilities.device_memory),
    }
    found = {
        "verdict": verdict(plan),
        "llama_server": str(plan.capabilities.path),
        "machine": machine,
        "disk": disk,
        "budget": dict(plan.budget),
        "preloaded": list(plan.preloaded),
        "models": [_model(model) for model in plan.models],
    }
    return json.dumps(found, indent=2)


def resolved_text(model: Planned) -> str:
    """The memory-deciding arguments as they were settled."""
    assert model.resolved is not None
    settled = asdict(model.resolved)
    placed = " ".join(settled.pop("placement"))
    cut = "" if settled.pop("whole") else "cut to fit"
    said = [f"{key} {value}" for key, value in settled.items() if value is not None]
    return ", ".join([*said, *filter(None, (placed, cut))])


def placed_text(model: Planned) -> str:
    """Where a model's memory lies on a machine with GPUs, and what was cut so that it fits."""
    needs, resolved = model.footprint, model.resolved
    if needs is None or resolved is None or not needs.devices:
        return ""
    sizes = {**needs.devices, "host": needs.host}
    said = ", ".join(f"{device} {gigabytes(size)}" for device, size in sizes.items())
    if resolved.whole:
        return said
    overrides = [text for text in resolved.placement if text.endswith(f"={placement.ON_HOST}")]
    cut = [f"context {resolved.context}", f"{resolved.gpu_layers} layers on the GPU"]
    cut = cut if resolved.gpu_layers != ALL_LAYERS else cut[:1]
    cut += [f"tensors in host memory: {text}" for text in overrides]
    return f"{said}; cut to fit: {', '.join(cut)}"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    kept = list(rows)
    widths = [max(len(row[column]) for row in kept) for column in range(len(kept[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in kept
    ]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def _row(model: Planned, verdict: str) -> tuple[str, ...]:
    header, resolved, needs = model.files.header, model.resolved, model.footprint
    if header is None or resolved is None or needs is None:
        return (model.name, *[LATER], *[""] * (len(HEADINGS) - 3), verdict)
    return (
        model.name,
        header.architecture,
        header.quantisation or "?",
        gigabytes(model.files.size),
        str(header.training_context or "?"),
        str(resolved.context),
        str(resolved.parallel),
        gigabytes(sum(needs.devices.values())) if needs.devices else "-",
        gigabytes(needs.host),
        gigabytes(model.files.missing) if model.files.missing else "-",
        verdict,
    )


def _model(model: Planned) -> Mapping[str, object]:
    header, resolved, needs = model.files.header, model.resolved, model.footprint
    return {
        "name": model.name,
        "reference": model.label,
        "architecture": header.architecture if header else None,
        "quantisation": header.quantisation if header else None,
        "size": model.files.size,
        "to_download": model.files.missing,
        "training_context": header.training_context if header else None,
        "resolved": asdict(resolved) if resolved else None,
        "memory": asdict(needs) if needs else None,
    }
