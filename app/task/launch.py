"""Create instances, as tasks with our form on a queue, and read the form of a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from app.errors import ConfigError
from app.form.checks import MIN_NAME
from app.form.fields import BY_KEY, GENERAL
from app.gateway import trust
from app.task import api, container, inputs, live, served
from app.task.api import RefusedError
from app.task.checkout import ENTRY_POINT, Script
from app.task.inputs import Source
from app.task.sdk import ClearMLError
from app.task.served import Served

T = TypeVar("T")
DEADLINE = 60.0
TASK_TYPE = "inference"


def task_name(wished: str) -> str:
    """A name that ClearML accepts: at least three characters."""
    if not wished:
        return "llama.cpp"
    return wished if len(wished) >= MIN_NAME else f"llama.cpp {wished}"


def describe(
    name: str, script: Script, parameters: Mapping[str, str], tags: Sequence[str] = ()
) -> dict[str, Any]:
    """The task as `tasks.create` takes it, without the project; `parameters` by "Section/name"."""
    requirements = {"pip": script.requirements} if script.requirements else {}
    sections: dict[str, dict[str, dict[str, str]]] = {}
    for key, value in parameters.items():
        section, _, field = key.partition("/")
        known = BY_KEY.get(key)
        sections.setdefault(section, {})[field] = {
            "section": section,
            "name": field,
            "value": value,
            "type": "str",
            "description": known.title if known else "",
        }
    names = ("container_image", "container_args", "llama_server")
    wanted = container.describe(*(parameters.get(f"{GENERAL}/{name}", "") for name in names))
    return {
        "name": name,
        "type": TASK_TYPE,
        "tags": list(tags),
        "script": {
            "repository": script.repository,
            "branch": script.branch or None,
            "version_num": script.commit or None,
            "entry_point": ENTRY_POINT,
            "working_dir": ".",
            "binary": "python3",
            "requirements": requirements,
            "diff": "",
        },
        "container": {key: text for key, text in wanted.items() if text},
        "hyperparams": sections,
    }


class Way(Protocol):
    """To a server: a `ClearMLTask` is one."""

    async def ask(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]: ...

    async def call(self, name: str, function: Callable[[Any], T], deadline: float) -> T: ...


class Launcher:
    """Requests to a server. Every method raises ConfigError with what the server says."""

    def __init__(self, task: Way) -> None:
        self._task = task

    async def queue(self, name: str) -> str:
        """The ID of the queue with this name or ID."""
        found = await self._ask("queues", "get_all", {"only_fields": ["id", "name"]})
        known = {queue["name"]: queue["id"] for queue in found.get("queues") or []}
        if name in known.values():
            return name
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"there is no queue {name!r}; there is: {listed}")
        return str(known[name])

    async def project(self, name: str) -> str:
        """The ID of the project with this name, which is created if there is none."""
        known = await self._projects(name)
        if not known:
            try:
                known = [await self._ask("projects", "create", {"name": name, "description": ""})]
            except RefusedError:
                known = await self._projects(name)  # somebody else has just created it
                if not known:
                    raise
        return str(known[0]["id"])

    async def _projects(self, name: str) -> Sequence[Mapping[str, Any]]:
        found = await self._ask("projects", "get_all", {"name": f"^{re.escape(name)}$"})
        return found.get("projects") or []

    async def create(self, task: Mapping[str, Any], project: str) -> str:
        """Create a task; returns its ID."""
        where = await self.project(project)
        return str((await self._ask("tasks", "create", {**task, "project": where}))["id"])

    async def register(self, model: Source, project: str) -> str:
        """The ID of the model with this address in the registry; it is created if there is none, in
        a project by its ID."""
        known = (await self._ask("models", "get_all", inputs.wanted(model))).get("models")
        if known:
            return str(known[0]["id"])
        return str((await self._ask("models", "create", inputs.described(model, project)))["id"])

    async def join(
        self, task: str, route: str, secret: str, told: Mapping[str, str] | None = None
    ) -> None:
        """Before an agent runs the task: it belongs to the route of a door, which takes it for an
        instance to come, if it is signed by their common `secret` ("" without one). `told`: further
        runtime properties."""
        values = {
            live.ROUTE: live.belongs(route, task),
            live.ORDER: trust.order(secret, task, route),
            **(told or {}),
        }
        try:
            await self._ask("tasks", "edit_runtime", live.edit(task, values))
        except RefusedError as error:
            if not api.unknown_action(error):
                raise
            await self._ask("tasks", "edit", {"task": task, "runtime": values, "force": True})

    async def enqueue(self, task: str, queue: str) -> None:
        await self._ask("tasks", "enqueue", {"task": task, "queue": queue})

    async def parameters(self, task: str) -> dict[str, str]:
        """A task's hyperparameters by "Section/name"."""
        found = await self._ask("tasks", "get_by_id", {"task": task})
        return api.flat(found["task"].get("hyperparams"))

    async def served(self, tasks: Sequence[str]) -> dict[str, Served]:
        """How the instances of these tasks stand, by task; of those that there are."""
        fields = {"id": list(tasks), "only_fields": ["id", *served.FIELDS], "search_hidden": True}
        found = (await self._ask("tasks", "get_all", fields)).get("tasks") or []
        return {each["id"]: served.read(each) for each in found}

    async def page(self, task: str) -> str:
        """The task's page in ClearML's web UI; "" if its address is not known."""
        try:
            return await self._task.call("finding the web page", lambda _: api.page(task), DEADLINE)
        except ClearMLError:
            return ""

    async def _ask(self, service: str, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return await self._task.ask(service, action, fields, DEADLINE)
