"""Read a child's output: bytes become lines, and lines become events. Pure.

Standard output has the `cmd_child_to_router:` lines of the child protocol and, with `--log-jsonl`,
JSON lines. Standard error has plain text: the log of an older llama-server, usage errors, what
libraries print, and words of callers, such as a grammar that cannot be parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_LINE = 16 * 1024
STATE = "cmd_child_to_router:state:"
TEXT_LOG = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[IWETD]) (?P<message>.*)")
LEVELS = {"I": "info", "W": "warn", "E": "error", "T": "trace", "D": "debug"}
ERROR_TEXT = re.compile(r"\berror\b|terminate called|GGML_ASSERT|CUDA error|Segmentation", re.I)


class LineBuffer:
    """Bytes in, whole lines out: a child's output arrives in chunks that end anywhere."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that `chunk` completes; an over-long line comes out in pieces."""
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > MAX_LINE:
            lines.append(self._partial)
            self._partial = b""
        return [line.decode(errors="replace").rstrip() for line in lines]

    def flush(self) -> list[str]:
        return self.feed(b"\n") if self._partial else []


@dataclass(frozen=True)
class LogLine:
    """A line of log; `level` is llama-server's: debug trace info warn error."""

    level: str
    message: str


@dataclass(frozen=True)
class Loading:
    """`progress` 0..1 over all stages of the load."""

    progress: float


@dataclass(frozen=True)
class Ready:
    """`context` in tokens, 0 where it is not told."""

    context: int


@dataclass(frozen=True)
class Buffers:
    """Bytes of its buffers on each GPU, which a child tells at its end."""

    devices: Mapping[str, int]


Event = LogLine | Loading | Ready | Buffers


def read(line: str) -> Event | None:
    """The event that a line of standard output tells; None if it tells none."""
    if line.startswith(STATE):
        return _state(_object(line[len(STATE) :]))
    if line.startswith("{"):
        return _record(_object(line), line)
    return read_text(line)


def read_text(line: str) -> LogLine | None:
    """The same of standard error. It is a line of log, whatever it looks like: a caller may have
    written it."""
    if not line.strip():
        return None
    text = TEXT_LOG.match(line)
    if text:
        return LogLine(LEVELS[text["level"]], text["message"].strip())
    return LogLine("error" if ERROR_TEXT.search(line) else "info", line.strip())


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _state(message: dict[str, Any]) -> Event | None:
    payload = message.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    if message.get("state") == "ready":
        meta = payload.get("meta")
        context = meta.get("n_ctx") if isinstance(meta, dict) else 0
        return Ready(context if isinstance(context, int) else 0)
    if message.get("state") == "loading":
        return Loading(_progress(payload))
    return None


def _progress(payload: dict[str, Any]) -> float:
    """Of stages [a, b] with b at 0.5: three quarters."""
    stages, value = payload.get("stages"), payload.get("value")
    if not isinstance(value, int | float) or not isinstance(stages, list) or not stages:
        return 0.0
    current = payload.get("current")
    done = stages.index(current) if current in stages else 0
    return float(min(1.0, (done + value) / len(stages)))


def _record(record: dict[str, Any], line: str) -> Event:
    if record.get("type") == "log":
        return LogLine(str(record.get("level", "info")), str(record.get("msg", "")).strip())
    if record.get("type") == "fit_memory_breakdown":
        return Buffers(_by_device(record.get("data")))
    return LogLine("trace", line)


def _by_device(data: Any) -> dict[str, int]:
    """Model, context and compute buffers (`self`, in MiB), without CUDA's own context."""
    try:
        rows = [row for row in data["rows"] if row["kind"] == "device"]
        return {str(row["name"]).split()[0]: int(row["self"]) << 20 for row in rows}
    except (KeyError, TypeError, ValueError, IndexError):
        return {}
