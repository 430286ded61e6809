"""A configuration file: one JSON object a section, as `--config` takes it. Pure, but for text."""

from __future__ import annotations

import json

from app.errors import ConfigError

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
            if not isinstance(value, SCALARS):
                raise ConfigError(f"--config {name}: {section}/{field} must be one value")
            parameters[f"{section}/{field}"] = as_text(value)
    return parameters


def as_text(value: object) -> str:
    """A JSON scalar as the text that a hyperparameter holds."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def assignment(text: str) -> tuple[str, str]:
    """`Section/name=value` of `--set`."""
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise ConfigError(f"--set {text}: write it as Section/name=value")
    return key.strip(), value
