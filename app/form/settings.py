"""What a form says, as typed values: one frozen class for each section, and how a text becomes a
value. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from app.errors import FormError
from app.form.fields import CONTAINER_IMAGE, MODEL, Field, Kind

Value = str | int | float | bool | None

TRUE, FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
ROPE_METHODS = ("none", "linear", "yarn")


@dataclass(frozen=True)
class ModelSettings:
    """One model; the fields are those of the form's section `Model`. None: not given."""

    model: str = ""
    endpoint_name: str = ""
    aliases: str = ""
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
    flash_attention: str = ""
    kv_cache_type: str = ""
    speculative: str = ""
    main_gpu: int | None = None
    mmproj: str = ""
    preload: bool = True
    pin: bool = False
    priority: int = 0
    ttl: float | None = None
    extra_args: str = ""

    @property
    def guesses(self) -> bool:
        """Tokens are guessed in advance, in the way that suits the file."""
        return not self.cli and self.speculative.lower() == "auto"

    @property
    def draft(self) -> str:
        """The reference of the model that guesses tokens in advance; "" without one."""
        chosen = self.cli or self.speculative.lower() in ("", "off", "auto")
        return "" if chosen else self.speculative


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
    hf_token: str = ""  # always empty: a secret is taken out of the form before it is parsed
    max_cuda_memory: float | None = None
    cuda_memory_threshold: int | None = None
    host: str = ""
    allowed_hosts: str = ""
    allow_private_urls: bool = False
    port: int | None = None
    wait_timeout: float = 300
    body_limit: float | None = None
    drain_timeout: float = 20
    llama_server: str = ""
    allow_remote_media: bool = False
    report_usage: bool = False
    keep_prompts: bool = False
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


def convert(field: Field, text: str) -> Value:
    """The field's value; None for an empty text. Raises FormError."""
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
        raise FormError(field.key, "contains a NUL character")
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
    raise FormError(field.key, f"{text!r} is not one of {', '.join(field.choices)}")


def rope_factor(model: ModelSettings) -> float | None:
    """The factor that rope_scaling gives; None where it names a method. Raises FormError."""
    text = model.rope_scaling
    if not text or text.lower() in ROPE_METHODS:
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        methods = ", ".join(ROPE_METHODS)
        raise FormError(
            f"{MODEL}/rope_scaling", f"{text!r} is neither a number nor one of {methods}"
        )
    return factor


def names_of(model: ModelSettings) -> tuple[str, ...]:
    """By which callers may choose the model: its endpoint name, then its aliases."""
    aliases = (alias.strip() for alias in model.aliases.split(","))
    return (model.endpoint_name, *filter(None, aliases))


def given_fields(model: ModelSettings) -> Sequence[str]:
    """Names of the fields whose values differ from those of an empty form."""
    empty = ModelSettings()
    return [f.name for f in fields(model) if getattr(model, f.name) != getattr(empty, f.name)]
