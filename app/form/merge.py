"""Layers of hyperparameters → one form → settings. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.errors import FormError
from app.form.checks import check_general, check_model
from app.form.fields import (
    ARGS,
    BY_KEY,
    BY_NAME,
    FIELDS,
    MODEL,
    MODEL_FIELDS,
    MODELS_KEY,
    SECTIONS,
    Field,
)
from app.form.settings import GeneralSettings, IdleSettings, ModelSettings, Settings, Value, convert

Parameters = Mapping[str, str]  # "Section/name" → text
MODEL_NAMES = {field.name for field in MODEL_FIELDS}
ITEM = re.compile(rf"{MODEL}_(?P<number>[1-9]\d?)/(?P<name>\w+)")


@dataclass(frozen=True)
class Form:
    """The merged form: every field's text, and what was not understood.

    `from_args` are the fields that `Args` gave; `overrides` are texts for items of the models
    list: by item (from 0), then by field name.
    """

    values: Mapping[str, str]
    from_args: frozenset[str]
    overrides: Mapping[int, Mapping[str, str]]
    warnings: tuple[str, ...]

    def without(self, key: str) -> Form:
        """The form with this field empty."""
        return replace(self, values={**self.values, key: ""})

    def to_write(self) -> dict[str, str]:
        """What the task keeps: every field, empty ones too, so that a clone shows them all; of a
        list of models, the list."""
        listed = bool(self.values[MODELS_KEY])
        return {
            key: text
            for key, text in self.values.items()
            if key not in self.from_args and not (listed and BY_KEY[key].section == MODEL)
        }


def merge(*layers: Parameters) -> Form:
    """Defaults, then each layer over it; an empty text is "not given" and overrides nothing."""
    values = {field.key: field.default for field in FIELDS}
    from_args: set[str] = set()
    everything: set[str] = set()
    overrides: dict[int, dict[str, str]] = {}
    warnings: list[str] = []
    for layer in layers:
        given = {key: text for key, text in layer.items() if text.strip() != ""}
        arguments = _arguments(given)
        for key, text in given.items():
            item = ITEM.fullmatch(key)
            if key in BY_KEY:
                values[key] = text
                from_args.discard(key)
            elif item and item["name"] in MODEL_NAMES:
                overrides.setdefault(int(item["number"]) - 1, {})[item["name"]] = text
            elif (item or key.split("/")[0] in SECTIONS) and not is_known(key):
                near = nearest(key)
                hint = f"; did you mean {near}?" if near else ""
                warnings.append(f"{key}: no such field, ignored{hint}")
        values.update(arguments)
        from_args |= arguments.keys()
        everything |= given.keys() | arguments.keys()
    if values[MODELS_KEY]:
        first = {BY_KEY[key].name: values[key] for key in everything if _of_model(key)}
        overrides[0] = {**first, **overrides.get(0, {})}
    return Form(values, frozenset(from_args), overrides, tuple(warnings))


def _of_model(key: str) -> bool:
    return key in BY_KEY and BY_KEY[key].section == MODEL


def _arguments(given: Parameters) -> dict[str, str]:
    """`Args/<field>` (from `clearml-task --args`) by the key of the field that it means."""
    found = {}
    for key, text in given.items():
        field = _argument_field(key)
        if field is None:
            continue
        other = given.get(field.key, text)
        # A task that holds the field's default beside Args was written by us, not by a person.
        if other not in (text, field.default):
            said, also = ("another", "set") if field.secret else (repr(other), repr(text))
            raise FormError(field.key, f"is {said}, but {key} is {also}: set only one of them")
        found[field.key] = text
    return found


def _argument_field(key: str) -> Field | None:
    section, _, name = key.partition("/")
    return BY_NAME.get(name) if section == ARGS else None


def is_known(key: str) -> bool:
    """Whether the form has this parameter: a field, one of a listed model, or `Args/<field>`."""
    item = ITEM.fullmatch(key)
    return (
        key in BY_KEY
        or bool(item and item["name"] in MODEL_NAMES)
        or _argument_field(key) is not None
    )


def nearest(key: str) -> str:
    """The parameter that was probably meant by one that the form has not; "" if none is near."""
    section, _, name = key.partition("/")
    if name in BY_NAME:  # in another section
        return BY_NAME[name].key
    names = [*BY_KEY, *(f"{ARGS}/{name}" for name in BY_NAME)]
    if ITEM.fullmatch(key):
        names = [f"{section}/{field.name}" for field in MODEL_FIELDS]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    return near[0] if near else ""


def parse(form: Form) -> Settings:
    """Raises FormError for the first field that cannot be what it should be."""
    values: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
    for field in FIELDS:
        value = convert(field, form.values[field.key])
        if value is not None:
            values[field.section][field.name] = value
    if form.values[MODELS_KEY]:
        models = tuple(_listed(form))
    else:
        models = (ModelSettings(**values[MODEL]),)  # type: ignore[arg-type]
    for number, model in enumerate(models, start=1):
        with naming_item(number, listed=bool(form.values[MODELS_KEY])):
            check_model(model)
    general = GeneralSettings(**values["General"])  # type: ignore[arg-type]
    check_general(general)
    return Settings(models, general, IdleSettings(**values["Idle"]))  # type: ignore[arg-type]


def _listed(form: Form) -> Iterator[ModelSettings]:
    """The models of the list, each with what overrides it."""
    items = models_list(form.values[MODELS_KEY])
    beyond = [number + 1 for number in form.overrides if number >= len(items)]
    if beyond:
        raise FormError(f"{MODEL}_{beyond[0]}", f"the list has {len(items)} models")
    for number, item in enumerate(items):
        texts = {**item, **form.overrides.get(number, {})}
        values = {}
        for field in MODEL_FIELDS:
            key = f"{MODELS_KEY}[{number + 1}].{field.name}"
            value = convert(replace(field, section="", name=key), texts.get(field.name, ""))
            if value is None and field.default:
                value = convert(field, field.default)
            if value is not None:
                values[field.name] = value
        yield ModelSettings(**values)  # type: ignore[arg-type]


@contextmanager
def naming_field(name: str) -> Iterator[None]:
    """What is refused of Model/model is refused of `Model/<name>`, which is read as that one is."""
    try:
        yield
    except FormError as error:
        field = f"{MODEL}/{name}" if error.field == f"{MODEL}/model" else error.field
        raise FormError(field, error.problem) from None


@contextmanager
def naming_item(number: int, *, listed: bool) -> Iterator[None]:
    """What is refused of `Model` is, for a listed model, refused of that item."""
    try:
        yield
    except FormError as error:
        if not listed:
            raise
        field = error.field.replace(f"{MODEL}/", f"{MODELS_KEY}[{number}].")
        raise FormError(field, error.problem) from None


def models_list(text: str) -> list[dict[str, str]]:
    """The items, each value as text. Raises FormError."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormError(MODELS_KEY, f"is not JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise FormError(MODELS_KEY, "is not a list of models")
    found = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise FormError(f"{MODELS_KEY}[{number}]", "is not an object of fields")
        for name, value in item.items():
            if name not in MODEL_NAMES:
                near = difflib.get_close_matches(name, MODEL_NAMES, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise FormError(f"{MODELS_KEY}[{number}].{name}", f"no such field{hint}")
            if isinstance(value, list | dict):
                raise FormError(f"{MODELS_KEY}[{number}].{name}", "must be one value")
        found.append({name: as_text(value) for name, value in item.items()})
    return found


def as_text(value: object) -> str:
    """A JSON scalar as the text that a hyperparameter holds."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
