"""Files as a person names them, from the folder that they are in. The task keeps whole paths: a
clone of it runs in another folder. Pure, but for the folder and the home that paths begin from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.form.fields import MODEL, MODELS_KEY
from app.instance.invocation import Invocation
from app.models.reference import is_path

NAMING_FILES = ("model", "mmproj", "speculative")  # fields of a model whose text may be a path


def whole(wanted: Invocation) -> Invocation:
    """The invocation with whole paths."""
    return replace(wanted, config=_fields(wanted.config), overrides=_fields(wanted.overrides))


def _fields(fields: Mapping[str, str]) -> dict[str, str]:
    found = {key: _whole(text) if _names_file(key) else text for key, text in fields.items()}
    if listed := found.get(MODELS_KEY):
        found[MODELS_KEY] = _listed(listed)
    return found


def _names_file(key: str) -> bool:
    section, _, name = key.partition("/")
    return section.partition("_")[0] == MODEL and name in NAMING_FILES


def _listed(text: str) -> str:
    """The list of models; as it is where it is none, which the form then says."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return text
    return json.dumps([_item(item) for item in items])


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _whole(value) if name in NAMING_FILES and isinstance(value, str) else value
        for name, value in item.items()
    }


def _whole(text: str) -> str:
    return os.path.abspath(os.path.expanduser(text)) if is_path(text) else text
