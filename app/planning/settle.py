"""Settle a model's settings: which file is meant and under which name. And check a form as far as
that needs no machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from app.engine.resolved import EXTRA
from app.errors import FormError
from app.form import pasted
from app.form.checks import check_names_of, default_endpoint_name
from app.form.merge import naming_field, naming_item
from app.form.settings import ModelSettings, Settings, names_of
from app.models import reference
from app.models.files import Located, Registered
from app.models.reference import Reference, Tiny

TINY_NAME = "tiny"

logger = logging.getLogger(__name__)


def check_form(settings: Settings) -> None:
    """As far as no machine is needed to run the models on: for an agent, which serves the tiny
    model where none is named. Raises FormError."""
    models: list[ModelSettings] = []
    listed = bool(settings.general.models)
    for number, model in enumerate(settings.models, start=1):
        with naming_item(number, listed=listed):
            model = settle(model)
            reference.parse(model.model, trial=not listed)
            if model.mmproj:
                with naming_field("mmproj"):
                    reference.parse(model.mmproj, trial=False)
            if model.draft:
                with naming_field("speculative"):
                    reference.parse(model.draft, trial=False)
            name = model.endpoint_name or default_endpoint_name(reference.title(model.model))
            models.append(replace(model, endpoint_name=name))
            check_names(models)


def settle(model: ModelSettings) -> ModelSettings:
    """The settings, completed with what a pasted command line says of model and name. Raises
    FormError."""
    for note in pasted.read(model.extra_args, EXTRA).notes:
        logger.warning("%s", note)
    if not model.cli:
        return model
    line = pasted.read(model.cli)
    for note in line.notes:
        logger.warning("%s", note)
    if line.model and model.model and line.model != model.model:
        named = reference.shown(line.model)
        problem = f"is {reference.shown(model.model)!r}, but Model/cli names {named!r}"
        raise FormError("Model/model", problem)
    if line.mmproj and model.mmproj and line.mmproj != model.mmproj:
        named = reference.shown(line.mmproj)
        problem = f"is {reference.shown(model.mmproj)!r}, but Model/cli has --mmproj {named!r}"
        raise FormError("Model/mmproj", problem)
    settled = replace(
        model,
        model=model.model or line.model,
        mmproj=model.mmproj or line.mmproj,
        endpoint_name=model.endpoint_name or line.endpoint_name.strip(),
        aliases=",".join(filter(None, (model.aliases, line.aliases))),
    )
    check_names_of(settled)
    return settled


def check_names(models: Sequence[ModelSettings]) -> None:
    """Raises FormError for a name of the last model that another one has, or that it has twice.
    Pure."""
    *others, last = models
    taken = {name for other in others for name in names_of(other)}
    own: set[str] = set()
    for name in names_of(last):
        field = "Model/aliases" if own else "Model/endpoint_name"
        if name in taken:
            raise FormError(field, f"{name!r} is the name of two models")
        if name in own:
            raise FormError(field, f"{name!r} is a name of this model already")
        own.add(name)


def named(model: ModelSettings, meant: Reference, located: Located) -> ModelSettings:
    """The settings with an endpoint name, if they have none: by the model's own."""
    if model.endpoint_name:
        return model
    if isinstance(meant, Tiny):
        return replace(model, endpoint_name=TINY_NAME)
    name = located.name if isinstance(located, Registered) else reference.title(model.model)
    return replace(model, endpoint_name=default_endpoint_name(name))
