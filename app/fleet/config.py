"""The routes of a door, as its file of TOML has them: a table for each. Pure.

[chat]
template = "<task ID>"   # a task that is cloned for each instance
queue = "gpu"            # left out: General/queue of the template
min = 0                  # instances that there always are
max = 4                  # instances at most
quiet_minutes = 15       # without need for it, until an instance is let go
queue_wait = 10          # seconds that requests wait on average, beyond which one more is started
project = "..."          # of the instances (default: the door's)
autoscaled = true        # agents come once a task waits in the queue: callers wait for them

[embed]                  # a form in place of a template, as --config of an instance takes it
form.General.queue = "gpu"
form.Model.model = "provider/repo/file.gguf"
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import ConfigError
from app.form import file
from app.form.tables import is_positive, is_whole, load

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = ("v1", "api", "health", "ready", "metrics", "models", "service")
MOST_ROUTES, MOST_INSTANCES = 100, 1000
MINUTE = 60.0
RENAMED = {"quiet_minutes": "quiet"}
ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Route:
    """One of `template` (a task's ID) and `form` (fields by "Section/name") says what an instance
    is. `quiet` and `queue_wait` in seconds."""

    name: str
    template: str = ""
    form: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""
    min: int = 0
    max: int = 1
    quiet: float = 15 * MINUTE
    queue_wait: float = 10.0
    project: str = ""
    autoscaled: bool = False

    @property
    def version(self) -> str:
        """Changes with what an instance is."""
        what = self.template or json.dumps(dict(self.form), sort_keys=True)
        return hashlib.blake2b(what.encode(), digest_size=8).hexdigest()


def parse(text: str) -> tuple[Route, ...]:
    """The routes in the file's order. Raises ConfigError, which names route and field."""
    try:
        tables = load(text)
    except ConfigError as error:
        raise ConfigError(f"routes: {error}") from None
    if not tables:
        raise ConfigError('routes: there is none: write one as [name], with `template = "task ID"`')
    if len(tables) > MOST_ROUTES:
        raise ConfigError(f"routes: {len(tables)}, and no more than {MOST_ROUTES} may be")
    return tuple(_route(name, table) for name, table in tables.items())


def _route(name: str, table: object) -> Route:
    if NAME.fullmatch(name) is None or name in RESERVED:
        problem = "take up to 64 letters, digits and . _ -, and none of " + ", ".join(RESERVED)
        raise ConfigError(f"routes: {name!r} is no name of a route: {problem}")
    if not isinstance(table, dict):
        raise ConfigError(f"routes: {name}: must be a table: [{name}], with its fields below")
    made = Route(name, **dict(_field(name, key, value) for key, value in table.items()))
    for problem in _problems(made):
        raise ConfigError(f"routes: {name}: {problem}")
    return made


def _field(route: str, key: str, value: object) -> tuple[str, Any]:
    if key not in FIELDS:
        known = ", ".join(FIELDS)
        raise ConfigError(f"routes: {route}: {key}: no such field; there are: {known}")
    try:
        return RENAMED.get(key, key), FIELDS[key](value)
    except ValueError as error:
        raise ConfigError(f"routes: {route}: {key}: {error}") from None


def _problems(route: Route) -> Iterator[str]:
    if bool(route.template) == bool(route.form):
        yield "give it a template or a form, one of them"
    if route.min > route.max:
        yield f"min is {route.min}, and max {route.max}"
    if route.form and not (route.queue or route.form.get("General/queue")):
        yield "queue: is missing: agents take the instances from it"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be a text")
    return value.strip()


def _task(value: object) -> str:
    if not isinstance(value, str) or ID.fullmatch(value) is None:
        raise ValueError("must be the ID of a task, 32 digits of hex")
    return value


def _form(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be a table of sections: form.Model.model = …")
    try:
        return file.read("form", json.dumps(value, default=_no_date))
    except (ConfigError, TypeError) as error:
        raise ValueError(str(error).removeprefix("--config form: ")) from None


def _no_date(value: object) -> str:
    """Of TOML's types, JSON lacks dates and times only."""
    raise TypeError(f"{value} is a date or a time: put it in quotes")


def _count(value: object) -> int:
    if not is_whole(value, 0, MOST_INSTANCES):
        raise ValueError(f"must be a whole number from 0 to {MOST_INSTANCES}")
    return value


def _yes(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _seconds(value: object) -> float:
    if not is_positive(value):
        raise ValueError("must be a number above 0")
    return float(value)


FIELDS: Mapping[str, Callable[[object], Any]] = {
    "template": _task,
    "form": _form,
    "queue": _text,
    "min": _count,
    "max": _count,
    "quiet_minutes": lambda value: MINUTE * _seconds(value),
    "queue_wait": _seconds,
    "project": _text,
    "autoscaled": _yes,
}
