"""A configuration file: one JSON object a section, as `--config` takes it. Pure, but for text."""

from __future__ import annotations

import json

from app.errors import ConfigError
from app.form.fields import MODELS_KEY
from app.form.settings import as_text

SCALARS = (str, int, float, bool, type(None))


def read(name: str, text: str) -> dict[str, str]:
    """`{"Model": {"model": …}, …}` as "Section/name" → text; null is "not given"."""
    try:
        sections = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--config {name}: not JSON: {error}") from None
    if not isinstance(sections, dict):
        raise ConfigError(f"--config {name}: must be an object of sections")
    parameters = {}
    for section, fields in sections.items():
        if not isinstance(fields, dict):
            raise ConfigError(f"--config {name}: {section} must be an object of fields")
        for field, value in fields.items():
            if f"{section}/{field}" == MODELS_KEY and isinstance(value, list):
                value = json.dumps(value)
            if not isinstance(value, SCALARS):
                raise ConfigError(f"--config {name}: {section}/{field} must be one value")
            parameters[f"{section}/{field}"] = as_text(value)
    return parameters


def assignment(text: str) -> tuple[str, str]:
    """`Section/name=value` of `--set`."""
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise ConfigError(f"--set {text}: write it as Section/name=value")
    return key.strip(), value
