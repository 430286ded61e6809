"""What a field's type cannot say: what names look like, and which fields must agree. Pure."""

from __future__ import annotations

import math
import re

from app.errors import FormError
from app.form.fields import MODEL
from app.form.settings import GeneralSettings, ModelSettings, names_of, rope_factor

# A Host header's value, or an Origin's that is no website's.
CALLED = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?|[a-z][a-z0-9+.-]*://[^\s/*]+", re.I)
NAME_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
MAX_GPUS = 16  # llama.cpp's own limit
MIN_NAME = 3  # characters of a queue's or project's name; ClearML's own limit
LEAST_CONTEXT = 256  # tokens: llama.cpp makes it at least as long, and aborts for a single one
TOTAL = "total"
RESERVED_SEGMENTS = {"v1", "api", "health", "ready", "metrics", "service", ".", ".."}


def check_general(general: GeneralSettings) -> None:
    """Raises FormError."""
    if general.disk_swapping and general.cpu_offloading:
        problem = "cannot be on together with General/cpu_offloading: turn one of them off"
        raise FormError("General/disk_swapping", problem)
    for field in ("instance_name", "project", "queue"):
        name = getattr(general, field)
        if 0 < len(name) < MIN_NAME:
            problem = f"{name!r} is too short: ClearML wants at least {MIN_NAME} characters"
            raise FormError(f"General/{field}", problem)
    for name in general.allowed_hosts.split(","):
        if name.strip() and not CALLED.fullmatch(name.strip()):
            problem = f"{name.strip()!r} is no name such as models.example or models.example:8080"
            raise FormError("General/allowed_hosts", problem)


def check_model(model: ModelSettings) -> None:
    """Raises FormError."""
    check_names_of(model)
    if model.pin and model.ttl is not None:
        raise FormError(f"{MODEL}/ttl", f"cannot be set together with {MODEL}/pin: leave one out")
    factor = rope_factor(model)
    if factor is not None and model.rope_freq_scale is not None:
        problem = f"the factor {model.rope_scaling} and Model/rope_freq_scale say the same thing"
        raise FormError(f"{MODEL}/rope_scaling", f"{problem}: set only one of them")
    if model.tensor_split:
        check_tensor_split(model.tensor_split)
    check_context(f"{MODEL}/context_size", model.context_size)
    if model.flash_attention == "off" and model.split_mode == "tensor":
        raise FormError(
            f"{MODEL}/split_mode", "tensor needs Model/flash_attention: leave that empty"
        )
    if model.flash_attention == "off" and model.kv_cache_type not in ("", "f32", "f16", "bf16"):
        problem = f"{model.kv_cache_type} needs Model/flash_attention"
        raise FormError(f"{MODEL}/kv_cache_type", f"{problem}: leave that empty, or use f16")


def check_context(key: str, tokens: int | None) -> None:
    """Raises FormError for a context in which nothing could be answered."""
    if tokens and tokens < LEAST_CONTEXT:
        raise FormError(key, f"{tokens} is less than {LEAST_CONTEXT}, the least of llama.cpp")


def check_tensor_split(text: str) -> None:
    """Shares by GPU, such as 3,2. Raises FormError."""
    shares = text.replace("/", ",").split(",")
    try:
        numbers = [float(share) for share in shares]
    except ValueError:
        numbers = []
    whole = all(math.isfinite(number) and number >= 0 for number in numbers)
    if not numbers or not whole or sum(numbers) <= 0 or len(numbers) > MAX_GPUS:
        raise FormError(f"{MODEL}/tensor_split", f"{text!r} is not a list of shares such as 3,2")


def check_names_of(model: ModelSettings) -> None:
    """Those that are given. Raises FormError."""
    name, *aliases = names_of(model)
    if name:
        check_endpoint_name(name)
    for alias in aliases:
        check_endpoint_name(alias, field="aliases")


def check_endpoint_name(name: str, field: str = "endpoint_name") -> None:
    """A name is a URL path: segments of [A-Za-z0-9._-] joined by "/". Raises FormError."""
    key = f"{MODEL}/{field}"
    if name == TOTAL:
        raise FormError(key, f"{name!r} is taken: the plots use it for the sum over all models")
    for segment in name.split("/"):
        if not NAME_SEGMENT.fullmatch(segment):
            problem = (
                f"{name!r} is not a URL path: use letters, digits, '.', '_' and '-' between '/'"
            )
            raise FormError(key, problem)
        if segment in RESERVED_SEGMENTS:
            raise FormError(key, f"{name!r} contains the reserved segment {segment!r}")


def default_endpoint_name(reference: str) -> str:
    """A valid name made from a model reference: "-" replaces the characters that a name may not
    have, "_" comes before a reserved segment."""
    segments = []
    for raw in reference.replace("*", "").split("/"):
        segment = re.sub(r"[^A-Za-z0-9._-]+", "-", raw)
        if segment and segment not in (".", ".."):
            segments.append(f"_{segment}" if segment in RESERVED_SEGMENTS else segment)
    name = "/".join(segments) or "model"
    return f"_{name}" if name == TOTAL else name
