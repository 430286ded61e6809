"""The arguments that decide memory: what the form or CLI wants, and what they resolve to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.engine.flags import (
    CACHE_RAM,
    CONTEXT,
    GPU_LAYERS,
    PARALLEL,
    PLACEMENT,
    SPLIT,
    THREADS,
    THREADS_BATCH,
    Binary,
)
from app.errors import FormError
from app.form import pasted
from app.form.checks import check_context
from app.form.fields import BY_NAME, MODEL
from app.form.pasted import CommandLine
from app.form.settings import ModelSettings

EXTRA = f"{MODEL}/extra_args"

ALL_LAYERS = 9999
DEFAULT_PARALLEL = 4  # llama-server's own for -np auto


@dataclass(frozen=True)
class Wanted:
    """What the form or CLI says of memory; None is left to be resolved.

    `placement` are its further arguments that the planning tool has to know; `unified`: slots may
    share one KV cache.
    """

    context: int | None = None
    gpu_layers: int | None = None
    parallel: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    cache_ram: int | None = None
    placement: tuple[str, ...] = ()
    unified: bool = True

    def slots(self, binary: Binary) -> int:
        """Among how many slots the context is divided: one, where they share it."""
        parallel = self.parallel or DEFAULT_PARALLEL
        return 1 if self.unified and binary.knows("--kv-unified") else parallel


@dataclass(frozen=True)
class Resolved:
    """The memory-deciding arguments, the same for all starts: tokens, layers, slots, threads, MiB.

    `gpu_layers` is None on a machine without GPU; `placement` are further arguments that say
    where tensors go. A model that was cut to fit is not `whole`: it has layers in host memory, or
    a shorter context than it was trained for.
    """

    context: int
    gpu_layers: int | None
    parallel: int
    threads: int
    threads_batch: int
    cache_ram: int
    placement: tuple[str, ...] = ()
    whole: bool = True

    def with_cache_within(self, size: int) -> Resolved:
        """With a prompt cache of at most so many bytes."""
        return replace(self, cache_ram=min(self.cache_ram, size >> 20))

    def prompt_cache(self, binary: Binary) -> int:
        """Bytes of host memory that the prompt cache may take beside the model; 0 for one without
        a bound."""
        return max(0, self.cache_ram) << 20 if binary.knows(CACHE_RAM[1]) else 0


def memory_wanted(model: ModelSettings) -> Wanted:
    """Raises FormError for memory arguments that are no whole numbers."""
    return _by_cli(pasted.read(model.cli)) if model.cli else _by_form(model)


def _by_form(model: ModelSettings) -> Wanted:
    extra = pasted.read(model.extra_args, EXTRA)
    return Wanted(
        context=model.context_size or None,
        gpu_layers=model.gpu_layers,
        parallel=model.parallel,
        threads=model.threads,
        threads_batch=model.threads_batch,
        cache_ram=_whole(extra, CACHE_RAM, least=-1, key=EXTRA),
        placement=(*_fields_placement(model), *_placement(extra)),
        unified=not extra.has(*SPLIT),
    )


def _by_cli(line: CommandLine) -> Wanted:
    context = _whole(line, CONTEXT)
    check_context(pasted.KEY, context)
    all_layers = line.last(*GPU_LAYERS) == "all"
    return Wanted(
        context=context or None,
        gpu_layers=ALL_LAYERS if all_layers else _whole(line, GPU_LAYERS),
        parallel=_whole(line, PARALLEL, most=BY_NAME["parallel"].maximum),
        threads=_whole(line, THREADS, most=BY_NAME["threads"].maximum),
        threads_batch=_whole(line, THREADS_BATCH, most=BY_NAME["threads_batch"].maximum),
        cache_ram=_whole(line, CACHE_RAM, least=-1),
        placement=_placement(line),
        unified=not line.has(*SPLIT),
    )


def _placement(line: CommandLine) -> tuple[str, ...]:
    return CommandLine(options=tuple(o for o in line.options if o.flag in PLACEMENT)).argv()


def _fields_placement(model: ModelSettings) -> tuple[str, ...]:
    given = (
        ("--tensor-split", model.tensor_split),
        ("--split-mode", model.split_mode),
        ("--main-gpu", "" if model.main_gpu is None else str(model.main_gpu)),
        ("--flash-attn", model.flash_attention),
        ("--cache-type-k", model.kv_cache_type),
        ("--cache-type-v", model.kv_cache_type),
    )
    return tuple(text for flag, value in given if value for text in (flag, value))


def _whole(
    line: CommandLine,
    flags: tuple[str, ...],
    least: int = 0,
    most: float | None = None,
    key: str = pasted.KEY,
) -> int | None:
    """The option's number; None where it is absent, `auto`, or -1 (llama-server's "auto"). Raises
    FormError."""
    text = line.last(*flags, key=key)
    if text is None or text == "auto":
        return None
    try:
        number = int(text)
    except ValueError:
        raise FormError(key, f"{flags[0]} {text}: not a whole number") from None
    if most is not None and number > most:
        raise FormError(key, f"{flags[0]} {text} is more than {most:g}")
    return number if number >= least else None
