"""ModelSettings + files + what was resolved → argv and environment. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.engine import rope
from app.errors import FormError
from app.form import pasted
from app.form.fields import MODEL, MODEL_FIELDS, Field, Kind
from app.form.pasted import CommandLine
from app.form.settings import ModelSettings, given_fields

CONTEXT = ("-c", "--ctx-size")
GPU_LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
PARALLEL = ("-np", "--parallel")
THREADS = ("-t", "--threads")
THREADS_BATCH = ("-tb", "--threads-batch")
CACHE_RAM = ("-cram", "--cache-ram")
FIT = ("-fit", "--fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx")
SPLIT = ("-no-kvu", "--no-kv-unified")
UNIFIED = ("-kvu", "--kv-unified", "--kv-unified-per-slot", *SPLIT)
# Further options of a command line that decide how much memory goes where.
PLACEMENT = tuple(
    "-ts --tensor-split -sm --split-mode -mg --main-gpu -dev --device -ot --override-tensor "
    "-cmoe --cpu-moe -ncmoe --n-cpu-moe -ctk --cache-type-k -ctv --cache-type-v -fa --flash-attn "
    "-b --batch-size -ub --ubatch-size -lm --load-mode -nkvo --no-kv-offload".split()
)
RESOLVED = (*CONTEXT, *GPU_LAYERS, *PARALLEL, *THREADS, *THREADS_BATCH, *CACHE_RAM, *FIT)

EXTRA = f"{MODEL}/extra_args"

ALL_LAYERS = 9999
DEFAULT_PARALLEL = 4  # llama-server's own for -np auto
EMBEDDING_BATCH = 8192  # tokens; the compute buffer grows with it

ALLOWED = re.compile(
    r"PATH|(LD|CUDA|NVIDIA|OMP|HIP|ROCR|HSA|VK|GGML_VK|ONEAPI|ZE)_.*|LANG|LC_.*|TZ|TMPDIR|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|(https?|no|all|ftp)_proxy",
    re.I,
)
NEVER = re.compile(r"(LLAMA|AIP|HF|CLEARML|TRAINS)_.*|.*(TOKEN|SECRET|KEY).*", re.I)


# Flags that went without a word, and what says the same now.
RENAMED = {
    "--mmap": "--load-mode mmap",
    "--no-mmap": "--load-mode none",
    "--mlock": "--load-mode mlock",
    "--direct-io": "--load-mode dio",
    "-dio": "--load-mode dio",
}


@dataclass(frozen=True)
class Binary:
    """What decides spelling: every flag that llama-server knows, with all its spellings; `removed`
    are those that it knows no longer, with its own advice."""

    flags: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, str] = dataclasses.field(default_factory=dict, kw_only=True)

    def knows(self, flag: str) -> bool:
        return flag in self.flags


@dataclass(frozen=True)
class Wanted:
    """What the form or CLI says of memory; None is left to be resolved.

    `placement` are further options, of either, that the planning tool has to know of; `unified`:
    slots may share one KV cache.
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
        """Among how many the context is divided: one, where they share it."""
        parallel = self.parallel or DEFAULT_PARALLEL
        return 1 if self.unified and binary.knows("--kv-unified") else parallel


@dataclass(frozen=True)
class Resolved:
    """The memory-deciding arguments, settled once: tokens, layers, slots, threads, MiB.

    `gpu_layers` is None on a machine without GPU; `placement` are further arguments that say
    where tensors go; not `whole` is what had to be cut to fit: layers on the host, or a shorter
    context than the model was trained for.
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
        return dataclasses.replace(self, cache_ram=min(self.cache_ram, size >> 20))

    def prompt_cache(self, binary: Binary) -> int:
        """Bytes of host memory that prompts may take beside the model; one without a bound counts
        for nothing."""
        return max(0, self.cache_ram) << 20 if binary.knows(CACHE_RAM[1]) else 0


def wanted(model: ModelSettings) -> Wanted:
    """Raises FormError for a CLI whose memory arguments are no whole numbers."""
    if not model.cli:
        context, layers = model.context_size or None, model.gpu_layers
        numbers = (context, layers, model.parallel, model.threads, model.threads_batch)
        extra = pasted.read(model.extra_args, EXTRA)
        cache = _whole(extra, CACHE_RAM, least=-1, key=EXTRA)
        return Wanted(*numbers, cache, _form_placement(model), not extra.has(*SPLIT))
    line = pasted.read(model.cli)
    if line.last(*GPU_LAYERS) == "all":
        layers = ALL_LAYERS
    else:
        layers = _whole(line, GPU_LAYERS)
    return Wanted(
        _whole(line, CONTEXT) or None,
        layers,
        _whole(line, PARALLEL),
        _whole(line, THREADS),
        _whole(line, THREADS_BATCH),
        _whole(line, CACHE_RAM, least=-1),
        _placement(line),
        not line.has(*SPLIT),
    )


def _placement(line: CommandLine) -> tuple[str, ...]:
    return CommandLine(options=tuple(o for o in line.options if o.flag in PLACEMENT)).argv()


def _form_placement(model: ModelSettings) -> tuple[str, ...]:
    given = (
        ("--tensor-split", model.tensor_split),
        ("--split-mode", model.split_mode),
        ("--main-gpu", "" if model.main_gpu is None else str(model.main_gpu)),
    )
    fields = tuple(text for flag, value in given if value for text in (flag, value))
    return fields + _placement(pasted.read(model.extra_args, EXTRA))


def _whole(
    line: CommandLine, flags: tuple[str, ...], least: int = 0, key: str = pasted.KEY
) -> int | None:
    """The option's number; None where it is absent, `auto`, or -1 (llama-server's "auto")."""
    text = line.last(*flags)
    if text is None or text == "auto":
        return None
    try:
        number = int(text)
    except ValueError:
        raise FormError(key, f"{flags[0]} {text}: not a whole number") from None
    return number if number >= least else None


def ignored_by_cli(model: ModelSettings) -> list[str]:
    """Filled fields that CLI replaces, to be named to the person who filled them."""
    if not model.cli:
        return []
    kept = {field.name for field in MODEL_FIELDS if field.cli_keeps} | {"cli"}
    return [f"{MODEL}/{name}" for name in given_fields(model) if name not in kept]


def check(model: ModelSettings, binary: Binary) -> None:
    """Raises FormError for a flag that this binary does not know or that we refuse."""
    _check_options(pasted.KEY, pasted.read(model.cli), binary)
    extra = pasted.read(model.extra_args, EXTRA)
    for option in extra.options:
        if option.flag in FIT:
            raise FormError(EXTRA, f"{option.flag}: what fits is settled before the start")
        if option.flag in RESOLVED and option.flag not in CACHE_RAM:
            raise FormError(EXTRA, f"{option.flag} has a field of its own")
    if extra.model or extra.endpoint_name or extra.mmproj:
        raise FormError(EXTRA, "model, name and mmproj have fields of their own")
    _check_options(EXTRA, extra, binary)
    empty = ModelSettings()
    for field in MODEL_FIELDS:
        ticked = getattr(model, field.name) is True and getattr(empty, field.name) is not True
        if ticked and field.on and not _known(binary, field.on):
            raise FormError(field.key, f"this llama-server knows no {field.on[0][0]}")


def _check_options(key: str, line: CommandLine, binary: Binary) -> None:
    for option in line.options:
        if not binary.knows(option.flag):
            raise FormError(
                key, f"this llama-server does not know {option.flag}{_hint(option.flag, binary)}"
            )
        for spelling in binary.flags[option.flag]:
            if pasted.REFUSED.fullmatch(spelling):
                raise FormError(key, f"{option.flag} is not allowed here")


def _hint(flag: str, binary: Binary) -> str:
    """What may have been meant."""
    if flag in binary.removed:
        return f": {binary.removed[flag]}"
    now = RENAMED.get(flag)
    if now is not None and binary.knows(now.split()[0]):
        return f" any more: use {now}"
    near = difflib.get_close_matches(flag, binary.flags, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


@dataclass(frozen=True)
class Launch:
    """One start: the first file, where to listen, and the single name it answers to."""

    first: str
    listen: tuple[str, ...]
    alias: str
    pooling: str | None = None
    yarn: bool = False  # the file's own method of stretching the context
    mmproj: str = ""  # the projector's file
    slots: str = ""  # the folder for KV caches that are saved
    debug: bool = False


def build(model: ModelSettings, resolved: Resolved, launch: Launch, binary: Binary) -> list[str]:
    """llama-server's arguments, without the program itself."""
    argv = ["--model", launch.first, *launch.listen, "--alias", launch.alias]
    argv += ["--mmproj", launch.mmproj] if launch.mmproj else []
    argv += _resolved(resolved, binary)
    argv += _slots(model, resolved, binary)
    argv += ["--metrics", "--slots"]
    argv += ["--slot-save-path", launch.slots] if launch.slots else []
    argv += _first_known(binary, ("--no-ui",), ("--no-webui",))
    argv += _first_known(binary, ("--log-jsonl",), ("--log-colors", "off"))
    if launch.debug:
        argv += _first_known(binary, ("--verbosity", "5"), ("--log-verbosity", "5"))
    if model.cli:
        return [*argv, *_unresolved(pasted.read(model.cli))]
    if model.embedding:
        batch = str(min(resolved.context, EMBEDDING_BATCH))
        argv += ["--pooling", launch.pooling or "mean"]
        argv += ["--batch-size", batch, "--ubatch-size", batch]
    for field in MODEL_FIELDS:
        argv += _field(field, getattr(model, field.name), binary)
    argv += rope.build(model, yarn=launch.yarn)
    return [*argv, *_unresolved(pasted.read(model.extra_args, EXTRA))]


def again(model: ModelSettings, binary: Binary) -> Sequence[str]:
    """For every start but the first: somebody waits, whose own request warms the model up."""
    given = (*pasted.read(model.cli).options, *pasted.read(model.extra_args, EXTRA).options)
    if any(option.flag in ("--warmup", "--no-warmup") for option in given):
        return ()
    return _first_known(binary, ("--no-warmup",))


def planning(model: ModelSettings, resolved: Resolved, wanted: Wanted) -> list[str]:
    """The same for llama-fit-params, which knows only what decides memory."""
    argv = ["-c", str(resolved.context), "-np", str(resolved.parallel)]
    if resolved.gpu_layers is not None:
        argv += ["-ngl", str(resolved.gpu_layers)]
    if model.embedding and not model.cli:
        batch = str(min(resolved.context, EMBEDDING_BATCH))
        argv += ["-b", batch, "-ub", batch]
    return [*argv, *wanted.placement, *resolved.placement]


def _resolved(resolved: Resolved, binary: Binary) -> Iterator[str]:
    yield from ("--ctx-size", str(resolved.context))
    if resolved.gpu_layers is not None:
        yield from ("--gpu-layers", str(resolved.gpu_layers))
    yield from ("--parallel", str(resolved.parallel))
    yield from ("--threads", str(resolved.threads))
    yield from ("--threads-batch", str(resolved.threads_batch))
    yield from _first_known(binary, ("--cache-ram", str(resolved.cache_ram)))
    yield from resolved.placement
    yield from _first_known(binary, ("--fit", "off"))


def _slots(model: ModelSettings, resolved: Resolved, binary: Binary) -> Sequence[str]:
    """With several slots one request may use the whole context, and slots keep their KV."""
    if resolved.parallel == 1 or (model.cli and pasted.read(model.cli).has(*UNIFIED)):
        return ()
    return (
        *_first_known(binary, ("--kv-unified",)),
        *_first_known(binary, ("--no-cache-idle-slots",)),
    )


def _unresolved(line: CommandLine) -> Sequence[str]:
    """Its arguments, but for those that were settled."""
    options = [option for option in line.options if option.flag not in RESOLVED]
    return CommandLine(options=tuple(options)).argv()


def _field(field: Field, value: object, binary: Binary) -> Sequence[str]:
    if field.resolved or value is None:
        return ()
    if field.kind is Kind.CHECKBOX:
        return _first_known(binary, *(field.on if value else field.off))
    if not field.flag or value == "":
        return ()
    text = dict(field.sent_as).get(f"{value}", f"{value}")
    return _first_known(binary, *((flag, text) for flag in field.flag))


def _known(binary: Binary, choices: Sequence[tuple[str, ...]]) -> bool:
    return any(binary.knows(choice[0]) for choice in choices)


def _first_known(binary: Binary, *choices: tuple[str, ...]) -> Sequence[str]:
    return next((choice for choice in choices if binary.knows(choice[0])), ())


def environment(ours: Mapping[str, str], home: str, api_key: str) -> dict[str, str]:
    """The child's: what it needs of ours by allow-list, no secret of ours, its own key."""
    kept = {k: v for k, v in ours.items() if ALLOWED.fullmatch(k) and not NEVER.fullmatch(k)}
    # Its HOME is empty, so that no configuration of a person's applies; CUDA's compiled kernels
    # stay where they are all the same.
    kept.setdefault("CUDA_CACHE_PATH", f"{ours.get('HOME', home)}/.nv/ComputeCache")
    return {
        **kept,
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LLAMA_API_KEY": api_key,
        "LLAMA_SERVER_ROUTER_PORT": "0",  # with a stdin pipe: tells progress, leaves on EOF
        "GGML_NO_BACKTRACE": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
