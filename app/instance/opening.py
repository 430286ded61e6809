"""The first phase: from the command line and the task's hyperparameters to settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.errors import FormError
from app.form.fields import ARGS, HF_TOKEN_KEY, SECTIONS
from app.form.merge import Form, merge, parse
from app.form.settings import Settings
from app.instance.invocation import PROJECT, Invocation
from app.models.reference import censored, title
from app.task import requeue
from app.task.clearml_task import ClearMLTask
from app.task.launch import task_name

logger = logging.getLogger(__name__)

TOKENS = (HF_TOKEN_KEY, f"{ARGS}/hf_token")
CLONE = "Clone Of "  # what ClearML's web page puts before the name of the original
NAMING = ("General/instance_name", "Model/endpoint_name")


@dataclass(frozen=True)
class Opened:
    """The task is open. `elsewhere`: it is to run on the queue that its form names. `emptied` are
    those of its hyperparameters whose texts are in the form under other keys. `tokens` are those
    that hold a secret still, for the machine that goes on with the task."""

    settings: Settings
    form: Form
    elsewhere: bool
    emptied: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


async def open_task(
    task: ClearMLTask, invocation: Invocation, environment: Mapping[str, str]
) -> Opened:
    """Become the task and read its form. Raises ConfigError."""
    given = merge(invocation.config, invocation.overrides).values
    wished = (*(given[key] for key in NAMING), title(given["Model/model"]))
    name = task_name(next((each for each in wished if each), ""))
    parameters = await task.open(given["General/project"] or PROJECT, name)
    form = merge(invocation.config, parameters, invocation.overrides)
    elsewhere = requeue.wanted(environment, form.values["General/queue"])
    tokens = tuple(key for key in TOKENS if parameters.get(key))
    await _drop_misspelt(task, misspelt_tokens(parameters))
    if not elsewhere:
        await _take_token(task, form, tokens, environment)
    form = form.without(HF_TOKEN_KEY)
    for warning in form.warnings:
        logger.warning("%s", warning)
    try:
        settings = parse(form)
    except FormError:
        await drop(task, tokens if elsewhere else ())
        raise
    if settings.general.debug:
        logging.getLogger("app").setLevel(logging.DEBUG)
    emptied = tuple(sorted(form.arguments & parameters.keys()))
    return Opened(settings, form, elsewhere, emptied, tokens if elsewhere else ())


def misspelt_tokens(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """What is the token's field but for its section, for case, or for "-" instead of "_". It is
    ignored as any unknown field, but it may hold a token."""
    name = HF_TOKEN_KEY.partition("/")[2]
    sections = {section.lower() for section in SECTIONS}
    split = {key: key.lower().replace("-", "_").partition("/") for key in parameters}
    alike = [key for key, (section, _, n) in split.items() if section in sections and n == name]
    return tuple(key for key in alike if parameters[key] and key not in TOKENS)


async def _drop_misspelt(task: ClearMLTask, keys: Sequence[str]) -> None:
    if keys:
        await task.blank(keys)
    for key in keys:
        logger.warning(
            "%s is no field, and was removed from the task: the token's is %s", key, HF_TOKEN_KEY
        )


async def drop(task: ClearMLTask, tokens: Sequence[str]) -> None:
    """Remove the tokens of a task that fails before the machine that needs them has it."""
    if tokens:
        await task.blank(tokens)
        logger.info("%s was removed from the task", tokens[0])


async def _take_token(
    task: ClearMLTask, form: Form, holders: Sequence[str], environment: Mapping[str, str]
) -> None:
    """The Hugging Face token goes into our memory, and out of the task."""
    if holders:
        await task.blank(holders)
        logger.info("%s was taken, and removed from the task", holders[0])
    token = form.values[HF_TOKEN_KEY].strip()
    if token and not environment.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = token  # where huggingface_hub looks; no child gets it


def write_back(task: ClearMLTask, opened: Opened) -> None:
    """Write the merged form to the task, once: a clone of the task shows every field, each in one
    place."""
    for number, override in opened.form.overrides.items():
        for field, text in override.items():
            logger.info("model %d: %s is overridden with %s", number + 1, field, censored(text))
    # In one request: a text that is moved is always in one of both places.
    task.write_parameters(opened.form.to_write() | dict.fromkeys(opened.emptied, ""))
    if name := opened.settings.general.instance_name:
        first = opened.settings.models[0]
        wished = (first.endpoint_name, title(first.model))
        task.rename(name, lambda known: is_default(known, wished))  # a clone's own name stays


def is_default(name: str, wished: Sequence[str]) -> bool:
    """Whether nobody has chosen this name of a task: ClearML's web page made it, for a clone; or we
    did, of the application or of one of the `wished` names."""
    made = (CLONE.lower(), PROJECT.lower())
    return name.lower().startswith(made) or name in map(task_name, ("", *wished))
