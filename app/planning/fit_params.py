"""llama-fit-params, the planning tool that is built beside llama-server: questions and answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigError
from app.machine import children, threads

MIB = 1 << 20
HOST_ROW = "Host"  # the tool's name for memory that is on no device
TIMEOUT = 120.0  # seconds
LOAD_FAILED, LOAD_ERROR = "failed to load model", re.compile(r"error loading model: (.+)")
CANNOT_LOAD = "llama.cpp cannot load it"
LONGEST = 300  # characters of it


@dataclass(frozen=True)
class Fitted:
    """What the tool cuts a model to; None is all of it."""

    context: int | None = None
    gpu_layers: int | None = None
    placement: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """Bytes that a model takes, by device and in host memory: of the latter its weights, as far as
    the tool counts them, apart from what is computed with them."""

    devices: Mapping[str, int]
    weights: int
    others: int


async def ask(tool: Path, argv: Sequence[str], environment: Mapping[str, str]) -> children.Done:
    """The tool's answer, whatever its exit status. Raises ConfigError where it does not end."""
    try:
        return await threads.run(children.run, [str(tool), *argv], environment, TIMEOUT)
    except children.TimeoutExpired:
        raise ConfigError(f"{tool} did not answer in {TIMEOUT:.0f} s") from None


def complaint(done: children.Done) -> str:
    """The last line of what the tool wrote as errors."""
    return (done.errors.strip().splitlines()[-1:] or [""])[0]


def load_error(answers: Sequence[children.Done]) -> str:
    """That it could not load the model, and why; "" where it says nothing of that. It dies of the
    exception, mostly before it has written the reason."""
    said = "\n".join(answer.errors for answer in answers)
    if LOAD_FAILED not in said:
        return ""
    reason = LOAD_ERROR.search(said)
    return CANNOT_LOAD + (f": {reason[1].strip()[:LONGEST]}" if reason else "")


def read_fitted(printed: str) -> Fitted:
    """From its line of arguments: `-c 4096 -ngl 48 -ts 3,1 -ot "…"`."""
    words = shlex.split(printed)
    said = dict(zip(words[::2], words[1::2], strict=False))
    context, layers = _count(said.pop("-c", "")), _count(said.pop("-ngl", ""))
    return Fitted(context, layers, tuple(text for pair in said.items() for text in pair))


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() else None  # -1: all, or no GPU to put any on


def read_prediction(printed: str) -> Prediction | None:
    """From its lines `<device> <model> <context> <compute>`, in MiB, of one answer or more: the
    most of each cell counts. None where it says nothing of host memory."""
    rows: dict[str, list[int]] = {}
    for row in (line.split() for line in printed.splitlines()):
        if _is_row(row):
            cells = [int(cell) * MIB for cell in row[1:]]
            rows[row[0]] = list(map(max, cells, rows.get(row[0], cells)))
    host = rows.pop(HOST_ROW, None)
    if host is None:
        return None
    model, context, compute = host
    return Prediction(
        {device: sum(cells) for device, cells in rows.items()}, model, context + compute
    )


def _is_row(row: Sequence[str]) -> bool:
    return len(row) == 4 and all(cell.isdigit() for cell in row[1:])
