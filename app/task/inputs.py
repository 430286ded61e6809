"""What a task serves, among its input models in ClearML: each file is a model of the registry, with
its source as its address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from app.models.files import InBucket, Located, ModelFiles, Registered
from app.models.parts import OnHub, OnWeb, Remote
from app.models.reference import Tiny
from app.planning.candidate import Candidate
from app.task import api

FRAMEWORK = "GGUF"
HUB = "https://huggingface.co"  # also where a mirror is asked: it has the same files
ON_HUB, ON_WEB, ON_DISK = "Hugging Face", "web", "file"  # tags
CACHED = re.compile(  # as huggingface_hub names what it has fetched
    r".*/models--(?P<owner>[^/]+?)--(?P<repo>[^/]+)/snapshots/(?P<commit>[0-9a-f]+)/(?P<path>.+)"
)


@dataclass(frozen=True)
class Source:
    """A file that the registry need not have yet; the first one of a set."""

    uri: str
    tag: str

    @property
    def title(self) -> str:
        return unquote(self.uri.rpartition("/")[2]).removesuffix(".gguf")


@dataclass(frozen=True)
class Input:
    """`name` is the one among the task's inputs."""

    name: str
    model: Registered | Source


def inputs(models: Iterable[Candidate]) -> list[Input]:
    """The weights of each model, of its projector and its draft model. Not our own tiny model."""
    found = []
    for model in models:
        if not isinstance(model.reference, Tiny):
            found.append(Input(model.name, source(model.files.model)))
        if model.files.mmproj is not None:
            found.append(Input(f"{model.name} (projector)", source(model.files.mmproj)))
        if model.files.draft is not None:
            found.append(Input(f"{model.name} (draft)", source(model.files.draft)))
    return found


def source(located: Located) -> Registered | Source:
    if isinstance(located, Registered):
        return located
    if isinstance(located, OnHub):
        return _on_hub(located.repo, located.commit, located.paths[0])
    if not isinstance(located, ModelFiles) or located.source:
        return Source(_address(located), ON_WEB)
    if cached := CACHED.fullmatch(str(located.first)):
        repo = f"{cached['owner']}/{cached['repo']}"
        return _on_hub(repo, cached["commit"], cached["path"])
    return Source(Path(located.first).as_uri(), ON_DISK)


def parts(located: Located) -> list[Registered | Source]:
    """Each file of a model, the first one first: of a split one, each becomes a model."""
    if isinstance(located, OnHub):
        return [_on_hub(located.repo, located.commit, path) for path in located.paths]
    if isinstance(located, OnWeb):
        return [Source(located.source(part), ON_WEB) for part in located.parts]
    if isinstance(located, ModelFiles) and not located.source:
        return [source(replace(located, paths=(path,))) for path in located.paths]
    return [source(located)]


def _address(located: InBucket | Remote | ModelFiles) -> str:
    if isinstance(located, InBucket):
        return located.name
    return located.address if isinstance(located, Remote) else located.source


def _on_hub(repo: str, commit: str, path: str) -> Source:
    return Source(f"{HUB}/{repo}/resolve/{commit}/{path}", ON_HUB)


def show(task_id: str, wanted: Sequence[Input]) -> None:
    """Make these the task's inputs, in place of those that a clone brought along. Runs in the SDK's
    thread. Each is tried; then the first failure is raised."""
    task = api.task(task_id)
    listed = (task.get("models") or {}).get("input") or []
    there = {str(each["name"]): str(each["model"]) for each in listed}
    steps = [partial(_put, task, there.get(each.name, ""), each) for each in wanted]
    gone = sorted(there.keys() - {each.name for each in wanted})
    if gone:
        steps.append(partial(_remove, task, gone))
    failures = [error for error in map(_tried, steps) if error is not None]
    if failures:
        raise failures[0]


def _tried(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 the SDK's edge: the others are tried too
        return error
    return None


def _remove(task: Mapping[str, Any], names: Sequence[str]) -> None:
    models = [{"name": name, "type": "input"} for name in names]
    api.ask("tasks", "delete_models", {"task": task["id"], "models": models})


def _put(task: Mapping[str, Any], there: str, wanted: Input) -> None:
    """`there` is the ID of the model that has the name now."""
    model = wanted.model
    known = model.id if isinstance(model, Registered) else _registered(model, task.get("project"))
    if known != there:
        fields = {"task": task["id"], "name": wanted.name, "type": "input", "model": known}
        api.ask("tasks", "add_or_update_model", fields)


def _registered(found: Source, project: str | None) -> str:
    """The ID of the registry's model with this address; it is created if there is none."""
    models = api.ask("models", "get_all", wanted(found)).get("models") or []
    if models:
        return str(models[0]["id"])
    return str(api.ask("models", "create", described(found, project))["id"])


def wanted(found: Source) -> dict[str, Any]:
    """What `models.get_all` is asked for the models with this address."""
    return {"uri": [found.uri], "system_tags": ["-archived"], "only_fields": ["id"]}


def described(found: Source, project: str | None) -> dict[str, Any]:
    """The model as `models.create` takes it; `project` by its ID."""
    return {
        "uri": found.uri,
        "name": found.title,
        "framework": FRAMEWORK,
        "tags": [found.tag],
        "ready": False,  # by default the server publishes it
        **({"project": project} if project else {}),
    }
