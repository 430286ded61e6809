"""The files that arguments name are there, before any byte of a model moves."""

from __future__ import annotations

import os

from app.engine.flags import DRAFT_MODEL
from app.engine.program import named
from app.engine.resolved import EXTRA
from app.errors import FormError
from app.form import pasted
from app.form.settings import ModelSettings

# Where a file is named by another option, llama-server itself says at its start that it is missing.
READ = (
    "--lora",
    "--lora-scaled",
    "--control-vector",
    "--control-vector-scaled",
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
        for value in option.values[:1] if option.flag in READ else ():
            for missing in _missing(value):
                raise FormError(key, f"{option.flag}: {missing!r} is no file of this machine")


def _missing(value: str) -> list[str]:
    """The parts that are none. A single name may have a comma."""
    whole, *parts = named(value)
    if any(map(os.path.isfile, whole)):
        return []
    return [part[0] for part in parts or [whole] if not any(map(os.path.isfile, part))]
