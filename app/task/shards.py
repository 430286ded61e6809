"""A split model whose parts are ClearML models of their own, in one project."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from app.errors import FormError
from app.models.files import Shard
from app.models.reference import KEY, SHARD, shards

FIELDS = ["id", "name", "uri", "project", "system_tags"]  # of a model, that are looked at
PACKAGE = "package"  # a system tag: the SDK's, for several files in one archive


def part_of(model: Mapping[str, Any]) -> str:
    """The name of the part that a model is, by its address or else by its name; "" for a whole
    model. Pure."""
    if PACKAGE in (model.get("system_tags") or ()):
        return ""
    file = unquote(urlsplit(str(model.get("uri") or "")).path).rpartition("/")[2]
    name = str(model.get("name") or "").rpartition("/")[2]
    named = (file, name, f"{name}.gguf")
    return next((each for each in named if SHARD.fullmatch(each)), "")


def files_of(model: Mapping[str, Any]) -> list[str]:
    """The names of all parts of the set whose first part a model is; [] for a whole model. Raises
    FormError for another part, and for a set that cannot be. Pure."""
    part = part_of(model)
    return shards(part) if part else []


def query(model: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """What `models.get_all` is asked for the parts of a set, the newest first. Pure."""
    split = SHARD.fullmatch(files[0])
    assert split is not None
    prefixes = "|".join(re.escape(each) for each in (split["prefix"], quote(split["prefix"])))
    pattern = rf"({prefixes})-[0-9]{{5}}-of-{split['count']}"
    project = model.get("project")
    return {
        "_any_": {"fields": ["name", "uri"], "pattern": pattern},
        "only_fields": FIELDS,
        "order_by": ["-created"],
        **({"project": [project]} if project else {}),
    }


def whole(
    model: Mapping[str, Any], files: Sequence[str], found: Iterable[Mapping[str, Any]]
) -> tuple[Shard, ...]:
    """All parts, of those `found`, the newest first: rather from where the first part is. Raises
    FormError that names one that is missing. Pure."""
    place = _place(model)
    by_file: dict[str, list[Mapping[str, Any]]] = {}
    for each in found:
        by_file.setdefault(part_of(each), []).append(each)
    chosen = [Shard(files[0], str(model["id"]))]
    for file in files[1:]:
        there = sorted(by_file.get(file, ()), key=lambda each: _place(each) != place)
        if not there:
            problem = f"{model.get('name')} ({model['id']}) is one of {len(files)} parts"
            raise FormError(KEY, f"{problem}, and its project has no model {file!r}")
        chosen.append(Shard(file, str(there[0]["id"])))
    return tuple(chosen)


def _place(model: Mapping[str, Any]) -> str:
    return str(model.get("uri") or "").rpartition("/")[0]


def link(folder: Path, parts: Mapping[str, Path]) -> Path:
    """A folder, below `folder`, with the files under the names that llama-server wants. Blocks;
    raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in parts.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path.absolute())
    return folder
