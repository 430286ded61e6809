"""What the command line asks for, before the task's own form is known. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PROJECT = "Llama.cpp Model Deployment"  # of a task that we create, where none is named


@dataclass(frozen=True)
class Invocation:
    """`config` and `overrides` hold fields by "Section/name"; `cache_dir` is where models are
    kept, None for the default. `recorded`: as a task of ClearML, offline too; else without
    ClearML."""

    config: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    cache_dir: str | None = None
    recorded: bool = True
