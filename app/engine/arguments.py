"""The argv of a llama-server, from settings, resolved arguments and files. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.engine import rope
from app.engine.flags import (
    CACHE_RAM,
    DRAFT_LAYERS,
    DRAFT_MODEL,
    FIT,
    RESOLVED,
    SHARED_WITH_DRAFT,
    SPLIT,
    UNIFIED,
    Binary,
)
from app.engine.resolved import ALL_LAYERS, EXTRA, Resolved, Wanted
from app.errors import FormError
from app.form import pasted
from app.form.fields import MODEL, MODEL_FIELDS, Field, Kind
from app.form.pasted import CommandLine
from app.form.settings import ModelSettings, given_fields

EMBEDDING_BATCH = 8192  # tokens; the compute buffer grows with it
DIRECT = {"dio", "-dio", "--direct-io"}  # as a load mode, or as a flag of its own
# Kinds of speculative decoding.
BY_DRAFT, BY_HEADS, BY_TEXT = "draft-simple", "draft-mtp", "ngram-mod"


def ignored_by_cli(model: ModelSettings) -> list[str]:
    """The filled fields that CLI replaces: whoever filled them is to be told."""
    if not model.cli:
        return []
    kept = {field.name for field in MODEL_FIELDS if field.cli_keeps} | {"cli"}
    return [f"{MODEL}/{name}" for name in given_fields(model) if name not in kept]


def check(model: ModelSettings, binary: Binary) -> None:
    """Raises FormError for a flag that this binary does not know, or that the app refuses."""
    _check_options(pasted.KEY, pasted.read(model.cli), binary)
    extra = pasted.read(model.extra_args, EXTRA)
    for option in extra.options:
        if option.flag in FIT:
            raise FormError(EXTRA, f"{option.flag}: the app decides what fits, before the start")
        if option.flag in RESOLVED and option.flag not in CACHE_RAM:
            raise FormError(EXTRA, f"{option.flag} has a field of its own")
    if extra.model or extra.endpoint_name or extra.aliases or extra.mmproj:
        raise FormError(EXTRA, "model, name and mmproj have fields of their own")
    _check_options(EXTRA, extra, binary)
    _check_fields(model, binary)


def _check_fields(model: ModelSettings, binary: Binary) -> None:
    """What is ticked or chosen is not left out without a word."""
    empty = ModelSettings()
    for field in MODEL_FIELDS:
        value = getattr(model, field.name)
        ticked = value is True and getattr(empty, field.name) is not True
        if ticked and field.on and not binary.first_known(*field.on):
            raise FormError(field.key, f"this llama-server knows no {field.on[0][0]}")
        chosen = field.kind is Kind.DROPDOWN and value and field.flag
        if chosen and not any(map(binary.knows, field.flag)):
            raise FormError(field.key, f"this llama-server knows no {field.flag[0]}")
    if (model.guesses or model.draft) and not binary.knows("--spec-type"):
        raise FormError(f"{MODEL}/speculative", "this llama-server knows no --spec-type")
    if model.draft and model.embedding:
        raise FormError(f"{MODEL}/speculative", "a model for embeddings generates no tokens")


def _check_options(key: str, line: CommandLine, binary: Binary) -> None:
    for option in line.options:
        if not binary.knows(option.flag):
            hint = binary.hint(option.flag)
            raise FormError(key, f"this llama-server does not know {option.flag}{hint}")
        for spelling in binary.flags[option.flag]:
            if pasted.REFUSED.fullmatch(spelling):
                raise FormError(key, f"{option.flag} is not allowed here")


@dataclass(frozen=True)
class Launch:
    """What one llama-server is started with, beside its settings: its first file, its arguments to
    listen, and the single name that it answers to."""

    first: str
    listen: tuple[str, ...]
    alias: str
    pooling: str | None = None
    yarn: bool = False  # the file says that YaRN stretches the context
    heads: bool = False  # the file has heads for multi-token prediction
    mmproj: str = ""  # the projector's file
    draft: str = ""  # the draft model's first file
    draft_kind: str = BY_DRAFT
    slots: str = ""  # the folder for the slots' KV caches
    debug: bool = False


def build(model: ModelSettings, resolved: Resolved, launch: Launch, binary: Binary) -> list[str]:
    """llama-server's arguments, without the program itself."""
    argv = ["--model", launch.first, *launch.listen, "--alias", launch.alias]
    argv += ["--mmproj", launch.mmproj] if launch.mmproj else []
    argv += _resolved(resolved, binary)
    argv += _slots(model, resolved, binary)
    argv += ["--metrics", "--slots"]
    argv += binary.first_known(("--slot-save-path", launch.slots)) if launch.slots else []
    argv += binary.first_known(("--no-ui",), ("--no-webui",))
    argv += binary.first_known(("--log-jsonl",), ("--log-colors", "off"))
    if launch.debug:
        argv += binary.first_known(("--verbosity", "5"), ("--log-verbosity", "5"))
    if model.cli:
        return [*argv, *_unresolved(pasted.read(model.cli))]
    if model.embedding:
        batch = str(min(resolved.context, EMBEDDING_BATCH))
        argv += ["--pooling", launch.pooling or "mean"]
        argv += ["--batch-size", batch, "--ubatch-size", batch]
    for field in MODEL_FIELDS:
        argv += _field(field, getattr(model, field.name), binary)
    argv += _guesses(model, resolved, launch, binary)
    argv += rope.build(model, yarn=launch.yarn)
    return [*argv, *_unresolved(pasted.read(model.extra_args, EXTRA))]


def _guesses(
    model: ModelSettings, resolved: Resolved, launch: Launch, binary: Binary
) -> Iterator[str]:
    if model.guesses:
        yield from binary.first_known(("--spec-type", BY_HEADS if launch.heads else BY_TEXT))
    if launch.draft:
        yield from binary.first_known(("--spec-type", launch.draft_kind))
        yield from binary.first_known(*((flag, launch.draft) for flag in DRAFT_MODEL))
        if resolved.gpu_layers is not None:
            layers = _draft_layers(resolved.gpu_layers)
            yield from binary.first_known(*((flag, layers) for flag in DRAFT_LAYERS))


def _draft_layers(layers: int) -> str:
    """A draft model is on the GPU as a whole, where there is anything of its model."""
    return str(ALL_LAYERS if layers else 0)


def again(model: ModelSettings, binary: Binary) -> Sequence[str]:
    """Further arguments of every start but the first: no warm-up, since a request waits, and warms
    the model up itself."""
    given = (*pasted.read(model.cli).options, *pasted.read(model.extra_args, EXTRA).options)
    if any(option.flag in ("--warmup", "--no-warmup") for option in given):
        return ()
    return binary.first_known(("--no-warmup",))


def past_cache(argv: Sequence[str]) -> bool:
    """Whether llama-server reads its files without the page cache."""
    return not DIRECT.isdisjoint(argv)


def planning(model: ModelSettings, resolved: Resolved, wanted: Wanted) -> list[str]:
    """The argv of llama-fit-params, which knows only arguments that decide memory."""
    argv = ["-c", str(resolved.context), "-np", str(resolved.parallel)]
    if resolved.gpu_layers is not None:
        argv += ["-ngl", str(resolved.gpu_layers)]
    if model.embedding and not model.cli:
        batch = str(min(resolved.context, EMBEDDING_BATCH))
        argv += ["-b", batch, "-ub", batch]
    return [*argv, *wanted.placement, *resolved.placement]


def draft_planning(resolved: Resolved, wanted: Wanted) -> list[str]:
    """The same for a draft model: it has the context and the devices of its model, and a KV cache
    in 16-bit floats."""
    argv = ["-c", str(resolved.context), "-np", str(resolved.parallel)]
    if resolved.gpu_layers is not None:
        argv += ["-ngl", _draft_layers(resolved.gpu_layers)]
    line = pasted.read(shlex.join((*wanted.placement, *resolved.placement)))
    shared = tuple(option for option in line.options if option.flag in SHARED_WITH_DRAFT)
    return [*argv, *CommandLine(options=shared).argv()]


def _resolved(resolved: Resolved, binary: Binary) -> Iterator[str]:
    yield from ("--ctx-size", str(resolved.context))
    if resolved.gpu_layers is not None:
        yield from ("--gpu-layers", str(resolved.gpu_layers))
    yield from ("--parallel", str(resolved.parallel))
    yield from ("--threads", str(resolved.threads))
    yield from ("--threads-batch", str(resolved.threads_batch))
    yield from binary.first_known(("--cache-ram", str(resolved.cache_ram)))
    yield from resolved.placement
    yield from binary.first_known(("--fit", "off"))


def _slots(model: ModelSettings, resolved: Resolved, binary: Binary) -> Sequence[str]:
    """Several slots share the context, so that one request may use all of it, and keep their KV
    cache while they are idle."""
    if resolved.parallel == 1 or (model.cli and pasted.read(model.cli).has(*UNIFIED)):
        return ()
    extra = pasted.read(model.extra_args, EXTRA)
    if extra.has(*SPLIT):
        return ()
    shared = () if extra.has(*UNIFIED) else binary.first_known(("--kv-unified",))
    return (*shared, *binary.first_known(("--no-cache-idle-slots",)))


def _unresolved(line: CommandLine) -> Sequence[str]:
    """The line's arguments, without those that were resolved."""
    options = [option for option in line.options if option.flag not in RESOLVED]
    return CommandLine(options=tuple(options)).argv()


def _field(field: Field, value: object, binary: Binary) -> Sequence[str]:
    if field.resolved or value is None:
        return ()
    if field.kind is Kind.CHECKBOX:
        return binary.first_known(*(field.on if value else field.off))
    if not field.flag or value == "":
        return ()
    text = dict(field.sent_as).get(f"{value}", f"{value}")
    sent = [*binary.first_known(*((flag, text) for flag in field.flag))]
    for flag in field.also:
        sent += binary.first_known((flag, text))
    return sent
