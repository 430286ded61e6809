import pytest

from app.engine.arguments import BY_DRAFT, BY_HEADS
from app.models import gguf, tiny_writer
from app.models.files import Preview
from app.models.header import Header, Tensor
from app.planning.arithmetic import LEAST_COMPUTE
from app.planning.draft import cost, heads_context, heads_weights, kind, mismatch, snapshots

F16 = 1
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.attention.head_count": 4,
    "llama.attention.key_length": 64,
    "llama.attention.value_length": 64,
    "llama.nextn_predict_layers": 1,
}


def header(*names, size=100, **metadata):
    tensors = tuple(Tensor(name, (size, 1), F16, 0) for name in names)
    return Header({**METADATA, **metadata}, tensors, 0)


HEADS = header("blk.0.a", "blk.1.a", "blk.2.a", "blk.2.nextn.eh_proj.weight")


@pytest.mark.parametrize(
    "draft, expected",
    [
        (header("blk.0.a"), BY_DRAFT),
        (HEADS, BY_HEADS),
        (header("blk.2.nextn.x", **{"llama.embedding_length": 1024}), BY_DRAFT),
        (header("nextn.x", **{"general.architecture": "gemma4-assistant"}), BY_HEADS),
        (header(**{"general.architecture": "eagle3"}), "draft-eagle3"),
        (header(**{"general.architecture": "dflash"}), "draft-dflash"),
        (header("markov_w1.weight", **{"general.architecture": "dflash"}), "draft-dspark"),
    ],
)
def test_the_kind_of_a_draft_model(draft, expected):
    assert kind(header("blk.0.a"), draft) == expected


def spoken(tokens="abcdefgh", model="gpt2", bos=1, size=8):
    told = {"tokens": list(tokens), "model": model, "bos_token_id": bos}
    metadata = {f"tokenizer.ggml.{key}": value for key, value in told.items()}
    return Header({**METADATA, **metadata}, (Tensor("token_embd.weight", (4, size), F16, 0),), 0)


@pytest.mark.parametrize(
    "draft, problem",
    [
        (spoken(), ""),
        (spoken("ABCDEfgh"), ""),  # the first ones may differ
        (spoken(size=136), ""),
        (spoken(size=137), "137 tokens, not 8"),
        (spoken("abcdeFgh"), "its tokens are not the model's"),
        (spoken(model="llama"), "tokenizer.ggml.model is llama, not gpt2"),
        (spoken(bos=2), "bos_token_id is 2, not 1"),
        (Header({"general.architecture": "clip"}, (), 0), "is a projector"),
        (Header({"general.architecture": "eagle3"}, (), 0), ""),
    ],
)
def test_a_draft_model_speaks_as_its_model_does(draft, problem):
    found = mismatch(spoken(), draft)
    assert problem in found and bool(problem) == bool(found)


def test_real_headers_of_two_vocabularies(tmp_path):
    for name, tokens in (("a", 0), ("b", 640)):
        tiny_writer.write(tmp_path / name, vocabulary=tokens)
    small, large = (gguf.verify([tmp_path / name]) for name in "ab")
    assert mismatch(small, small) == "" and "640 tokens" in mismatch(small, large)


def test_heads_have_a_context_of_their_own():
    """A KV cache of their own layers, and compute buffers by the width of the embeddings."""
    assert heads_context(HEADS, 1000) == 4 * 2 * 64 * 2 * 1000 + LEAST_COMPUTE
    wide = header("blk.2.nextn.x", **{"llama.embedding_length": 4096})
    assert heads_context(wide, 1) - heads_context(HEADS, 1) == 20 * 4096 * 512 * 4 - LEAST_COMPUTE
    more = heads_context(HEADS, 9000, flash=False) - heads_context(HEADS, 9000)
    assert more == (4 + 1) * 9000 * 512 * 4 - LEAST_COMPUTE


@pytest.mark.parametrize("kv_heads, layer", [([0, 2, 8], 8), ([4, 4, 1], 1), (3, 3), ([0, 2], 0)])
def test_heads_keep_what_their_own_layer_keeps(kv_heads, layer):
    """In a file whose layers differ: some are recurrent, some see a window."""
    found = header("blk.2.nextn.x", **{"llama.attention.head_count_kv": kv_heads})
    assert heads_context(found, 1000) == layer * 2 * 64 * 2 * 1000 + LEAST_COMPUTE


def test_earlier_states_are_kept_of_each_slot():
    """As llama-server has told of this shape: three times 0.04 MiB, of two heads of 32 in a layer,
    for four slots."""
    told = {"conv_kernel": 4, "inner_size": 64, "state_size": 32, "group_count": 2}
    metadata = {f"llama.ssm.{key}": value for key, value in told.items()}
    found = header("blk.0.ssm_a", "blk.0.ssm_out.weight", "blk.1.a", **metadata)
    assert snapshots(found, 4) == 3 * 4 * (4 * (3 * 192 + 64 * 32))
    assert snapshots(header("blk.0.a", **metadata), 4) == snapshots(HEADS, 4) == 0


def test_all_tensors_of_a_head_are_its_weights():
    found = header("blk.1.a", "output.weight", "blk.2.a", "blk.2.nextn.eh_proj.weight")
    assert heads_weights(found) == 2 * 200 and heads_weights(header("blk.1.a")) == 0


def test_a_guess_costs_what_is_read_for_it(tmp_path):
    model, draft = Preview(tmp_path, HEADS, 800), Preview(tmp_path, header("blk.0.a"), 200)
    assert cost(model, draft, heads=True) == 0.25
    assert cost(model, None, heads=True) == 0.5  # two of four tensors, of the same size
    assert cost(model, None, heads=False) == 0
    two = header("blk.0.a", "blk.1.a", "blk.2.nextn.x.weight", "blk.3.nextn.x.weight")
    assert cost(Preview(tmp_path, two, 800), None, heads=True) == 0.25  # a guess reads one of both
