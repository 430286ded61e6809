"""Settle a model's settings: which file is meant and under which name. And check a form as far as
that needs no machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from app.engine.resolved import EXTRA
from app.errors import FormError
from app.form import pasted
from app.form.checks import check_endpoint_name, default_endpoint_name
from app.form.merge import naming_field, naming_item
from app.form.settings import ModelSettings, Settings
from app.models import reference
from app.models.reference import Reference, Tiny
from app.models.store import Located, Registered

TINY_NAME = "tiny"

logger = logging.getLogger(__name__)


def check_form(settings: Settings) -> None:
    """As far as no machine is needed to run the models on: for an agent, which serves the tiny
    model where none is named. Raises FormError."""
    names = []
    for number, model in enumerate(settings.models, start=1):
        with naming_item(number, listed=bool(settings.general.models)):
            model = settle(model)
            reference.parse(model.model, trial=len(settings.models) == 1)
            if model.mmproj:
                with naming_field("mmproj"):
                    reference.parse(model.mmproj, trial=False)
            names.append(model.endpoint_name or default_endpoint_name(reference.title(model.model)))
            check_names(names)


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
        raise FormError("Model/model", f"is {model.model!r}, but Model/cli has -m {line.model!r}")
    if line.mmproj and model.mmproj and line.mmproj != model.mmproj:
        problem = f"is {model.mmproj!r}, but Model/cli has --mmproj {line.mmproj!r}"
        raise FormError("Model/mmproj", problem)
    name = model.endpoint_name or line.endpoint_name
    if name:
        check_endpoint_name(name)
    return replace(
        model,
        model=model.model or line.model,
        mmproj=model.mmproj or line.mmproj,
        endpoint_name=name,
    )


def check_names(names: Sequence[str]) -> None:
    """Raises FormError for a name that two models have. Pure."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FormError("Model/endpoint_name", f"{twice!r} is the name of two models")


def named(model: ModelSettings, meant: Reference, located: Located) -> ModelSettings:
    """The settings with an endpoint name, if they have none: by the model's own."""
    if model.endpoint_name:
        return model
    if isinstance(meant, Tiny):
        return replace(model, endpoint_name=TINY_NAME)
    name = located.name if isinstance(located, Registered) else reference.title(model.model)
    return replace(model, endpoint_name=default_endpoint_name(name))
