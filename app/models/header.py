"""What a GGUF file's header says of the model: its metadata, its tensors, and what follows."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

WINDOWED = ("gemma2", "llama4")  # llama.cpp knows their windows where the file does not say them
NOT_WINDOWED = ("phi3",)  # llama.cpp makes no use of the window that the file says
LAYERS = "block_count"
MOST_LAYERS = 1 << 10  # so long are the lists of each layer's numbers that are kept
MOST = (1 << 31) - 1  # of every other number that is computed with; llama.cpp keeps it in 32 bits
NUMBERS = (
    LAYERS,
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "context_length",
    "embedding_length",
    "ssm.conv_kernel",
    "ssm.group_count",
    "ssm.inner_size",
    "ssm.state_size",
    "vocab_size",
)
ARCHITECTURE = "general.architecture"
POOLING = {1: "mean", 2: "cls", 3: "last", 4: "rank"}  # llama.h: enum llama_pooling_type


class HeaderError(ValueError):
    pass


@cache
def _tables() -> Any:
    """The module gguf.constants. To import it by its name would import all of gguf, and numpy: a
    quarter of a second, and 20 MB for as long as we run."""
    package = importlib.util.find_spec("gguf")
    assert package is not None and package.origin is not None
    path = Path(package.origin).with_name("constants.py")
    spec = importlib.util.spec_from_file_location("gguf.constants", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def size(self) -> int | None:
        """Bytes, or None for a type that the gguf package does not know."""
        known = _tables()
        try:
            block, block_size = known.GGML_QUANT_SIZES[known.GGMLQuantizationType(self.type)]
        except (ValueError, KeyError):
            return None
        return int(math.prod(self.shape) // block * block_size)


@dataclass(frozen=True)
class Header:
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_offset: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get(ARCHITECTURE, ""))

    def check(self) -> None:
        """Raises HeaderError where what is computed with is not what it should be."""
        if not isinstance(self.metadata.get(ARCHITECTURE, ""), str):
            raise HeaderError(f"{ARCHITECTURE} is no text")
        for key in NUMBERS:
            self.numbers(key)

    def numbers(self, key: str) -> list[int]:
        """One of `NUMBERS`, of each layer where the file has a list of them; [] where it does not
        say. Raises HeaderError."""
        assert key in NUMBERS
        value = self._value(key)
        found = [] if value is None else value if isinstance(value, list) else [value]
        most = MOST_LAYERS if key == LAYERS else MOST
        if not all(type(each) is int and 0 <= each <= most for each in found):
            raise HeaderError(f"{self.architecture}.{key} is no number from 0 to {most}")
        return found

    def number(self, key: str) -> int:
        """The same; 0 where the file does not say, or has more than one."""
        found = self.numbers(key)
        return found[0] if len(found) == 1 else 0

    def _value(self, key: str) -> Any:
        """A key of the architecture's own, such as `pooling_type`."""
        return self.metadata.get(f"{self.architecture}.{key}")

    @property
    def projector(self) -> bool:
        """The file is no language model, but the part that lets one see or hear."""
        return self.architecture == "clip"

    @property
    def adapter(self) -> bool:
        """The file is no model, but changes what one computes: an adapter or a control vector."""
        kind = self.metadata.get("general.type")
        return kind == "adapter" or self.architecture == "controlvector"

    @property
    def quantisation(self) -> str:
        """Such as Q4_K_M; "" where the file does not say."""
        try:
            kind = str(_tables().LlamaFileType(self.metadata.get("general.file_type", -1)).name)
        except ValueError:
            return ""
        return kind.removeprefix("MOSTLY_").removeprefix("ALL_")

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache for one token, as 16-bit floats; 0 where the file does not say."""
        kv_heads = self.numbers("attention.head_count_kv")
        # A list tells the heads of each layer.
        total = (
            sum(kv_heads)
            if len(kv_heads) > 1
            else self.number(LAYERS) * (sum(kv_heads) or self.heads)
        )
        return total * self._kv_head_bytes

    def kv_bytes_of(self, layer: int) -> int:
        """The same of one layer, counted from 0."""
        kv_heads = self.numbers("attention.head_count_kv")
        if len(kv_heads) > 1:
            return sum(kv_heads[layer : layer + 1]) * self._kv_head_bytes
        return (sum(kv_heads) or self.heads) * self._kv_head_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes that a slot has of its own, whatever its tokens, as the states of state space
        layers (Mamba, gated delta nets); 0 without any."""
        layers = {t.name.split(".")[1] for t in self.tensors if ".ssm_" in t.name}
        inner, size = self.number("ssm.inner_size"), self.number("ssm.state_size")
        convolved = inner + 2 * self.number("ssm.group_count") * size
        kept = max(0, self.number("ssm.conv_kernel") - 1)
        return 4 * len(layers) * (kept * convolved + inner * size)

    @property
    def heads(self) -> int:
        """Of attention, in the layer that has most; 0 where the file does not say."""
        return max(self.numbers("attention.head_count"), default=0)

    @property
    def _kv_head_bytes(self) -> int:
        if not self.heads:
            return 0
        width = self.number("embedding_length") // self.heads
        keys = self.number("attention.key_length") or width
        values = self.number("attention.value_length") or width
        return (keys + values) * 2

    @property
    def sliding_window(self) -> bool:
        """In some layers a token sees only those shortly before it, and llama.cpp keeps no
        others."""
        size = self._value("attention.sliding_window")
        if size is None or self.architecture in NOT_WINDOWED:
            return self.architecture in WINDOWED
        return bool(size)

    @property
    def causal(self) -> bool:
        """A token sees those before it. The others make embeddings of whole texts, and llama.cpp
        keeps nothing of them."""
        return self._value("attention.causal") is not False

    @property
    def meta(self) -> dict[str, object]:
        """What llama-server's /v1/models will say of the model, as far as the header tells."""
        known = {
            "n_ctx_train": self.training_context or None,
            "n_embd": self.number("embedding_length") or None,
            "n_params": sum(math.prod(tensor.shape) for tensor in self.tensors),
            "size": sum(tensor.size or 0 for tensor in self.tensors),
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def training_context(self) -> int:
        return self.number("context_length")

    @property
    def pooling(self) -> str | None:
        value = self._value("pooling_type")
        return POOLING.get(value) if isinstance(value, int) else None

    @property
    def yarn(self) -> bool:
        """The model stretches its context by YaRN."""
        return bool(self._value("rope.scaling.type") == "yarn")

    @property
    def predicts_tokens(self) -> bool:
        """It has heads for multi-token prediction: some files have the key, and leave them out."""
        value = self._value("nextn_predict_layers")
        told = isinstance(value, int) and value > 0
        return told and any(".nextn." in tensor.name for tensor in self.tensors)

    @property
    def rope_freq_base(self) -> float | None:
        value = self._value("rope.freq_base")
        return float(value) if isinstance(value, int | float) else None

    @property
    def shard_count(self) -> int:
        value = self.metadata.get("split.count")
        return value if isinstance(value, int) and value > 0 else 1
