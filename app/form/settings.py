"""Hyperparameters → frozen settings. Every rejection names its field. Pure."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from app.errors import FormError
from app.form.fields import (
    ARGS,
    BY_KEY,
    BY_NAME,
    CONTAINER_IMAGE,
    FIELDS,
    MODEL,
    MODEL_FIELDS,
    MODELS_KEY,
    SECTIONS,
    Field,
    Kind,
)

Value = str | int | float | bool | None
Parameters = Mapping[str, str]  # "Section/name" → text

TRUE, FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
MODEL_NAMES = {field.name for field in MODEL_FIELDS}
ITEM = re.compile(rf"{MODEL}_(?P<number>[1-9]\d?)/(?P<name>\w+)")
NAME_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
ROPE_METHODS = ("none", "linear", "yarn")
MAX_GPUS = 16  # llama.cpp's own limit
MIN_NAME = 3  # characters of a queue's or project's name; ClearML's own limit
TOTAL = "total"
RESERVED_SEGMENTS = {"v1", "api", "health", "ready", "metrics", "service", ".", ".."}


@dataclass(frozen=True)
class ModelSettings:
    """One model, as the form's section `Model` names its fields; None is "not given"."""

    model: str = ""
    endpoint_name: str = ""
    cli: str = ""
    verbose: bool = False
    no_mmap: bool = False
    continuous_batching: bool = True
    embedding: bool = False
    gpu_layers: int | None = None
    repeat_penalty: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None
    context_size: int | None = None
    rope_freq_base: float | None = None
    rope_scaling: str = ""
    rope_freq_scale: float | None = None
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    threads: int | None = None
    threads_batch: int | None = None
    tensor_split: str = ""
    parallel: int | None = None
    max_concurrent_requests: int | None = None
    numa: str = ""
    split_mode: str = ""
    main_gpu: int | None = None
    mmproj: str = ""
    preload: bool = True
    pin: bool = False
    priority: int = 0
    extra_args: str = ""


@dataclass(frozen=True)
class GeneralSettings:
    models: str = ""
    instance_name: str = ""
    project: str = ""
    queue: str = ""
    gateway_route: str = ""
    debug: bool = False
    disable_logs: bool = False
    cpu_offloading: bool = False
    disk_swapping: bool = False
    hf_token: str = ""  # always: a secret is taken out of the form before it is parsed
    max_cuda_memory: float | None = None
    cuda_memory_threshold: int | None = None
    host: str = ""
    port: int | None = None
    wait_timeout: float = 300
    drain_timeout: float = 20
    llama_server: str = ""
    allow_remote_media: bool = False
    container_image: str = CONTAINER_IMAGE
    container_args: str = ""


@dataclass(frozen=True)
class IdleSettings:
    idle_time_limit: float | None = None
    last_action_interval: float = 60


@dataclass(frozen=True)
class Settings:
    models: tuple[ModelSettings, ...]
    general: GeneralSettings
    idle: IdleSettings


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
            elif (item or key.split("/")[0] in SECTIONS) and _argument_field(key) is None:
                warnings.append(unknown(key))
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


def unknown(key: str) -> str:
    names = [*BY_KEY, *(f"{ARGS}/{name}" for name in BY_NAME)]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key}: no such field, ignored{hint}"


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


def convert(field: Field, text: str) -> Value:
    """The field's value, or None where the text is empty."""
    text = text.strip()
    if not text:
        return None
    if field.kind is Kind.CHECKBOX:
        return _checkbox(field, text)
    if field.kind in (Kind.INTEGER, Kind.FLOAT):
        return _number(field, text)
    if field.kind is Kind.DROPDOWN:
        return _choice(field, text)
    if "\x00" in text:
        raise FormError(field.key, "holds a NUL character")
    return text


def _checkbox(field: Field, text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise FormError(field.key, f"{text!r} is neither true nor false")


def _number(field: Field, text: str) -> int | float:
    what = "whole number" if field.kind is Kind.INTEGER else "number"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (field.kind is Kind.INTEGER and number != int(number)):
        raise FormError(field.key, f"{text!r} is not a {what}")
    if field.minimum is not None and number < field.minimum:
        raise FormError(field.key, f"{text} is less than {field.minimum:g}")
    if field.maximum is not None and number > field.maximum:
        raise FormError(field.key, f"{text} is more than {field.maximum:g}")
    return int(number) if field.kind is Kind.INTEGER else number


def _choice(field: Field, text: str) -> str:
    theirs = {sent: choice for choice, sent in field.sent_as}
    text = theirs.get(text.lower(), text)
    for choice in field.choices:
        if choice.lower() == text.lower():
            return choice
    raise FormError(field.key, f"{text!r} is none of {', '.join(field.choices)}")


def check_general(general: GeneralSettings) -> None:
    """What one field says must agree with the others. Raises FormError."""
    if general.disk_swapping and general.cpu_offloading:
        problem = "cannot be on together with General/cpu_offloading: turn one of them off"
        raise FormError("General/disk_swapping", problem)
    for field in ("instance_name", "project", "queue"):
        name = getattr(general, field)
        if 0 < len(name) < MIN_NAME:
            problem = f"{name!r}: ClearML's names have at least {MIN_NAME} characters"
            raise FormError(f"General/{field}", problem)


def check_model(model: ModelSettings) -> None:
    """What one field says must agree with the others. Raises FormError."""
    if model.endpoint_name:
        check_endpoint_name(model.endpoint_name)
    factor = rope_factor(model)
    if factor is not None and model.rope_freq_scale is not None:
        problem = f"the factor {model.rope_scaling} and Model/rope_freq_scale say the same thing"
        raise FormError(f"{MODEL}/rope_scaling", f"{problem}: set only one of them")
    if model.tensor_split:
        check_tensor_split(model.tensor_split)


def rope_factor(model: ModelSettings) -> float | None:
    """The number that rope_scaling is; None for a method's name. Raises FormError."""
    text = model.rope_scaling
    if not text or text.lower() in ROPE_METHODS:
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        methods = ", ".join(ROPE_METHODS)
        raise FormError(f"{MODEL}/rope_scaling", f"{text!r} is neither a factor nor {methods}")
    return factor


def check_tensor_split(text: str) -> None:
    """Shares by GPU, such as 3,2. Raises FormError."""
    shares = text.replace("/", ",").split(",")
    try:
        numbers = [float(share) for share in shares]
    except ValueError:
        numbers = []
    whole = all(math.isfinite(number) and number >= 0 for number in numbers)
    if not numbers or not whole or sum(numbers) <= 0 or len(numbers) > MAX_GPUS:
        raise FormError(f"{MODEL}/tensor_split", f"{text!r} is no list of shares such as 3,2")


def check_endpoint_name(name: str) -> None:
    """A name is a URL path: segments of [A-Za-z0-9._-] joined by "/"."""
    key = f"{MODEL}/endpoint_name"
    if name == TOTAL:
        raise FormError(key, f"{name!r} is the name of the plots' sum over all models")
    for segment in name.split("/"):
        if not NAME_SEGMENT.fullmatch(segment):
            problem = f"{name!r} is no URL path: use letters, digits, '.', '_', '-' between '/'"
            raise FormError(key, problem)
        if segment in RESERVED_SEGMENTS:
            raise FormError(key, f"{name!r} holds the reserved segment {segment!r}")


def default_endpoint_name(reference: str) -> str:
    """A legal name made from a model reference: other characters replaced, reserved ones marked."""
    segments = []
    for raw in reference.replace("*", "").split("/"):
        segment = re.sub(r"[^A-Za-z0-9._-]+", "-", raw)
        if segment and segment not in (".", ".."):
            segments.append(f"_{segment}" if segment in RESERVED_SEGMENTS else segment)
    name = "/".join(segments) or "model"
    return f"_{name}" if name == TOTAL else name


def given_fields(model: ModelSettings) -> Sequence[str]:
    """Names of the fields that differ from an empty form's."""
    empty = ModelSettings()
    return [f.name for f in fields(model) if getattr(model, f.name) != getattr(empty, f.name)]
