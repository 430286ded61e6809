"""Random models of 1 to 2 MB, one for each way in which llama.cpp keeps what it has read: for every
token (`llama`), for the last tokens only in some layers (`gemma3`), as a state that cannot go back
in some layers (`lfm2`), and not at all (`nomic-bert`, which makes embeddings). `hy_v3` keeps what
`llama` keeps; its last layer is a head that predicts the token after the next one. `exaone4` has
such a head as well, which llama.cpp loads and cannot run.

What they answer depends on the whole prompt. Their words are tokens, also where a prompt quotes an
answer: the tokens of an answer are those of the next turn's prompt, as with trained models.
"""

from __future__ import annotations

import gguf
import numpy as np

from app.models.tiny_writer import CHAT_TEMPLATE, SPECIAL, WORDS, byte_symbols

WIDTH, HEADS, KV_HEADS, FEED_FORWARD = 128, 4, 2, 256
HEAD = WIDTH // HEADS
NARROW = HEAD * KV_HEADS
CONTEXT = 4096
WINDOW = 64  # tokens that gemma3's first layer looks back
CONVOLUTION = 3  # tokens that lfm2's first layer keeps
FOCUS = 3.0  # of attention: it looks at few tokens, so that each of them matters

SPACE = "\u0120"  # GPT-2's stand-in for a space
PIECES = sorted({SPACE + word[:size] for word in WORDS for size in range(1, len(word) + 1)})
MERGES = [f"{piece[:-1]} {piece[-1]}" for piece in PIECES if len(piece) > 1]
TOKENS = [*byte_symbols(), *PIECES, *SPECIAL]
SAMPLED = [TOKENS.index(SPACE + word) for word in dict.fromkeys(WORDS)]

ATTENTION = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (NARROW, WIDTH),
    "attn_v": (NARROW, WIDTH),
    "attn_output": (WIDTH, WIDTH),
}
GATED = {
    "ffn_gate": (FEED_FORWARD, WIDTH),
    "ffn_up": (FEED_FORWARD, WIDTH),
    "ffn_down": (WIDTH, FEED_FORWARD),
}
NORMS = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
HEAD_NORMS = {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
CONVOLVED = {
    "shortconv.conv": (WIDTH, CONVOLUTION),
    "shortconv.in_proj": (3 * WIDTH, WIDTH),
    "shortconv.out_proj": (WIDTH, WIDTH),
}
PLAIN = {**ATTENTION, **GATED, **NORMS}
AFTER = {**HEAD_NORMS, "post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
SLIDING = {**PLAIN, **AFTER}
NORMED_AFTER = {**ATTENTION, **GATED, **AFTER}
ENCODING = {
    **ATTENTION,
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    **GATED,
    "attn_output_norm": (WIDTH,),
    "layer_output_norm": (WIDTH,),
}
PREDICTING = {  # of a head for multi-token prediction, beside a whole layer
    "nextn.eh_proj": (WIDTH, 2 * WIDTH),
    "nextn.enorm": (WIDTH,),
    "nextn.hnorm": (WIDTH,),
    "nextn.shared_head_norm": (WIDTH,),
}
LAYERS = {
    "llama": (PLAIN, PLAIN),
    "gemma3": (SLIDING, SLIDING),
    "lfm2": ({**CONVOLVED, **GATED, **NORMS}, {**PLAIN, **HEAD_NORMS}),
    "nomic-bert": (ENCODING, ENCODING),
    "hy_v3": ({**PLAIN, **HEAD_NORMS}, {**PLAIN, **HEAD_NORMS, **PREDICTING}),
    "exaone4": (NORMED_AFTER, {**NORMED_AFTER, **PREDICTING}),
}
KV_HEADS_OF = {"lfm2": [0, KV_HEADS], "nomic-bert": HEADS}  # a list has them of each layer
WRITES = ("attn_output.weight", "ffn_down.weight", "shortconv.out_proj.weight")  # to the residual


def write(path, architecture, seed=1, without=None):
    """Write a model; `without` the tensors whose names begin so, and with the same others."""
    writer = gguf.GGUFWriter(path, architecture)
    _write_metadata(writer, architecture)
    random = np.random.default_rng(seed)
    for name, shape in _tensors(architecture).items():
        values = _tensor(random, name, shape)
        if architecture == "gemma3" and name == "token_embd.weight":
            values /= np.sqrt(WIDTH)  # llama.cpp multiplies them by it
        if without is None or not name.startswith(without):
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer, architecture):
    writer.add_name(architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(len(LAYERS[architecture]))
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS_OF.get(architecture, KV_HEADS))
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _write_own(writer, architecture)
    control = {*range(len(TOKENS) - len(SPECIAL), len(TOKENS))}
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types(
        [kinds.CONTROL if n in control else kinds.NORMAL for n in range(len(TOKENS))]
    )
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_pad_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_add_bos_token(False)


def _write_own(writer, architecture):
    """What only this architecture has."""
    if architecture == "nomic-bert":
        writer.add_layer_norm_eps(1e-5)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_token_type_count(1)
        return
    writer.add_chat_template(CHAT_TEMPLATE)
    if architecture == "gemma3":
        writer.add_key_length(HEAD)
        writer.add_value_length(HEAD)
        writer.add_sliding_window(WINDOW)
        writer.add_sliding_window_pattern([True, False])
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(CONVOLUTION)
    if architecture in ("hy_v3", "exaone4"):
        writer.add_nextn_predict_layers(1)
    if architecture == "hy_v3":
        writer.add_expert_feed_forward_length(0)  # llama.cpp wants to be told


def _tensors(architecture):
    """The shapes by name."""
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH)}
    for number, layer in enumerate(LAYERS[architecture]):
        shapes |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
    if architecture == "nomic-bert":
        shapes["token_embd_norm.weight"] = (WIDTH,)
        norms = [name for name in shapes if name.endswith("norm.weight")]
        return shapes | {name.replace("weight", "bias"): (WIDTH,) for name in norms}
    norm = "token_embd_norm.weight" if architecture == "lfm2" else "output_norm.weight"
    return {**shapes, norm: (WIDTH,), "output.weight": (len(TOKENS), WIDTH)}


def _tensor(random, name, shape):
    """The residual's first dimension is a constant that keeps all but the words from being
    sampled."""
    if len(shape) == 1:
        constant = FOCUS if name.endswith("attn_q_norm.weight") else not name.endswith(".bias")
        return np.full(shape, constant, np.float32)
    values = random.standard_normal(shape, dtype=np.float32)
    if name == "token_embd.weight":
        values[:, 0] = 4.0
    elif name == "output.weight":
        values *= 0.5
        values[:, 0] = -16.0
        values[SAMPLED, 0] = 0.0
    elif name.endswith("nextn.eh_proj.weight"):
        values = np.eye(*shape, dtype=np.float32)  # the token, so that some guesses are right
    else:
        values *= (FOCUS if name.endswith("attn_q.weight") else 1) / np.sqrt(shape[1])
        if name.endswith(WRITES):
            values[0, :] = 0.0  # nothing writes into the first dimension
    return values
