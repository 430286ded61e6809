"""Estimate a model's memory from its header alone, if the planning tool is missing. Pure.

With `-ngl N` llama.cpp keeps the last N layers on the GPU, of which the output layer is the last;
token embeddings stay in host memory (llama-model.cpp, `load_tensors`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.models.header import LAYERS, Header

BATCH = 512  # tokens computed at once: llama-server's default
LEAST_COMPUTE = 64 << 20
STEP = 256  # tokens: llama.cpp rounds a context up to these
BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")  # int() refuses some thousands of digits
EMBEDDINGS = "token_embd"
OUTPUT = "output.weight"


@dataclass(frozen=True)
class Layers:
    """Bytes of a model's weights: of each layer, of the output layer, and of what is never on the
    GPU."""

    layers: tuple[int, ...]
    output: int
    embeddings: int


@dataclass(frozen=True)
class Estimate:
    """Bytes on the GPUs and in host memory."""

    gpu: int
    host: int


def weights(header: Header, size: int) -> Layers:
    """Of a model of `size` bytes. All layers count the same if any tensor's size is unknown."""
    count = max(1, header.number(LAYERS))
    sizes = {tensor.name: tensor.size or 0 for tensor in header.tensors}
    if not sizes or not all(sizes.values()):
        each = size // (count + 1)
        return Layers((each,) * count, size - each * count, 0)
    layers, output, embeddings = [0] * count, 0, 0
    for name, bytes_ in sizes.items():
        block = BLOCK.match(name)
        if block and int(block[1]) < count:
            layers[int(block[1])] += bytes_
        elif name.startswith(EMBEDDINGS):
            embeddings += bytes_
        else:
            output += bytes_
    if OUTPUT not in sizes:  # llama.cpp uses the embeddings for it, and has them twice
        output += embeddings
    return Layers(tuple(layers), output, embeddings)


def estimate(header: Header, size: int, context: int, layers: int | None) -> Estimate:
    """Weights, KV cache and a guess at the compute buffers, with so many layers on the GPUs; None
    is all."""
    parts = weights(header, size)
    cache = header.kv_bytes * context
    buffers = max(LEAST_COMPUTE, 4 * BATCH * header.number("vocab_size"))
    count = len(parts.layers)
    if layers is None or layers > count:
        return Estimate(size + cache + buffers, 0)
    there = parts.layers[count + 1 - layers :] if layers > 1 else ()
    taken = sum(there) + (parts.output if layers else 0) + cache * len(there) // count
    return Estimate(taken + buffers, max(0, size + cache - taken))


def longest_context(header: Header, size: int, room: int, least: int, most: int) -> int:
    """Tokens, between `least` and `most`, that fit beside the whole model into so many bytes."""
    free = room - estimate(header, size, 0, None).gpu
    fitting = free // header.kv_bytes // STEP * STEP if header.kv_bytes else most
    return min(most, max(least, fitting))


def most_layers(header: Header, size: int, context: int, room: int) -> int | None:
    """How many layers fit into so many bytes of GPU memory; None is all."""

    def fits(layers: int | None) -> bool:
        return estimate(header, size, context, layers).gpu <= room

    if fits(None):
        return None
    count = len(weights(header, size).layers)
    return next(filter(fits, range(count, 0, -1)), 0)
