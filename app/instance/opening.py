"""The first phase: from the command line and the task's hyperparameters to settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from app.form.fields import ARGS, HF_TOKEN_KEY
from app.form.merge import Form, merge, parse
from app.form.settings import Settings
from app.instance.invocation import PROJECT, Invocation
from app.task import requeue
from app.task.clearml_task import ClearMLTask
from app.task.launch import task_name

logger = logging.getLogger(__name__)

NAMING = ("General/instance_name", "Model/endpoint_name", "Model/model")


@dataclass(frozen=True)
class Opened:
    """The task is open. `elsewhere`: it is to run on the queue that its form names."""

    settings: Settings
    form: Form
    elsewhere: bool


async def open_task(
    task: ClearMLTask, invocation: Invocation, environment: Mapping[str, str]
) -> Opened:
    """Become the task and read its form. Raises ConfigError."""
    given = merge(invocation.config, invocation.overrides).values
    name = task_name(next((given[key] for key in NAMING if given[key]), ""))
    parameters = await task.open(given["General/project"] or PROJECT, name)
    form = merge(invocation.config, parameters, invocation.overrides)
    elsewhere = requeue.wanted(environment, form.values["General/queue"])
    if elsewhere:
        form = form.without(HF_TOKEN_KEY)  # it stays on the task, for whoever will need it
    else:
        form = await _take_token(task, form, parameters, environment)
    for warning in form.warnings:
        logger.warning("%s", warning)
    settings = parse(form)
    if settings.general.debug:
        logging.getLogger("app").setLevel(logging.DEBUG)
    return Opened(settings, form, elsewhere)


async def _take_token(
    task: ClearMLTask, form: Form, parameters: Mapping[str, str], environment: Mapping[str, str]
) -> Form:
    """The Hugging Face token goes into our memory, and out of the task and the form."""
    holders = [key for key in (HF_TOKEN_KEY, f"{ARGS}/hf_token") if parameters.get(key)]
    if holders:
        await task.blank(holders)
        logger.info("%s was taken, and removed from the task", holders[0])
    token = form.values[HF_TOKEN_KEY].strip()
    if token and not environment.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = token  # where huggingface_hub looks; no child gets it
    return form.without(HF_TOKEN_KEY)


def write_back(task: ClearMLTask, opened: Opened) -> None:
    """Write the merged form to the task, once: a clone of the task shows every field."""
    for number, override in opened.form.overrides.items():
        for field, text in override.items():
            logger.info("model %d: %s is overridden with %s", number + 1, field, text)
    task.write_parameters(opened.form.to_write())
    if opened.settings.general.instance_name:
        task.rename(opened.settings.general.instance_name)
