"""Speculative decoding, by what the headers of a model and of its draft model say. Pure."""

from __future__ import annotations

from app.engine.arguments import BY_DRAFT, BY_HEADS
from app.models.files import Inspected
from app.models.header import Header
from app.planning.arithmetic import BATCH, BLOCK, LEAST_COMPUTE

MOST_APART = 128  # tokens by which two vocabularies may differ in length: llama.cpp's own bound
FIRST_COMPARED = 5  # llama.cpp lets the tokens before this one differ
ARCHITECTURES = {
    "eagle3": "draft-eagle3",
    "dflash": "draft-dflash",
    "gemma4-assistant": BY_HEADS,
}
MARKOV = "markov_w1.weight"  # a tensor that makes dflash a dspark
MOST_GUESSES = 3  # at once: llama-server's --spec-draft-n-max
WIDTHS = 20  # of the embeddings: so much of a token is in a layer's compute buffers, or half
TOKENIZER = "tokenizer.ggml."


def kind(model: Header, draft: Header) -> str:
    """What llama-server's --spec-type has to be for this draft model: without it, llama-server
    loads the file and makes no use of it. Heads go on from the model's own states: a whole model
    of another width guesses by itself, even if it has heads."""
    if any(tensor.name == MARKOV for tensor in draft.tensors):
        return "draft-dspark"
    if draft.architecture in ARCHITECTURES:
        return ARCHITECTURES[draft.architecture]
    width = "embedding_length"
    heads = draft.predicts_tokens and draft.number(width) == model.number(width)
    return BY_HEADS if heads else BY_DRAFT


def mismatch(model: Header, draft: Header) -> str:
    """Why the draft model cannot guess for the model; "" if nothing speaks against it, as far as
    the headers keep it: of the tokens the first thousand. llama-server would serve such a pair
    without a guess, and say so only in its log."""
    if draft.projector:
        return "is a projector"
    if kind(model, draft) != BY_DRAFT:
        return ""  # made for one model, whose vocabulary it uses
    for key in ("model", "bos_token_id", "eos_token_id"):
        theirs, its = (each.metadata.get(TOKENIZER + key) for each in (model, draft))
        if theirs != its:
            return f"has another vocabulary: its {TOKENIZER}{key} is {its}, not {theirs}"
    sizes = [_vocabulary(each) for each in (model, draft)]
    if all(sizes) and abs(sizes[0] - sizes[1]) > MOST_APART:
        return f"has another vocabulary: {sizes[1]} tokens, not {sizes[0]}"
    theirs, its = (each.metadata.get(f"{TOKENIZER}tokens") or () for each in (model, draft))
    pairs = list(zip(theirs, its, strict=False))[FIRST_COMPARED:]
    if any(one != other for one, other in pairs):
        return "has another vocabulary: its tokens are not the model's"
    return ""


def _vocabulary(header: Header) -> int:
    """How many tokens there are; 0 where the tensors do not tell."""
    shapes = (tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight")
    return next((shape[-1] for shape in shapes if shape), 0)


def heads_context(header: Header, context: int, *, flash: bool = True) -> int:
    """Bytes of the context of its own that the heads of multi-token prediction have: KV cache in
    16-bit floats, whatever the model's, and compute buffers. Those have, without Flash Attention,
    every token's scores for all the others."""
    cache = sum(map(header.kv_bytes_of, _head_layers(header))) * context
    values = WIDTHS * header.number("embedding_length")
    values += 0 if flash else (header.heads + 1) * context
    return cache + max(LEAST_COMPUTE, 4 * BATCH * values)


def heads_weights(header: Header) -> int:
    """Bytes of the layers that predict tokens: the planning tool knows of no multi-token
    prediction, and llama.cpp leaves these layers in the file where they are not asked for."""
    layers = _head_layers(header)
    return sum(tensor.size or 0 for tensor in header.tensors if _layer(tensor.name) in layers)


def snapshots(model: Header, slots: int) -> int:
    """Bytes of the earlier states of state space layers, which llama-server keeps for each slot to
    take guesses back, where these are by heads or by a draft model made for the model."""
    return MOST_GUESSES * model.state_bytes * slots


def cost(model: Inspected, draft: Inspected | None, *, heads: bool) -> float:
    """What a guess costs, about, as a part of what a token of the model costs: the bytes that are
    read for it, of heads those of one layer. A guess from the text costs nothing."""
    if draft is not None:
        return draft.size / max(1, model.size)
    if not heads:
        return 0.0
    layers = _head_layers(model.header)
    sizes = {tensor.name: tensor.size or 0 for tensor in model.header.tensors}
    read = sum(size for name, size in sizes.items() if _layer(name) in layers)
    return read / max(1, len(layers)) / max(1, sum(sizes.values()))


def _head_layers(header: Header) -> set[int]:
    return {_layer(tensor.name) for tensor in header.tensors if ".nextn." in tensor.name}


def _layer(name: str) -> int:
    found = BLOCK.match(name)
    return int(found[1]) if found else -1
