"""Fields as a person gives them on the command line: a JSON file (`--config`), or one field
(`--set`). Pure."""

from __future__ import annotations

import json

from app.errors import ConfigError
from app.form.fields import FIELDS, MODEL, MODEL_FIELDS, MODELS_KEY
from app.form.merge import Form, TwiceError, as_text, is_known, models_list, nearest, once
from app.form.settings import convert

SCALARS = (str, int, float, bool, type(None))


def read(name: str, text: str) -> dict[str, str]:
    """The text of a file, `{"Section": {"name": value}}`, as "Section/name" → text. null means "not
    given". `name` is the file's, for messages. Raises ConfigError."""
    sections = _json(name, text)
    if not isinstance(sections, dict):
        raise ConfigError(f"--config {name}: must be an object of sections")
    parameters = {}
    for section, fields in sections.items():
        if not isinstance(fields, dict):
            raise ConfigError(f"--config {name}: {section} must be an object of fields")
        for field, value in fields.items():
            key = f"{section}/{field}"
            refuse_unknown(f"--config {name}:", key)
            if key == MODELS_KEY and isinstance(value, list):
                value = json.dumps(value)
            if not isinstance(value, SCALARS):
                raise ConfigError(f"--config {name}: {key} must be a single value")
            parameters[key] = as_text(value)
    return parameters


def _json(name: str, text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ConfigError(f"--config {name}: is nested too deep") from None
    except TwiceError as error:
        raise ConfigError(f"--config {name}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"--config {name}: not JSON: {error}") from None


def refuse_unknown(source: str, key: str) -> None:
    """Refuse a parameter that is not a field. In a task's hyperparameters it is only a warning, but
    the person who typed this one can correct it at once. Raises ConfigError."""
    if not is_known(key):
        near = nearest(key)
        hint = f"did you mean {near}?" if near else "--help lists the fields"
        raise ConfigError(f"{source} {key}: no such field; {hint}")


def write(form: Form) -> str:
    """The text of a file that `read` takes, with every field that is not empty, except secrets.
    What overrides a listed model is written into its item. Raises FormError."""
    sections: dict[str, dict[str, object]] = {}
    listed = bool(form.values[MODELS_KEY])
    for field in FIELDS:
        text = form.values[field.key]
        if field.secret or not text.strip() or (listed and field.section == MODEL):
            continue
        section = sections.setdefault(field.section, {})
        section[field.name] = _items(form) if field.key == MODELS_KEY else convert(field, text)
    return json.dumps(sections, indent=2, ensure_ascii=False)


def _items(form: Form) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number, item in enumerate(models_list(form.values[MODELS_KEY])):
        texts = {**item, **form.overrides.get(number, {})}
        values = ((field.name, convert(field, texts.get(field.name, ""))) for field in MODEL_FIELDS)
        found.append({name: value for name, value in values if value is not None})
    return found


def assignment(text: str) -> tuple[str, str]:
    """The key and the text in `--set Section/name=value`. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise ConfigError(f"--set {text}: write it as Section/name=value")
    key = key.strip()
    refuse_unknown("--set", key)
    return key, value
