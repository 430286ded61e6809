"""Fields → the wizard of a ClearML application's file (HOCON). Pure.

Format: ClearML's documentation of custom applications, "wizard" and "hyperparams".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from app.form.fields import BY_KEY, FIELDS, GENERAL, IDLE, MODEL_FIELDS, MODELS_KEY, Field, Kind

Entry = dict[str, object]
BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

INSTANCE = ("instance_name", "project", "queue", "gateway_route")
LOOKED_UP = {"project": "project", "queue": "queue"}  # field → what ClearML offers as its choices
PLACEHOLDERS = {
    "instance_name": "Name of this instance",
    "gateway_route": "Choose a route, otherwise a dynamic route will be used",
    "model": "provider/repo/path/to/model.gguf, or a ClearML Model ID",
    "cli": "--ctx-size 8192 --flash-attn on",
    "tensor_split": "3,2",
    "hf_token": "Better: HF_TOKEN in the agent's environment",
}
REQUIRED = {"queue"}
# A field that is shown only while another one has this value.
SHOWN_IF: dict[str, tuple[str, object]] = {"disk_swapping": ("cpu_offloading", False)}


def wizard() -> list[Entry]:
    """The launch form's entries, in the order of ClearML's own application."""
    apart = {*INSTANCE, "models"}
    general = [f for f in FIELDS if f.section == GENERAL and f.name not in apart]
    idle = [field for field in FIELDS if field.section == IDLE]
    return [
        *(entry(BY_KEY[f"{GENERAL}/{name}"]) for name in INSTANCE),
        _models(),
        _group("general", "General", general),
        _group("idle", "Idle Options", idle),
    ]


def entry(field: Field, *, target: bool = True) -> Entry:
    found: Entry = {
        "name": field.name,
        "title": field.title,
        "info": field.info,
        "type": _type(field),
        "required": field.name in REQUIRED,
        "default": _default(field),
    }
    if field.name in PLACEHOLDERS:
        found["placeholder"] = PLACEHOLDERS[field.name]
    if field.choices:
        found["choices"] = list(field.choices)
    if field.name in LOOKED_UP:
        source = {"source": LOOKED_UP[field.name], "value_field": "name", "display_field": "name"}
        found |= {"choices": source, "autocomplete": True}
    if field.name in SHOWN_IF:
        name, value = SHOWN_IF[field.name]
        found["conditional"] = {"entries": [{"name": name, "value": value}]}
    if target:
        found["target"] = _target(field.section, field.name, "str")
    return found


def hyperparameters() -> dict[str, dict[str, str]]:
    """Every parameter that the wizard sets, with its default, by section."""
    found: dict[str, dict[str, str]] = {}
    for field in FIELDS:
        if field.section in (GENERAL, IDLE):
            found.setdefault(field.section, {})[field.name] = field.default
    return found


def _models() -> Entry:
    field = BY_KEY[MODELS_KEY]
    return {
        "name": field.name,
        "title": field.title,
        "info": "The models of this instance; each is served under a name of its own.",
        "type": "list",
        "required": True,
        "collapsibleTitleTemplate": "${model}",
        "item_template": [entry(item, target=False) for item in MODEL_FIELDS],
        "target": _target(field.section, field.name, "json"),
    }


def _group(name: str, title: str, fields: Sequence[Field]) -> Entry:
    return {
        "name": name,
        "title": title,
        "type": "group",
        "required": False,
        "collapsible": True,
        "item_template": [entry(field) for field in fields],
    }


def _target(section: str, name: str, shape: str) -> Entry:
    return {"field": "hyperparams", "section": section, "name": name, "format": shape}


def _type(field: Field) -> str:
    return "dropdown" if field.name in LOOKED_UP else field.kind.value


def _default(field: Field) -> object:
    if field.kind is Kind.CHECKBOX:
        return field.default == "true"
    if field.default and field.kind in (Kind.INTEGER, Kind.FLOAT):
        return json.loads(field.default)
    return field.default


def hocon(value: object, indent: str = "") -> str:
    """The value as HOCON text. Strings are quoted, so that HOCON substitutes nothing in them."""
    return "\n".join(_lines(value, indent)).lstrip()


def _lines(value: object, indent: str) -> Iterator[str]:
    deeper = indent + "  "
    if isinstance(value, Mapping) and value:
        yield indent + "{"
        for key, inner in value.items():
            name = key if BARE.fullmatch(key) else json.dumps(key)
            yield f"{deeper}{name}: {hocon(inner, deeper)}"
        yield indent + "}"
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        yield indent + "["
        for item in value:
            yield f"{deeper}{hocon(item, deeper)}"
        yield indent + "]"
    else:
        yield indent + json.dumps(value)
