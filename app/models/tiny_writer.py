"""Writes the tiny model. Only where it is written is this module imported, for gguf brings numpy.

Its output is printable words and never ends by itself: the residual stream's first dimension is a
constant bias that keeps all other tokens, the end of text included, from being sampled.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

LAYERS, WIDTH, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT = 2, 128, 4, 2, 384, 4096
WORDS = (
    "the of and to in is it that for on with as are this be at or from by an not have was but "
    "they you all we can more will if one about which when would there their what so up out her "
    "model server token cache slot layer prompt batch memory device load unload queue stream "
    "reply request client system user hello world small large fast slow time data number line"
).split()
MERGES = ("t h", "i n", "e r", "a n")  # the tokenizer wants some
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write(
    path: Path,
    *,
    seed: int = 1,
    shard_tensors: int = 0,
    context: int = CONTEXT,
    quantised: bool = False,
    vocabulary: int = 0,
) -> None:
    """Write the model, said to be trained for `context` tokens; with `shard_tensors`, as a split
    set of that many tensors a part; its matrices as 16-bit floats, or `quantised` to Q8_0; with
    tokens that nothing is made of up to a `vocabulary` of so many."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=shard_tensors)
    tokens, types = _vocabulary(vocabulary)
    _write_metadata(writer, tokens, types)
    writer.add_context_length(context)
    random = np.random.default_rng(seed)
    for name, shape in _tensors(len(tokens)):
        tensor = _tensor(random, name, shape)
        if quantised and len(shape) > 1:
            kind = gguf.GGMLQuantizationType.Q8_0
            small = gguf.quants.quantize(tensor.astype(np.float32), kind)
            writer.add_tensor(name, small, raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte if byte in kept else next(others)) for byte in range(256)]


def _vocabulary(least: int = 0) -> tuple[list[str], list[int]]:
    merged = [merge.replace(" ", "") for merge in MERGES]
    words = ("\u0120" + word for word in WORDS)
    tokens = list(dict.fromkeys([*byte_symbols(), *words, *merged]))
    types = [int(gguf.TokenType.NORMAL)] * len(tokens)
    tokens += SPECIAL
    types += [int(gguf.TokenType.CONTROL)] * len(SPECIAL)
    while len(tokens) % 32 or len(tokens) < least:
        tokens.append(f"<|unused_{len(tokens)}|>")
        types.append(int(gguf.TokenType.UNUSED))
    return tokens, types


def _write_metadata(writer: gguf.GGUFWriter, tokens: list[str], types: list[int]) -> None:
    writer.add_name("tiny")
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    for key, token in zip(("pre", "suf", "mid"), SPECIAL[3:], strict=True):
        writer.add_uint32(f"tokenizer.ggml.fim_{key}_token_id", tokens.index(token))
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(vocabulary: int) -> list[tuple[str, tuple[int, ...]]]:
    narrow = WIDTH // HEADS * KV_HEADS
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (vocabulary, WIDTH)),
        ("output.weight", (vocabulary, WIDTH)),
        ("output_norm.weight", (WIDTH,)),
    ]
    for layer in range(LAYERS):
        block = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (narrow, WIDTH),
            "attn_v": (narrow, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (FEED_FORWARD, WIDTH),
            "ffn_up": (FEED_FORWARD, WIDTH),
            "ffn_down": (WIDTH, FEED_FORWARD),
        }
        tensors += [(f"blk.{layer}.{name}.weight", shape) for name, shape in block.items()]
    return tensors


def _tensor(
    random: np.random.Generator, name: str, shape: tuple[int, ...]
) -> NDArray[np.float32] | NDArray[np.float16]:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    values = random.standard_normal(shape, dtype=np.float32)
    if name == "token_embd.weight":
        values[:, 0] = 4.0
    elif name == "output.weight":
        values *= 0.5
        sampled = {*range(256, 256 + len(WORDS)), ord("."), ord(",")}
        values[:, 0] = [0.0 if token in sampled else -16.0 for token in range(shape[0])]
    else:
        values *= 0.3 / np.sqrt(shape[1])
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            values[0, :] = 0.0  # nothing writes into the bias dimension
    return values.astype(np.float16)
