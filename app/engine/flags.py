"""llama-server's flags: the spellings of those that the app reads, and what one binary knows.
Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CONTEXT = ("-c", "--ctx-size")
GPU_LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
PARALLEL = ("-np", "--parallel")
THREADS = ("-t", "--threads")
THREADS_BATCH = ("-tb", "--threads-batch")
CACHE_RAM = ("-cram", "--cache-ram")
FIT = ("-fit", "--fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx")
SPLIT = ("-no-kvu", "--no-kv-unified")
UNIFIED = ("-kvu", "--kv-unified", "--kv-unified-per-slot", *SPLIT)
SHARED = ("-kvu", "--kv-unified", "--kv-unified-per-slot")
SINGLE_STEPS = ("-nocb", "--no-cont-batching")
BATCHING = ("-cb", "--cont-batching", *SINGLE_STEPS)
ADAPTERS = ("--lora", "--lora-scaled")
PREDICT = ("-n", "--predict", "--n-predict")
SHIFTS = ("--context-shift",)
DRAFTS = tuple("-md --model-draft --spec-draft-model --spec-type --spec-default".split())
DRAFT_MODEL = ("--spec-draft-model", "--model-draft")
DRAFT_LAYERS = ("--spec-draft-ngl", "--gpu-layers-draft")
# Further options of a command line that decide how much memory goes where.
PLACEMENT = tuple(
    "-ts --tensor-split -sm --split-mode -mg --main-gpu -dev --device -ot --override-tensor "
    "-cmoe --cpu-moe -ncmoe --n-cpu-moe -ctk --cache-type-k -ctv --cache-type-v -fa --flash-attn "
    "-b --batch-size -ub --ubatch-size -lm --load-mode -nkvo --no-kv-offload".split()
)
# Those that a draft model has of its model.
SHARED_WITH_DRAFT = tuple(
    "-ts --tensor-split -sm --split-mode -mg --main-gpu -dev --device -fa --flash-attn "
    "-b --batch-size -ub --ubatch-size".split()
)
RESOLVED = (*CONTEXT, *GPU_LAYERS, *PARALLEL, *THREADS, *THREADS_BATCH, *CACHE_RAM, *FIT)

# Flags that newer binaries no longer know, without advice of their own, and what replaces them.
RENAMED = {
    "--mmap": "--load-mode mmap",
    "--no-mmap": "--load-mode none",
    "--mlock": "--load-mode mlock",
    "--direct-io": "--load-mode dio",
    "-dio": "--load-mode dio",
}


@dataclass(frozen=True)
class Binary:
    """What one llama-server knows: every flag with all its spellings. `removed` are the flags that
    it refuses, with its own advice."""

    flags: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def knows(self, flag: str) -> bool:
        return flag in self.flags

    def first_known(self, *choices: tuple[str, ...]) -> Sequence[str]:
        """The first of these arguments whose flag is known; none where no flag is."""
        return next((choice for choice in choices if self.knows(choice[0])), ())

    def hint(self, flag: str) -> str:
        """The words that follow "does not know": what may have been meant."""
        if flag in self.removed:
            return f": {self.removed[flag]}"
        now = RENAMED.get(flag)
        if now is not None and self.knows(now.split()[0]):
            return f" any more: use {now}"
        near = difflib.get_close_matches(flag, self.flags, n=1, cutoff=0.5)
        return f"; did you mean {near[0]}?" if near else ""
