"""The files that arguments name are there, before any byte of a model moves."""

from __future__ import annotations

from pathlib import Path

from app.engine.flags import DRAFT_MODEL
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
    """Raises FormError for one that is not there, or is no regular file."""
    key, text = (pasted.KEY, model.cli) if model.cli else (EXTRA, model.extra_args)
    for option in pasted.read(text, key).options:
        for value in option.values if option.flag in READ else ():
            if not Path(value).is_file():  # a name may have a comma
                _check_list(key, option.flag, value)


def _check_list(key: str, flag: str, value: str) -> None:
    """`FILE`, or `FILE:SCALE`, between commas."""
    for part in value.split(","):
        if not (Path(part).is_file() or Path(part.rpartition(":")[0]).is_file()):
            raise FormError(key, f"{flag}: {part!r} is no file of this machine")
