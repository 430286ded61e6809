"""The files that arguments name are there, before any byte of a model moves."""

from __future__ import annotations

import os

from app.engine.flags import ADAPTERS, DRAFT_MODEL
from app.engine.program import may_mean
from app.engine.resolved import EXTRA
from app.errors import FormError
from app.form import pasted
from app.form.settings import ModelSettings

# Where a file is named by another option, llama-server itself says at its start that it is missing.
LISTS = (*ADAPTERS, "--control-vector", "--control-vector-scaled")
FILES = (
    "--chat-template-file",
    "--grammar-file",
    "-jf",
    "--json-schema-file",
    "-lcs",
    "--lookup-cache-static",
    "-md",
    *DRAFT_MODEL,
)


def check(model: ModelSettings) -> None:
    """Raises FormError for a named file that is missing, or is no regular file. Blocks: file
    systems may."""
    key, text = (pasted.KEY, model.cli) if model.cli else (EXTRA, model.extra_args)
    for option in pasted.read(text, key).options:
        # Older llama-servers take a scale as a value of its own.
        for value in option.values[:1]:
            for missing in _missing(option.flag, value):
                raise FormError(key, f"{option.flag}: {missing!r} is no file of this machine")


def _missing(flag: str, value: str) -> list[str]:
    whole, *parts = may_mean(value)
    if flag in LISTS:
        return [part[0] for part in parts or [whole] if not any(map(os.path.isfile, part))]
    return [value] if flag in FILES and not os.path.isfile(value) else []
