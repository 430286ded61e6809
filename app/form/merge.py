"""Layers of parameters (defaults, file, task, command line) → one form → settings. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
    """What the layers say together.

    `values`: the text of every field, by key. `arguments`: the keys in `Args` that say the same as
    a field: its text is moved to the field. `overrides`: texts that replace those of a listed
    model, by its place (from 0) and field name. `warnings`: one for each parameter in our sections
    that is not a field, or that one in `Args` replaces.
    """

    values: Mapping[str, str]
    arguments: frozenset[str]
    overrides: Mapping[int, Mapping[str, str]]
    warnings: tuple[str, ...]

    def without(self, key: str) -> Form:
        """The form with this field empty."""
        return replace(self, values={**self.values, key: ""})

    def to_write(self) -> dict[str, str]:
        """The parameters that the task is to hold: every field, so that a clone shows them all,
        also the empty ones. Where it has a list of models, the sections `Model…` hold only what
        overrides the list."""
        if not self.values[MODELS_KEY]:
            return dict(self.values)
        others = {k: text for k, text in self.values.items() if BY_KEY[k].section != MODEL}
        return others | {
            f"{MODEL}_{number + 1}/{name}" if number else f"{MODEL}/{name}": text
            for number, texts in self.overrides.items()
            for name, text in texts.items()
        }


def merge(*layers: Parameters) -> Form:
    """The fields' defaults, and each layer over what came before it. An empty text means "not
    given": it replaces nothing. Inside a layer, what stands in `Args` replaces what stands in the
    field's own section. Never raises, so that a secret can be taken out of any form."""
    values = {field.key: field.default for field in FIELDS}
    moved: set[str] = set()
    named: set[str] = set()
    overrides: dict[int, dict[str, str]] = {}
    warnings: list[str] = []
    for layer in layers:
        given = {key: text for key, text in layer.items() if text.strip()}
        fields = {key: text for key, text in given.items() if key in BY_KEY}
        arguments = {field.key: given[key] for key, field in _arguments(given)}
        moved |= {key for key, _ in _arguments(given)}
        warnings += _replaced(fields, given)
        values.update(fields | arguments)
        named |= fields.keys() | arguments.keys()
        for number, name, text in _items(given):
            overrides.setdefault(number - 1, {})[name] = text
        warnings += _warnings(given)
    if values[MODELS_KEY]:
        first = {BY_KEY[key].name: values[key] for key in named if BY_KEY[key].section == MODEL}
        overrides[0] = {**first, **overrides.get(0, {})}
    return Form(values, frozenset(moved), overrides, tuple(warnings))


def _items(given: Parameters) -> Iterator[tuple[int, str, str]]:
    """Number, field name and text of each `Model_<number>/<name>`."""
    for key, text in given.items():
        item = ITEM.fullmatch(key)
        if item and item["name"] in MODEL_NAMES:
            yield int(item["number"]), item["name"], text


def _warnings(given: Parameters) -> Iterator[str]:
    for key in given:
        if _is_in_a_section(key) and not is_known(key):
            near = nearest(key)
            hint = f"; did you mean {near}?" if near else ""
            yield f"{key}: no such field, ignored{hint}"


def _arguments(given: Parameters) -> Iterator[tuple[str, Field]]:
    """What `clearml-task --args` sets, as `Args/<name>`: the keys, and the fields they mean."""
    for key in given:
        field = _argument_field(key)
        if field is not None:
            yield key, field


def _replaced(fields: Parameters, given: Parameters) -> Iterator[str]:
    """A line for each of the `fields` whose text one in `Args` replaces."""
    for key, field in _arguments(given):
        other, text = fields.get(field.key, ""), given[key]
        # We write every default into a task, so nobody may have set that.
        if other not in ("", text, field.default):
            what = "" if field.secret else f", {other!r} with {text!r}"
            yield f"{field.key}: {key}, which is set too, replaces it{what}"


def _argument_field(key: str) -> Field | None:
    section, _, name = key.partition("/")
    return BY_NAME.get(name) if section == ARGS else None


def is_known(key: str) -> bool:
    """Whether the form reads this parameter: a field by its key, as `Args/<name>`, or, of a listed
    model, as `Model_<number>/<name>`."""
    item = ITEM.fullmatch(key)
    return (
        key in BY_KEY
        or bool(item and item["name"] in MODEL_NAMES)
        or _argument_field(key) is not None
    )


def resembles(key: str) -> bool:
    """Whether a parameter is one that the form reads, perhaps misspelt."""
    return is_known(key) or bool(_is_in_a_section(key) and nearest(key))


def _is_in_a_section(key: str) -> bool:
    """Whether a parameter is where this form has its fields."""
    return key.split("/")[0] in SECTIONS or bool(ITEM.fullmatch(key))


def nearest(key: str) -> str:
    """The parameter that a misspelt one probably means; "" if no field's name resembles its."""
    section, _, name = key.partition("/")
    if name in BY_NAME:  # only the section is wrong
        return BY_NAME[name].key
    of_item = bool(ITEM.fullmatch(key))
    near = _nearest_name(name, MODEL_FIELDS if of_item else FIELDS)
    if not near:
        return ""
    return f"{section}/{near}" if of_item or section == ARGS else BY_NAME[near].key


def _nearest_name(name: str, fields: Sequence[Field]) -> str:
    near = difflib.get_close_matches(name, [field.name for field in fields], n=1)
    return near[0] if near else ""


def parse(form: Form) -> Settings:
    """Raises FormError for the first field whose text is not accepted."""
    values: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
    for field in FIELDS:
        value = convert(field, form.values[field.key])
        if value is not None:
            values[field.section][field.name] = value
    if form.values[MODELS_KEY]:
        models = tuple(_listed(form))
    elif form.overrides:
        section = f"{MODEL}_{min(form.overrides) + 1}"
        problem = f"there is no list of models ({MODELS_KEY}); one model's fields are {MODEL}/…"
        raise FormError(section, problem)
    else:
        models = (ModelSettings(**values[MODEL]),)  # type: ignore[arg-type]
    for number, model in enumerate(models, start=1):
        with naming_item(number, listed=bool(form.values[MODELS_KEY])):
            check_model(model)
    general = GeneralSettings(**values["General"])  # type: ignore[arg-type]
    check_general(general)
    return Settings(models, general, IdleSettings(**values["Idle"]))  # type: ignore[arg-type]


def _listed(form: Form) -> Iterator[ModelSettings]:
    """The listed models, with their overrides."""
    items = models_list(form.values[MODELS_KEY])
    beyond = [number + 1 for number in form.overrides if number >= len(items)]
    if beyond:
        many = "1 model" if len(items) == 1 else f"{len(items)} models"
        what = f"{MODELS_KEY} lists {many}: empty the fields of {MODEL}_{beyond[0]}, or list more"
        raise FormError(f"{MODEL}_{beyond[0]}", what)
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
    """A FormError about Model/model becomes one about `Model/<name>`, which names a file too."""
    try:
        yield
    except FormError as error:
        field = f"{MODEL}/{name}" if error.field == f"{MODEL}/model" else error.field
        raise FormError(field, error.problem) from None


@contextmanager
def naming_item(number: int, *, listed: bool) -> Iterator[None]:
    """For a listed model, a FormError about `Model/…` becomes one about that item of the list."""
    try:
        yield
    except FormError as error:
        if not listed:
            raise
        field = error.field.replace(f"{MODEL}/", f"{MODELS_KEY}[{number}].")
        raise FormError(field, error.problem) from None


class TwiceError(ValueError):
    """A name is twice in one object."""


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object, whose names differ: of two with one name JSON's reader would drop the first.
    Raises TwiceError."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise TwiceError(f"{key} is there twice: keep one of them")
        found[key] = value
    return found


def models_list(text: str) -> list[dict[str, str]]:
    """The text of General/models: for each model the texts of its fields. Raises FormError."""
    try:
        items = json.loads(text, object_pairs_hook=once)
    except TwiceError as error:
        raise FormError(MODELS_KEY, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise FormError(MODELS_KEY, f"is not JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise FormError(MODELS_KEY, "is not a list of models")
    return [_model(item, f"{MODELS_KEY}[{n}]") for n, item in enumerate(items, start=1)]


def _model(item: object, key: str) -> dict[str, str]:
    if not isinstance(item, dict):
        raise FormError(key, "is not an object of fields")
    for name, value in item.items():
        if name not in MODEL_NAMES:
            near = _nearest_name(name, MODEL_FIELDS)
            hint = f"; did you mean {near}?" if near else ""
            raise FormError(f"{key}.{name}", f"no such field{hint}")
        if isinstance(value, list | dict):
            raise FormError(f"{key}.{name}", "must be a single value")
    return {name: as_text(value) for name, value in item.items()}


def as_text(value: object) -> str:
    """A JSON scalar as the text of a hyperparameter."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
